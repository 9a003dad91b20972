"""What a demo has seen of its agent's events: the view, the forecasts and the recognitions. Events in, lines out."""

from collections.abc import Iterator

from transom.core.events import Events, shown
from transom.core.pipeline import Pipeline
from transom.scenes import Outlook, Scene, Simulation
from transom.verbs.verdict import Forecasts, Recognitions
from transom.verbs.view import View, ahead


class Watch:
    """Takes every event of a pipeline that watches a scene."""

    def __init__(self, place: Scene, pipeline: Pipeline, simulation: Simulation) -> None:
        self.steps: dict[str, int | None] = {}
        self.units: dict[tuple[str, str], str] = {}
        self.forecasts: dict[str, Forecasts] = {}
        self.recognitions: dict[str, Recognitions] = {}
        self._horizons: dict[str, int] = {}
        for name, stream in pipeline.streams.items():
            manifest, grid = stream.model.manifest, stream.spec.grid
            step = self.steps[name] = None if grid.step is None else 1000 * grid.step
            self.units |= {(name, c.name): c.unit for c in manifest.channels}
            self.units |= {(name, c.name): c.unit for c in stream.spec.payload.channels if c.unit}
            if manifest.task == "forecast":
                outlook = place.outlooks.get(name, Outlook())
                self.forecasts[name] = Forecasts(outlook, step, stream.spec.stride)
                self._horizons[name] = manifest.horizon - 1 + manifest.lead
            if manifest.task == "classify":
                beat = 1000 / place.rate if place.pace is None else place.pace
                span = round((manifest.length - 1) * (grid.step or beat))
                self.recognitions[name] = Recognitions(span, simulation)
        earth = frozenset(name for name, outlook in place.outlooks.items() if outlook.degrees)
        self.view = View(self.units, self.steps, earth)

    def take(self, events: Events) -> None:
        self.view.take(events)
        for batch in events.predictions:
            if batch.stream in self.forecasts:
                self.forecasts[batch.stream].take(batch)
            if batch.stream in self.recognitions:
                self.recognitions[batch.stream].take(batch)

    @property
    def better(self) -> bool:
        """Whether forecasts and recognitions are better than naive ones; True where there are none."""
        return all(f.better for f in self.forecasts.values()) and all(r.better for r in self.recognitions.values())

    def lines(self) -> Iterator[str]:
        """A sentence a target that was forecast and a stream that was recognised."""
        for name, forecasts in self.forecasts.items():
            horizon = ahead(self._horizons[name], self.steps[name])
            if not forecasts.errors:
                yield f"{name}: no forecast for {horizon} ahead has come true yet"
            for target, e in forecasts.errors.items():
                unit = next((u for (s, c), u in self.units.items() if s == name and c == target), "")
                if forecasts.outlook.plane:
                    unit = next((u for (s, _), u in self.units.items() if s == name and u), "")
                    unit = "m" if forecasts.outlook.degrees else unit
                yield (
                    f"{name}: {target} in {horizon} off by {shown((e.model / e.count) ** 0.5)} {unit}".rstrip()
                    + f" (root mean square of {e.count}; {forecasts.outlook.naive_name} "
                    f"{shown((e.naive / e.count) ** 0.5)}); "
                    f"{100 * e.inside / e.count:.0f} % within the interval"
                )
        for name, found in self.recognitions.items():
            total = len(found.stretches)
            yield f"{name}: recognised {found.right} of {total} (always the most frequent: {found.naive})"
