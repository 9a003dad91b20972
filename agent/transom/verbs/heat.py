"""An explanation on a terminal: a sentence, a table of channels, and where in the window it lies, for any width.

The object of `dialects/explanations.py` in, from a recording or from a running agent; rich renderables out.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from transom.core.events import shown
from transom.core.printable import printable
from transom.verbs.view import BLOCKS, sparkline

NARROWEST = 16  # columns of the picture
NAME = 24  # columns of a channel's name, at most
SHOWN = 16  # channels, those with the largest shares


def sheet(found: Mapping[str, Any], width: int) -> RenderableType:
    """found: as `explanations.body` makes it; width: columns of the terminal."""
    head = Text.assemble(
        (printable(f"{found['stream']}/{found['series']}"), "bold"), f"  {found['time'] or 'the last window'}  ",
        (printable(found["model"]), "dim"),
    )  # fmt: skip
    parts: list[RenderableType] = [head, Text(printable(found["summary"])), Text(), _channels(found), Text()]
    parts += [*_picture(found, width), Text(), Text(_check(found), "dim")]
    if len(found["channels"]) > SHOWN:
        parts.append(Text(f"shown are {SHOWN} of {len(found['channels'])} channels; --json has all", "dim"))
    if found.get("note"):
        parts.append(Text(printable(found["note"]), "dim"))
    return Group(*parts)


def _channels(found: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("channel", overflow="ellipsis", max_width=NAME)
    for name in ("last value", "mean", "reference", "share", "%"):
        table.add_column(name, justify="right", no_wrap=True)
    own = any("contribution" in c for c in found["channels"])
    if own:
        table.add_column("the model's own", justify="right", no_wrap=True)
    for c in found["channels"][:SHOWN]:
        unit = f" {c['unit']}" if c["unit"] else ""
        cells = [_value(c["value"]) + unit, _value(c["mean"]), _value(c["reference_mean"])]
        cells += [f"{c['share'] or 0:+.4g}", f"{c['percent']:+.1f}"]
        cells += [_value(c.get("contribution"))] if own else []
        table.add_row(*(Text(printable(cell)) for cell in (c["channel"], *cells)))
    return table


def _picture(found: Mapping[str, Any], width: int) -> list[Text]:
    """Two lines a channel: its values, and below them what each stretch of steps added (red) or took away (blue)."""
    names = list(found["share"])[:SHOWN]
    pad = min(NAME, max(map(len, names), default=0)) + 1
    room = max(NARROWEST, width - pad - 1)
    shares = [np.array([v or 0.0 for v in found["share"][n]]) for n in names]
    steps = len(shares[0]) if shares else 0
    edges = np.unique(np.linspace(0, steps, min(room, steps) + 1).astype(int))
    heat = [np.array([s[a:b].sum() for a, b in itertools.pairwise(edges)]) for s in shares]
    most = max((float(np.abs(row).max()) for row in heat if len(row)), default=0.0)
    lines: list[Text] = []
    for name, row in zip(names, heat, strict=True):
        values = [_middle(found["window"][name][a:b]) for a, b in itertools.pairwise(edges)]
        lines.append(Text(f"{printable(name)[: pad - 1]:{pad}}{_line(values)}"))
        bar = Text(" " * pad)
        for v in row.tolist():
            level = round(8 * abs(v) / most) if most else 0
            bar.append(BLOCKS[level - 1] if level else "·", style="red" if v > 0 else "blue" if v < 0 else "dim")
        lines.append(bar)
    times = found["times"]
    left = times[0] if times else f"{steps - 1} steps before"
    right = times[-1] if times else "the last step"
    drawn = max(0, len(edges) - 1)
    if len(left) + len(right) < drawn:
        lines.append(Text(" " * pad + left + right.rjust(drawn - len(left)), "dim"))
    else:
        lines.append(Text(f"{'':{pad}}{left} to {right}", "dim"))
    return lines


def _check(found: Mapping[str, Any]) -> str:
    difference = (found["value"] or 0.0) - (found["reference_value"] or 0.0)
    pieces = found["pieces"]
    how = f"integrated gradients, {pieces} pieces" if found["method"] != "occlusion" else f"occlusion, {pieces} windows"
    text = f"check: the shares add up to {found['sum']:.4g}; {found['target']} less that of the reference is "
    text += f"{difference:.4g} ({how})"
    if found["method"] == "occlusion":
        text += "; shares of occlusion need not add up to it"
    return text


def _line(values: Sequence[float | None]) -> str:
    """A sparkline in which a gap stays a gap."""
    blocks = iter(sparkline([v for v in values if v is not None], len(values)))
    return "".join(" " if v is None else next(blocks) for v in values)


def _middle(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def _value(value: float | None) -> str:
    return "" if value is None else shown(value)
