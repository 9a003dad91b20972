// Numbers, times and states in words, and elements that hold nothing but text: what sensors call themselves is never HTML.

export const STATES = { alert: "▲", stale: "✕", pending: "◐", learning: "○", normal: "●" };
export const NAMES = ["learning", "normal", "pending", "alert", "stale"]; // as numbered in the columns

// The element with a class and a text.
export function element(tag, kind = "", text = "") {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  if (text) made.textContent = text;
  return made;
}

// Sets a text only if it is another: a screen reader and a selection are left in peace.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Characters that turn the direction of text, or hide it, are shown as a sign of their own.
export function plain(name) {
  return name.replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g, "\ufffd");
}

// Four digits that count, no exponent for ordinary sizes; more where the drawing's span needs them: 125.0713 in 0.01.
export function number(value, span = 0) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (span > 0 && size > 100 * span && size < 1e7) return String(Number(value.toPrecision(Math.min(8, 2 + Math.ceil(Math.log10(size / span))))));
  if (size >= 1e7 || (size > 0 && size < 1e-4)) return value.toExponential(2);
  if (size >= 1000) return value.toFixed(0);
  return String(Number(value.toPrecision(4)));
}

// Labels of an axis of values, as fine as its steps.
export function levels(splits, step) {
  if (splits.some((v) => v !== 0 && (Math.abs(v) >= 1e7 || Math.abs(v) < 1e-4))) return splits.map((v) => number(v));
  const digits = Math.min(8, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
  return splits.map((v) => v.toFixed(digits));
}

const two = (n) => String(n).padStart(2, "0");

// The time of day, with the date where it is not today. ms since 1970.
export function clock(ms, today = new Date()) {
  const t = new Date(ms);
  const time = `${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}`;
  return t.toDateString() === today.toDateString() ? time : `${day(ms)} ${time}`;
}

export function day(ms) {
  const t = new Date(ms);
  return `${t.getFullYear()}-${two(t.getMonth() + 1)}-${two(t.getDate())}`;
}

// Labels of an axis, as fine as its steps. Where a day begins its date stands instead of the time.
export function ticks(splits, step) {
  let before = "";
  return splits.map((ms) => {
    const t = new Date(ms);
    const date = day(ms).slice(5);
    const time = `${two(t.getHours())}:${two(t.getMinutes())}` + (step < 60_000 ? `:${two(t.getSeconds())}` : "");
    const begins = step >= 86_400_000 || (before && before !== date);
    before = date;
    return begins ? date : time;
  });
}

// A state as a sign and a word: neither colour nor shape alone.
export function badge(state, more = "") {
  return element("span", `badge ${state}`, `${STATES[state] ?? "?"} ${state}${more}`);
}
