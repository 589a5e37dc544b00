import assert from "node:assert";

export type Labels = Readonly<Record<string, string>>;
type Counter = { inc(n?: number): void };

/** One process's registry; `render` gives the Prometheus text format (version 0.0.4). */
export type Metrics = {
  /** A number that only grows. The same name may be taken again with other labels, never with the same ones. */
  counter(name: string, help: string, labels?: Labels): Counter;
  /** A number that is read when the page is rendered. */
  gauge(name: string, help: string, read: () => number, labels?: Labels): void;
  render(): string;
};

type Series = { readonly labels: string; readonly read: () => number };
type Family = { readonly kind: "counter" | "gauge"; readonly help: string; readonly series: Series[] };

const NAME = /^[a-z][a-z0-9_]*$/;

const escaped = (value: string): string => value.replace(/[\\"\n]/g, (c) => (c === "\n" ? "\\n" : `\\${c}`));

const labelText = (labels: Labels): string => {
  const parts = Object.entries(labels).map(([key, value]) => `${key}="${escaped(value)}"`);
  return parts.length === 0 ? "" : `{${parts.join(",")}}`;
};

/** An empty registry. Names: `ringstead_<service>_<what>_<unit>`, counters end in `_total`. */
export const createMetrics = (base: Labels = {}): Metrics => {
  const families = new Map<string, Family>();

  const add = (kind: Family["kind"], name: string, help: string, labels: Labels, read: () => number): void => {
    assert(NAME.test(name), `metric name ${name}`);
    const family = families.get(name) ?? { kind, help, series: [] };
    assert(family.kind === kind, `metric ${name} is a ${family.kind}`);
    const text = labelText({ ...base, ...labels });
    assert(!family.series.some((series) => series.labels === text), `metric ${name}${text} exists twice`);
    family.series.push({ labels: text, read });
    families.set(name, family);
  };

  return {
    counter: (name, help, labels = {}) => {
      let total = 0;
      add("counter", name, help, labels, () => total);
      return {
        inc: (n = 1) => {
          total += n;
        },
      };
    },
    gauge: (name, help, read, labels = {}) => add("gauge", name, help, labels, read),
    render: () => {
      const lines: string[] = [];
      for (const [name, family] of families) {
        lines.push(`# HELP ${name} ${family.help}`, `# TYPE ${name} ${family.kind}`);
        for (const series of family.series) lines.push(`${name}${series.labels} ${series.read()}`);
      }
      return lines.length === 0 ? "" : `${lines.join("\n")}\n`;
    },
  };
};
