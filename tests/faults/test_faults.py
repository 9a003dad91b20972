"""What gateways live through, done to a real agent and a real broker. Each prints its accounts (`pytest -s`).

The long ones run with TRANSOM_FAULTS=1, as CI does; scripts/torture makes hours of them. What each demands stands in
accounts.py (the same for all) and beside the scenario. They mostly wait, so TRANSOM_FAULTS_AT_ONCE (2) run at a time.
"""

import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor

import pytest
from accounts import Report
from catalogue import SCENARIOS

from conftest import missing

pytestmark = [pytest.mark.mosquitto, pytest.mark.timeout(1500)]
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def unable(needs: tuple[str, ...]) -> str | None:
    """Why a scenario cannot run here."""
    if "root" in needs and os.geteuid() != 0:
        return "mounting and network namespaces need root"
    tools = [tool for tool in ("mosquitto", *needs) if tool != "root" and shutil.which(tool, path=PATH) is None]
    return f"not installed: {', '.join(tools)} (apt install mosquitto nftables iproute2)" if tools else None


@pytest.fixture(scope="module")
def begun(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Report]]]:
    """The scenarios of all tests that are to run, each in a process of its own, in the order of the tests."""
    if os.environ.get("TRANSOM_FAULTS") != "1":
        pytest.skip("takes minutes: TRANSOM_FAULTS=1 scripts/test tests/faults")
    workers = int(os.environ.get("TRANSOM_FAULTS_AT_ONCE", "2"))
    fresh = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=fresh, max_tasks_per_child=1)
    marks = [mark for item in request.session.items if (mark := item.get_closest_marker("fault")) is not None]
    try:
        yield {
            mark.args[0]: pool.submit(
                SCENARIOS[mark.args[0]], tmp_path_factory.mktemp(mark.args[0]), mark.kwargs.get("scale", 1)
            )
            for mark in marks
            if unable(mark.args[1:]) is None
        }
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@pytest.fixture
def outcome(request: pytest.FixtureRequest, begun: dict[str, Future[Report]]) -> Callable[[], Report]:
    """Runs to its end and prints the scenario of this test."""
    mark = request.node.get_closest_marker("fault")
    reason = unable(mark.args[1:])
    if reason is not None:
        missing(reason)

    def wait() -> Report:
        report = begun[mark.args[0]].result()
        print(f"\n{report}")
        return report

    return wait


Outcome = Callable[[], Report]


def kept(report: Report) -> None:
    assert report.problems() == [], f"{report}\n" + "\n".join(report.problems())


@pytest.mark.fault("soak")
def test_a_soak_grows_nothing(outcome: Outcome) -> None:
    kept(outcome())


@pytest.mark.fault("flood", scale=3)
def test_a_flood_at_qos_1_is_bounded_and_loses_nothing(outcome: Outcome) -> None:
    kept(outcome())


@pytest.mark.fault("kill-agent")
def test_an_agent_killed_twenty_times_loses_nothing(outcome: Outcome) -> None:
    kept(outcome())


@pytest.mark.fault("cut-link")
def test_a_link_that_is_gone_for_a_minute_loses_nothing(outcome: Outcome) -> None:
    kept(outcome())


@pytest.mark.fault("flood-qos-0", scale=3)
def test_a_flood_at_qos_0_is_bounded_and_what_is_shed_is_counted(outcome: Outcome) -> None:
    kept(outcome())


@pytest.mark.fault("kill-broker")
def test_a_broker_killed_ten_times_costs_nothing_but_what_it_lost_itself(outcome: Outcome) -> None:
    kept(outcome())


@pytest.mark.fault("kill-both")
def test_broker_and_agent_killed_at_once_cost_nothing_but_what_the_broker_lost(outcome: Outcome) -> None:
    kept(outcome())


@pytest.mark.fault("stop-broker")
def test_a_broker_that_is_stopped_and_started_loses_nothing(outcome: Outcome) -> None:
    kept(outcome())


@pytest.mark.fault("stop-both")
def test_an_agent_killed_while_the_broker_is_stopped_loses_nothing(outcome: Outcome) -> None:
    kept(outcome())


@pytest.mark.fault("shutdown")
def test_sigterm_in_a_flood_ends_within_five_seconds_with_everything_saved(outcome: Outcome) -> None:
    kept(outcome())


@pytest.mark.fault("slow-link", scale=0.4)
def test_a_link_with_two_seconds_of_delay_loses_nothing(outcome: Outcome) -> None:
    kept(outcome())


@pytest.mark.fault("half-open")
def test_half_open_connections_are_found_and_lose_nothing(outcome: Outcome) -> None:
    kept(outcome())


@pytest.mark.fault("packet-loss", "root", "nft", "ip")
def test_packet_loss_of_thirty_percent_loses_nothing(outcome: Outcome) -> None:
    kept(outcome())


@pytest.mark.fault("disk-full", "root")
def test_a_full_disk_stops_nothing_and_the_journal_comes_back(outcome: Outcome) -> None:
    kept(outcome())


@pytest.mark.fault("read-only", "root")
def test_a_read_only_state_folder_stops_nothing_and_the_journal_comes_on(outcome: Outcome) -> None:
    kept(outcome())


@pytest.mark.fault("corrupt-file")
def test_a_corrupt_state_file_is_set_aside_and_never_deleted(outcome: Outcome) -> None:
    kept(outcome())


@pytest.mark.fault("reloads")
def test_a_reload_keeps_every_window_and_a_bad_one_changes_nothing(outcome: Outcome) -> None:
    kept(outcome())
