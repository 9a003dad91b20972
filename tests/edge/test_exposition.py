"""The text of /metrics: every figure of BASE/health is in it, by the conventions, and its size is bounded."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from tests_metrics import samples_of
from transom.core.pipeline import Message, Turn
from transom.dialects.plain import drift_body
from transom.edge import observe, reports
from transom.edge.assembly import build_pipeline, load_model
from transom.edge.certificates import WHO
from transom.edge.exposition import AGENT, FATES, REASONS, STREAM, encode
from transom.edge.fairness import Fairness
from transom.edge.inbox import Inbox
from transom.edge.keeper import Keeper
from transom.edge.mqtt import Connection
from transom.edge.outbox import Outbox
from transom.edge.web import NO_PAGE
from transom.edge.wire import BrokerOptions, broker_options
from transom.settings import load_settings

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture(scope="module")
def settings() -> Any:
    return load_settings(None, {
        "agent": {"id": "gw"},
        "streams": {"a": {"topic": "plant/{device}/{channel}", "max_series": 50}, "b": {"topic": "b/{device}"}},
    })  # fmt: skip


@pytest.fixture(scope="module")
def options(settings: Any) -> BrokerOptions:
    return broker_options(settings)


@pytest.fixture
def pipeline(settings: Any) -> Any:
    return build_pipeline(settings).pipeline


def snapshot(pipeline: Any, options: BrokerOptions, latencies: observe.Latencies | None = None) -> observe.Snapshot:
    """As the run loop makes it, of parts that have no broker and no disk."""
    latencies = latencies or observe.Latencies()
    connection, keeper = Connection(options, filters=(), inbox=Inbox(10)), Keeper(None, 1.0)
    outbox = Outbox(10, 1000, keeper.waiting)
    body = {
        **observe.health(
            accounts=pipeline.accounts(), strangers=pipeline.strangers, latencies=latencies,
            connection=connection.counters() | {"redelivered": keeper.redelivered.count}, inbox=0, uptime=5.0,
        ),
        "overloaded": False, "outbox": outbox.waiting | outbox.counts, "journal": keeper.counts(), "clock_steps": 2,
        "drift": drift_body(*pipeline.drifting()), "calls": {"ping": 2, "refused": 1},
        "page": dict(NO_PAGE),
        "certificates": dict.fromkeys(WHO) | connection.certificates.ends(),
        "throttled": Fairness().throttled().body(),
    }  # fmt: skip
    return observe.Snapshot(
        health=body, latency=latencies.histogram(), models=reports.models(pipeline), problems=("one",), ready=True,
        connected=True, made=0.0,
    )  # fmt: skip


def test_every_figure_of_health_is_a_metric(pipeline: Any, options: BrokerOptions) -> None:
    body = dict(snapshot(pipeline, options).health)
    paths: set[tuple[str, ...]] = set()
    for key, value in body.items():
        paths |= {(key, inner) for inner in value} if isinstance(value, dict) else {(key,)}
    # Not figures of the agent: whoever scrapes has a clock. Percentiles: the histogram gives those of any time.
    others = {("time",), ("drift", "largest"), ("throttled", "topics")} | {
        p for p in paths if p[0] in ("streams", "latency_ms", "calls")
    }
    assert paths - others == set(AGENT)
    assert set(body["streams"]["a"]) == set(STREAM) | set(FATES) | {f"invalid_{reason}" for reason in REASONS}


@pytest.mark.parametrize(
    "accept", ["", "text/plain; version=0.0.4", "text/plain; version=1.0.0", OPENMETRICS, "nonsense;;"]
)
def test_it_parses_in_the_format_that_was_asked_for(pipeline: Any, options: BrokerOptions, accept: str) -> None:
    body, kind = encode(snapshot(pipeline, options), 0.5, accept)
    families = list((parse_openmetrics if accept == OPENMETRICS else parse)(body.decode()))
    assert kind.startswith("application/openmetrics-text" if accept == OPENMETRICS else "text/plain")
    assert all(family.documentation for family in families)
    assert len({family.name for family in families}) == len(families)


def test_names_and_units_follow_the_conventions(pipeline: Any, options: BrokerOptions) -> None:
    for family in parse(encode(snapshot(pipeline, options), 0.5)[0].decode()):
        assert family.name.startswith(("transom_", "process_"))
        assert family.name == family.name.lower()
        assert not any(unit in family.name.split("_") for unit in ("ms", "us", "kb", "mb", "percent", "minutes"))
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")


def test_the_accounts_balance_by_fate_and_reason(pipeline: Any, options: BrokerOptions) -> None:
    now = 1_700_000_000_000
    good = [Message(f"plant/d{i % 3}/x", b"%d" % (i % 5), now + 10 * i) for i in range(100)]
    bad = [Message("plant/d1/x", b"no number", now + 1000), Message("plant/d1/x", b"\xff", now + 1001)]
    full = [Message(f"plant/many{i}/x", b"1", now + 2000 + i) for i in range(100)]
    pipeline.take(Turn([*good, *bad, *full, Message("who/is/that", b"1", now)], shed={"b/1": 3}))
    found = samples_of(encode(snapshot(pipeline, options), 0.5)[0])
    for stream in ("a", "b"):
        of = {"stream": stream}
        fates = {fate: found["transom_readings_total", (("fate", fate), ("stream", stream))] for fate in FATES}
        reasons = [found["transom_readings_invalid_total", (("reason", r), ("stream", stream))] for r in REASONS]
        assert sum(fates.values()) == found["transom_readings_received_total", tuple(of.items())]
        assert sum(reasons) == fates["invalid"]
    assert found["transom_readings_invalid_total", (("reason", "payload"), ("stream", "a"))] == 2
    assert found["transom_readings_invalid_total", (("reason", "series"), ("stream", "a"))] == 53
    assert found["transom_readings_total", (("fate", "shed"), ("stream", "b"))] == 3
    assert found["transom_series", (("stream", "a"),)] == 50
    assert found["transom_messages_unmatched_total", ()] == 1
    assert found["transom_clock_steps_total", ()] == 2
    assert found["transom_calls_total", (("result", "ping"),)] == 2
    assert found["transom_calls_total", (("result", "mute"),)] == 0


_models: dict[str, Any] = {}


def remembered(name: str, settings: Any, sha256: str | None) -> Any:
    """Loads each model once for all examples."""
    if name not in _models:
        _models[name] = load_model(name, settings, sha256)
    return _models[name]


@given(
    names=st.lists(
        st.text(st.characters(exclude_characters="/+#\x00", exclude_categories=["Cs"]), min_size=1), max_size=30
    )
)
def test_no_name_that_a_sensor_chooses_reaches_a_label(settings: Any, options: BrokerOptions, names: list[str]) -> None:
    pipeline = build_pipeline(settings, load=remembered).pipeline
    empty = len(samples_of(encode(snapshot(pipeline, options), 0.5)[0]))
    pipeline.process([Message(f"plant/{n}/{n}", b"1", 1_700_000_000_000 + i) for i, n in enumerate(names)])
    body, _ = encode(snapshot(pipeline, options), 0.5)
    assert len(samples_of(body)) == empty
    assert pipeline.accounts()["a"]["received"] == len(names)


def test_what_a_model_file_says_of_itself_is_escaped_and_cut(pipeline: Any, options: BrokerOptions) -> None:
    hostile = 'x"} 1\ntransom_ready 0\n\\' + "y" * 10_000
    told = dataclasses.replace(snapshot(pipeline, options), models=(("a", hostile, "anomaly", "0" * 64),))
    found = samples_of(encode(told, 0.5)[0])
    assert found["transom_ready", ()] == 1
    (labels,) = [dict(labels) for name, labels in found if name == "transom_stream_info"]
    assert labels["model"] == hostile[:128]


@given(st.lists(st.lists(st.floats(-1e6, 1e6), max_size=20), max_size=10))
def test_latencies_in_any_batches_give_one_histogram(batches: list[list[float]]) -> None:
    latencies = observe.Latencies()
    for batch in batches:
        latencies.add(batch)
    values = [max(v, 0.0) for batch in batches for v in batch]
    told = latencies.histogram()
    assert sum(told.counts) == len(values)
    assert told.sum_ms == pytest.approx(sum(values))
    edges = [*observe.BOUNDS, float("inf")]
    for i, bound in enumerate(edges):
        assert sum(told.counts[: i + 1]) == sum(v <= bound for v in values)


def test_the_histogram_counts_more_than_the_percentiles_look_at() -> None:
    latencies = observe.Latencies()
    latencies.add([3.0] * (observe.KEPT + 10))
    assert sum(latencies.histogram().counts) == observe.KEPT + 10
    assert latencies.percentiles(50) == [3.0]


def test_latency_is_told_in_seconds(pipeline: Any, options: BrokerOptions) -> None:
    latencies = observe.Latencies()
    latencies.add([4.0, 40.0, 400.0, 400_000.0])
    found = samples_of(encode(snapshot(pipeline, options, latencies), 0.5)[0])
    assert found["transom_latency_seconds_sum", ()] == pytest.approx(400.444)
    at = {dict(labels)["le"]: v for (name, labels), v in found.items() if name == "transom_latency_seconds_bucket"}
    assert (at["0.002"], at["0.005"], at["0.05"], at["0.5"], at["60"], at["+Inf"]) == (0, 1, 2, 3, 3, 4)
