"""Throughput and latency against the number of series as an SVG, readable on light and dark. Results in, text out."""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 70, 70, 40, 46
STYLE = """
text{font:13px system-ui,sans-serif;fill:#333} .grid{stroke:#8886;stroke-width:1} .line{fill:none;stroke-width:2}
.a{stroke:#0a6ebd;fill:#0a6ebd} .b{stroke:#c2410c;fill:#c2410c} .c{stroke:#c2410c;fill:#c2410c;stroke-dasharray:5 4}
text.a,text.b{stroke:none}
@media (prefers-color-scheme:dark){text{fill:#ddd} .a{stroke:#5eb1ef;fill:#5eb1ef} .b,.c{stroke:#fb923c;fill:#fb923c}}
path.line{fill:none}"""


def picture(points: Sequence[dict[str, Any]], title: str) -> str:
    """points: series, rate, p50_ms and p99_ms of each. Series and latency on logarithmic axes, the rate from 0."""
    counts = [p["series"] for p in points]
    x = _log(min(counts), max(counts), LEFT, WIDTH - RIGHT)
    most = _round_up(max(p["rate"] for p in points))
    low = 10 ** math.floor(math.log10(max(1e-3, min(p["p50_ms"] for p in points))))
    high = 10 ** math.ceil(math.log10(max(p["p99_ms"] for p in points)))
    rate = _linear(0, most, HEIGHT - BOTTOM, TOP)
    latency = _log(low, max(high, 10 * low), HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        _text(6, 18, "readings/s", "a"), _text(WIDTH - RIGHT + 8, 18, "ms", "b"),
        _text(WIDTH / 2, HEIGHT - 6, "series", "", "middle"), _text(WIDTH / 2, 18, title, "", "middle"),
    ]  # fmt: skip
    for i in range(5):
        level = most * i / 4
        parts.append(f'<path class="grid" d="M{LEFT} {rate(level):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 8, rate(level) + 4, f"{level:,.0f}", "a", "end"))
    powers = [10.0**n for n in range(round(math.log10(low)), round(math.log10(max(high, 10 * low))) + 1)]
    parts += [_text(WIDTH - RIGHT + 8, latency(power) + 4, f"{power:,g}", "b") for power in powers]
    parts += [_text(x(n), HEIGHT - BOTTOM + 20, f"{n:,}", "", "middle") for n in counts]
    for key, scale, colour, name in (
        ("rate", rate, "a", "readings/s"), ("p50_ms", latency, "b", "p50"), ("p99_ms", latency, "c", "p99"),
    ):  # fmt: skip
        at = [(x(p["series"]), scale(max(p[key], low) if key != "rate" else p[key])) for p in points]
        parts.append(f'<path class="line {colour}" d="M' + "L".join(f"{a:.1f} {b:.1f}" for a, b in at) + '"/>')
        parts += [f'<circle class="{colour}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in at]
        parts.append(_text(at[-1][0] - 6, at[-1][1] - 8, name, "a" if colour == "a" else "b", "end"))
    return "\n".join([*parts, "</svg>\n"])


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _linear(low: float, high: float, begin: float, end: float) -> Callable[[float], float]:
    return lambda value: begin + (end - begin) * (value - low) / (high - low)


def _log(low: float, high: float, begin: float, end: float) -> Callable[[float], float]:
    span = math.log(high / low) or 1.0
    return lambda value: begin + (end - begin) * math.log(value / low) / span


def _round_up(value: float) -> float:
    """The next 1, 2, 4 or 8 times a power of ten."""
    power = 10 ** math.floor(math.log10(max(value, 1.0)))
    return float(next(power * n for n in (1, 2, 4, 8, 10) if power * n >= value))
