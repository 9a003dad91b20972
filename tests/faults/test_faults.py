"""What gateways live through, done to a real agent and a real broker. Each prints its accounts (`pytest -s`).

The long ones run with TRANSOM_FAULTS=1, as CI does; scripts/torture makes hours of them.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import scenarios
from harness import Report

from conftest import missing

pytestmark = [pytest.mark.mosquitto, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def long_enough() -> None:
    if os.environ.get("TRANSOM_FAULTS") != "1":
        pytest.skip("takes minutes: TRANSOM_FAULTS=1 scripts/test tests/faults")
    if shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
        missing("mosquitto is not installed (apt install mosquitto)")


@pytest.fixture
def as_root() -> None:
    if os.geteuid() != 0:
        missing("mounting and network namespaces need root")


def run(scenario: Callable[..., Report], folder: Path, **options: object) -> Report:
    report = scenario(folder, **options)
    print(f"\n{report}")
    return report


def nothing_lost(report: Report) -> None:
    """Every reading accounted for once, every alert delivered, every prediction as in an undisturbed run."""
    f = report.facts
    assert f["accepted"] == f["readings sent"], report
    assert f["missing"] == 0, report
    assert f["accounts balance"], report
    assert f["predictions that differ"] == f["predictions of no run"] == 0, report
    assert f["alerts delivered"] == f["alerts expected"] > 0, report
    assert f["alerts of no run"] == f["events of alerts missing"] == [], report
    assert f["exit status"] == 0, report


def test_an_agent_killed_twenty_times_loses_nothing(tmp_path: Path) -> None:
    report = run(scenarios.kill_agent, tmp_path)
    nothing_lost(report)
    assert (
        report.facts["predictions heard"] > 0.97 * report.facts["predictions expected"]
    )  # QoS 0: the last in a socket


def test_a_broker_killed_ten_times_costs_nothing_but_what_it_lost_itself(tmp_path: Path) -> None:
    report = run(scenarios.kill_broker, tmp_path)
    f = report.facts
    assert f["accepted"] + f["missing"] == f["readings sent"], report
    assert f["accounts balance"], report
    if f["missing"] == 0:
        nothing_lost(report)


def test_broker_and_agent_killed_at_once_cost_nothing_but_what_the_broker_lost(tmp_path: Path) -> None:
    report = run(scenarios.kill_both, tmp_path)
    f = report.facts
    assert f["accepted"] + f["missing"] == f["readings sent"], report
    assert f["accounts balance"], report
    if f["missing"] == 0:
        nothing_lost(report)


def test_a_link_that_is_gone_for_a_minute_loses_nothing(tmp_path: Path) -> None:
    nothing_lost(run(scenarios.cut_link, tmp_path))


def test_a_link_with_two_seconds_of_delay_loses_nothing(tmp_path: Path) -> None:
    nothing_lost(run(scenarios.slow_link, tmp_path, scale=0.4))


def test_half_open_connections_are_found_and_lose_nothing(tmp_path: Path) -> None:
    nothing_lost(run(scenarios.half_open, tmp_path))


def test_packet_loss_of_thirty_percent_loses_nothing(tmp_path: Path, as_root: None) -> None:
    for tool in ("nft", "ip"):
        if shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
            missing(f"{tool} is not installed (apt install nftables iproute2)")
    nothing_lost(run(scenarios.packet_loss, tmp_path))


def test_a_full_disk_stops_nothing_and_the_journal_comes_back(tmp_path: Path, as_root: None) -> None:
    report = run(scenarios.disk_full, tmp_path)
    nothing_lost(report)
    assert report.facts["problem"] == "the journal is off: database or disk is full"


def test_a_read_only_state_folder_stops_nothing_and_the_journal_comes_on(tmp_path: Path, as_root: None) -> None:
    report = run(scenarios.read_only, tmp_path)
    assert report.facts["accepted"] == report.facts["readings sent"]
    assert report.facts["problem"].startswith("the journal is off")


def test_a_corrupt_state_file_is_set_aside_and_never_deleted(tmp_path: Path) -> None:
    f = run(scenarios.corrupt_file, tmp_path).facts
    assert len(f["set aside as"]) >= 1
    assert "starting without it" in f["log"]
    assert (f["sound again"], f["exit status"]) == ("ok", 0)


def test_a_flood_at_qos_1_is_bounded_and_loses_nothing(tmp_path: Path) -> None:
    f = run(scenarios.flood, tmp_path, qos=1, scale=1 / 6).facts
    assert f["accepted"] + f["missing"] == f["sent"]
    assert f["shed"] == 0
    _bounded(f)


def test_a_flood_at_qos_0_is_bounded_and_what_is_shed_is_counted(tmp_path: Path) -> None:
    f = run(scenarios.flood, tmp_path, qos=0, scale=1 / 2).facts
    assert f["received"] > 0
    _bounded(f)


def _bounded(f: dict[str, object]) -> None:
    assert f["accounts balance"]
    assert f["MB at most"] - f["MB before"] < 200  # type: ignore[operator]
    assert (f["inbox at the end"], f["starts of the agent"], f["exit status"]) == (0, 1, 0)


def test_a_soak_grows_nothing(tmp_path: Path) -> None:
    report = run(scenarios.soak, tmp_path)
    nothing_lost(report)
    f = report.facts
    assert f["kB a minute"] < 3000  # a snapshot, buffers and the allocator move; a leak of 100 bytes a reading is 3,600
    assert max(f["threads"]) - min(f["threads"]) <= 1
    assert max(f["file descriptors"]) - min(f["file descriptors"]) <= 2


def test_a_reload_keeps_every_window_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    report = run(scenarios.reloads, tmp_path)
    f = report.facts
    assert f["accepted"] == f["readings sent"]
    assert f["predictions that differ"] == f["predictions of no run"] == 0
    assert f["predictions heard"] == f["predictions expected"]
