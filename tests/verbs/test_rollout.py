"""`transom rollout` says what stands on the disk, and asks the agent to end a phase."""

from pathlib import Path
from typing import Any

import pytest

from transom.cli import main
from transom.edge.rollout.record import Entry, File, Record, encode

RUNNING = File(sha256="a" * 64, suffix=".pt", name="pump", version="3", signer="signed by RWQx", origin="mqtt gw")
NEWER = File(sha256="b" * 64, suffix=".pt", name="pump", version="4", signer="signed by RWQx", origin="folder")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "plant.toml"
    file.write_text(
        f'[agent]\nstate = "{tmp_path}"\n'
        '[streams.pumps]\ntopic = "a/{b}"\nmodel = "universal"\n[streams.fans]\ntopic = "f/{b}"\nmodel = "universal"\n'
    )
    (tmp_path / "models").mkdir()
    return file


def shown(config: Path, capsys: Any) -> str:
    assert main(["rollout", "-c", str(config)]) == 0
    return str(capsys.readouterr().out)


def test_without_an_update_the_configured_models_run(config: Path, capsys: Any) -> None:
    assert shown(config, capsys).splitlines() == [
        "pumps          universal, as configured", "fans           universal, as configured"
    ]  # fmt: skip


def test_what_runs_what_is_tried_and_what_has_failed_is_told(config: Path, capsys: Any) -> None:
    entry = Entry(active=RUNNING, candidate=NEWER, phase="shadow", spent=3_900_000, rejected=("c" * 64,))
    (config.parent / "models" / "rollout.json").write_bytes(encode(Record(streams={"pumps": entry})))
    first, phase, candidate, failed, other = shown(config, capsys).splitlines()
    assert first.startswith("pumps          pump@3 (aaaaaaaaaaaa), signed by RWQx, by mqtt gw")
    assert phase.strip() == "shadow: pump@4 runs beside the other, and is compared with it; so far 1 h 5 min"
    assert candidate.strip().startswith("candidate: pump@4 (bbbbbbbbbbbb)")
    assert failed.strip() == "failed here: cccccccccccc"
    assert other == "fans           universal, as configured"


def test_a_file_that_is_none_is_one_line(config: Path, capsys: Any) -> None:
    (config.parent / "models" / "rollout.json").write_text("{")
    assert main(["rollout", "-c", str(config)]) == 1
    assert "rollout.json" in capsys.readouterr().err


def test_to_accept_a_stream_must_be_named(config: Path, capsys: Any) -> None:
    assert main(["rollout", "accept", "-c", str(config)]) == 1
    assert "--stream" in capsys.readouterr().err
