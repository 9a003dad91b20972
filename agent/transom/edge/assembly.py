"""Settings and model files to a pipeline that is ready to run. Every problem is reported at once.

Opens model files; talks to no broker.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from transom.core.admission import GridSpec
from transom.core.alerts import AlertSpec
from transom.core.model import ANY, Manifest, Model
from transom.core.payloads import PayloadSpec
from transom.core.pipeline import Pipeline
from transom.core.proof import ProofSpec
from transom.core.stream import StreamSpec
from transom.core.values import ChannelSpec
from transom.edge.gate import Gate
from transom.errors import ModelError, SettingsError, TransomError
from transom.runtimes import choice
from transom.runtimes.trial import Trials
from transom.runtimes.trust import Voucher
from transom.settings import Settings, StreamSettings
from transom.settings.senders import read_keys

log = logging.getLogger(__name__)


def payload_spec(stream: StreamSettings) -> PayloadSpec:
    channels = tuple(
        ChannelSpec(name, c.path, c.unit, c.switch, tuple(c.on), tuple(c.off)) for name, c in stream.channels.items()
    )
    return PayloadSpec(
        stream.payload,
        stream.value,
        stream.time,
        stream.time_unit,
        stream.zone,
        channels,
        stream.max_payload,
        stream.sequence,
    )


def proof_spec(name: str, stream: StreamSettings) -> ProofSpec | None:
    """What a broker's messages must show of their sender; None: nothing. Raises TransomError where no keys are."""
    if stream.sender is None and stream.keys_file is None:
        return None
    keys = None
    if stream.keys_file is not None:
        place = f"streams.{name}.keys_file {stream.keys_file}"
        try:
            keys = read_keys(stream.keys_file)
        except OSError as error:
            raise TransomError(
                place, f"cannot be read: {error.strerror}", "check the path and its permissions"
            ) from None
        except ValueError as error:
            raise TransomError(place, *error.args) from None
    return ProofSpec(stream.sender, keys, stream.replay_window, stream.max_ahead)


def stream_spec(name: str, stream: StreamSettings, manifest: Manifest) -> StreamSpec:
    """What the operator says, and for the rest what the model says. Raises ModelError when the two do not fit."""
    if len(manifest.channels) > 1:
        known = [c.name for c in manifest.channels]
        strange = [c for c in stream.channels if c not in known]
        if strange:
            raise ModelError(
                f"streams.{name}.channels",
                f"the model {manifest.label} has no channel {', '.join(map(repr, strange))}",
                f"it has {', '.join(known)}; name them so and give `path` where the payload names them otherwise",
            )
    elif manifest.channels[0].name != ANY and stream.channels and manifest.channels[0].name not in stream.channels:
        log.warning(
            "streams.%s: the model %s was trained on %r and is run on %s",
            name, manifest.label, manifest.channels[0].name, ", ".join(stream.channels),
        )  # fmt: skip
    step = manifest.step if stream.step is None else None if stream.step == "reading" else stream.step
    if stream.step == "reading" and manifest.step is not None:
        log.warning(
            "streams.%s: %s was trained on steps of %s ms and is run on readings", name, manifest.label, manifest.step
        )
    grid = GridSpec(
        step=step,
        aggregate=stream.aggregate or manifest.aggregate,
        lateness=stream.lateness,
        max_gap=stream.max_gap or (manifest.max_gap if step else None),
        max_ahead=stream.max_ahead,
        resync_after=stream.resync_after,
        forget_after=stream.forget_after,
    )
    n, m = stream.raise_after
    return StreamSpec(
        name=name,
        topic=stream.topic,
        series=tuple(stream.series),
        payload=payload_spec(stream),
        grid=grid,
        stride=stream.stride or manifest.stride,
        budget=stream.budget,
        threshold=stream.threshold,
        alert=AlertSpec(n, m, stream.hold_off, stream.no_data, stream.accept_after),
        max_series=stream.max_series,
    )


class Assembly(NamedTuple):
    """broken: streams that cannot run, with the reason. vouchers: who vouches for each stream's model."""

    pipeline: Pipeline
    broken: dict[str, TransomError]
    vouchers: Mapping[str, Voucher] = MappingProxyType({})


Load = Callable[[str, Settings, str | None], Model]  # a model's name, the settings that it belongs to, its digest


def load_model(name: str, settings: Settings, sha256: str | None) -> Model:
    """The model by its name, on the runtime that is wanted. Raises ModelError."""
    agent = settings.agent
    return choice.load(name, settings.folder, agent.runtime, sha256=sha256, threads=agent.threads)


class Updates(Protocol):
    """Which newer file a stream runs, if it does (`rollout.ledger`)."""

    def chosen(self, stream: str, settings: Settings) -> tuple[Path, Any] | None: ...

    def unfit(self, stream: str, error: ModelError) -> None: ...


def build_pipeline(
    settings: Settings, load: Load = load_model, *, guarded: bool = True, updates: Updates | None = None,
    trials: Trials | None = None,
) -> Assembly:  # fmt: skip
    """Loads each model once and joins it with its streams. A stream that cannot run leaves the others to run; raises
    SettingsError, holding every problem, when none can.

    guarded: models pass the gate first. False only for a person who names the files and runs them as himself. updates:
    newer files of a running agent, in the place of the configured ones. trials: prepared, and closed afterwards.
    """
    vouchers: dict[str, Voucher] = {}
    broken: dict[str, TransomError] = {}
    streams: list[tuple[StreamSpec, Model]] = []
    models: dict[tuple[Path, str | None], Model] = {}
    runtime = settings.agent.runtime
    with Gate.of(settings.models, trials) as gate:
        for name, stream in settings.streams.items():
            try:
                newer = _newer(name, settings, gate, load, updates) if updates is not None else None
                if newer is not None:
                    streams.append(newer[:2])
                    vouchers[name] = newer[2]
                    continue
                key = choice.find(stream.model, settings.folder, runtime), stream.model_sha256
                if guarded:
                    vouchers[name] = gate.admit(*key)
                if key not in models:
                    models[key] = load(stream.model, settings, vouchers[name].sha256 if guarded else key[1])
                spec = stream_spec(name, stream, models[key].manifest)
                streams.append((replace(spec, proof=proof_spec(name, stream)), models[key]))
            except ModelError as error:
                broken[name] = ModelError(f"streams.{name}: {error.place}", error.problem, error.remedy)
            except TransomError as error:
                broken[name] = error
    if broken and not streams:
        raise SettingsError(list(broken.values()))
    return Assembly(Pipeline(streams, own_prefix=f"{settings.base}/"), broken, vouchers)


def _newer(
    name: str, settings: Settings, gate: Gate, load: Load, updates: Updates
) -> tuple[StreamSpec, Model, Voucher] | None:
    """None for a stream that runs its configured model. An update that does not load makes room for what ran before."""
    while (chosen := updates.chosen(name, settings)) is not None:
        try:
            return open_update(name, settings, gate, chosen[0], load)
        except ModelError as error:
            updates.unfit(name, error)
    return None


def open_update(
    name: str, settings: Settings, gate: Gate, path: Path, load: Load = load_model
) -> tuple[StreamSpec, Model, Voucher]:
    """A file that has come for a stream. Raises ModelError."""
    voucher = gate.admit(path, None)
    model = load(str(path.absolute()), settings, voucher.sha256)
    return stream_spec(name, settings.streams[name], model.manifest), model, voucher


def open_configured(name: str, settings: Settings, gate: Gate) -> tuple[StreamSpec, Model, Voucher]:
    """The model that the configuration names. Raises ModelError."""
    stream = settings.streams[name]
    voucher = gate.admit(choice.find(stream.model, settings.folder, settings.agent.runtime), stream.model_sha256)
    model = load_model(stream.model, settings, voucher.sha256)
    return stream_spec(name, stream, model.manifest), model, voucher


def describe(pipeline: Pipeline, vouchers: Mapping[str, Voucher] = MappingProxyType({})) -> Sequence[dict[str, object]]:
    """Streams and models for BASE/info: no secrets, no paths."""
    return [
        {
            "stream": name, "topic": s.spec.topic, "model": s.model.manifest.label, "task": s.model.manifest.task,
            "sha256": s.model.sha256, "trust": str(vouchers[name]) if name in vouchers else "not checked",
            "channels": [c.name for c in s.model.manifest.channels], "length": s.model.manifest.length,
            "step": s.spec.grid.step or "reading", "stride": s.spec.stride,
        }
        for name, s in pipeline.streams.items()
    ]  # fmt: skip
