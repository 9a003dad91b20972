"""The streams of a replay, once or in several variants side by side: other models, other budgets, the same readings.

Settings, files of models and turns in, events out. A model that several variants share is run once for all of them.
"""

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transom.core.events import Events
from transom.core.model import Manifest, Model, Outputs
from transom.core.pipeline import Pipeline, Turn
from transom.core.stream import StreamSpec
from transom.edge import recordings
from transom.edge.assembly import build_pipeline, load_model, stream_spec
from transom.errors import SettingsError, TransomError
from transom.flags import nearest
from transom.runtimes import choice, files
from transom.settings import Settings, StreamSettings, read

_NEXT = re.compile(r",\s*(?=[a-z_]+\s*=)")  # a comma that begins another key: "raise_after=2, 3" has none
_KEYS = tuple(key for key in StreamSettings.model_fields if key != "topic")
REMEMBERED = 4  # results kept for each stream that shares a model

Feed = tuple[str, str | None]  # what turns are made of: ("table", its only column or None) or ("recording", None)


class _Shared:
    """A model that remembers its latest answers, for the variants ask the same in turn."""

    def __init__(self, model: Model) -> None:
        self._model, self.most = model, REMEMBERED
        self._known: OrderedDict[tuple[tuple[int, ...], bytes], Outputs] = OrderedDict()

    @property
    def manifest(self) -> Manifest:
        return self._model.manifest

    @property
    def sha256(self) -> str:
        return self._model.sha256

    def infer(self, values: NDArray[np.float32]) -> Outputs:
        key = values.shape, values.tobytes()
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._model.infer(values)
            if len(self._known) > self.most:
                self._known.popitem(last=False)
        return known


class Models:
    """Loads each model file once. shared: several variants will use them."""

    def __init__(self, *, shared: bool) -> None:
        self._shared = shared
        self._loaded: dict[tuple[Path, str | None], Model] = {}

    def __call__(self, name: str, settings: Settings, sha256: str | None) -> Model:
        key = choice.find(name, settings.folder, settings.agent.runtime), sha256
        if key not in self._loaded:
            model = load_model(name, settings, sha256)
            # One that goes from step to step is asked for other steps each time.
            self._loaded[key] = _Shared(model) if self._shared and not model.manifest.state else model
        model = self._loaded[key]
        if isinstance(model, _Shared):
            model.most += REMEMBERED
        return model


class Variant:
    """One way to run the streams. label: as the user wrote it, "" for the configuration as it is."""

    def __init__(self, label: str, settings: Settings, models: Models, stream: str | None = None) -> None:
        """stream: the configured stream whose settings serve for CSV files. Nothing is loaded before it is needed."""
        self.label, self.settings = label, settings
        self._models, self._stream = models, stream
        self._table: tuple[StreamSpec, Model] | None = None
        self._pipelines: dict[Feed, Pipeline] = {}

    def load(self, kind: str) -> None:
        """Loads what turns of a kind need. Raises ModelError, SettingsError or TransomError."""
        if kind == "table":
            name, stream = _stream_for_tables(self.settings, self._stream)
            model = self._models(stream.model, self.settings, stream.model_sha256)
            self._table = stream_spec(name, stream, model.manifest), model
        else:
            assembly = build_pipeline(self.settings, self._models, guarded=False)
            if assembly.broken:
                raise SettingsError(list(assembly.broken.values()))
            self._pipelines["recording", None] = assembly.pipeline

    def take(self, feed: Feed, turn: Turn) -> Events:
        return self.pipeline(feed).take(turn)

    def flush(self, kind: str) -> Iterator[Events]:
        """The end of all turns of a kind."""
        for feed, pipeline in self._pipelines.items():
            if feed[0] == kind:
                yield pipeline.flush()

    def pipeline(self, feed: Feed) -> Pipeline:
        """The one that takes the turns of this feed."""
        if feed not in self._pipelines:  # files of one column and of several need different payloads
            assert self._table is not None
            spec, model = self._table
            self._pipelines[feed] = Pipeline([(recordings.table_stream(spec, feed[1]), model)])
        return self._pipelines[feed]

    @property
    def pipelines(self) -> Sequence[Pipeline]:
        return list(self._pipelines.values())

    @property
    def streams(self) -> Mapping[str, StreamSpec]:
        """By name, as they run."""
        found = {name: s.spec for p in self.pipelines for name, s in p.streams.items()}
        if self._table is not None:
            found.setdefault(self._table[0].name, self._table[0])
        return found


def varied(settings: Settings, text: str) -> Settings:
    """The settings with each stream changed as `key=value, key=value` says; keys are those of a stream.

    Raises TransomError naming the key and the remedy.
    """
    place = f"--compare {text!r}"
    given: dict[str, str] = {}
    for part in _NEXT.split(text):
        key, sign, value = part.partition("=")
        if not sign:
            raise TransomError(place, f"{part.strip()!r} is no key=value", 'write it like "false_alarms=1/day"')
        given[key.strip()] = value.strip()
    for key in given:
        if key not in _KEYS:
            meant = nearest(key, _KEYS)
            known = ", ".join(k for k in ("model", "false_alarms", "threshold", "raise_after", "hold_off", "step"))
            raise TransomError(
                place,
                f"a stream has no key {key!r} to compare",
                f"did you mean {meant}?" if meant else f"such as {known}",
            )
    flags: dict[str, Any] = {f"streams.compared.{key}": value for key, value in given.items()}
    reading = read(None, {"streams.compared.topic": "compared/{series}"} | flags)
    problems = [p for p in reading.problems if "streams.compared." in p.place]
    if problems or "compared" not in reading.streams:
        first = problems[0] if problems else TransomError(place, "cannot be read", "see docs/configuration.md")
        raise TransomError(f"{place}: {first.place.rpartition('.')[2]}", first.problem, first.remedy)
    parsed = reading.streams["compared"]
    change: dict[str, Any] = {key: getattr(parsed, key) for key in given}
    if "false_alarms" in given and "threshold" not in given:
        change["threshold"] = None
    if "model" in given and "model_sha256" not in given:
        change["model_sha256"] = None
    streams = {name: stream.model_copy(update=change) for name, stream in settings.streams.items()}
    return settings.model_copy(update={"streams": streams})


def with_model(settings: Settings, model: str) -> Settings:
    """The settings with another model for each stream: a shipped one's name, or a file, relative to where we are."""
    file = Path(model).expanduser()
    found = str(file.absolute()) if file.exists() and model not in files.shipped_models() else model
    if found == model and ("/" in model or file.suffix):
        files.find_model(model, Path())  # says what is missing
    change = {"model": found, "model_sha256": None}
    streams = {name: stream.model_copy(update=change) for name, stream in settings.streams.items()}
    return settings.model_copy(update={"streams": streams})


def _stream_for_tables(settings: Settings, name: str | None) -> tuple[str, StreamSettings]:
    if name is not None:
        if name not in settings.streams:
            known = ", ".join(settings.streams) or "none"
            raise TransomError("--stream", f"no stream {name!r} is configured", f"configured: {known}")
        return name, settings.streams[name]
    if len(settings.streams) > 1:
        known = ", ".join(settings.streams)
        raise TransomError("--stream", "several streams are configured", f"say which serves for CSV files: {known}")
    return next(iter(settings.streams.items()))
