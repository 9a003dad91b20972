"""Training on recordings of a broker: the same columns as a table of the same readings."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from transom.cli import main
from transom.core import recorded
from transom.core.pipeline import Message
from transom.errors import RecordingError
from transom.runtimes import bundle
from transom_models import data
from transom_models.messages import Listening, payload_of, read_messages

BEGIN = 1_767_225_600_000
TOLD = {"pumps": {"topic": "plant/{device}/{channel}", "channels": {"flow": {"unit": "l/min"}, "pressure": {}}}}


def written(path: Path, messages: list[Message], streams: dict[str, dict[str, object]] | None) -> Path:
    lines = [recorded.word("begin", BEGIN, filters=["plant/#"], streams=streams)] + [recorded.line(m) for m in messages]
    path.write_bytes(gzip.compress(b"".join(lines)) if path.suffix == ".gz" else b"".join(lines))
    return path


def topics(n: int, every: int = 1, device: str = "a") -> list[Message]:
    """flow each second; pressure, ten times flow, each `every` seconds and a little later."""
    found = []
    for i in range(n):
        found.append(Message(f"plant/{device}/flow", b"%.2f" % (i % 20), BEGIN + 1000 * i))
        if i % every == 0:
            found.append(Message(f"plant/{device}/pressure", b"%.2f" % (10 * (i % 20)), BEGIN + 1000 * i + 300))
    return found


def objects(n: int) -> list[Message]:
    body = [{"time": (BEGIN + 1000 * i) / 1000, "flow": i % 20, "pressure": i % 20 * 10} for i in range(n)]
    return [Message("plant/a", json.dumps(b).encode(), BEGIN + 1000 * i + 7) for i, b in enumerate(body)]


def test_payloads_with_all_channels_are_rows_at_their_own_times(tmp_path: Path) -> None:
    path = written(tmp_path / "day.jsonl.gz", objects(50), {"pumps": {"topic": "plant/{device}"}})
    (found,) = read_messages(path, Listening())
    assert (found.name, found.channels) == ("day/a", ("flow", "pressure"))
    assert found.times.tolist() == [1000 * (BEGIN + 1000 * i) for i in range(50)]
    np.testing.assert_array_equal(found.values[:, 1], 10 * found.values[:, 0])


def test_channels_that_come_apart_are_put_into_steps_of_the_slowest(tmp_path: Path) -> None:
    path = written(tmp_path / "day.jsonl", sorted(topics(60, 2) + topics(60, 2, "b"), key=lambda m: m.received), TOLD)
    one, two = read_messages(path, Listening())
    assert [one.name, two.name] == ["day/a", "day/b"]
    assert data.regular_step([one, two]) == 2000
    np.testing.assert_array_equal(one.values, two.values)
    whole = one.values[np.isfinite(one.values).all(1)]
    assert len(whole) >= 28
    np.testing.assert_array_equal(whole[:, 0] - 1, whole[:, 1] / 10)  # the later of two readings of flow


def test_one_channel_is_chosen_and_the_topic_can_be_said(tmp_path: Path) -> None:
    path = written(tmp_path / "day.jsonl", topics(30), None)
    (found,) = read_messages(path, Listening(topic="plant/{device}/{channel}", channels=("pressure",)))
    assert found.channels == ("pressure",)
    assert found.values[:, 0].tolist() == [10 * (i % 20) for i in range(30)]


def test_a_label_and_a_target_are_no_inputs(tmp_path: Path) -> None:
    messages = [
        Message("plant/a", json.dumps({"flow": i, "label": i // 20, "wear": 40 - i}).encode(), BEGIN + 1000 * i)
        for i in range(40)
    ]
    path = written(tmp_path / "day.jsonl", messages, {"pumps": {"topic": "plant/{device}"}})
    (found,) = read_messages(path, Listening(targets=("wear",)))
    assert found.channels == ("flow",)
    assert found.labels.tolist() == [0.0] * 20 + [1.0] * 20
    assert found.targets is not None
    assert found.targets[:, 0].tolist() == [40 - i for i in range(40)]


@pytest.mark.parametrize(
    ("streams", "asked", "sentence"),
    [
        (None, Listening(), "does not say what its topics mean.*--topic"),
        (TOLD | {"fans": {"topic": "fans/{device}"}}, Listening(), "several streams: pumps, fans.*--stream"),
        (TOLD, Listening(stream="fans"), "no stream 'fans'; it tells of pumps"),
        (TOLD, Listening(topic="other/{device}"), "no reading of 'other/{device}'"),
        (TOLD, Listening(channels=("speed",)), "lack speed; choose with --channels among flow, pressure"),
        ({"pumps": {"topic": 5, "channels": []}}, Listening(), "what cannot be used"),
    ],
)
def test_what_cannot_be_trained_on_says_why(
    streams: dict[str, dict[str, object]] | None, asked: Listening, sentence: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "day.jsonl", topics(30), streams)
    with pytest.raises(RecordingError, match=sentence):
        read_messages(path, asked)


def test_the_settings_that_a_recording_tells_are_those_that_read_it_live() -> None:
    table = {"topic": "x", "payload": "json", "value": "v", "time": "t", "time_unit": "ms", "timezone": "Europe/Berlin",
             "channels": {"door": {"switch": True, "on": ["open"], "path": "state"}}}  # fmt: skip
    spec = payload_of(table)
    assert (spec.format, spec.value, spec.time, spec.time_unit, str(spec.timezone)) == (
        "json",
        "v",
        "t",
        "ms",
        "Europe/Berlin",
    )
    assert (spec.channels[0].name, spec.channels[0].switch, spec.channels[0].on, spec.channels[0].path) == (
        "door",
        True,
        ("open",),
        "state",
    )


def test_a_model_trained_on_a_recording_judges_it(tmp_path: Path) -> None:
    path, model = written(tmp_path / "week.jsonl.gz", topics(300), TOLD), tmp_path / "pump.pt"
    words = ["--data", str(path), "--task", "anomaly", "--family", "cnn", "--length", "16", "--epochs", "1"]
    assert main(["train", *words, "--output", str(model)]) == 0
    assert [c.name for c in bundle.open_bundle(model).manifest.channels] == ["flow", "pressure"]
    out = tmp_path / "out.jsonl"
    assert main(["replay", str(path), "--model", str(model), "--output", str(out)]) == 0
    assert {json.loads(line)["series"] for line in out.read_text().splitlines()} == {"a"}
