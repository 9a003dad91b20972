// The list of series and the alerts. What the agent tells in, elements that hold text out.
import { STATES, badge, clock, element, number, plain, say } from "./words.js";

const by = (id) => document.getElementById(id);
const SHOWN = 100; // alerts

// --- series ------------------------------------------------------------------------------------------------------------

export class SeriesList {
  // choose: called with [stream, series] when one is picked.
  constructor(choose) {
    this.list = by("series-list");
    this.choose = choose;
    this.rows = [];
    this.list.addEventListener("keydown", (event) => this.#move(event));
  }

  show(told, key) {
    const streams = new Set(told.rows.map((row) => row[0]));
    told.rows.forEach((row, i) => this.#row(i, row, streams.size > 1, key));
    for (const gone of this.rows.splice(told.rows.length)) gone.item.remove();
    const few = told.matching > told.rows.length;
    say(by("matching"), few ? `the ${told.rows.length} worst of ${told.matching}` : `${told.matching} of ${told.total}`);
    const states = Object.keys(STATES).filter((s) => told.states[s]);
    say(by("states"), states.map((s) => `${told.states[s]} ${s}`).join(", "));
  }

  mark(key) {
    for (const row of this.rows) this.#current(row, key);
  }

  #row(i, [stream, series, state, reading, time, score], several, key) {
    let row = this.rows[i];
    if (!row) {
      row = { item: element("li"), button: element("button", "series") };
      row.button.type = "button";
      row.parts = ["name", "reading", "when"].map((kind) => element("span", kind));
      row.state = badge(state);
      row.button.append(row.parts[0], row.parts[1], row.state, row.parts[2]);
      row.button.addEventListener("click", () => this.choose(row.key));
      row.item.append(row.button);
      this.list.append(row.item);
      this.rows[i] = row;
    }
    row.key = [stream, series];
    const text = `${STATES[state]} ${state}`;
    if (row.state.textContent !== text) {
      row.state.textContent = text;
      row.state.className = `badge ${state}`;
    }
    const [name, value, when] = row.parts;
    say(name, plain(series) || "(no name)");
    say(value, reading);
    say(when, [several ? plain(stream) : "", score === null ? "" : `score ${number(score)}`, clock(time)].filter(Boolean).join(", "));
    this.#current(row, key);
  }

  #current(row, key) {
    const is = key !== null && row.key[0] === key[0] && row.key[1] === key[1];
    if (is) row.button.setAttribute("aria-current", "true");
    else row.button.removeAttribute("aria-current");
  }

  // The arrows go from series to series.
  #move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const at = this.rows.findIndex((row) => row.button === document.activeElement);
    const next = step && at >= 0 ? this.rows[at + step] : undefined;
    if (next) {
      event.preventDefault();
      next.button.focus();
    }
  }
}

// --- alerts ------------------------------------------------------------------------------------------------------------

export class AlertList {
  constructor(choose) {
    this.choose = choose;
    this.entries = new Map(); // by id, the latest change last
  }

  // entries: those that have changed; all: there are no others.
  take(entries, all) {
    const fresh = all ? [] : entries.filter((e) => e.event === "raise" && !this.entries.has(e.id));
    if (all) this.entries.clear();
    for (const entry of entries) {
      this.entries.delete(entry.id);
      this.entries.set(entry.id, entry);
    }
    for (const id of this.entries.keys()) {
      if (this.entries.size <= 2 * SHOWN) break;
      this.entries.delete(id);
    }
    // Those that stand before those that are over, each the latest first.
    const sorted = [...this.entries.values()].reverse();
    const up = sorted.filter((e) => e.event !== "clear");
    const shown = [...up, ...sorted.filter((e) => e.event === "clear")].slice(0, SHOWN);
    by("alert-list").replaceChildren(...shown.map((e) => this.#item(e)));
    by("no-alerts").hidden = shown.length > 0;
    this.standing = up.length;
    say(by("standing"), shown.length ? `${up.length} standing` : "");
    if (fresh.length) by("told").textContent = fresh.map((e) => `Alert: ${plain(e.series)}: ${e.summary}`).join(". ");
  }

  #item(entry) {
    const over = entry.event === "clear";
    const item = element("li", over ? "over" : entry.kind === "no-data" ? "silent" : entry.severity);
    const word = over ? "▼ over" : entry.kind === "no-data" ? "✕ no data" : `▲ ${entry.severity}`;
    const head = element("p", "head");
    const name = element("button", "link", plain(entry.series) || "(no name)");
    name.type = "button";
    name.addEventListener("click", () => this.choose([entry.stream, entry.series]));
    const times = element("span", "soft", over ? `${clock(entry.since)} to ${clock(entry.time)}` : `since ${clock(entry.since)}`);
    head.append(element("span", "badge", word), name, times);
    item.append(head, element("p", "sentence", plain(entry.summary)));
    if (entry.latest) item.append(element("p", "sentence soft", plain(entry.latest)));
    if (entry.acknowledged) item.append(element("p", "soft", `acknowledged by ${plain(entry.acknowledged)}`));
    return item;
  }
}
