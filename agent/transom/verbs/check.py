"""`transom check`: reads a configuration and its models and tells every problem at once.

A configuration in; a summary, or a SettingsError with all problems, out. Subscribes to nothing and publishes nothing.
"""

import argparse
import ipaddress
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from transom.core.model import ANY
from transom.core.topics import CHANNEL, Pattern
from transom.edge.arrival import notes as arriving
from transom.edge.gate import Gate
from transom.edge.gate import notes as trust_notes
from transom.errors import BrokerError, ModelError, SettingsError, TransomError
from transom.flags import settings_arguments
from transom.runtimes import choice, files
from transom.runtimes.trust import Voucher
from transom.settings import BrokerSettings, HttpSettings, ModelsSettings, Settings, StreamSettings, read
from transom.settings.quantities import format_budget, format_duration

EXAMPLES = """\
  transom check -c /etc/transom/agent.toml
  transom check -c agent.toml --connect
  transom check -c agent.toml --broker.host 192.0.2.7 --connect
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    settings_arguments(parser)
    parser.add_argument("--connect", action="store_true", help="also log in to the broker, once")


def run(args: argparse.Namespace) -> int:
    """0, with a summary on stdout. Raises SettingsError with every problem of the settings, models and broker."""
    reading = read(args.config, args.overrides)
    problems = list(reading.problems)
    bundles: dict[str, choice.Opened] = {}
    runtime = reading.settings.agent.runtime if reading.settings else "auto"
    vouchers: dict[str, Voucher] = {}
    # Without knowing whom to trust no file is loaded.
    known = reading.streams if reading.trust is not None else {}
    with Gate.of(reading.trust or ModelsSettings()) as gate:
        for name, stream in known.items():
            try:
                bundles[name], vouchers[name] = check_model(name, stream, reading.folder, gate, runtime)
            except TransomError as error:
                problems.append(_at_key(error, _place(args.config, name)))
    others = {name: stream.model for name, stream in reading.streams.items() if name not in known}
    for name, model in (reading.models | others).items():  # of what is wrong otherwise: at least whether it is there
        try:
            model_file(model, reading.folder)
        except TransomError as error:
            problems.append(_at_key(error, _place(args.config, name)))
    greeting = ""
    if args.connect and reading.settings:
        from transom.edge.wire import check_connection  # only here is the network wanted

        try:
            greeting = check_connection(reading.settings)
        except BrokerError as error:
            problems.append(error)
    if problems or reading.settings is None:
        raise SettingsError(problems)
    print("\n".join(summary(reading.settings, bundles, greeting, vouchers)))
    return 0


def _place(config: Path | None, stream: str) -> str:
    return f"{config}: streams.{stream}" if config else f"streams.{stream}"


def model_file(model: str, folder: Path) -> Path:
    """Where it is. Raises ModelError when there is none, and says how it is made."""
    file = folder / model
    if ("/" in model or file.suffix in (".pt", ".onnx")) and not file.exists():
        raise ModelError(
            "model",
            f"there is no model file {str(file)!r}",
            f"train it: transom train --data RECORDING.csv --task anomaly --family lstm --output {file}",
        )
    return files.find_model(model, folder)


def check_model(
    name: str, stream: StreamSettings, folder: Path, gate: Gate, runtime: choice.Runtime = "auto"
) -> tuple[choice.Opened, Voucher]:
    """Lets the stream's model through the gate, loads it and holds the stream against it. Raises ModelError for the
    first thing that is wrong."""
    model_file(stream.model, folder)
    from transom.edge.assembly import stream_spec

    voucher = gate.admit(choice.find(stream.model, folder, runtime), stream.model_sha256)
    opened = choice.open_model(stream.model, folder, runtime, voucher.sha256)
    manifest = choice.from_opened(opened).manifest
    stream_spec(name, stream, manifest)
    one_value = stream.payload in ("number", "json") or stream.value is not None
    if len(manifest.channels) > 1 and one_value and CHANNEL not in Pattern.parse(stream.topic).names:
        raise ModelError(
            "topic",
            f"{stream.topic!r} gives one value a message and the model {manifest.label} wants "
            f"{len(manifest.channels)} channels",
            'name the level that tells them apart {channel}, or set payload = "object"',
        )
    return opened, voucher


def _at_key(error: TransomError, stream: str) -> TransomError:
    """The error at its place in the configuration: a key of the stream, or the model's file."""
    key = error.place.rpartition(".")[2] if error.place.startswith("streams.") else error.place
    place = f"{stream}.{key}" if key in StreamSettings.model_fields else f"{stream}.model: {error.place}"
    return type(error)(place, error.problem, error.remedy)


def summary(
    settings: Settings,
    bundles: dict[str, choice.Opened],
    greeting: str = "",
    vouchers: Mapping[str, Voucher] = MappingProxyType({}),
) -> Iterator[str]:
    """What would run, for a person; no secrets."""
    broker = settings.broker
    yield f"configuration  {settings.config or 'defaults, variables and flags (no file)'}"
    yield f"agent          {settings.agent.id}: publishes under {settings.base}/, state in {settings.agent.state}"
    protocol = "MQTT 5, else 3.1.1" if broker.protocol == "auto" else f"MQTT {broker.protocol}"
    tls = "TLS" if broker.tls.enabled else "no TLS"
    login = f"as {broker.username}" if broker.username else "anonymous"
    yield f"broker         {broker.host}:{broker.port}, {protocol}, {tls}, {login}"
    if greeting:
        yield f"               {greeting}"
    for name, stream in settings.streams.items():
        manifest = bundles[name].manifest
        channels = ", ".join("any sensor" if c.name == ANY else c.name for c in manifest.channels)
        step = stream.step or manifest.step or "reading"
        length = step if isinstance(step, str) else format_duration(step)
        yield f"stream         {name}: {Pattern.parse(stream.topic).filter}"
        yield f"               {manifest.label} for {manifest.task}: {channels}"
        yield f"               sha256 {bundles[name].sha256}"
        if name in vouchers:
            yield f"               {vouchers[name]}"
        alarm = (
            f"score {stream.threshold:g}" if stream.budget is None else f"false alarms {format_budget(stream.budget)}"
        )
        yield f"               windows of {manifest.length} steps, step {length}, {alarm} a series"
    if settings.http.port is not None:
        page = ", /live/" if settings.http.page else ""
        yield f"http           {settings.http.host}:{settings.http.port}: /metrics, /healthz, /readyz{page}"
    yield from (f"updates        {way}" for way in arriving.ways(settings))
    trust = trust_notes(allow_unsigned=settings.models.allow_unsigned, vouchers=vouchers)
    of_settings = (*remote_notes(settings), *http_notes(settings.http), *privacy_notes(settings))
    notes = (*trust, *broker_notes(broker), *of_settings, *arriving.warnings(settings))
    for note in (*notes, *stream_notes(settings, bundles)):
        yield f"WARNING        {note}"
    yield "no problems"


def broker_notes(broker: BrokerSettings) -> Iterator[str]:
    """What is allowed and should be known: options that make the connection less safe than it could be."""
    if broker.tls.insecure:
        yield "broker.tls.insecure: the broker's name is NOT verified; anyone on the way may pose as the broker"
    if not broker.tls.enabled and not _here(broker.host):
        what = "the password and all readings travel" if broker.password else "all readings travel"
        yield f"broker.tls is off: {what} readable to {broker.host}"
    if broker.password_file and broker.password_file.stat().st_mode & 0o077:
        yield f"broker.password_file: other users may read it; chmod 600 {broker.password_file}"


def remote_notes(settings: Settings) -> Iterator[str]:
    """A broker that lets the agent in without a name lets others in as well."""
    if settings.agent.remote and settings.broker.username is None and settings.broker.tls.cert_file is None:
        calls = ", ".join(settings.agent.remote)
        yield f"agent.remote: anyone whom the broker lets publish may call {calls}; see docs/remote-calls.md"


def privacy_notes(settings: Settings) -> Iterator[str]:
    key = settings.privacy.series_key_file
    if key is not None and key.stat().st_mode & 0o077:
        yield f"privacy.series_key_file: other users may read it; chmod 600 {key}"
    if settings.privacy.values == "none" and settings.homeassistant.enabled:
        yield 'homeassistant: privacy.values = "none" leaves no expected or forecast values to show there'


def http_notes(http: HttpSettings) -> Iterator[str]:
    if http.port is not None and not _here(http.host):
        yield f"http.host: whoever reaches {http.host}:{http.port} can read the metrics; there is no log-in"
        if http.page:
            yield "http.page: the token and all that the page shows travel readable; put a VPN or a TLS proxy before it"
    if http.token_file and http.token_file.stat().st_mode & 0o077:
        yield f"http.token_file: other users may read it; chmod 600 {http.token_file}"


def stream_notes(settings: Settings, bundles: dict[str, choice.Opened]) -> Iterator[str]:
    for name, stream in settings.streams.items():
        manifest, pattern = bundles[name].manifest, Pattern.parse(stream.topic)
        if any(level in ("+", "#") for level in pattern.levels) and not set(pattern.names) - {CHANNEL}:
            yield (
                f"streams.{name}.topic: {stream.topic!r} names no level that tells devices apart, so all that it "
                "matches share one series; name the levels, as in 'plant/{site}/{device}/{channel}'"
            )
        silent = [c.name for c in manifest.channels if stream.channels and c.name not in stream.channels]
        if len(manifest.channels) > 1 and silent:
            yield f"streams.{name}.channels: {', '.join(silent)} of {manifest.label} will always be missing"
        if stream.step is not None and manifest.step is not None and stream.step != manifest.step:
            yield f"streams.{name}.step: {manifest.label} was trained on steps of {format_duration(manifest.step)}"
        units = {c.name: c.unit for c in manifest.channels}
        for channel, given in stream.channels.items():
            if given.unit and units.get(channel) and given.unit != units[channel]:
                yield f"streams.{name}.channels.{channel}.unit: {given.unit!r}; the model knows {units[channel]!r}"


def _here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
