// One series as charts: each channel over the band that was expected, its score, its classes, what is forecast.
// Columns as the agent tells them in, drawings by uPlot and their words out.
import { CLASSES, Plot } from "./plot.js";
import { NAMES, badge, element, number, plain, say } from "./words.js";

const by = (id) => document.getElementById(id);
const KEPT = 600; // points of a series, as the agent keeps them
const DRAWN = 24; // channels
const LISTED = 8; // classes
const FLAT = ["time", "state", "score", "p_value"]; // columns; those of COLUMNS are lists of columns
const COLUMNS = ["value", "expected", "low", "high", "probability"];

export class Charts {
  constructor() {
    this.plots = [];
    this.about = null;
  }

  // told: of one series, anew or what came since.
  take(told) {
    if (told.anew) this.#begin(told);
    else this.#append(told);
    if (told.forecast) this.data.forecast = told.forecast;
    for (const plot of this.plots) plot.draw(this.data);
    this.#words();
  }

  // The state of the series as the list has it: it also knows of silence.
  state(state) {
    if (this.badge) this.badge.replaceWith((this.badge = badge(state)));
  }

  #begin(told) {
    this.data = { ...told, forecast: null };
    const about = JSON.stringify([told.stream, told.series, told.channels, told.units, told.classes, told.task]);
    if (about === this.about) return;
    this.about = about;
    this.badge = null;
    this.plots.forEach((plot) => plot.remove());
    this.plots = [];
    this.rows = [];
    say(by("one-title"), plain(told.series) || "(no name)");
    by("charts").replaceChildren();
    by("key").hidden = !told.channels;
    if (!told.channels) {
      say(by("one-about"), `no reading of this series in ${plain(told.stream)} so far`);
      return;
    }
    this.#build(told);
  }

  #build(told) {
    const several = told.channels.length > 1;
    by("key-band").hidden = !told.low;
    by("key-expected").hidden = !told.expected;
    by("key-forecast").hidden = told.task !== "forecast";
    told.channels.slice(0, DRAWN).forEach((channel, i) => {
      this.#add(plain(channel), (holder) => new Plot(holder, { channel: i, name: channel, unit: told.units[i], height: several ? 150 : 320 }));
    });
    if (told.channels.length > DRAWN) by("charts").append(element("p", "soft", `${told.channels.length - DRAWN} more channels are not drawn`));
    if (told.score) this.#add("score", (holder) => new Plot(holder, { score: true, height: 96 }));
    if (told.classes.length) {
      this.#add("probability", (holder) => new Plot(holder, { classes: told.classes, height: 180 }));
      this.meters = element("ul", "classes");
      this.meters.setAttribute("aria-label", "The likeliest classes now");
      by("charts").prepend(this.meters);
    }
  }

  #add(name, make) {
    const figure = element("figure");
    const words = element("figcaption");
    const holder = element("div", "holder");
    holder.setAttribute("role", "img");
    figure.append(words, holder);
    by("charts").append(figure);
    const plot = make(holder);
    plot.pointed = () => this.#words();
    this.plots.push(plot);
    this.rows.push({ words, holder, name });
  }

  #append(told) {
    const data = this.data;
    if (!told.time.length) return;
    // A clock that was set back: what was before is another story.
    const anew = data.time.length && told.time[0] <= data.time.at(-1);
    const join = (old, more) => (anew ? more : old.concat(more).slice(-KEPT));
    for (const name of FLAT) if (told[name]) data[name] = join(data[name], told[name]);
    for (const name of COLUMNS) if (told[name]) data[name] = told[name].map((column, i) => join(data[name][i], column));
  }

  // What the charts show, in words: of the latest point, or of the one that is pointed at.
  #words() {
    const { data } = this;
    if (!data.channels || !data.time.length) return;
    const last = data.time.length - 1;
    const state = NAMES[data.state[last]];
    const about = by("one-about");
    if (!this.badge) {
      this.badge = badge(state);
      about.replaceChildren(this.badge, element("span", "", ` ${plain(data.stream)}, ${plain(data.model)}`));
    }
    this.plots.forEach((plot, i) => {
      const { words, holder, name } = this.rows[i];
      const at = plot.at === null ? last : Math.min(plot.at, last);
      const text = plot.words(data, at, plot.at !== null);
      say(words, `${name} ${text}`);
      holder.setAttribute("aria-label", `Chart: ${name} ${text}`);
    });
    if (this.meters) this.#classes(data, last);
  }

  #classes(data, last) {
    const likely = data.classes.map((name, k) => [data.probability[k][last] ?? 0, plain(name), CLASSES[k % CLASSES.length]]).sort((a, b) => b[0] - a[0]);
    this.meters.replaceChildren(
      ...likely.slice(0, LISTED).map(([p, name, ink]) => {
        const item = element("li");
        const meter = element("meter");
        meter.value = p;
        const swatch = element("i");
        swatch.style.background = ink;
        const words = element("span");
        words.append(swatch, name);
        item.append(words, meter, element("span", "number", `${number(Math.round(100 * p))} %`));
        return item;
      }),
    );
  }
}
