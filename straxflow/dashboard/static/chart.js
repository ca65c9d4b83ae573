// A small bar chart. Its latest bar is still growing and drawn lighter.

import { h } from "./dom.js";

const WIDTH = 320;
const HEIGHT = 92;
const BASE = 76;
const TOP = 14;

export function chart(title, bars, name, format, every, label) {
  if (!bars.length) return null;
  const most = Math.max(...bars.map((bar) => bar[name]), 0);
  const step = WIDTH / bars.length;
  const shown = bars.map((bar, i) => {
    const height = most ? (bar[name] / most) * (BASE - TOP) : 0;
    const words = `${bar.start.slice(0, 16).replace("T", " ")} UTC: ${format(bar[name])}`;
    const size = { x: (i * step + step * 0.12).toFixed(2), width: (step * 0.76).toFixed(2) };
    return h(
      "g",
      { class: i === bars.length - 1 ? "growing" : null },
      h("rect", { class: "hit", x: (i * step).toFixed(2), width: step.toFixed(2), y: TOP, height: BASE - TOP }, h("title", {}, words)),
      height > 0 && h("rect", { class: "value", ...size, y: (BASE - height).toFixed(2), height: height.toFixed(2), rx: 1 }),
    );
  });
  const ticks = bars.flatMap((bar, i) => {
    const fromEnd = bars.length - 1 - i;
    if (fromEnd % every || fromEnd === 0) return [];
    return [h("text", { x: (i * step + step / 2).toFixed(1), y: HEIGHT - 3, "text-anchor": "middle" }, label(bar.start))];
  });
  return h(
    "figure",
    { class: "chart", key: title },
    h("figcaption", {}, title, h("span", {}, most ? `up to ${format(most)}` : "nothing yet")),
    h(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title },
      h("line", { class: "axis", x1: 0, x2: WIDTH, y1: BASE, y2: BASE }),
      shown,
      ticks,
    ),
  );
}
