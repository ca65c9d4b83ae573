// Numbers and times for people. Times are told by the server's clock: a browser's may be wrong.

let serverTime = 0;
let receivedAt = 0;

export function setClock(iso) {
  serverTime = Date.parse(iso);
  receivedAt = performance.now();
}

export const now = () => serverTime + performance.now() - receivedAt;

export function seconds(s) {
  if (s === null || s === undefined) return "";
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 100) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

export const whole = (s) => (s < 10 ? `${Math.round(s)} s` : seconds(Math.round(s)));

export const age = (iso) => (iso ? whole(Math.max(0, (now() - Date.parse(iso)) / 1000)) : "");

export const ago = (iso) => (iso ? `${age(iso)} ago` : "");

export function until(iso) {
  const left = (Date.parse(iso) - now()) / 1000;
  return left > 0 ? `in ${whole(left)}` : "now";
}

export const utc = (iso) => (iso ? `${iso.slice(0, 10)} ${iso.slice(11, 19)} UTC` : "");

export const between = (from, to) => (from && to ? seconds((Date.parse(to) - Date.parse(from)) / 1000) : "");

export function bytes(n) {
  if (n === null || n === undefined) return "";
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (n >= 999.5 && unit < units.length - 1) {
    n /= 1000;
    unit += 1;
  }
  return `${n >= 100 || unit === 0 ? Math.round(n) : n.toPrecision(n >= 10 ? 3 : 2)} ${units[unit]}`;
}

export const count = (n) => (n ?? 0).toLocaleString("en").replaceAll(",", "\u2009");

export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;
