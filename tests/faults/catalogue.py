"""Every scenario by its name: what tests and scripts/torture can run."""

from collections.abc import Callable

import loads
import scenarios
from accounts import Report
from fuzz import fuzz

SCENARIOS: dict[str, Callable[..., Report]] = {
    "soak": loads.soak, "kill-agent": scenarios.kill_agent, "stop-broker": scenarios.stop_broker,
    "kill-broker": scenarios.kill_broker, "stop-both": scenarios.stop_both, "kill-both": scenarios.kill_both,
    "cut-link": scenarios.cut_link, "flood": loads.flood, "flood-qos-0": loads.flood_fleeting,
    "shutdown": loads.shutdown, "slow-link": scenarios.slow_link, "half-open": scenarios.half_open,
    "packet-loss": scenarios.packet_loss, "disk-full": scenarios.disk_full, "corrupt-file": scenarios.corrupt_file,
    "read-only": scenarios.read_only, "reloads": scenarios.reloads, "fuzz": fuzz,
}  # fmt: skip
