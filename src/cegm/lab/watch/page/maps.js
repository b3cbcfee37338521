// The second screen: a map for each quantity of layers over steps, fetched when it is looked at, and one layer opened.

import { Chart } from "/curves.js";
import { figure, make, number, shown, style } from "/elements.js";

const VIRIDIS = ["440154", "482878", "3e4a89", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"].map((hex) =>
  [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)),
);
const WIDE = 620;

function colour(share) {
  const place = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1);
  const low = Math.floor(place);
  const high = Math.min(low + 1, VIRIDIS.length - 1);
  return VIRIDIS[low].map((part, at) => part + (place - low) * (VIRIDIS[high][at] - part));
}

// Names without the words that all of them share at either end.
function short(names) {
  const parts = names.map((name) => name.split("."));
  const least = Math.min(...parts.map((part) => part.length));
  const same = (at) => parts.every((part) => part.at(at) === parts[0].at(at));
  let start = 0;
  while (start < least - 1 && same(start)) start += 1;
  let end = 0;
  while (end < least - 1 - start && same(-1 - end)) end += 1;
  return parts.map((part) => part.slice(start, part.length - end).join("."));
}

class Heat {
  constructor(quantity, title, open) {
    Object.assign(this, figure(title), { quantity, open, table: null, at: null });
    this.canvas = make("canvas", "", "map");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `${title}: layers by steps`);
    this.key = make("div", "", "scale");
    this.chart.append(this.canvas, this.key);
    this.canvas.addEventListener("mousemove", (event) => this.point(event.offsetX, event.offsetY));
    this.canvas.addEventListener("click", (event) => {
      this.point(event.offsetX, event.offsetY);
      this.enter();
    });
    this.canvas.addEventListener("keydown", (event) => this.press(event));
    new ResizeObserver(() => this.draw()).observe(this.chart);
  }

  show(table) {
    this.table = table;
    this.names = table.layers.length ? short(table.layers) : [];
    const known = table.values.flat().filter((value) => value !== null);
    this.low = known.reduce((least, value) => Math.min(least, value), Infinity);
    this.high = known.reduce((most, value) => Math.max(most, value), -Infinity);
    this.isLog = this.low > 0 && this.high / this.low > 20;
    this.draw();
  }

  share(value) {
    const scale = this.isLog ? Math.log : (each) => each;
    const reach = scale(this.high) - scale(this.low);
    return reach ? (scale(value) - scale(this.low)) / reach : 0.5;
  }

  draw() {
    if (!this.table?.steps.length || !this.chart.clientWidth) return;
    const { layers, steps, values } = this.table;
    const dots = window.devicePixelRatio || 1;
    const width = this.chart.clientWidth;
    const height = Math.max(110, Math.min(layers.length * 12, 400));
    this.gutter = width > WIDE / 2 ? 118 : 0;
    this.size = { width: width - this.gutter, height };
    this.canvas.width = width * dots;
    this.canvas.height = (height + 18) * dots;
    this.canvas.style.height = `${height + 18}px`;
    const cells = new ImageData(steps.length, layers.length);
    values.forEach((row, layer) =>
      row.forEach((value, step) => {
        if (value !== null) cells.data.set([...colour(this.share(value)), 255], 4 * (layer * steps.length + step));
      }),
    );
    const small = new OffscreenCanvas(steps.length, layers.length);
    small.getContext("2d").putImageData(cells, 0, 0);
    const pen = this.canvas.getContext("2d");
    pen.scale(dots, dots);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(small, this.gutter, 0, this.size.width, height);
    this.label(pen, steps);
    this.mark(pen);
    this.legend();
  }

  label(pen, steps) {
    const row = this.size.height / this.names.length;
    pen.fillStyle = style("--ink");
    pen.font = "10px system-ui, sans-serif";
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    const every = Math.ceil(11 / row);
    for (let layer = 0; this.gutter && layer < this.names.length; layer += every) {
      const name = this.names[layer];
      pen.fillText(name.length > 20 ? `…${name.slice(-19)}` : name, this.gutter - 6, (layer + 0.5) * row, this.gutter - 8);
    }
    pen.textBaseline = "top";
    pen.textAlign = "left";
    pen.fillText(number(steps[0]), this.gutter, this.size.height + 5);
    pen.textAlign = "right";
    pen.fillText(`step ${steps.at(-1).toLocaleString("en")}`, this.gutter + this.size.width, this.size.height + 5);
  }

  mark(pen) {
    if (!this.at) return;
    const cell = { width: this.size.width / this.table.steps.length, height: this.size.height / this.names.length };
    pen.strokeStyle = "#fff";
    pen.lineWidth = 1.5;
    pen.strokeRect(this.gutter, this.at.layer * cell.height, this.size.width, Math.max(cell.height, 2));
    pen.strokeRect(this.gutter + this.at.step * cell.width, this.at.layer * cell.height, Math.max(cell.width, 3), Math.max(cell.height, 3));
  }

  legend() {
    const bar = make("canvas");
    bar.width = 120;
    bar.height = 1;
    const pen = bar.getContext("2d");
    for (let at = 0; at < 120; at += 1) {
      pen.fillStyle = `rgb(${colour(at / 119).map(Math.round).join(",")})`;
      pen.fillRect(at, 0, 1, 1);
    }
    this.key.replaceChildren(make("span", number(this.low, 3)), bar, make("span", `${number(this.high, 3)}${this.isLog ? ", log scale" : ""}`));
  }

  point(x, y) {
    if (!this.table?.steps.length) return;
    const step = Math.floor(((x - this.gutter) / this.size.width) * this.table.steps.length);
    const layer = Math.floor((y / this.size.height) * this.names.length);
    this.go(layer, step);
  }

  go(layer, step) {
    const within = (value, count) => Math.min(Math.max(value, 0), count - 1);
    this.at = { layer: within(layer, this.names.length), step: within(step, this.table.steps.length) };
    const { layer: row, step: column } = this.at;
    const place = `${this.table.layers[row]}, step ${this.table.steps[column].toLocaleString("en")}`;
    this.told.textContent = `${place}: ${number(this.table.values[row][column])}`;
    this.draw();
  }

  press(event) {
    if (!this.table?.steps.length) return;
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const at = this.at ?? { layer: 0, step: this.table.steps.length - 1 };
    if (event.key in moves) this.go(at.layer + moves[event.key][0], at.step + moves[event.key][1]);
    else if (event.key === "Enter" && this.at) this.enter();
    else return;
    event.preventDefault();
  }

  enter() {
    this.open(this.table.layers[this.at.layer]);
  }
}

const LAYER_CHARTS = [
  ["Update over weight", ["update_to_weight"]],
  ["Ranks before and after", ["gradient_rank", "mapped_rank", "update_rank"]],
  ["Cosine of raw and mapped gradient", ["cosine"]],
  ["Ranks of the contexts", ["context_rank", "gradient_context_rank"]],
  ["Share of known directions kept", ["home"]],
  ["Norm of the raw gradient", ["gradient_norm"]],
];
const NAMES = { gradient_rank: "raw", mapped_rank: "mapped", update_rank: "step", context_rank: "inputs", gradient_context_rank: "output gradients" };
const DASHES = [[], [6, 4], [2, 2]];

export class Maps {
  constructor(place, layer, about) {
    Object.assign(this, { place, layer, about, run: null, heats: new Map(), opened: null, charts: [] });
    layer.querySelector("button").addEventListener("click", () => this.close());
  }

  async ask(query) {
    const answer = await fetch(`/layers?run=${encodeURIComponent(this.run)}${query}`);
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    return answer.json();
  }

  // Fetches what there is now; one request after another, so that other streams have room.
  async load(run, colourOfRun) {
    if (run !== this.run) {
      this.heats.clear();
      this.place.replaceChildren();
      this.close();
    }
    Object.assign(this, { run, colour: colourOfRun });
    const { quantities } = await this.ask("");
    for (const [quantity, title] of Object.entries(quantities)) {
      const table = await this.ask(`&quantity=${quantity}`);
      if (run !== this.run) return;
      if (!this.heats.has(quantity)) {
        const heat = new Heat(quantity, title[0].toUpperCase() + title.slice(1), (name) => this.open(name));
        this.heats.set(quantity, heat);
        this.place.append(heat.box);
      }
      this.heats.get(quantity).show(table);
    }
    this.about.textContent = this.heats.size
      ? "Layers from input to output downwards, steps to the right. A click, or Enter, opens a layer."
      : "This run has said nothing of its layers.";
    if (this.opened) await this.open(this.opened);
  }

  async open(name) {
    const { steps, values } = await this.ask(`&layer=${encodeURIComponent(name)}`);
    const [title, , box] = this.layer.children;
    title.textContent = name;
    const isNew = this.opened !== name;
    this.opened = name;
    this.layer.hidden = false;
    if (isNew) {
      const known = LAYER_CHARTS.map(([heading, keys]) => [heading, keys.filter((key) => values[key]?.some((value) => value !== null))]);
      this.charts = known.filter(([, keys]) => keys.length).map(([heading, keys]) => {
        const series = () => keys.map((key, at) => ({ label: NAMES[key] ?? "value", stroke: at ? style("--ink") : shown(this.colour), dash: DASHES[at] }));
        return { keys, chart: new Chart(heading, "", series) };
      });
      box.replaceChildren(...this.charts.map(({ chart }) => chart.box));
      this.layer.scrollIntoView({ block: "start" });
    }
    for (const { keys, chart } of this.charts) chart.draw([steps, ...keys.map((key) => values[key])]);
  }

  close() {
    this.layer.hidden = true;
    this.opened = null;
  }

  renew() {
    for (const heat of this.heats.values()) heat.draw();
    for (const { chart } of this.charts) chart.renew();
  }
}
