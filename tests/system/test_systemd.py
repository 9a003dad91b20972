"""The service under a real systemd that is booted in a container; the tests are steps of one story, in their order."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from container import Container, lacking

from conftest import missing

pytestmark = pytest.mark.mosquitto

AGENT = """\
[agent]
id = "gw"
health_every = "200ms"
commit_every = "50ms"

[broker]
username = "transom"
password_file = "broker-password"

[streams.s]
topic = "plant/{device}/{channel}"
model = "universal"
"""
BROKER = """\
[Service]
ExecStart=/usr/sbin/mosquitto -c /etc/mosquitto.conf
"""
PROBE = """#!/bin/sh
for file in /etc/x /opt/transom/x /usr/x /var/lib/x /var/x /x /dev/x; do
    if touch $file 2>/dev/null; then echo "wrote $file"; else echo "refused $file"; fi
done
cat /etc/transom/broker-password >/dev/null 2>&1 && echo "read the secret's file"
test "$(cat $CREDENTIALS_DIRECTORY/broker-password)" = hunter2 && echo "read the credential"
ls /root >/dev/null 2>&1 && echo "saw /root"
touch $STATE_DIRECTORY/x && echo "wrote state"
exit 0
"""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    if why := lacking():
        missing(why)
    container = Container(tmp_path_factory.mktemp("box"))
    etc = container.tree / "etc"
    (etc / "transom").mkdir()
    (etc / "transom/agent.toml").write_text(AGENT)
    (etc / "transom/broker-password").write_text("hunter2\n")
    (etc / "transom/broker-password").chmod(0o600)
    (etc / "mosquitto.conf").write_text("listener 1883\nallow_anonymous false\npassword_file /etc/users\nuser root\n")
    (etc / "systemd/system/mosquitto.service").write_text(BROKER)
    (etc / "probe.sh").write_text(PROBE)
    (etc / "probe.sh").chmod(0o755)
    with container:
        container.run("sh", "-c", "umask 077; touch /etc/users; mosquitto_passwd -b /etc/users transom hunter2 "
                      "&& mosquitto_passwd -b /etc/users sensors s")  # fmt: skip
        yield container


def until(there: Callable[[], bool], box: Container, seconds: float = 60) -> None:
    """systemd tells nobody outside when a property changes: it is asked again and again."""
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, box.run("systemctl", "status", "--no-pager", "transom") + box.journal()
        time.sleep(0.1)


def publish(box: Container, count: int) -> None:
    lines = "\n".join(str(20 + i % 3) for i in range(count))
    box.run("sh", "-c", f"printf '{lines}\\n' | mosquitto_pub -u sensors -P s -t plant/pump/x -q 1 -l")


def accepted(box: Container) -> int:
    words = ("mosquitto_sub", "-u", "sensors", "-P", "s", "-t", "transom/gw/health", "-C", "1", "-R", "-W", "20")
    return int(json.loads(box.run(*words))["streams"]["s"]["accepted"])


def state(box: Container) -> str:
    return box.show("transom", "ActiveState")


def test_install_shows_what_it_writes_verifies_and_enables(box: Container) -> None:
    told = box.run("/opt/transom/bin/transom", "service", "install", "--no-start")
    assert "+LoadCredential=broker-password:/etc/transom/broker-password\n" in told
    assert "+Environment=TRANSOM_BROKER__PASSWORD_FILE=%d/broker-password\n" in told
    assert float(told.partition("exposure ")[2].split()[0]) <= 1.5
    assert box.run("systemctl", "is-enabled", "transom").strip() == "enabled"
    assert "stays as it is" in box.run("/opt/transom/bin/transom", "service", "install", "--dry-run")


def test_it_is_not_ready_while_the_broker_is_away_and_says_so(box: Container) -> None:
    box.run("systemctl", "start", "--no-block", "transom")
    until(lambda: box.show("transom", "StatusText").startswith("waiting for the broker: 127.0.0.1:1883"), box)
    assert state(box) == "activating"
    box.run("systemctl", "start", "mosquitto")
    box.run("systemctl", "start", "transom")  # returns when the start that is under way has ended
    assert state(box) == "active"
    assert box.show("transom", "StatusText").startswith("watching 0 series in 1 stream")


def test_a_model_runs_inside_the_sandbox_as_a_user_of_its_own(box: Container) -> None:
    publish(box, 40)
    until(lambda: accepted(box) == 40, box)
    until(lambda: "watching 1 series" in box.show("transom", "StatusText"), box)
    pid = box.show("transom", "MainPID")
    status = box.run("cat", f"/proc/{pid}/status")
    uid = int(next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1])
    box.run("systemctl", "reload", "transom")
    until(lambda: "configuration reloaded" in box.journal(), box)
    assert 61184 <= uid <= 65519  # systemd's range for DynamicUser


def test_a_run_loop_that_is_stuck_is_restarted_with_its_windows(box: Container) -> None:
    dropin = box.tree / "etc/systemd/system/transom.service.d"
    dropin.mkdir()
    (dropin / "quick.conf").write_text("[Service]\nWatchdogSec=2\nRestartSec=100ms\nTimeoutAbortSec=5\n")
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "restart", "transom")
    (box.tree / "etc/stuck").touch()
    publish(box, 1)
    until(lambda: int(box.show("transom", "NRestarts")) >= 1, box)
    (box.tree / "etc/stuck").unlink()
    until(lambda: state(box) == "active", box)
    journal = box.journal()
    assert "Watchdog timeout" in journal
    assert "Fatal Python error: Aborted" in journal  # where it was stuck
    assert "state restored: 1 series" in journal
    until(lambda: accepted(box) == 41, box)  # what was being read when it was killed has come again
    assert _predicts_at_once(box)


def test_a_crash_is_restarted_with_its_windows(box: Container) -> None:
    count, pid = accepted(box), box.show("transom", "MainPID")
    restarts = int(box.show("transom", "NRestarts"))
    box.run("kill", "-9", pid)
    until(lambda: int(box.show("transom", "NRestarts")) > restarts and state(box) == "active", box)
    assert accepted(box) == count
    assert _predicts_at_once(box)


def _predicts_at_once(box: Container) -> bool:
    """A series that began anew would say nothing before its 16th reading."""
    listen = "mosquitto_sub -u sensors -P s -t transom/gw/s/+/+/prediction -C 1 -W 20 >/run/heard & sleep 0.5; "
    box.run("sh", "-c", listen + "mosquitto_pub -u sensors -P s -t plant/pump/x -q 1 -m 21; wait")
    return "universal" in box.run("cat", "/run/heard")


def test_the_sandbox_refuses_all_writes_but_to_the_state(box: Container) -> None:
    text = (box.tree / "etc/systemd/system/transom.service").read_text()
    dropped = ("Type=", "ExecStart=", "ExecReload=", "Watchdog", "Restart", "NotifyAccess")
    kept = [line for line in text.splitlines() if not line.startswith(dropped)]
    probe = (
        "\n".join(kept).replace("StateDirectory=transom", "StateDirectory=probe").replace("User=transom", "User=probe")
    )
    probe = probe.replace("[Service]", "[Service]\nType=oneshot\nExecStart=/etc/probe.sh")
    (box.tree / "etc/systemd/system/probe.service").write_text(probe)
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "start", "probe")
    told = box.run("journalctl", "-u", "probe", "-o", "cat", "--no-pager").splitlines()
    assert [line for line in told if line.startswith("wrote")] == ["wrote state"]
    assert sum(line.startswith("refused") for line in told) == 7
    assert "read the credential" in told
    assert not {"read the secret's file", "saw /root"} & set(told)


def test_the_doctor_sees_the_service_as_it_is(box: Container) -> None:
    def areas() -> dict[str, str]:
        told = box.ask("/opt/transom/bin/transom", "doctor", "--json").stdout
        return {f["area"]: f["what"] for f in json.loads(told) if not f["note"] and f["area"] != "machine"}

    assert areas() == {}
    unit = box.tree / "etc/systemd/system/transom.service"
    text = unit.read_text()
    unit.write_text(text.replace("MemoryMax=75%", "MemoryMax=10%"))
    assert "is not what this version would install" in areas()["service"]
    unit.write_text(text)


def test_a_refused_configuration_is_not_tried_again(box: Container) -> None:
    config: Path = box.tree / "etc/transom/agent.toml"
    config.write_text(AGENT.replace("universal", "nosuch"))
    box.ask("systemctl", "restart", "transom")
    until(lambda: state(box) == "failed", box)
    assert (box.show("transom", "ExecMainStatus"), box.show("transom", "NRestarts")) == ("2", "0")
    config.write_text(AGENT)
    told = box.run("/opt/transom/bin/transom", "service", "install")
    assert "running: watching 1 series" in told


def test_uninstall_leaves_the_state_unless_told_otherwise(box: Container) -> None:
    told = box.run("/opt/transom/bin/transom", "service", "uninstall")
    assert "its state stays in /var/lib/transom" in told
    assert box.ask("systemctl", "cat", "transom").returncode != 0
    assert (box.tree / "var/lib/private/transom").is_dir()
    box.run("/opt/transom/bin/transom", "service", "install", "--no-start")
    box.run("/opt/transom/bin/transom", "service", "uninstall", "--purge-state")
    assert not (box.tree / "var/lib/private/transom").exists()
