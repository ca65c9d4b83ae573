// The online monitor: what the summaries of the newest runs say, product by product.

import { h } from "./dom.js";
import { ago, utc } from "./format.js";

const WIDTH = 90;
const HEIGHT = 18;

export function monitor(summaries) {
  return summaries.map((one) => {
    const newest = one.runs[0];
    return h(
      "section",
      { class: "card monitor", key: `monitor ${one.product}` },
      h(
        "h2",
        {},
        `Monitor: ${one.product}`,
        h("small", { title: utc(newest.made) }, h("a", { href: `#/run/${newest.run}` }, newest.run), ` ${ago(newest.made)}`),
      ),
      figures(one.runs),
      plot(one.product, newest),
    );
  });
}

// The figures of the newest run; where there are several runs, with the course of each figure over them.
export function figures(runs) {
  return h(
    "table",
    { class: "figures" },
    h(
      "tbody",
      {},
      Object.entries(runs[0].values).map(([name, value]) =>
        h("tr", {}, h("td", {}, name), h("td", { class: "course" }, course(runs, name)), h("td", { class: "value" }, figure(value))),
      ),
    ),
  );
}

export function plot(product, { run, plot: kind, made }) {
  if (!kind) return null;
  const alt = `plot of ${product}, run ${run}`;
  // as an image: whatever it holds, no script in it runs
  return h("img", { class: "plot", key: `${run} ${made}`, src: `api/plot/${run}/${product}?made=${encodeURIComponent(made)}`, alt, title: alt });
}

function figure(value) {
  if (value === null) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value)) return value.toLocaleString("en").replaceAll(",", "\u2009");
  return String(Number(value.toPrecision(4)));
}

function course(runs, name) {
  const values = runs.map((run) => run.values[name]).reverse();
  const known = values.filter((value) => typeof value === "number");
  if (known.length < 3) return null;
  const low = Math.min(...known);
  const span = Math.max(...known) - low || 1;
  const points = values.flatMap((value, i) => {
    if (typeof value !== "number") return [];
    const x = 2 + (i / (values.length - 1)) * (WIDTH - 4);
    return [`${x.toFixed(1)},${(HEIGHT - 3 - ((value - low) / span) * (HEIGHT - 6)).toFixed(1)}`];
  });
  const [x, y] = points.at(-1).split(",");
  return h(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${name} over ${known.length} runs` },
    h("title", {}, `${known.length} runs, ${figure(low)} to ${figure(low + span)}`),
    h("polyline", { points: points.join(" ") }),
    h("circle", { cx: x, cy: y, r: 2 }),
  );
}
