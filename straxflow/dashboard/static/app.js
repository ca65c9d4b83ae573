// Asks the server again and again, and shows what it says; says so when it does not answer.

import { h, patch } from "./dom.js";
import { age, now, setClock, utc, whole } from "./format.js";
import { overview } from "./overview.js";
import { runPage } from "./run.js";

const data = {};
let refresh = 5;
let lastAnswer = null;
let silentSince = null;
let timer = null;
let turn = 0;

export function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const filter = new URLSearchParams(query ?? "");
  const run = path.match(/^run\/(\w+)$/);
  return { run: run ? run[1] : null, state: filter.get("state"), mode: filter.get("mode") };
}

async function get(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(15000), headers: { Accept: "application/json" } });
  const content = await answer.json();
  if (answer.status === 500) throw new Error(content.error);
  return content;
}

async function ask() {
  const mine = (turn += 1);
  clearTimeout(timer);
  const where = place();
  try {
    const query = new URLSearchParams();
    if (where.state) query.set("state", where.state);
    if (where.mode) query.set("mode", where.mode);
    const [status, runs, run] = await Promise.all([
      get("api/status"),
      where.run ? null : get(`api/runs?${query}`),
      where.run ? get(`api/run/${where.run}`) : null,
    ]);
    if (mine !== turn) return;
    Object.assign(data, { status, runs: runs ?? data.runs, run });
    setClock(status.now);
    refresh = status.refresh_s;
    lastAnswer = performance.now();
    silentSince = null;
  } catch {
    if (mine !== turn) return;
    silentSince ??= performance.now();
  }
  show();
  timer = setTimeout(ask, (document.hidden ? 4 : 0.5) * refresh * 1000);
}

function show() {
  const where = place();
  patch(document.getElementById("top"), top());
  if (!data.status) {
    if (silentSince !== null) patch(document.getElementById("page"), [banner("The server of this page does not answer.")]);
    return;
  }
  document.title = where.run ? `${where.run} · straxflow` : `${data.status.site} · straxflow`;
  document.body.classList.toggle("stale", silentSince !== null);
  const content = where.run ? runPage(where.run, data.run) : overview(data.status, data.runs, where);
  patch(document.getElementById("page"), [...banners(), ...content]);
}

function top() {
  const { status } = data;
  return [
    h("a", { class: "brand", href: "#/" }, h("img", { src: "icon.svg", alt: "", width: 26, height: 26 }), "straxflow"),
    status && h("span", { class: "site" }, status.site),
    status && h("span", { class: "campaign", title: "campaign" }, status.campaign),
    h("span", { class: "space" }),
    h("span", { id: "live", class: `live ${freshness()[0]}`, role: "status" }, h("i", {}), freshness()[1]),
    h("button", { class: "theme", title: "light or dark", "aria-label": "light or dark", onclick: theme }, "◐"),
  ].filter(Boolean);
}

function freshness() {
  if (lastAnswer === null) return silentSince === null ? ["wait", "asking…"] : ["bad", "no answer"];
  const silent = (performance.now() - lastAnswer) / 1000;
  if (silentSince !== null) return ["bad", `no answer, data ${whole(silent)} old`];
  const made = data.status.database.problem ? data.status.database.made : (data.status.database.made ?? data.status.now);
  const old = made ? Math.max(0, (now() - Date.parse(made)) / 1000) : silent;
  if (data.status.database.problem) return ["bad", "without the run database"];
  return [old > 4 * refresh + 5 ? "old" : "ok", `${whole(old)} old`];
}

function banners() {
  const { status } = data;
  const told = [];
  if (silentSince !== null) {
    const since = utc(new Date(now() - (performance.now() - silentSince)).toISOString());
    told.push(banner(`The server of this page has not answered since ${since}: what you see is old. Trying again…`));
  }
  if (status.state_folder) told.push(banner(status.state_folder));
  told.push(...status.held.map((words) => banner(words, "calm")));
  if (status.database.problem) {
    const how = status.database.made ? `what it said ${age(status.database.made)} ago is shown` : "told by the state folder";
    told.push(banner(`The run database does not answer (${how}): ${status.database.problem}`));
  }
  return told;
}

const banner = (words, how) => h("p", { class: `banner ${how ?? ""}`, key: words.slice(0, 30), role: "alert" }, words);

function theme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const shown = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  document.documentElement.dataset.theme = shown === "dark" ? "light" : "dark";
  try {
    localStorage.setItem("straxflow-theme", document.documentElement.dataset.theme);
  } catch {
    // a browser may forbid it; then it holds until the page is closed
  }
}

try {
  const chosen = localStorage.getItem("straxflow-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // as above
}
addEventListener("hashchange", () => {
  scrollTo(0, 0);
  show();
  ask();
});
document.addEventListener("visibilitychange", () => document.hidden || ask());
setInterval(() => patch(document.getElementById("top"), top()), 1000);
show();
ask();
