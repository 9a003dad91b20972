"""What the agent says of itself on BASE/status, BASE/info and BASE/health: plain values in, publications out."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from transom import __version__
from transom.core.pipeline import Pipeline
from transom.dialects.plain import Publication
from transom.dialects.privacy import Privacy
from transom.edge import gate, observe
from transom.edge.assembly import describe
from transom.errors import TransomError
from transom.runtimes.trust import Voucher


def status(base: str, word: str, problems: Sequence[str]) -> Publication:
    """word: `online`, `stopped` or `offline`; problems: what does not work while the rest goes on."""
    body: dict[str, Any] = {"state": word}
    if word == "online" and problems:
        body["problems"] = list(problems)
    return Publication(f"{base}/status", msgspec.json.encode(body), 1, retain=True)


def info(
    base: str, pipeline: Pipeline, broken: Mapping[str, TransomError], vouchers: Mapping[str, Voucher], *,
    allow_unsigned: bool = False, privacy: Privacy | None = None,
    versions: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Publication:  # fmt: skip
    """broken: streams that cannot run, with the reason. vouchers: who vouches for each stream's model. versions: of
    each stream, the one that runs and the latest that has come."""
    unwell = [{"stream": name, "error": f"{e.place}: {e.problem}"} for name, e in broken.items()]
    running: list[Mapping[str, Any]] = [
        {**one, "update": versions[name]} if (name := str(one["stream"])) in versions else one
        for one in describe(pipeline, vouchers)
    ]
    streams = [*running, *unwell]
    if privacy is not None:
        streams = [{**s, "topic": privacy.topic(str(s["topic"]))} if "topic" in s else s for s in streams]
    body = observe.info(__version__, streams)
    if allow_unsigned:
        body = {**body, "warnings": list(gate.notes(allow_unsigned=True, vouchers=vouchers))}
    return Publication(f"{base}/info", msgspec.json.encode(body), 1, retain=True)


def models(pipeline: Pipeline) -> tuple[tuple[str, str, str, str], ...]:
    """What each stream runs: its name, model, task and digest."""
    streams = pipeline.streams.items()
    return tuple((name, s.model.manifest.label, s.model.manifest.task, s.model.sha256) for name, s in streams)


def health(base: str, body: Mapping[str, Any]) -> Publication:
    return Publication(f"{base}/health", msgspec.json.encode(body), 0, retain=True)


class Sentence:
    """What the agent does at present, in one line for `systemctl status`. It remembers the counts, for their rate."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None  # seconds, readings

    def running(
        self, accounts: Mapping[str, Mapping[str, int]], p50: float, problems: Sequence[str], now: float
    ) -> str:
        """accounts: by stream; p50: ms, NaN without any; now: seconds, of a clock that only goes forward."""
        readings = sum(a["received"] for a in accounts.values())
        series, alerts = (sum(a[key] for a in accounts.values()) for key in ("series", "alerts"))
        last, self._last = self._last, (now, readings)
        parts = [f"watching {series} series in {len(accounts)} stream{'s' * (len(accounts) != 1)}"]
        if last is not None and now > last[0]:
            parts.append(f"{(readings - last[1]) / (now - last[0]):.1f} readings/s")
        if p50 == p50:
            parts.append(f"p50 {p50:.0f} ms")
        parts.append(f"{alerts} alert{'s' * (alerts != 1)} raised so far")
        return "; ".join([", ".join(parts), *problems])

    @staticmethod
    def waiting(broker: str, problem: str, *, before: bool) -> str:
        """problem: why there is no connection; before: whether there was one before."""
        what = "connection lost, trying again" if before else "waiting for the broker"
        return f"{what}: {broker}: {problem}" if problem else f"{what}: {broker}"
