// One chart: columns in, a drawing out. The shades of alerts lie under the lines, and carry their word.
/* global uPlot */
import { NAMES, clock, levels, number, plain, ticks } from "./words.js";

export const CLASSES = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a500", "#7f7f7f"]; // Okabe and Ito
const DASHES = [[], [6, 3], [2, 2]]; // so that nobody needs to tell the colours apart
const AHEAD = 10; // times its length that is shown of the past beside a forecast, and 60 points at least
const SHADED = { alert: "--alert", pending: "--pending" };
const dark = matchMedia("(prefers-color-scheme: dark)");

export class Plot {
  // what: {channel, name, unit} of a channel, {score: true}, or {classes: [...]}; height: px.
  constructor(holder, what) {
    this.holder = holder;
    this.what = what;
    this.at = null; // the point that is pointed at
    this.pointed = () => {};
    this.plot = null;
    this.size = new ResizeObserver(() => this.plot?.setSize({ width: this.#width(), height: what.height }));
    this.size.observe(holder);
    this.suit = () => this.#again();
    dark.addEventListener("change", this.suit);
  }

  remove() {
    this.size.disconnect();
    dark.removeEventListener("change", this.suit);
    this.plot?.destroy();
  }

  draw(data) {
    this.data = data;
    const columns = this.#columns(data);
    if (this.plot) this.plot.setData(columns);
    else this.plot = new uPlot(this.#options(), columns, this.holder);
  }

  // The point `at` in words. pointed: it is not the latest, so its time is told.
  words(data, at, pointed) {
    const when = pointed ? ` at ${clock(data.time[at])}` : "";
    if (this.what.score) {
      return `${number(data.score[at])}, p-value ${number(data.p_value[at])}${when}`;
    }
    if (this.what.classes) return `of each class${when}`;
    const c = this.what.channel;
    const unit = this.what.unit ? ` ${plain(this.what.unit)}` : "";
    const y = this.plot?.scales.y;
    const shown = (value) => number(value, y && y.min !== null ? y.max - y.min : 0);
    let text = `${shown(data.value[c][at])}${unit}`;
    if (data.expected) text += `, expected ${shown(data.expected[c][at])}`;
    if (data.low && data.low[c][at] !== null) text += ` (${shown(data.low[c][at])} to ${shown(data.high[c][at])})`;
    const fan = this.#fan(data);
    if (fan && !pointed) {
      const [low, middle, high] = [fan.low, fan.middle, fan.high].map((line) => shown(line.at(-1)));
      text += `, forecast for ${clock(data.forecast.time.at(-1))}: ${middle} (${low} to ${high})`;
    }
    return text + when;
  }

  #again() {
    if (!this.plot) return;
    this.plot.destroy();
    this.plot = null;
    this.draw(this.data);
  }

  #width() {
    return Math.max(200, this.holder.clientWidth);
  }

  // The lines of this channel's forecast, null without one.
  #fan(data) {
    const i = data.forecast ? data.forecast.targets.indexOf(this.what.name) : -1;
    if (i < 0 || !data.forecast.time.length) return null;
    return { low: data.forecast.low[i], middle: data.forecast.middle[i], high: data.forecast.high[i] };
  }

  // x, then the lines: of a channel value, expected, high, low and high, middle, low of what is ahead.
  #columns(data) {
    if (this.what.score) return [data.time, data.score];
    if (this.what.classes) return [data.time, ...data.probability];
    const c = this.what.channel;
    const none = () => data.time.map(() => null);
    const own = [data.value[c], data.expected?.[c] ?? none(), data.high?.[c] ?? none(), data.low?.[c] ?? none()];
    const fan = this.#fan(data);
    if (!fan) return [data.time, ...own, none(), none(), none()];
    const ahead = fan.middle.map(() => null);
    const lead = none().slice(0, -1).concat(data.value[c].at(-1)); // the fan begins at the latest value
    return [
      [...data.time, ...data.forecast.time], ...own.map((line) => [...line, ...ahead]),
      [...lead, ...fan.high], [...lead, ...fan.middle], [...lead, ...fan.low],
    ];
  }

  #options() {
    const style = getComputedStyle(document.documentElement);
    const ink = (name) => style.getPropertyValue(name).trim();
    const line = (stroke, width, dash) => ({ stroke: stroke && ink(stroke), width, dash, points: { show: false } });
    let series;
    let bands = [];
    if (this.what.score) series = [{ ...line("--score", 1.5), fill: ink("--score-fill") }];
    else if (this.what.classes) {
      series = this.what.classes.map((_, k) => ({
        stroke: CLASSES[k % CLASSES.length], width: 1.5, dash: DASHES[Math.floor(k / CLASSES.length) % DASHES.length], points: { show: false },
      }));
    } else {
      series = [
        line("--value", 1.8), line("--band", 1.2, [5, 4]), line("--edge", 0.7), line("--edge", 0.7),
        line("--edge-fan", 0.7), line("--value", 1.2, [2, 3]), line("--edge-fan", 0.7),
      ];
      bands = [{ series: [3, 4], fill: ink("--band-fill") }, { series: [5, 7], fill: ink("--fan-fill") }];
    }
    const axis = { stroke: ink("--soft"), grid: { stroke: ink("--grid"), width: 1 }, ticks: { stroke: ink("--grid"), width: 1, size: 4 }, font: "12px system-ui, sans-serif" };
    const scales = { x: { range: (_, min, max) => [this.#begin(min), max] } };
    if (this.what.classes) scales.y = { range: [0, 1] };
    if (this.what.score) scales.y = { range: (_, __, max) => [0, Math.max(1, 1.05 * max)] };
    return {
      width: this.#width(), height: this.what.height, ms: 1, legend: { show: false }, padding: [8, 24, 0, 0],
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
      scales, series: [{}, ...series], bands,
      axes: [
        { ...axis, size: 28, values: (_, splits, __, ___, step) => ticks(splits, step), space: 80 },
        { ...axis, size: 56, space: this.what.height < 160 ? 26 : 36, values: (_, splits, __, ___, step) => levels(splits, step) },
      ],
      hooks: { drawClear: [(u) => this.#shade(u, ink)], setCursor: [(u) => this.#point(u)] },
    };
  }

  // Where the drawing begins: the end of a long past, if there is a forecast that would be too small to see beside it.
  #begin(min) {
    const { time, forecast } = this.data;
    if (!forecast) return min;
    return time[Math.max(0, time.length - Math.max(60, AHEAD * forecast.time.length))] ?? min;
  }

  #point(u) {
    const at = u.cursor.idx ?? null;
    if (at === this.at) return;
    this.at = at;
    this.pointed();
  }

  // Stretches of points in a state that matters, from half a step before the first to half a step after the last.
  #shade(u, ink) {
    const { time, state } = this.data;
    for (let i = 0, j = 0; i < state.length; i = j) {
      for (j = i + 1; j < state.length && state[j] === state[i]; ) j += 1;
      const name = NAMES[state[i]];
      if (!(name in SHADED)) continue;
      const middle = (a, b) => u.valToPos(((time[a] ?? time[b]) + (time[b] ?? time[a])) / 2, "x", true);
      const [left, right] = [middle(i - 1, i), middle(j - 1, j)];
      const width = Math.max(right - left, 3 * devicePixelRatio);
      const { ctx } = u;
      ctx.save();
      ctx.fillStyle = ink(SHADED[name]);
      ctx.globalAlpha = name === "alert" ? 0.2 : 0.14;
      ctx.fillRect(left, u.bbox.top, width, u.bbox.height);
      ctx.globalAlpha = 1;
      ctx.fillRect(left, u.bbox.top, width, 3 * devicePixelRatio); // a bar on top, and the word where there is room
      ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
      const wide = ctx.measureText(name).width + 6 * devicePixelRatio;
      if (width > wide) {
        ctx.fillStyle = ink("--text");
        ctx.textAlign = "left";
        ctx.textBaseline = "top";
        ctx.fillText(name, left + 3 * devicePixelRatio, u.bbox.top + 5 * devicePixelRatio);
      }
      ctx.restore();
    }
  }
}
