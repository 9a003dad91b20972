"""What the agent says of newer models: events on BASE/models, the phase in BASE/health, versions in BASE/info.

Entries and events in, publications and plain values out.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from transom.core.model import Manifest
from transom.dialects.plain import Publication, rfc3339
from transom.edge.rollout.record import Entry


def event(base: str, body: Mapping[str, Any]) -> Publication:
    """Not retained: what holds now stands in BASE/info and BASE/health. body: as the ledger has it, its time in ms."""
    told = {**body, "time": rfc3339(1000 * body["time"])}
    return Publication(f"{base}/models", msgspec.json.encode(told), 1, False)


def state(entry: Entry, left: float, figures: Mapping[str, Any]) -> dict[str, Any]:
    """left: seconds of the phase, at least."""
    tried = entry.tried
    assert tried is not None
    return {
        "phase": entry.phase, "model": tried.label, "sha256": tried.sha256, "signer": tried.signer,
        "deaths": entry.deaths, "left_s": round(left), **figures,
    }  # fmt: skip


def versions(manifest: Manifest, entry: Entry | None) -> dict[str, Any]:
    """manifest: of what runs. As Home Assistant's update entities read it."""
    newer = entry.candidate if entry is not None else None
    return {
        "installed_version": manifest.version, "latest_version": newer.version if newer else manifest.version,
        "title": manifest.name, "phase": entry.phase if entry is not None else "none",
    }  # fmt: skip
