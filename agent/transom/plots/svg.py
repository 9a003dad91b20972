"""The words of SVG that our pictures use: escaped text, paths of few bytes, and the two suits, light and dark.

No script, no font from elsewhere, nothing that a viewer would have to fetch.
"""

import re
from collections.abc import Iterable
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

# What XML 1.0 does not allow, and characters that turn the direction of text or hide it (a series may be named so).
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")

# class: (light, dark). Blue against green and orange stays apart for the colour-blind; classes after Okabe and Ito.
_INK = {
    "paper": ("#ffffff", "#15181b"), "text": ("#1b1f23", "#e8eaed"), "soft": ("#5c6670", "#9aa4ae"),
    "grid": ("#e3e7eb", "#2b3138"), "value": ("#1a5fb4", "#78b4ff"), "band": ("#2e9e73", "#46c795"),
    "score": ("#6f55b5", "#b09cf5"), "over": ("#c01c28", "#ff7b7b"), "warning": ("#e07b00", "#ffb14a"),
    "critical": ("#c01c28", "#ff7b7b"), "silent": ("#5c6670", "#9aa4ae"),
}  # fmt: skip
CLASSES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a500", "#7f7f7f")


def _suit(which: int) -> str:
    c = {name: pair[which] for name, pair in _INK.items()}
    return (
        f".paper{{fill:{c['paper']}}}text{{fill:{c['text']}}}text.h{{stroke:{c['paper']}}}text.s{{fill:{c['soft']}}}"
        f".g{{stroke:{c['grid']}}}.v{{stroke:{c['value']}}}.e{{stroke:{c['band']}}}.b{{fill:{c['band']}}}"
        f".f{{fill:{c['value']}}}.sc{{fill:{c['score']}}}.bar{{stroke:{c['over']}}}.ov{{fill:{c['over']}}}"
        f".w{{fill:{c['warning']};stroke:{c['warning']}}}.c{{fill:{c['critical']};stroke:{c['critical']}}}"
        f".n{{fill:{c['silent']};stroke:{c['silent']}}}"
    )


STYLE = (
    "text{font:11px system-ui,-apple-system,'Segoe UI',sans-serif;white-space:pre}"
    "text.t{font-size:14px;font-weight:600}"
    "text.h{paint-order:stroke;stroke-width:3px;stroke-opacity:.8}text.m{text-anchor:middle}text.r{text-anchor:end}.g{stroke-width:1;fill:none}.v{stroke-width:1.2;fill:none}"
    ".e{stroke-width:1;fill:none;stroke-opacity:.8}.b{fill-opacity:.28}.f{fill-opacity:.22}.sc{fill-opacity:.75}"
    ".bar{stroke-width:1;fill:none;stroke-dasharray:4 3}.v,.e{stroke-linejoin:round}"
    ".a rect{fill-opacity:.2;stroke-opacity:.55;stroke-width:.6}.k{stroke:none}"
    f"{_suit(0)}@media(prefers-color-scheme:dark){{{_suit(1)}}}"
)


def text(words: str, most: int = 10_000) -> str:
    """As the content of an element: escaped, without what XML forbids or what turns text round, at most so long."""
    clean = _FORBIDDEN.sub("\ufffd", words)
    return escape(clean if len(clean) <= most else clean[: most - 1] + "…", {'"': "&quot;", "'": "&apos;"})


def label(x: float, y: float, words: str, kind: str = "", most: int = 10_000) -> str:
    chosen = f' class="{kind}"' if kind else ""
    return f'<text x="{short(x)}" y="{short(y)}"{chosen}>{text(words, most)}</text>'


def rect(x: float, y: float, width: float, height: float, kind: str = "", extra: str = "") -> str:
    chosen = f' class="{kind}"' if kind else ""
    return (
        f'<rect x="{short(x)}" y="{short(y)}" width="{short(max(width, 0))}" height="{short(height)}"{chosen}{extra}/>'
    )


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<path class="{kind}" d="M{short(x1)} {short(y1)}L{short(x2)} {short(y2)}"/>'


def path(data: str, kind: str, extra: str = "") -> str:
    return f'<path class="{kind}"{extra} d="{data}"/>' if data else ""


def short(value: float) -> str:
    """A coordinate to a tenth of a pixel, without a needless zero."""
    return f"{value:.1f}".removesuffix(".0")


def runs(x: NDArray[np.float64], there: NDArray[np.bool_]) -> Iterable[NDArray[np.int64]]:
    """Indices of stretches without a hole: a missing value ends one, and so does a gap of many usual spacings."""
    held = np.flatnonzero(there)
    if not len(held):
        return
    step = np.diff(x[held])
    usual = float(np.median(step)) if len(step) else 0.0
    hole = (np.diff(held) > 1) | (step > np.maximum(6 * usual, 2.0))
    yield from np.split(held, np.flatnonzero(hole) + 1)


def trail(x: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> str:
    """A line through columns, from the smallest to the largest of each, as a path's data. y grows downwards."""
    parts = []
    for run in runs(x, np.isfinite(low) & np.isfinite(high)):
        points, at = [], 0.0
        for i in run.tolist():
            a, b = (low[i], high[i]) if abs(low[i] - at) <= abs(high[i] - at) else (high[i], low[i])
            points.append(f"{short(x[i])} {short(a)}")
            if abs(a - b) >= 0.1:
                points.append(f"{short(x[i])} {short(b)}")
            at = b
        if len(points) == 1:  # one value alone: a dot, or a line of no length would be invisible
            points.append(f"{short(x[run[0]] + 0.8)} {points[0].partition(' ')[2]}")
        parts.append("M" + "L".join(points))
    return "".join(parts)


def area(x: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> str:
    """What lies between two lines, as a path's data."""
    parts = []
    for run in runs(x, np.isfinite(low) & np.isfinite(high)):
        i = run if len(run) > 1 else np.repeat(run, 2)
        xs = x[i] + (np.array([-0.4, 0.4]) if len(run) == 1 else 0.0)
        there = [f"{short(a)} {short(b)}" for a, b in zip(xs, high[i], strict=True)]
        back = [f"{short(a)} {short(b)}" for a, b in zip(xs[::-1], low[i][::-1], strict=True)]
        parts.append("M" + "L".join(there + back) + "Z")
    return "".join(parts)
