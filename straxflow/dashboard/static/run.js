// The page of one run: everything that is known of it.

import { h } from "./dom.js";
import { ago, between, bytes, count, seconds, utc } from "./format.js";
import { figures, plot } from "./monitor.js";
import { legend, logOf, pill, steps } from "./parts.js";

export function runPage(name, run) {
  const back = h("p", { class: "back", key: "back" }, h("a", { href: "#/" }, "← all runs"));
  if (!run || (run.run && run.run !== name)) return [back, h("p", { class: "none" }, `run ${name} …`)];
  if (run.error) return [back, h("p", { class: "none" }, run.error)];
  const { row, facts } = run;
  const known = facts ?? row ?? {};
  return [
    back,
    h(
      "section",
      { class: "card title", key: "title" },
      h("h1", {}, `Run ${name}`, row && pill(row.state)),
      run.warning && h("p", { class: "reason" }, run.warning),
      row?.reason && row.state !== "done" && h("p", { class: "reason" }, row.reason),
      run.why_not?.length > 0 && h("p", { class: "why" }, h("span", {}, "not claimed now: "), run.why_not.join("; ")),
      h(
        "dl",
        {},
        fact("mode", known.mode),
        fact("started", utc(known.start), ago(known.start)),
        fact("length", facts ? seconds(facts.seconds) : between(known.start, known.end)),
        fact("detectors", (facts?.detectors ?? []).join(", ")),
        fact("source", facts?.source),
        fact("live data", run.progress?.live_bytes ? bytes(run.progress.live_bytes) : null),
        fact("stored", run.progress?.stored_bytes ? bytes(run.progress.stored_bytes) : null),
        fact("failures", row?.failures ? String(row.failures) : null),
        fact("claimed by", row?.claimant && `${row.claimant.host} pid ${row.claimant.pid}`, row?.claimant?.batch),
      ),
      run.tags.map((tag) => h("span", { class: "tag", title: `${tag.user ?? ""} ${utc(tag.date)}` }, tag.text)),
      run.comments.map((one) => h("blockquote", {}, one.text, h("cite", {}, `${one.user ?? "?"} ${utc(one.date)}`))),
      !run.here && h("p", { class: "none" }, "nothing of it is in the state folder"),
    ),
    run.progress && products(run),
    run.monitor.length > 0 && summaries(run),
    run.attempts.length > 0 && attempts(run),
    run.entries.length > 0 && entries(run),
    run.actions.length > 0 && h("section", { class: "card", key: "actions" }, h("h2", {}, "Done by people"), run.actions.map((line) => h("p", { class: "note" }, line))),
    run.released && released(run.released),
  ].filter(Boolean);
}

const fact = (name, value, more) => (value ? h("div", {}, h("dt", {}, name), h("dd", { title: more }, value)) : null);

function products(run) {
  const shown = run.columns.filter((column) => run.progress.cells[column.product]);
  return h(
    "section",
    { class: "card", key: "products" },
    h("h2", {}, "Products"),
    run.progress.problem && h("p", { class: "reason" }, run.progress.problem),
    scroll(
      ["product", "step", "made", "took", "size", "files", "records", "notes"],
      shown.flatMap((column) =>
        column.steps.map((step, i) => {
          const made = run.receipts.find((one) => one.product === column.product && one.step === step) ?? {};
          const trouble = run.progress.troubles.find((one) => one.product === column.product && one.step === step);
          const notes = [...(made.notes ?? []), made.problem, trouble?.reason, versions(made.versions)].filter(Boolean);
          return [
            i === 0 ? h("b", {}, column.product) : "",
            h("span", { class: "step" }, steps({ ...column, steps: [step] }, one(run, column, i)), " ", step),
            h("span", { title: made.receipt }, utc(made.made)),
            seconds(made.seconds),
            bytes(made.bytes),
            made.files ? count(made.files) : "",
            made.records ? count(made.records) : "",
            notes.map((note) => h("p", { class: "note" }, note)),
          ];
        }),
      ),
    ),
    legend(),
  );
}

function one(run, column, i) {
  return { cells: { [column.product]: run.progress.cells[column.product][i] }, troubles: run.progress.troubles };
}

function versions(all) {
  const names = Object.keys(all ?? {});
  return names.length ? names.map((name) => `${name} ${all[name]}`).join(", ") : null;
}

function summaries(run) {
  return h(
    "section",
    { class: "card summaries", key: "summaries" },
    run.monitor.map((one) =>
      h("div", { class: "monitor", key: one.product }, h("h2", {}, `Monitor: ${one.product}`), figures(one.runs), plot(one.product, one.runs[0])),
    ),
  );
}

function attempts(run) {
  return h(
    "section",
    { class: "card", key: "attempts" },
    h("h2", {}, "Attempts"),
    scroll(
      ["started", "step", "outcome", "took", "CPU", "memory", "where", "reason"],
      run.attempts.map((one) => [
        h("span", { title: one.batch }, utc(one.started)),
        `${one.step} of ${one.product}`,
        h("span", { class: `outcome ${(one.outcome ?? "open").replace(" ", "-")}` }, one.outcome ?? "open"),
        one.ended ? seconds(one.seconds ?? null) : ago(one.started),
        seconds(one.cpu_seconds),
        one.peak_rss_mb ? bytes(one.peak_rss_mb * 1e6) : "",
        `${(one.host ?? "?").split("+")[0]}${one.job_id ? ` job ${one.job_id}` : ""}`,
        [one.reason && h("p", { class: "note" }, one.reason), one.name && logOf(run.run, one.product, one.name)],
      ]),
    ),
  );
}

function entries(run) {
  const line = (entry) => [
    h("span", { class: entry.deleted ? "gone" : null }, entry.type),
    entry.host,
    entry.size_mb ? bytes(entry.size_mb * 1e6) : "",
    entry.deleted ? `deleted ${utc(entry.deleted)}` : utc(entry.time),
    h("span", { class: "path" }, entry.location),
  ];
  return h(
    "section",
    { class: "card", key: "entries" },
    h("h2", {}, "Data entries of the run document"),
    scroll(
      ["type", "host", "size", "time", "location"],
      run.entries.map(line),
    ),
  );
}

function released(receipt) {
  const lines = (what, all) => Object.entries(all).map(([path, proof]) => [what, h("span", { class: "path" }, path), h("p", { class: "note" }, proof)]);
  return h(
    "section",
    { class: "card", key: "released" },
    h("h2", {}, `Released ${bytes(receipt.bytes)}, ${utc(receipt.made)}`),
    scroll(["", "copy", "why"], [...lines("dropped", receipt.dropped), ...lines("kept", receipt.kept)]),
  );
}

function scroll(names, lines) {
  return h(
    "div",
    { class: "scroll" },
    h(
      "table",
      { class: "plain" },
      h("thead", {}, h("tr", {}, names.map((name) => h("th", {}, name)))),
      h("tbody", {}, lines.map((line) => h("tr", {}, line.map((content) => h("td", {}, content))))),
    ),
  );
}
