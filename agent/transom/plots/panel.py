"""One series as a panel: values and the expected band, score and p-value, classes, and the alerts over all of them.

A trace and its alerts in, SVG elements out. `drawing` puts panels below each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from transom.plots import svg
from transom.plots.axes import span_text
from transom.plots.canvas import APART, LEFT, WIDTH, Canvas, Floats, extent
from transom.plots.traces import Span

HEAD, SENTENCE, FOOT = 22, 15, 20  # px
TALL, SMALL, STRIP, LANE = 130, 62, 38, 15  # px: the row of one channel, of one of several, a strip, a variant's lane
CHANNELS = 24  # rows at most
SENTENCES = 3  # alerts that are written out
SENTENCE_LONG = 150  # characters
MARKS = {"warning": "w", "critical": "c"}


@dataclass(frozen=True, slots=True)
class About:
    """What the events do not say of a stream. units: by channel; bar: p-value that raises, by series; threshold: a
    score that does instead."""

    units: Mapping[str, str] = field(default_factory=dict)
    bars: Mapping[str, float] = field(default_factory=dict)
    threshold: float | None = None


@dataclass(slots=True)
class Panel:
    """variants: (label, its alerts of this series), the first of which lie over the values; alerts: at most so many
    are drawn one by one."""

    canvas: Canvas
    about: About
    variants: Sequence[tuple[str, Sequence[Span]]]
    alerts: int

    def draw(self) -> tuple[list[str], float]:
        """The elements, and the height that they take."""
        g, trace = self.canvas.group, self.canvas.trace
        time, low, high = g.columns.read(trace.row, self.canvas.most)
        x, c = self.canvas.x(time), g.channels
        wide, tall = low.astype(np.float64), high.astype(np.float64)
        self._head()
        top = self.canvas.y
        ahead = self.canvas.ahead()
        height = TALL if max(c, g.targets) == 1 else SMALL
        for j, name in enumerate(trace.channels[:CHANNELS]):
            bands = [(wide[:, c + j], tall[:, c + j]), (wide[:, 2 * c + j], tall[:, 2 * c + j])]
            mine = trace.targets.index(name) if name in trace.targets else None
            self._values(name, x, (wide[:, j], tall[:, j]), bands, ahead, mine, height)
        if c > CHANNELS:
            self._note(f"{c - CHANNELS} more channels are not drawn")
        for j, name in enumerate(trace.targets[:CHANNELS]):
            if name not in trace.channels:
                none = np.full(len(x), np.nan)
                self._values(name, x, (none, none), [], ahead, j, TALL)
        p, score = wide[:, 3 * c], tall[:, 3 * c]
        if np.isfinite(score).any():
            self._score(x, score, p)
            self._p_value(x, p)
        if g.classes:
            self._classes(x, tall[:, 3 * c + 2 :])
        self.canvas.grid(top)
        self._alerts(top)
        self._lanes()
        return self.canvas.parts, self.canvas.y

    # --- rows -------------------------------------------------------------------------------------------------------

    def _head(self) -> None:
        name = self.canvas.trace.key[1]
        stream = f"{self.canvas.trace.key[0]}, {self.canvas.trace.model}, {span_text(*self.canvas.seen())}"
        self.canvas.parts.append(
            f'<text x="{LEFT}" y="16" class="t">{svg.text(name, 70)}'
            f'<tspan font-size="11" font-weight="400" dx="10">{svg.text(stream, 130)}</tspan></text>'
        )
        self.canvas.y = HEAD
        spans = self.variants[0][1]
        for number_, span in enumerate(spans[:SENTENCES], 1):
            when = span_text(span.begin, span.begin).partition(" to ")[0]
            self.canvas.parts.append(
                svg.label(LEFT, self.canvas.y + 11, f"{number_}  {when}  {span.summary}", "s", SENTENCE_LONG)
            )
            self.canvas.y += SENTENCE
        more = sum(1 + s.more for s in spans) - len(spans[:SENTENCES])
        if more > 0:
            self._note(f"… and {more:,} more alert{'s' * (more > 1)}")
        self.canvas.y += 4

    def _note(self, words: str) -> None:
        self.canvas.parts.append(svg.label(LEFT, self.canvas.y + 11, words, "s", SENTENCE_LONG))
        self.canvas.y += SENTENCE

    def _values(
        self, name: str, x: Floats, value: tuple[Floats, Floats], bands: list[tuple[Floats, Floats]],
        ahead: tuple[Floats, Floats, Floats] | None, target: int | None, height: int,
    ) -> None:  # fmt: skip
        """A channel: its values over the band that was expected, or over what was forecast for the time."""
        t, fan = self.canvas.group.targets, self.canvas.trace.forecast if target is not None else None
        shown = [*value]
        if ahead is not None and target is not None:
            if not np.isfinite(value[0]).any():
                shown += [ahead[1][:, target + t], ahead[2][:, target + t]]
            if fan is not None:
                shown += [fan[:, target, 1].astype(np.float64)]
        low, high = extent(shown, [a for band in bands for a in band])
        up = self.canvas.scale(low, high, height)
        if ahead is not None and target is not None:
            ax, alow, ahigh = ahead
            self.canvas.parts.append(svg.path(svg.area(ax, up(alow[:, target]), up(ahigh[:, target])), "b"))
            self.canvas.parts.append(svg.path(svg.trail(ax, up(alow[:, target + t]), up(ahigh[:, target + t])), "e"))
        for k, (lower, upper) in enumerate(bands):
            draw = svg.trail if k else svg.area
            self.canvas.parts.append(svg.path(draw(x, up(lower), up(upper)), "e" if k else "b"))
        if fan is not None and self.canvas.trace.step:
            steps = self.canvas.trace.last + (np.arange(len(fan)) + self.canvas.trace.lead) * self.canvas.trace.step
            fx, f = self.canvas.x(steps), fan[:, target].astype(np.float64)
            self.canvas.parts.append(svg.path(svg.area(fx, up(f[:, 0]), up(f[:, 2])), "f"))
            self.canvas.parts.append(svg.path(svg.trail(fx, up(f[:, 1]), up(f[:, 1])), "v", ' stroke-dasharray="3 2"'))
        self.canvas.parts.append(svg.path(svg.trail(x, up(value[0]), up(value[1])), "v"))
        self.canvas.axis(low, high, height, 4 if height == TALL else 3)
        unit = self.about.units.get(name, "")
        self.canvas.parts.append(svg.label(LEFT + 5, self.canvas.y + 12, f"{name} {unit}".rstrip(), "h", 60))
        self.canvas.y += height + APART

    def _score(self, x: Floats, score: Floats, p: Floats) -> None:
        """The score, dark where it was over the bar."""
        threshold = self.about.threshold
        bar = self.about.bars.get(self.canvas.trace.key[1])
        over = score >= threshold if threshold is not None else p <= bar if bar is not None else np.zeros(len(p), bool)
        highest = float(np.nanmax(score))
        highest = max(highest, 1.15 * (threshold or 0.0), 1e-9)
        up = self.canvas.scale(0.0, highest, STRIP)
        floor = np.full(len(x), self.canvas.y + STRIP)
        self.canvas.parts.append(svg.path(svg.area(x, floor, up(score)), "sc"))
        self._bars(x[over], up(score)[over], STRIP)
        if threshold is not None:
            y = float(up(np.array([threshold]))[0])
            self.canvas.parts.append(svg.line(LEFT, y, LEFT + WIDTH, y, "bar"))
        self.canvas.axis(0.0, highest, STRIP, 2)
        said = "score" if threshold is None else f"score, raises at {threshold:g}"
        self.canvas.parts.append(svg.label(LEFT + 5, self.canvas.y + 12, said, "h"))
        self.canvas.y += STRIP + APART

    def _p_value(self, x: Floats, p: Floats) -> None:
        """How rare the score is on normal data, a power of ten a step, over the bar of the false alarms allowed."""
        bar = self.about.bars.get(self.canvas.trace.key[1])
        if bar is None or not np.isfinite(p).any():
            return
        rare = -np.log10(np.clip(p, 1e-37, 1.0))
        level = -np.log10(bar)
        highest = max(1.2 * level, min(float(np.nanmax(rare)), 3 * level))  # the far tail would flatten the rest
        up = self.canvas.scale(0.0, highest, STRIP)
        self.canvas.parts.append(svg.path(svg.area(x, np.full(len(x), self.canvas.y + STRIP), up(rare)), "sc"))
        over = p <= bar
        self._bars(x[over], up(rare)[over], STRIP)
        y = float(up(np.array([level]))[0])
        self.canvas.parts.append(svg.line(LEFT, y, LEFT + WIDTH, y, "bar"))
        for value, words in ((0.0, "1"), (level, f"{bar:.0e}".replace("e-0", "e-"))):
            at = float(up(np.array([value]))[0])
            self.canvas.parts.append(svg.label(LEFT - 5, at + 4, words, "s r"))
        self.canvas.parts.append(svg.label(LEFT + 5, self.canvas.y + 12, f"p-value, raises at {bar:.2g}", "h"))
        self.canvas.y += STRIP + APART

    def _bars(self, x: Floats, y: Floats, height: int) -> None:
        foot = svg.short(self.canvas.y + height)
        data = "".join(f"M{svg.short(a)} {svg.short(b)}V{foot}" for a, b in zip(x, y, strict=True) if np.isfinite(b))
        self.canvas.parts.append(svg.path(data, "bar", ' style="stroke-dasharray:none;stroke-width:1.6"'))

    def _classes(self, x: Floats, probability: Floats) -> None:
        """The most probable class at each time, and how probable it was."""
        names = self.canvas.trace.classes
        best = np.argmax(np.where(np.isfinite(probability), probability, -1), 1)
        edges = np.concatenate([[x[0]], (x[1:] + x[:-1]) / 2, [x[-1]]]) if len(x) else np.zeros(0)
        begins = np.flatnonzero(np.diff(best, prepend=-1))
        for begin, stop in zip(begins.tolist(), [*begins[1:].tolist(), len(x)], strict=True):
            colour = svg.CLASSES[int(best[begin]) % len(svg.CLASSES)]
            left, right = edges[begin], edges[stop]
            self.canvas.parts.append(
                f'<g fill="{colour}"><title>{svg.text(names[best[begin]], 80)}</title>'
                f"{svg.rect(left, self.canvas.y, max(right - left, 0.6), LANE)}</g>"
            )
        self.canvas.parts.append(svg.label(LEFT - 5, self.canvas.y + 12, "class", "s r"))
        self.canvas.y += LANE + 3
        at = float(LEFT)
        for k, name in enumerate(names[:40]):
            wide = 24 + 6.2 * min(len(name), 24)
            if at + wide > LEFT + WIDTH:
                at, self.canvas.y = float(LEFT), self.canvas.y + SENTENCE
            self.canvas.parts.append(
                svg.rect(at, self.canvas.y + 2, 10, 10, "", f' fill="{svg.CLASSES[k % len(svg.CLASSES)]}"')
            )
            self.canvas.parts.append(svg.label(at + 14, self.canvas.y + 11, name, "s", 24))
            at += wide
        self.canvas.y += SENTENCE + APART
        up = self.canvas.scale(0.0, 1.0, STRIP)
        top = probability[np.arange(len(x)), best] if len(x) else np.zeros(0)
        self.canvas.parts.append(svg.path(svg.area(x, np.full(len(x), self.canvas.y + STRIP), up(top)), "sc"))
        self.canvas.axis(0.0, 1.0, STRIP, 1)
        self.canvas.parts.append(svg.label(LEFT + 5, self.canvas.y + 12, "its probability", "h"))
        self.canvas.y += STRIP + APART

    # --- alerts -----------------------------------------------------------------------------------------------------

    def _alerts(self, top: float) -> None:
        """The first variant's alerts over all rows; each says its sentence when the pointer rests on it."""
        bottom = self.canvas.y
        free = 0.0  # up to where the last number reaches
        for count, span in enumerate(self.variants[0][1][: self.alerts], 1):
            at = self.canvas.at(span.begin)
            mark = str(count) if at >= free else ""
            free = at + 7 * len(mark) + 3 if mark else free
            self._span(span, top, bottom - top - APART, mark)
        self.canvas.y = bottom + FOOT - APART

    def _lanes(self) -> None:
        """A lane for each variant, where there are several."""
        if len(self.variants) < 2:
            return
        for name, spans in self.variants:
            self.canvas.parts.append(svg.label(LEFT, self.canvas.y + 10, name, "", 90))
            count = sum(1 + s.more for s in spans)
            self.canvas.parts.append(
                svg.label(LEFT + WIDTH, self.canvas.y + 10, f"{count:,} alert{'s' * (count != 1)}", "s r")
            )
            self.canvas.y += 13
            self.canvas.parts.append(svg.rect(LEFT, self.canvas.y, WIDTH, 8, "g", ' fill="none"'))
            for span in spans[: self.alerts]:
                self._span(span, self.canvas.y, 8, "")
            self.canvas.y += LANE

    def _span(self, span: Span, top: float, height: float, mark: str) -> None:
        begin = self.canvas.at(span.begin)
        end = self.canvas.at(span.end if span.end is not None else self.canvas.seen()[1])
        kind = "n" if span.kind == "no-data" else MARKS.get(span.severity, "w")
        until = "still up" if span.end is None else span_text(span.begin, span.end)
        more = f" (and {span.more:,} more alerts, drawn as one)" if span.more else ""
        title = f"{span_text(span.begin, span.begin)[:19]}: {span.summary}\n{span.severity}, {until}{more}"
        words = "\n".join(svg.text(part) for part in title.split("\n"))
        solid = ' style="fill-opacity:.8"' if height < LANE else ""
        said = f'<text x="{svg.short(begin)}" y="{svg.short(top + 10)}" class="k">{mark}</text>' if mark else ""
        self.canvas.parts.append(
            f'<g class="a"><title>{words}</title>'
            f"{svg.rect(begin - 0.75, top, max(end - begin, 1.5), height, kind, solid)}{said}</g>"
        )
