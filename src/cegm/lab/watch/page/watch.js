// The page: one stream of events, three screens, keys. Every request goes to where the page came from.

import { Lines } from "/columns.js";
import { Curves } from "/curves.js";
import { $, isDark, make, number } from "/elements.js";
import { Maps } from "/maps.js";

const SCREENS = ["health", "layers", "log"];
const AGAIN = 5000; // milliseconds between two looks at layers or at the log while they are shown
const QUESTIONS = { healthy: "Is it healthy?", better: "Is it better than the baseline?", done: "When is it done?", cost: "What did it cost?" };

const state = { overview: null, run: "", pair: "", lines: [new Lines(), new Lines()], source: null, screen: "health", due: false, after: "" };
const curves = new Curves($("curves"));
const maps = new Maps($("maps"), $("layer"), $("about"));

const standing = () => state.overview?.runs.find((run) => run.id === state.run);

function connect(after = "") {
  state.source?.close();
  const source = new EventSource(`/events?run=${encodeURIComponent(state.run)}&after=${encodeURIComponent(after)}`);
  state.source = source;
  const hear = (name, act) =>
    source.addEventListener(name, (event) => {
      state.after = event.lastEventId;
      act(JSON.parse(event.data));
      redraw();
    });
  hear("lines", (batch) => state.lines[batch.run].add(batch));
  hear("cut", (counts) => state.lines[counts.run].cut(counts));
  hear("overview", overviewed);
  source.addEventListener("open", () => linked(true));
  source.addEventListener("error", () => {
    linked(false);
    if (source.readyState === EventSource.CLOSED && source === state.source) setTimeout(() => source === state.source && connect(state.after), 1000);
  });
}

function linked(is) {
  $("link").textContent = is ? "live" : "the server is gone; trying again";
  $("link").className = is ? "" : "off";
}

function choose(run) {
  if (!run || run === state.run) return;
  Object.assign(state, { run, pair: standing()?.pair ?? "", lines: [new Lines(), new Lines()], after: "" });
  connect();
  redraw();
  if (state.screen !== "health") look();
}

function overviewed(overview) {
  state.overview = overview;
  if (!standing()) choose(overview.first);
  else if (standing().pair !== state.pair) {
    // A baseline has come: both are heard from the beginning.
    Object.assign(state, { pair: standing().pair, lines: [new Lines(), new Lines()] });
    connect();
  }
}

// At most once a frame, however many events come.
function redraw() {
  if (state.due) return;
  state.due = true;
  requestAnimationFrame(() => {
    state.due = false;
    tell();
    if (state.screen === "health") curves.draw(state.lines[0], state.lines[1], standing());
  });
}

function tell() {
  const { overview } = state;
  const now = standing();
  if (!overview || !now) return;
  const step = Math.max(state.lines[0].train.last("step") ?? 0, now.state === "running" ? 0 : now.step);
  $("name").textContent = `${overview.kind} ${overview.name}${overview.verdict ? `: ${overview.verdict}` : ""}`;
  $("title").textContent = now.title;
  $("progress").textContent = `${now.state}, step ${step.toLocaleString("en")}${now.steps ? ` of ${now.steps.toLocaleString("en")}` : ""}`;
  $("progress").dataset.step = step;
  $("bar").style.width = now.steps ? `${Math.min(100, (100 * step) / now.steps)}%` : "0";
  document.title = `${now.title}: ${now.alarms.length ? `${now.alarms.length} alarms` : now.state}`;
  tiles(now);
  $("alarms").replaceChildren(...now.alarms.map(alarm));
  runs(overview);
}

function tiles(now) {
  $("tiles").replaceChildren(
    ...Object.entries(QUESTIONS).map(([name, question]) => {
      const { value, detail, tone } = now[name];
      const tile = make("div", "", `tile ${tone && `is-${tone}`}`);
      tile.append(make("h2", question), make("p", value, `value ${tone}`), make("p", detail));
      return tile;
    }),
  );
}

function alarm({ kind, words, grave }) {
  const item = make("li", "", grave ? "grave" : "");
  item.append(make("b", kind), make("span", words));
  return item;
}

function runs(overview) {
  const many = overview.runs.length > 1;
  $("runs").hidden = $("choice").hidden = !many;
  if (!many) return;
  const options = overview.runs.map((run) => {
    const option = make("option", `${run.title}: ${run.state}`);
    option.value = run.id;
    option.selected = run.id === state.run;
    return option;
  });
  if (document.activeElement !== $("run")) $("run").replaceChildren(...options);
  $("runs").querySelector("tbody").replaceChildren(...overview.runs.map(row));
}

function row(run) {
  const line = make("tr");
  const name = make("td", "", "text");
  name.append(make("button", run.title));
  const cells = [run.step.toLocaleString("en"), run.steps?.toLocaleString("en") ?? "", number(run.bits_per_byte, 5), number(run.difference, 3)];
  line.append(name, make("td", run.state, "text"), ...cells.map((text) => make("td", text)));
  line.append(make("td", [...new Set(run.alarms.map((each) => each.kind))].join(", "), "text"));
  if (run.id === state.run) line.setAttribute("aria-current", "true");
  line.addEventListener("click", () => {
    choose(run.id);
    scrollTo(0, 0);
  });
  return line;
}

async function look() {
  if (!state.run) return;
  try {
    if (state.screen === "layers") await maps.load(state.run, standing()?.colour ?? "");
    if (state.screen === "log") await log();
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // the server is gone, which the stream tells
  }
}

async function log() {
  const asked = [["Run", state.run], ...(state.overview?.kind === "pilot" ? [["Pilot", ""]] : [])];
  const parts = [];
  for (const [title, run] of asked) {
    const { standing: chain, events } = await (await fetch(`/log?run=${encodeURIComponent(run)}`)).json();
    const table = make("table");
    table.append(make("tbody"));
    table.tBodies[0].append(...events.toReversed().map(entry));
    const box = make("div", "", "scroll");
    box.append(table);
    parts.push(make("h2", title), make("p", chain || "There is no audit log yet.", "muted"), box);
  }
  $("log").replaceChildren(...parts);
}

function entry({ time, event, previous, sha256, ...facts }) {
  const line = make("tr");
  const told = Object.entries(facts).map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`);
  const text = told.join("; ").replace(/[0-9a-f]{32,}/g, (hash) => `${hash.slice(0, 16)}…`);
  line.append(
    make("td", String(time ?? "").slice(0, 19).replace("T", " "), "text time"),
    make("td", String(event), "text"),
    make("td", text.length > 400 ? `${text.slice(0, 400)} …` : text, "facts"),
  );
  return line;
}

function open(screen) {
  state.screen = SCREENS.includes(screen) ? screen : "health";
  for (const name of SCREENS) $(name).hidden = name !== state.screen;
  for (const tab of document.querySelectorAll("[role=tab]")) tab.setAttribute("aria-selected", tab.dataset.screen === state.screen);
  if (location.hash.slice(1) !== state.screen) history.replaceState(null, "", `#${state.screen}`);
  redraw();
  look();
}

function turn() {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  localStorage.setItem("theme", document.documentElement.dataset.theme);
  renew();
}

function renew() {
  curves.renew();
  maps.renew();
}

function move(by) {
  const ids = state.overview?.runs.map((run) => run.id) ?? [];
  choose(ids[(ids.indexOf(state.run) + by + ids.length) % ids.length]);
}

const KEYS = {
  1: () => open("health"),
  2: () => open("layers"),
  3: () => open("log"),
  j: () => move(1),
  k: () => move(-1),
  z: () => curves.zoom(),
  d: turn,
  "?": () => $("keys").showModal(),
  Escape: () => maps.close(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input") || !(event.key in KEYS)) return;
  KEYS[event.key]();
});
for (const tab of document.querySelectorAll("[role=tab]")) tab.addEventListener("click", () => open(tab.dataset.screen));
$("run").addEventListener("change", (event) => choose(event.target.value));
$("theme").addEventListener("click", turn);
$("help").addEventListener("click", () => $("keys").showModal());
addEventListener("hashchange", () => open(location.hash.slice(1)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", renew);

const theme = localStorage.getItem("theme");
if (["dark", "light"].includes(theme)) document.documentElement.dataset.theme = theme;
setInterval(() => !document.hidden && state.screen !== "health" && look(), AGAIN);
open(location.hash.slice(1));
connect();
