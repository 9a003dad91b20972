"""`transom explain`: why a window scored as it did, from a recording or from a running agent.

A recording and a model in; a sentence, a table and a picture for people, or one JSON object, out.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from transom.core import explain as explaining
from transom.core.events import Events
from transom.core.model import Outputs, Windows
from transom.core.ordinary import Ordinary
from transom.core.pipeline import Pipeline, Turn
from transom.core.printable import printable
from transom.core.stream import Stream
from transom.dialects import explanations
from transom.edge import asking, recordings
from transom.edge.variants import Models, Variant, with_model
from transom.errors import TransomError
from transom.flags import settings_arguments
from transom.settings import load_settings
from transom.verbs import heat, replay
from transom.verbs.feeds import Logs, Tables

EXAMPLES = """\
transom explain pump.csv --model pump.pt                       the window of the first alert, or largest score
transom explain pump.csv --model pump.pt --at 2026-03-01T12:00 the window that ends then
transom explain day.jsonl -c plant.toml --series pumps/hall/pump-1/vibration
transom explain etth1.csv --model etth1.pt --target OT@96      what moved the forecast of OT 96 steps ahead
transom explain pump.csv --model pump.pt --json | jq .channels[0]
transom explain --live -c plant.toml --series pumps/hall/pump-1/vibration  the last window of a running agent"""

PORTION = 16  # messages at a time: a window is compared with an ordinary one from before its portion
METHODS = {"gradients": "integrated gradients", "occlusion": "occlusion"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    settings_arguments(parser)
    parser.add_argument("input", nargs="*", type=Path, metavar="INPUT", help="CSV or recording (.jsonl), plain or .gz")
    parser.add_argument("--model", help="a model file or a shipped model's name, instead of the configured one")
    parser.add_argument("--stream", help="the configured stream whose settings serve for CSV files")
    parser.add_argument("--series", help="stream/series, or a series where one stream has it (default: any)")
    parser.add_argument("--at", metavar="TIME", help="when the window ends, or just before (ISO 8601, UTC; default: "
                        "that of the first alert, else of the largest score, else the last)")  # fmt: skip
    parser.add_argument("--target", help="a class, or a forecast's channel[@step] (default: the score, the likeliest "
                        "class, the last step of the first channel)")  # fmt: skip
    parser.add_argument("--steps", type=int, default=explaining.STEPS, help="pieces of the integral, 16 to 64")
    parser.add_argument("--method", choices=METHODS, help="default: gradients where the model has them")
    parser.add_argument("--live", action="store_true", help="ask the running agent (agent.remote must allow explain)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the sheet")


def run(args: argparse.Namespace) -> int:
    if not explaining.FEWEST <= args.steps <= explaining.MOST:
        raise TransomError("--steps", f"{args.steps} pieces", f"choose {explaining.FEWEST} to {explaining.MOST}")
    found = _live(args) if args.live else _recorded(args)
    if args.json:
        print(printable(json.dumps(found, ensure_ascii=False)))
        return 0
    console = Console(file=sys.stdout)
    console.print(heat.sheet(found, console.width), soft_wrap=False)
    return 0


def _live(args: argparse.Namespace) -> dict[str, Any]:
    if args.input or args.at or args.model or args.stream:
        raise TransomError("--live", "asks for the last window of a running agent", "leave INPUT, --at, --model and "
                           "--stream out")  # fmt: skip
    stream, _, series = (args.series or "").partition("/")
    if not series:
        raise TransomError("--series", f"{args.series!r} names no series", "write stream/series")
    settings = load_settings(args.config, args.overrides, need_streams=False)
    body: dict[str, Any] = {"stream": stream, "series": series, "pieces": args.steps}
    body |= {"target": args.target} if args.target else {}
    body |= {"method": METHODS[args.method]} if args.method else {}
    return asking.ask(settings, "explain", body, timeout=30.0)


# --- from a recording ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chosen:
    """A window that may be the one. end: µs; rank: the higher the better."""

    stream: Stream
    series: int
    name: str
    end: int
    window: NDArray[np.float32]
    ordinary: NDArray[np.float32] | None
    rank: float


class Looker:
    """seen: windows, outputs and, for each window, what was ordinary before its batch."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self._ordinary = stream, Ordinary(stream)
        self.seen: list[tuple[Windows, Outputs, list[NDArray[np.float32] | None]]] = []

    def look(self, windows: Windows, outputs: Outputs) -> None:
        self.seen.append((windows, outputs, [self._ordinary.reference(i) for i in windows.series.tolist()]))
        self._ordinary.look(windows, outputs)

    def reset(self, series: NDArray[np.int32]) -> None:
        self._ordinary.reset(series)


class Search:
    """Looks on while a recording runs through pipelines, and keeps the window that was asked for."""

    def __init__(self, series: str | None, at: int | None) -> None:
        """series: as given, None for any; at: µs, when the window ends at the latest, None for the most remarkable."""
        self._wanted, self._at = series, at
        self._seen: dict[int, Looker] = {}
        self.chosen: Chosen | None = None
        self.raised = self.over = False
        self.names: set[str] = set()

    def watch(self, pipeline: Pipeline) -> None:
        """To be called before each turn; the first time it begins to look on."""
        for stream in pipeline.streams.values():
            if id(stream) in self._seen:
                continue
            self._seen[id(stream)] = looker = Looker(stream)
            stream.onlooker = looker

    def take(self, events: Events) -> None:
        """What came of the messages since the last call."""
        raised = {(a.stream, a.series, a.time) for a in events.alerts if a.event == "raise" and a.kind == "anomaly"}
        for looker in self._seen.values():
            for windows, outputs, before in looker.seen:
                self._look(looker.stream, windows, outputs, before, raised)
            looker.seen.clear()

    def _look(self, stream: Stream, windows: Windows, outputs: Outputs, before: Any, raised: set[Any]) -> None:
        for row, (i, end) in enumerate(zip(windows.series.tolist(), windows.end.tolist(), strict=True)):
            name = stream.intake.names[i]
            self.names.add(f"{stream.spec.name}/{name}")
            if self._wanted not in (None, name, f"{stream.spec.name}/{name}"):
                continue
            if self._at is not None:
                if end > self._at:
                    self.over = True
                    continue
                rank = float(end)
            elif self.raised:
                continue
            elif (stream.spec.name, name, end) in raised:
                rank, self.raised = np.inf, True
            else:
                rank = float(outputs["score"][row]) if "score" in outputs else float(end)
            if not np.isnan(rank) and (self.chosen is None or rank > self.chosen.rank):
                self.chosen = Chosen(stream, i, name, end, windows.values[row].copy(), before[row], rank)

    @property
    def done(self) -> bool:
        """True when nothing later can be the one."""
        return self.raised


def _recorded(args: argparse.Namespace) -> dict[str, Any]:
    if not args.input:
        raise TransomError("INPUT", "no recording is named", "give one, or --live for a running agent")
    settings = load_settings(args.config, args.overrides, need_streams=False)
    search = Search(args.series, _time(args.at) if args.at else None)
    tables = [p for p in args.input if recordings.is_table(p)]
    logs = [p for p in args.input if not recordings.is_table(p)]
    with ExitStack() as stack:
        progress = stack.enter_context(replay.progress_bar(Console(stderr=True)))
        for kind, paths in (("table", tables), ("recording", logs)):
            if paths and not search.done:
                streams = replay.streams_for(kind, settings, args, paths)
                streams = with_model(streams, args.model) if args.model is not None else streams
                variant = Variant("", streams, Models(shared=False), args.stream)
                variant.load(kind)
                _drive(Tables(paths, progress) if kind == "table" else Logs(paths, progress), variant, search)
                for events in variant.flush(kind) if not search.done else ():
                    search.take(events)
    chosen = search.chosen
    if chosen is None:
        names = sorted(search.names)
        known = f"{', '.join(names[:5])}{' …' if len(names) > 5 else ''}" if names else "no series had a window"
        what = f"no window of {args.series!r}" if args.series else "no window"
        raise TransomError(str(args.input[0]), f"{what}{f' ends by {args.at}' if args.at else ''}", f"there: {known}")
    return explained(chosen, args.target, args.steps, METHODS[args.method] if args.method else None)


def _drive(feed: Tables | Logs, variant: Variant, search: Search) -> None:
    for of, turn in feed:
        pipeline = variant.pipeline(of)
        search.watch(pipeline)
        for part in _cut(turn):
            search.take(pipeline.take(part))
            if search.done:
                return


def _cut(turn: Turn) -> Iterator[Turn]:
    """The same, a few messages at a time: any split gives the same events."""
    for begin in range(0, max(len(turn.messages), 1), PORTION):
        part = Turn(turn.messages[begin : begin + PORTION])
        if begin == 0:
            part = part._replace(jump=turn.jump, shed=turn.shed, refused=turn.refused, calls=turn.calls)
        yield part._replace(now=turn.now) if begin + PORTION >= len(turn.messages) else part


def explained(chosen: Chosen, target: str | None, steps: int, method: Any) -> dict[str, Any]:
    """The object of `explanations.body`."""
    stream, m = chosen.stream, chosen.stream.model.manifest
    against, words = explaining.reference(m, chosen.window, chosen.ordinary)
    found = explaining.explain(stream.model, chosen.window, against, target, steps, method)
    place = explanations.Place(
        stream.spec.name, chosen.name, m.label, stream.intake.labels[chosen.series], stream.intake.units(chosen.series),
        chosen.end, stream.spec.grid.step, words, explanations.note(m),
    )  # fmt: skip
    return explanations.body(found, place)


def _time(text: str) -> int:
    """µs since 1970. Raises TransomError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise TransomError("--at", f"{text!r} is no time", "write it as 2026-03-01T12:00:00Z") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000)
