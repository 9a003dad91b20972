"""Files to turns for a replay: CSV files side by side, recordings one after the other, with a bar that moves.

Paths in; turns, and of which kind they are, out.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.progress import Progress, TaskID

from transom.core.pipeline import Message, Turn
from transom.edge import recordings
from transom.edge.variants import Feed


class Tables:
    """CSV files, side by side, as turns of the shapes that they have."""

    def __init__(self, paths: Sequence[Path], progress: Progress) -> None:
        self._tables = [recordings.open_table(p, name) for p, name in recordings.series_names(paths).items()]
        self._progress = progress

    def __iter__(self) -> Iterator[tuple[Feed, Turn]]:
        task = self._progress.add_task("replay", total=None)
        for batch in recordings.table_messages(self._tables):
            by_shape: dict[str | None, list[Message]] = {}
            for table, messages in batch:
                by_shape.setdefault(table.shape, []).extend(messages)
            for shape, messages in by_shape.items():
                yield ("table", shape), Turn(messages)
            done, size = (sum(getattr(t.source, name) for t in self._tables) for name in ("done", "size"))
            self._progress.update(task, completed=done, total=size)

    def bad(self) -> dict[str, int]:
        """Cells that are no number, by the first of them in each file, and columns that hold none."""
        found = {}
        for opened in self._tables:
            if left := opened.table.left:
                some = "column" if len(left) == 1 else "columns"
                found[f"{some} of {opened.source.path} left out, without numbers: {opened.table.left_out}"] = len(left)
            bad = opened.table.bad
            if bad.count:
                first = bad.cells[0]
                place = f"first in line {first.line}, column {first.column}: {first.text!r}"
                found[f"cells in {opened.source.path} that are no number or time, {place}"] = bad.count
        return found


class Logs:
    """Recordings of ours, one after the other, as the turns that were."""

    def __init__(self, paths: Sequence[Path], progress: Progress) -> None:
        begun = {path: recordings.beginning(path) for path in paths}
        self._progress = progress
        # `day.jsonl day.2.jsonl day.10.jsonl`, in whatever order a shell names them; those that do not say stay put.
        self._paths = (
            sorted(paths, key=lambda p: found.time if (found := begun[p]) else "") if all(begun.values()) else paths
        )

    def __iter__(self) -> Iterator[tuple[Feed, Turn]]:
        last = None
        for path in self._paths:
            source = recordings.open_source(path, cut=True)
            task: TaskID = self._progress.add_task(path.name, total=source.size)
            for turn in recordings.recorded_turns(source, last):
                last = turn.now if turn.now is not None else last
                yield ("recording", None), turn
                self._progress.update(task, completed=source.done)

    def bad(self) -> dict[str, int]:
        return {}
