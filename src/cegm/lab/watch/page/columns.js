// Numbers of lines, column by column, as they come and as they are cut back by a resumption.

export class Columns {
  constructor() {
    this.length = 0;
    this.of = {};
  }

  add(batch) {
    for (const [name, values] of Object.entries(batch)) {
      const own = (this.of[name] ??= []);
      for (const value of values) own.push(value);
    }
    this.length = this.of.step?.length ?? 0;
  }

  cut(length) {
    for (const values of Object.values(this.of)) values.length = Math.min(values.length, length);
    this.length = Math.min(this.length, length);
  }

  get(name) {
    return this.of[name] ?? [];
  }

  last(name) {
    return this.get(name)[this.length - 1];
  }
}

// Of one run: its lines for steps, and those for validations.
export class Lines {
  constructor() {
    this.train = new Columns();
    this.validation = new Columns();
  }

  add(batch) {
    this.train.add(batch.train);
    this.validation.add(batch.validation);
  }

  cut(counts) {
    this.train.cut(counts.train);
    this.validation.cut(counts.validation);
  }
}

// Loss less the baseline's at the same step, and the mean of it with those of up to nine such steps before.
export function difference(own, other) {
  const losses = new Map(other.get("step").map((step, at) => [step, other.get("loss")[at]]));
  const steps = [];
  const values = [];
  const means = [];
  let sum = 0;
  own.get("step").forEach((step, at) => {
    const loss = own.get("loss")[at];
    const theirs = losses.get(step);
    if (loss === null || theirs === null || theirs === undefined) return;
    steps.push(step);
    values.push(loss - theirs);
    sum += loss - theirs;
    if (values.length > 10) sum -= values[values.length - 11];
    means.push(sum / Math.min(10, values.length));
  });
  return [steps, values, means];
}
