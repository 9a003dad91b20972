// The live page: listens to the agent, and hands what it tells to the lists and the charts. It sends nothing but what
// the viewer looks for.
import { Charts } from "./charts.js";
import { AlertList, SeriesList } from "./lists.js";
import { element, number, plain, say } from "./words.js";

const by = (id) => document.getElementById(id);
const SILENT = 6000; // ms without a word after which the connection counts as lost; there is one each second
const AGAIN = 2000; // ms between two attempts

// This tab, so that the agent knows when it has left a connection behind. No secret.
const viewer = Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("");
const charts = new Charts();
const series = new SeriesList(choose);
const alerts = new AlertList(choose);

let key = chosen(); // [stream, series] that is drawn; null: the worst one when we come
let source = null;
let heard = Date.now();
let first = true; // the next message tells all there is
let timer = 0;
let total = 0; // series that are listed or could be

// The address keeps what is chosen behind its #; a token that came in it goes.
function chosen() {
  const kept = new URLSearchParams(location.hash.slice(1));
  if (location.search) history.replaceState(null, "", location.pathname + location.hash);
  return kept.has("stream") && kept.has("series") ? [kept.get("stream"), kept.get("series")] : null;
}

function choose(next) {
  key = next;
  history.replaceState(null, "", `#${new URLSearchParams({ stream: key[0], series: key[1] })}`);
  series.mark(key);
  connect();
  by("one").scrollIntoView({ block: "nearest" });
}

// --- the connection ------------------------------------------------------------------------------------------------------

function connect() {
  clearTimeout(timer);
  source?.close();
  first = true;
  const query = new URLSearchParams({ viewer, search: by("search").value });
  if (key) {
    query.set("stream", key[0]);
    query.set("series", key[1]);
  }
  const mine = (source = new EventSource(`events?${query}`));
  mine.addEventListener("open", () => (first = true));
  mine.addEventListener("message", (event) => {
    heard = Date.now();
    lost("");
    take(JSON.parse(event.data));
  });
  mine.addEventListener("full", (event) => {
    heard = Date.now();
    lost(`${event.data} browsers show this page, and the agent serves no more at a time; trying again`);
  });
  mine.addEventListener("error", () => {
    if (mine !== source) return;
    lost("Connection lost, trying again");
    if (mine.readyState === EventSource.CLOSED) retry();
  });
}

// The browser does not try again where it was refused.
function retry() {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    try {
      const front = await fetch("./", { method: "HEAD" });
      if (front.status === 401) location.reload(); // the token is asked for
    } catch {
      return retry();
    }
    connect();
  }, AGAIN);
}

setInterval(() => {
  if (Date.now() - heard < SILENT) return;
  lost("Connection lost, trying again");
  heard = Date.now();
  connect();
}, 1000);

function lost(words) {
  const note = by("lost");
  say(note, words);
  note.hidden = !words;
  document.body.classList.toggle("away", Boolean(words));
}

// --- what is told --------------------------------------------------------------------------------------------------------

function take(told) {
  const all = first;
  first = false;
  head(told.head);
  if (told.list) total = told.list.total;
  filling((told.head.series ?? 0) - total);
  if (told.alerts) alerts.take(told.alerts, all);
  if (told.chart) {
    if (!key) key = [told.chart.stream, told.chart.series];
    charts.take(told.chart);
  }
  if (told.list) {
    series.show(told.list, key);
    const row = told.list.rows.find((r) => key && r[0] === key[0] && r[1] === key[1]);
    if (row) charts.state(row[2]);
  }
  document.title = `${alerts.standing ? `▲${alerts.standing} ` : ""}Transom ${told.head.agent}`;
}

// Series that the agent knows and has not judged yet.
function filling(many) {
  const note = by("filling");
  note.hidden = many <= 0;
  say(note, `${many} more fill${many === 1 ? "s its" : " their"} first window`);
}

function head(told) {
  say(by("agent"), plain(told.agent));
  const doing = [told.ready ? "watching" : told.connected ? "not subscribed yet" : "no connection to the broker"];
  if (told.readings_per_s !== null && told.readings_per_s !== undefined) doing.push(`${number(round(told.readings_per_s))} readings/s`);
  if (told.latency_ms !== null && told.latency_ms !== undefined) doing.push(`${number(round(told.latency_ms))} ms from arrival to prediction`);
  say(by("doing"), doing.join(", "));
  const problems = by("problems");
  problems.hidden = told.problems.length === 0;
  if (problems.children.length !== told.problems.length || told.problems.some((p, i) => problems.children[i].textContent !== plain(p)))
    problems.replaceChildren(...told.problems.map((p) => element("li", "", plain(p))));
}

// A figure that moves, no finer than it is steady.
function round(figure) {
  return figure < 10 ? Math.round(10 * figure) / 10 : Math.round(figure);
}

let typing = 0;
by("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(connect, 250);
});

connect();
