// The overview: figures, failures, the table of runs, and beside it throughput, who works, disks, monitor.

import { chart } from "./chart.js";
import { h } from "./dom.js";
import { age, ago, between, bytes, count, plural, until, utc } from "./format.js";
import { monitor } from "./monitor.js";
import { legend, logOf, pill, steps } from "./parts.js";

const TILES = ["working", "pending", "waiting", "failed", "done"];
const STATES = [...TILES, "held", "new", "taking"];

export function overview(status, runs, where) {
  return [
    h("section", { class: "tiles", key: "tiles" }, TILES.map((state) => tile(status, where, state)), rate(status)),
    h(
      "div",
      { class: "columns", key: "columns" },
      h("div", { class: "wide" }, failures(status), table(runs, where)),
      h("aside", {}, throughput(status), workers(status), monitor(status.monitor), disks(status)),
    ),
  ];
}

function tile(status, where, state) {
  const chosen = where.state === state;
  return h(
    "a",
    {
      key: state,
      class: `tile ${state} ${chosen ? "chosen" : ""}`,
      href: link(chosen ? null : state, where.mode),
      title: chosen ? "show all runs" : "show only these runs",
    },
    h("span", { class: "label" }, state),
    h("b", {}, status.database.made ? count(status.counts[state]) : "–"),
    h("small", {}, hint(status, state)),
  );
}

function hint(status, state) {
  if (state === "working") return status.invocations.length ? `in ${plural(status.invocations.length, "invocation")}` : "nobody works";
  if (state === "pending") return status.oldest ? `oldest since ${age(status.oldest.end)}` : "nothing to do";
  if (state === "waiting") return status.due.waiting ? `next ${until(status.due.waiting)}` : "none in back-off";
  if (state === "failed") {
    if (!status.counts.failed) return "none";
    if (status.counts.left) return `${count(status.counts.left)} left to a person`;
    return status.due.failed ? `next try ${until(status.due.failed)}` : `last ${ago(status.failures.runs[0]?.since)}`;
  }
  return status.counts.new ? `${count(status.counts.new)} without a state` : "all steps";
}

function rate(status) {
  const hours = status.throughput.hours;
  const last = hours.slice(-24);
  const sum = (name) => last.reduce((total, bar) => total + bar[name], 0);
  return h(
    "div",
    { key: "rate", class: "tile rate" },
    h("span", { class: "label" }, "last 24 hours"),
    h("b", {}, hours.length ? bytes(sum("stored")) : "–"),
    h("small", {}, hours.length ? `${plural(sum("runs"), "run")} finished` : ""),
  );
}

const link = (state, mode) => {
  const query = new URLSearchParams();
  if (state) query.set("state", state);
  if (mode) query.set("mode", mode);
  return query.size ? `#/?${query}` : "#/";
};

function failures(status) {
  const { runs } = status.failures;
  if (!runs.length) return null;
  const more = (status.counts.failed ?? runs.length) - runs.length;
  return h(
    "section",
    { class: "card failures", key: "failures" },
    h("h2", {}, "Failures"),
    h(
      "ul",
      {},
      runs.slice(0, 8).map((run) => failure(run)),
    ),
    (more > 0 || runs.length > 8) && h("p", { class: "more" }, h("a", { href: link("failed", null) }, "all failed runs")),
  );
}

function failure(run) {
  const trouble = run.progress?.troubles.at(-1);
  const again = run.due ? `, again ${until(run.due)}` : "";
  return h(
    "li",
    { key: run.run || run.number },
    h(
      "div",
      { class: "head" },
      h("a", { class: "run", href: `#/run/${run.run}` }, run.run || run.number),
      trouble && h("span", { class: "what" }, `${trouble.step} of ${trouble.product}`),
      h("span", { class: "when", title: utc(run.since) }, `${ago(run.since)}${run.failures > 1 ? `, ${run.failures} times` : ""}${again}`),
    ),
    h("p", { class: "reason" }, run.reason || trouble?.reason || "no reason is given"),
    trouble && logOf(run.run, trouble.product, trouble.attempt, trouble.tail),
  );
}

function table(runs, where) {
  const head = h(
    "div",
    { class: "bar" },
    h("h2", {}, where.state ? `Runs: ${where.state}` : "Runs"),
    h("span", { class: "space" }),
    states(where),
    runs && modes(runs, where),
    (where.state || where.mode) && h("a", { class: "clear", href: "#/" }, "all runs"),
  );
  if (!runs) return h("section", { class: "card", key: "runs" }, head);
  if (runs.error) return h("section", { class: "card", key: "runs" }, head, h("p", { class: "none" }, runs.error));
  return h(
    "section",
    { class: "card", key: "runs" },
    head,
    runs.problem && h("p", { class: "none" }, runs.problem),
    runs.runs.length
      ? h(
          "table",
          { class: "runs" },
          h(
            "thead",
            {},
            h(
              "tr",
              {},
              ["run", "mode", "state"].map((name) => h("th", { class: name }, name)),
              runs.columns.map((column) => h("th", { class: "steps", title: column.steps.join(", ") }, column.product)),
              ["started", "size"].map((name) => h("th", { class: `number ${name}` }, name)),
            ),
          ),
          h(
            "tbody",
            {},
            runs.runs.map((run) => row(run, runs.columns)),
          ),
        )
      : h("p", { class: "none" }, where.state || where.mode ? "no such runs" : "no runs yet"),
    legend(),
    runs.runs.length === runs.limit && h("p", { class: "none" }, `the newest ${runs.limit}; older ones by straxflow runs`),
  );
}

function states(where) {
  return h(
    "label",
    {},
    "state ",
    h(
      "select",
      { id: "state", value: where.state ?? "", onchange: (event) => (location.hash = link(event.target.value, where.mode)) },
      h("option", { value: "" }, "all"),
      STATES.map((state) => h("option", { value: state }, state)),
    ),
  );
}

function modes(runs, where) {
  const known = new Set(runs.runs.map((run) => run.mode).filter(Boolean));
  for (const mode of modes.seen) known.add(mode);
  if (where.mode) known.add(where.mode);
  modes.seen = known;
  return h(
    "label",
    {},
    "mode ",
    h(
      "select",
      { id: "mode", value: where.mode ?? "", onchange: (event) => (location.hash = link(where.state, event.target.value)) },
      h("option", { value: "" }, "all"),
      [...known].sort().map((mode) => h("option", { value: mode }, mode)),
    ),
  );
}
modes.seen = new Set();

function row(run, columns) {
  const { progress } = run;
  const again = run.due && run.state !== "working" ? until(run.due) : null;
  return h(
    "tr",
    { key: `${run.run}/${run.number}`, class: run.state },
    h("td", { class: "run" }, run.run ? h("a", { href: `#/run/${run.run}` }, run.run) : String(run.number ?? "?")),
    h("td", { class: "mode" }, run.mode, run.tags.length > 0 && h("span", { class: "tags" }, run.tags.join(" "))),
    h("td", { class: "state" }, h("span", { title: run.reason }, pill(run.state)), again && h("small", { title: `tried again ${again}` }, again)),
    columns.map((column) => h("td", { class: "steps", "data-name": column.product }, steps(column, progress))),
    h("td", { class: "number started", title: `${utc(run.start)}, ${run.end ? `took ${between(run.start, run.end)}` : "still being taken"}` }, ago(run.start)),
    h("td", { class: "number size" }, bytes(progress?.live_bytes || run.bytes)),
  );
}

function throughput(status) {
  const { hours, days, problem } = status.throughput;
  return h(
    "section",
    { class: "card", key: "throughput" },
    h("h2", {}, "Throughput"),
    problem && h("p", { class: "none" }, problem),
    chart("stored per hour", hours, "stored", bytes, 12, (t) => `${t.slice(11, 13)}h`),
    chart("runs finished per day", days, "runs", count, 7, (t) => t.slice(5, 10)),
  );
}

function workers(status) {
  return h(
    "section",
    { class: "card", key: "workers" },
    h("h2", {}, "At work"),
    status.watchers.map((watcher) => watcherLine(watcher, status.site)),
    status.invocations.map((one) =>
      h(
        "p",
        { class: `worker ${one.alive ? "alive" : "dead"}`, key: one.batch, title: one.batch },
        h("i", {}),
        h("span", {}, `${plural(one.runs, "run")} on ${one.host.split("+")[0]}`, one.pid && ` (pid ${one.pid})`),
        h("small", { title: utc(one.claimed) }, one.alive ? `since ${age(one.claimed)}` : `dead or silent for ${age(one.renewed)}`),
      ),
    ),
    !status.invocations.length && !status.watchers.length && h("p", { class: "none" }, "nobody works on runs now"),
  );
}

function watcherLine(watcher, site) {
  const where = watcher.site === site ? "" : ` of ${watcher.site}`;
  const gone = watcher.ended ? `ended ${ago(watcher.ended)}` : `silent for ${age(watcher.seen)}`;
  return h(
    "p",
    { class: `worker ${watcher.alive ? "alive" : "dead"}`, key: `watcher ${watcher.site}`, title: `${watcher.user ?? "?"}, pid ${watcher.pid ?? "?"}` },
    h("i", {}),
    h("span", {}, `watcher${where}`, watcher.pid && ` on ${watcher.host.split("+")[0]}`),
    h("small", { title: utc(watcher.seen) }, watcher.alive ? `seen ${ago(watcher.seen)}` : gone),
  );
}

function disks(status) {
  return h(
    "section",
    { class: "card", key: "disks" },
    h("h2", {}, "Disks"),
    status.disks.map((disk) => {
      const used = disk.total ? 1 - disk.free / disk.total : null;
      const level = disk.problem || (disk.free !== null && disk.free < disk.least) ? "bad" : used > 0.9 ? "low" : "ok";
      return h(
        "div",
        { class: `disk ${level}`, key: disk.kind, title: disk.where },
        h("span", {}, disk.kind),
        h("small", {}, disk.problem ?? `${bytes(disk.free)} free${disk.total ? ` of ${bytes(disk.total)}` : ""}`),
        used !== null && h("meter", { min: 0, max: 1, value: used.toFixed(3) }, ""),
      );
    }),
  );
}
