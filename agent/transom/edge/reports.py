"""What the agent says of itself on BASE/status, BASE/info and BASE/health: plain values in, publications out."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from transom import __version__
from transom.core.pipeline import Pipeline
from transom.dialects.plain import Publication
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
    allow_unsigned: bool = False,
) -> Publication:  # fmt: skip
    """broken: streams that cannot run, with the reason. vouchers: who vouches for each stream's model."""
    unwell = [{"stream": name, "error": f"{e.place}: {e.problem}"} for name, e in broken.items()]
    body = observe.info(__version__, [*describe(pipeline, vouchers), *unwell])
    if allow_unsigned:
        body = {**body, "warnings": list(gate.notes(allow_unsigned=True, vouchers=vouchers))}
    return Publication(f"{base}/info", msgspec.json.encode(body), 1, retain=True)


def health(base: str, body: Mapping[str, Any]) -> Publication:
    return Publication(f"{base}/health", msgspec.json.encode(body), 0, retain=True)
