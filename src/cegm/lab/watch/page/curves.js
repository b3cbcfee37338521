// The charts of the first screen, and those of a layer: uPlot, one cursor for all of them.

import { difference } from "/columns.js";
import { figure, number, shown, style } from "/elements.js";

const HEIGHT = 210;
const milliseconds = (values) => values.map((value) => (value === null ? null : 1000 * value));
const sum = (first, second) => first.map((value, at) => (value === null || second[at] === null ? null : value + second[at]));

// A chart in a box: `series` without the first, which is the step.
export class Chart {
  constructor(title, meaning, series, more = {}) {
    Object.assign(this, figure(title, meaning), { series, more, plot: null, data: null });
    new ResizeObserver(() => this.fit()).observe(this.chart);
  }

  fit() {
    if (this.plot && this.chart.clientWidth) this.plot.setSize({ width: this.chart.clientWidth, height: HEIGHT });
  }

  draw(data) {
    this.data = data;
    this.box.hidden = !data[0].length || data.slice(1).every((values) => values.every((value) => value === null || value === undefined));
    if (this.box.hidden || !this.chart.clientWidth) return;
    if (!this.plot) {
      this.plot = new uPlot(this.options(), data, this.chart);
      return;
    }
    const { min, max } = this.plot.scales.x;
    const steps = this.plot.data[0];
    const whole = min <= steps[0] && max >= steps[steps.length - 1];
    this.plot.setData(data, whole);
    if (!whole) this.plot.setScale("x", { min, max });
  }

  zoom(from) {
    if (!this.plot) return;
    const steps = this.plot.data[0];
    this.plot.setScale("x", { min: steps[0] + from * (steps[steps.length - 1] - steps[0]), max: steps[steps.length - 1] });
  }

  // Colours are of the theme: after another one is chosen, it is drawn anew.
  renew() {
    this.plot?.destroy();
    this.plot = null;
    if (this.data) this.draw(this.data);
  }

  options() {
    const axis = {
      stroke: style("--ink"),
      grid: { stroke: style("--line"), width: 1 },
      ticks: { stroke: style("--line"), width: 1 },
      font: "12px system-ui, sans-serif",
    };
    const values = (_, ticks) => ticks.map((tick) => number(tick, 3));
    const series = this.series().map((each) => ({ width: 1.5, value: (_, value) => number(value), points: { show: false }, ...each }));
    const axes = [{ ...axis, space: 60 }, { ...axis, size: 58, values }];
    if (this.more.right) axes.push({ ...axis, scale: this.more.right, side: 1, size: 44, values, grid: { show: false } });
    return {
      width: this.chart.clientWidth,
      height: HEIGHT,
      cursor: { sync: { key: "step", setSeries: false }, points: { size: 6 } },
      scales: { x: { time: false }, ...this.more.scales },
      series: [{ label: "step", value: (_, value) => (value === null ? "–" : value.toLocaleString("en")) }, ...series],
      axes,
    };
  }
}

// What a run looks like beside its baseline.
const looks = (standing) => ({
  own: shown(standing?.colour ?? ""),
  other: style("--muted"),
});

export class Curves {
  constructor(place) {
    const of = () => looks(this.standing);
    const dots = { width: 0, points: { show: true, size: 6 } };
    this.loss = new Chart("Training loss", "nats per token; dashed: the baseline at the same step", () => [
      { label: "loss", stroke: of().own },
      { label: "baseline's", stroke: of().other, dash: [6, 4] },
    ]);
    this.difference = new Chart("Loss less the baseline's", "nats, same batches; bold: mean of ten lines; below 0 is better", () => [
      { label: "line", stroke: of().other, width: 0.6 },
      { label: "mean", stroke: of().own, width: 2 },
    ]);
    this.validation = new Chart("Validation", "bits per byte", () => [
      { label: "run", stroke: of().own, points: { show: true, size: 5, fill: of().own } },
      { label: "baseline", stroke: of().other, dash: [6, 4], points: { show: true, size: 5 } },
    ]);
    this.times = new Chart("Seconds of a step", "milliseconds: passes below, the update on top", () => [
      { label: "whole step", stroke: of().own, fill: shown(this.standing?.colour ?? "", 0.3) },
      { label: "passes", stroke: of().other, fill: style("--wash") },
    ], { scales: { y: { range: (_, low, high) => [0, 1.1 * high] } } });
    this.rates = new Chart("Learning rates", "", () => [
      { label: "matrices", stroke: of().own },
      { label: "others", stroke: of().other, dash: [2, 2] },
    ]);
    this.gradient = new Chart(
      "Gradient",
      "norm before clipping (left), and what clipping leaves of it (right)",
      () => [
        { label: "norm", stroke: of().own },
        { label: "clip factor", stroke: of().other, scale: "share", dash: [2, 2] },
      ],
      { right: "share", scales: { share: { range: [0, 1.05] } } },
    );
    this.all = [this.loss, this.difference, this.validation, this.times, this.rates, this.gradient];
    place.replaceChildren(...this.all.map((chart) => chart.box));
    this.half = false;
  }

  draw(own, other, standing) {
    const renewed = standing?.colour !== this.standing?.colour;
    this.standing = standing;
    if (renewed) this.renew();
    const train = own.train;
    const steps = train.get("step");
    const passes = milliseconds(train.get("forward_backward_seconds"));
    const whole = sum(passes, milliseconds(train.get("optimizer_seconds")));
    const beside = (name, which) => uPlot.join([
      [own[which].get("step"), own[which].get(name)],
      [other[which].get("step"), other[which].get(name)],
    ]);
    this.loss.draw(beside("loss", "train"));
    this.difference.draw(difference(train, other.train));
    this.validation.draw(beside("bits_per_byte", "validation"));
    this.times.draw([steps, whole, passes]);
    this.rates.draw([steps, train.get("lr_matrix"), train.get("lr_adamw")]);
    this.gradient.draw([steps, train.get("gradient_norm"), train.get("clip_factor")]);
  }

  renew() {
    for (const chart of this.all) chart.renew();
  }

  zoom() {
    this.half = !this.half;
    for (const chart of this.all) chart.zoom(this.half ? 0.5 : 0);
  }
}
