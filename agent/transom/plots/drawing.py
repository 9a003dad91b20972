"""Traces to one SVG: a panel a series below each other, the series with alerts first, in a file of bounded size.

Traces in, text out. What is left out is said in the picture.
"""

from collections.abc import Callable, Sequence

from transom import __version__
from transom.plots import svg
from transom.plots.axes import span_text
from transom.plots.canvas import LEFT, RIGHT, WIDTH, Canvas
from transom.plots.panel import About, Panel
from transom.plots.traces import Key, Traces

SERIES = 12  # panels, when nothing is said
LARGEST = 2_000_000  # bytes of a picture
COLUMNS = 12_000  # columns of all rows together
FINEST, COARSEST = 1000, 40  # columns of a row
ALERTS = 1200  # drawn one by one, in all panels
COMMON = 1.5  # panels share one axis of time where that is at most so many times the usual length of theirs


def draw(
    traces: Traces, about: Callable[[str], About], variants: Sequence[str] = ("",), most: int = SERIES, title: str = ""
) -> str:
    """The picture. about: of a stream by name; variants: a label for each set of alerts that `traces` took; most: how
    many series; title: of the recording."""
    keys = traces.order()
    chosen = keys[:most]
    columns = min(FINEST, max(COARSEST, COLUMNS // max(1, sum(_rows(traces, key) for key in chosen))))
    alerts = ALERTS // max(1, len(chosen) * len(variants))
    while True:
        hidden = len(keys) - len(chosen) + len(traces.left_out)
        picture = _picture(traces, about, variants, chosen, title, hidden, columns, max(4, alerts))
        size = len(picture.encode())
        if size < LARGEST or not chosen:
            return picture
        share = min(0.8, 0.9 * LARGEST / size)
        if columns <= COARSEST // 4:
            chosen = chosen[: int(share * len(chosen))]
        columns, alerts = max(COARSEST // 4, int(share * columns)), int(share * alerts)


def _picture(
    traces: Traces, about: Callable[[str], About], variants: Sequence[str], chosen: Sequence[Key], title: str,
    hidden: int, columns: int, alerts: int,
) -> str:  # fmt: skip
    """columns: of each row; alerts: of each panel and variant that are drawn one by one."""
    width, y = LEFT + WIDTH + RIGHT, 58.0
    spans = _axes(traces, chosen)
    body: list[str] = []
    for key in chosen:
        group, trace = traces[key]
        of = [(label, traces.spans[i].get(key, [])) for i, label in enumerate(variants)]
        panel = Panel(Canvas(group, trace, spans[key], columns), about(key[0]), of, alerts)
        parts, height = panel.draw()
        body += [f'<g transform="translate(0 {svg.short(y)})">', *parts, "</g>"]
        y += height + 26
    if not chosen:
        body.append(svg.label(LEFT, y, "no series has a window yet: the recording is shorter than the model's context"))
        y += 30
    head = _head(title or "replay", traces, chosen, hidden)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y:.0f}" viewBox="0 0 {width} {y:.0f}" '
        f'role="img"><title>{svg.text(title or "replay", 200)}</title>'
        f"<desc>drawn by Transom {__version__}</desc><style>{svg.STYLE}</style>"
        f'<rect class="paper" width="{width}" height="{y:.0f}"/>\n' + "\n".join([*head, *body]) + "\n</svg>\n"
    )


def _head(title: str, traces: Traces, chosen: Sequence[Key], hidden: int) -> list[str]:
    """The title, what is left out, and the legend."""
    parts = [svg.label(LEFT, 22, title, "t", 110)]
    if hidden:
        parts.append(svg.label(LEFT + WIDTH, 22, f"{hidden:,} more series are not drawn (--plot-series)", "s r"))
    forecast = any(traces[key][0].targets for key in chosen)
    scored = any(not traces[key][0].targets and not traces[key][0].classes for key in chosen)
    items = [("v", "value")]
    items += [("b", "forecast, made a horizon before"), ("f", "latest forecast")] if forecast else []
    items += [("b", "expected"), ("sc", "score"), ("bar", "over the bar")] if scored else []
    items += [("w", "alert"), ("c", "critical"), ("n", "no data")] if any(map(bool, traces.spans)) else []
    x = float(LEFT)
    for kind, words in items:
        if kind in ("v", "bar"):
            parts.append(f'<path class="{kind}" style="stroke-dasharray:none;stroke-width:2" d="M{x} 41h16"/>')
        else:
            faint = ' style="fill-opacity:.45;stroke:none"' if kind in "wcn" else ""
            parts.append(svg.rect(x, 36, 16, 10, kind, faint))
        parts.append(svg.label(x + 21, 45, words, "s"))
        x += 44 + 5.6 * len(words)
    return parts


def _rows(traces: Traces, key: Key) -> int:
    group, _ = traces[key]
    return group.channels + group.targets + 2


def _axes(traces: Traces, chosen: Sequence[Key]) -> dict[Key, tuple[int, int]]:
    """The axis of time of each panel: one for all where they are of the same time, else its own."""
    own = {}
    for key in chosen:
        group, trace = traces[key]
        begin, end = int(group.columns.begin[trace.row]), int(group.columns.end[trace.row])
        if trace.forecast is not None:
            end = max(end, trace.last + (len(trace.forecast) - 1 + trace.lead) * trace.step)
        own[key] = begin, max(end, begin + 1)
    if not own:
        return own
    begin, end = min(b for b, _ in own.values()), max(e for _, e in own.values())
    usual = sorted(e - b for b, e in own.values())[len(own) // 2]
    return dict.fromkeys(own, (begin, end)) if end - begin <= COMMON * usual else own


def period(traces: Traces) -> str:
    """The time that all traces cover, for a person; "" when there are none."""
    times = [
        (int(g.columns.begin[t.row]), int(g.columns.end[t.row])) for g, t in map(traces.__getitem__, traces.order())
    ]
    return span_text(min(b for b, _ in times), max(e for _, e in times)) if times else ""
