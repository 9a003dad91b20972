"""A snapshot of the agent as Prometheus reads it. Snapshot in, bytes out; nothing is sent from here.

Names and units by https://prometheus.io/docs/practices/naming/: base units, `_total` for what only grows. A series'
name is never a label: how many samples there are follows from the number of streams alone.
"""

import platform
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any, NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder

from transom import __version__
from transom.edge.observe import BOUNDS, Histogram, Snapshot
from transom.edge.requests import NAMES

LONGEST = 128  # characters of a label that a model file gives


class Figure(NamedTuple):
    """A metric that is one number of BASE/health. counter: it only grows, and its name ends in _total."""

    name: str
    counter: bool
    meaning: str


# By the path in the body of BASE/health.
AGENT: dict[tuple[str, ...], Figure] = {
    ("cpu_s",): Figure("process_cpu_seconds", True, "CPU time used"),
    ("uptime_s",): Figure("transom_uptime_seconds", False, "Time since the agent started"),
    ("rss_bytes",): Figure("process_resident_memory_bytes", False, "Memory held"),
    ("overloaded",): Figure("transom_overloaded", False, "1 while more comes than the agent can do"),
    ("inbox",): Figure("transom_inbox_messages", False, "Messages that wait for the pipeline"),
    ("unmatched",): Figure("transom_messages_unmatched", True, "Messages that belong to no stream"),
    ("throttled", "messages"): Figure("transom_messages_throttled", True, "Messages shed of topics that flooded"),
    ("clock_steps",): Figure("transom_clock_steps", True, "Times that the system's clock was set"),
    ("drift", "channels"): Figure("transom_drifting_channels", False, "Channels whose level has drifted"),
    ("page", "viewers"): Figure("transom_page_viewers", False, "Browsers that show the live page"),
    ("page", "dropped"): Figure("transom_page_dropped", True, "Viewers of the page hung up on for being slow"),
    ("page", "refused"): Figure("transom_page_refused", True, "Viewers of the page beyond those that it takes"),
    ("page", "skipped"): Figure("transom_page_skipped", True, "Predictions too many for the page to show"),
    ("page", "wrong_tokens"): Figure("transom_page_wrong_tokens", True, "Attempts to open the page with a wrong token"),
    ("connection", "received"): Figure("transom_messages_received", True, "Messages that the broker has sent"),
    ("connection", "redelivered"): Figure("transom_messages_redelivered", True, "Messages that came again"),
    ("connection", "bad_topics"): Figure("transom_messages_bad_topic", True, "Messages whose topic is no name"),
    ("connection", "published"): Figure("transom_publications", True, "Messages handed to the broker"),
    ("connection", "dropped"): Figure("transom_publications_dropped", True, "Messages that could not go to the broker"),
    ("connection", "connects"): Figure("transom_broker_connects", True, "Connections made to the broker"),
    ("connection", "resumed"): Figure("transom_broker_sessions_resumed", True, "Connections that resumed a session"),
    ("connection", "errors"): Figure("transom_broker_errors", True, "Connections to the broker that failed"),
    ("certificates", "certificate"): Figure("transom_certificate_end_seconds", False, "End of ours, Unix time"),
    ("certificates", "authority"): Figure("transom_authority_end_seconds", False, "End of the authority's, Unix time"),
    ("certificates", "broker"): Figure("transom_broker_certificate_end_seconds", False, "End of its own, Unix time"),
    ("outbox", "alerts_waiting"): Figure("transom_alerts_waiting", False, "Alerts that the broker has not got yet"),
    ("outbox", "alerts_delivered"): Figure("transom_alerts_delivered", True, "Alert messages that the broker has"),
    ("outbox", "alerts_dropped"): Figure("transom_alerts_dropped", True, "Alert messages given up for want of room"),
    ("outbox", "predictions_waiting"): Figure("transom_predictions_waiting", False, "Predictions that wait"),
    ("outbox", "predictions_dropped"): Figure("transom_predictions_dropped", True, "Predictions given up for room"),
    ("outbox", "predictions_expired"): Figure("transom_predictions_expired", True, "Predictions that grew too old"),
    ("journal", "on"): Figure("transom_journal_on", False, "1 while readings and alerts are kept on disk"),
    ("journal", "commits"): Figure("transom_journal_commits", True, "Transactions written"),
    ("journal", "snapshots"): Figure("transom_journal_snapshots", True, "Snapshots of the state written"),
    ("journal", "bytes"): Figure("transom_journal_written_bytes", True, "Bytes written to the journal"),
}  # fmt: skip

# By the key in a stream's accounts.
STREAM: dict[str, Figure] = {
    "received": Figure("transom_readings_received", True, "Readings: the sum of transom_readings_total over its fates"),
    "retained": Figure("transom_readings_retained", True, "Readings that the broker had stored, counted as late"),
    "unused": Figure("transom_values_unused", True, "Values of channels that the stream does not use"),
    "missing": Figure("transom_readings_missing", True, "Readings that never came, by rhythm or sequence number"),
    "gaps": Figure("transom_gaps", True, "Times that readings were missing"),
    "open": Figure("transom_readings_open", False, "Accepted readings in steps that are still open"),
    "series": Figure("transom_series", False, "Series known"),
    "stale": Figure("transom_series_stale", False, "Series that have fallen silent"),
    "alerting": Figure("transom_series_alerting", False, "Series with an anomaly that goes on"),
    "muted": Figure("transom_series_muted", False, "Series whose alerts a person has muted"),
    "withheld": Figure("transom_alerts_withheld", True, "Alert messages not told because a person has muted them"),
    "windows": Figure("transom_windows", True, "Windows judged"),
    "unscored": Figure("transom_windows_unscored", True, "Windows that the model gave no score for"),
    "alerts": Figure("transom_alerts_raised", True, "Alerts raised"),
}

FATES = ("accepted", "invalid", "duplicate", "late", "shed")  # their sum is what was received
CALLS = (*NAMES, "refused", "limited", "retained", "shed")  # remote calls by verb, and those not done by why
REASONS = ("payload", "topic", "series", "time", "sender", "signature")  # their sum is what is invalid


def encode(snapshot: Snapshot, age: float, accept: str = "") -> tuple[bytes, str]:
    """The text and its Content-Type, in the format that the Accept header asks for. age: seconds."""
    encoder, kind = choose_encoder(accept)
    return encoder(_Page(snapshot, age)), kind


class _Page:
    """What the encoders take for a registry."""

    def __init__(self, snapshot: Snapshot, age: float) -> None:
        self._snapshot, self._age = snapshot, age

    def collect(self) -> Iterator[Metric]:
        return families(self._snapshot, self._age)


def families(snapshot: Snapshot, age: float) -> Iterator[Metric]:
    """All metrics of one snapshot. age: seconds since it was made."""
    yield InfoMetricFamily(
        "transom_build", "The agent's version",
        {"version": __version__, "python": platform.python_version(), "machine": platform.machine()},
    )  # fmt: skip
    yield GaugeMetricFamily(
        "transom_snapshot_age_seconds", "Age of these figures; a second, unless the run loop is stuck", age
    )
    yield GaugeMetricFamily("transom_ready", "1 while the agent is subscribed and watches", snapshot.ready)
    yield GaugeMetricFamily("transom_connected", "1 while there is a connection to the broker", snapshot.connected)
    yield GaugeMetricFamily("transom_problems", "Problems as told on BASE/status", len(snapshot.problems))
    yield _latency(snapshot.latency)
    for path, figure in AGENT.items():
        value = _at(snapshot.health, path)
        if value is not None:
            family = _family(figure)
            family.add_metric([], value)
            yield family
    calls = CounterMetricFamily("transom_calls", "Remote calls by verb, and those not done by why", labels=["result"])
    for result in CALLS:
        calls.add_metric([result], snapshot.health["calls"].get(result, 0))
    yield calls
    yield from _streams(snapshot)


def _streams(snapshot: Snapshot) -> Iterator[Metric]:
    models = InfoMetricFamily("transom_stream", "What a stream runs", labels=["stream"])
    for stream, model, task, sha256 in snapshot.models:
        models.add_metric([stream], {"model": model[:LONGEST], "task": task, "sha256": sha256})
    yield models
    accounts: Mapping[str, Mapping[str, int]] = snapshot.health["streams"]
    fates = CounterMetricFamily("transom_readings", "Readings by their fate", labels=["stream", "fate"])
    reasons = CounterMetricFamily(
        "transom_readings_invalid", "Invalid readings by what is wrong with them", labels=["stream", "reason"]
    )
    for stream, counts in accounts.items():
        for fate in FATES:
            fates.add_metric([stream, fate], counts[fate])
        for reason in REASONS:
            reasons.add_metric([stream, reason], counts[f"invalid_{reason}"])
    yield from (fates, reasons)
    for key, figure in STREAM.items():
        family = _family(figure, "stream")
        for stream, counts in accounts.items():
            family.add_metric([stream], counts[key])
        yield family


def _family(figure: Figure, *labels: str) -> CounterMetricFamily | GaugeMetricFamily:
    make = CounterMetricFamily if figure.counter else GaugeMetricFamily
    return make(figure.name, figure.meaning, labels=labels)


def _latency(histogram: Histogram) -> HistogramMetricFamily:
    counts = list(accumulate(histogram.counts))
    bounds = [*(f"{bound / 1000:g}" for bound in BOUNDS), "+Inf"]
    return HistogramMetricFamily(
        "transom_latency_seconds", "From a message's arrival to its predictions being handed over",
        buckets=list(zip(bounds, counts, strict=True)), sum_value=histogram.sum_ms / 1000,
    )  # fmt: skip


def _at(body: Mapping[str, Any], path: tuple[str, ...]) -> float | None:
    """The number at a path; None where the body has none."""
    for key in path[:-1]:
        body = body.get(key, {})
    value = body.get(path[-1])
    return None if value is None else float(value)
