// Pieces that several views share.

import { h } from "./dom.js";

const WORDS = { d: "done", r: "running", f: "failed", w: "waits to be tried again", s: "interrupted", ".": "not begun" };
const logs = new Map();

export const pill = (state) => h("span", { class: `pill ${state}` }, state);

export function steps(column, progress) {
  const letters = progress?.cells[column.product];
  if (!letters) return h("span", { class: "cells absent" }, "");
  return h(
    "span",
    { class: "cells" },
    [...letters].map((letter, i) => cell(letter, column, i, progress)),
  );
}

function cell(letter, column, i, progress) {
  const step = column.steps[i];
  const trouble = progress.troubles.find((one) => one.product === column.product && one.step === step);
  const words = `${step} of ${column.product}: ${WORDS[letter] ?? letter}${trouble ? `: ${trouble.reason}` : ""}`;
  return h("i", { class: `cell ${WORDS[letter]?.split(" ")[0] ?? ""}`, title: words });
}

export function legend() {
  const shown = ["d", "r", "w", "s", "f", "."];
  return h(
    "p",
    { class: "legend" },
    shown.map((letter) => h("span", {}, h("i", { class: `cell ${WORDS[letter].split(" ")[0]}` }), ` ${WORDS[letter]}`)),
  );
}

// The end of a log, fetched when a person opens it.
export function logOf(run, product, attempt, tail) {
  const path = `api/log/${run}/${product}/${attempt}`;
  const more = logs.get(path);
  return h(
    "details",
    { class: "log", ontoggle: (event) => event.target.open && fetchLog(path, event.target) },
    h("summary", {}, "log"),
    h("pre", {}, more ?? tail ?? "…"),
  );
}

async function fetchLog(path, details) {
  try {
    const answer = await fetch(path, { signal: AbortSignal.timeout(15000) });
    const content = await answer.json();
    logs.set(path, content.error ?? (content.text || "(empty)"));
    if (logs.size > 50) logs.delete(logs.keys().next().value);
    const pre = details.querySelector("pre");
    pre.firstChild.data = logs.get(path);
    pre.scrollTop = pre.scrollHeight;
  } catch {
    logs.delete(path);
  }
}
