"""The configuration of a mosquitto on this machine: what of it loses messages. Reads its files, changes nothing."""

from collections.abc import Iterator
from pathlib import Path

from transom.edge.checkup import Finding

ENOUGH = 10_000  # messages that may wait for the agent: at 10 readings/s a quarter of an hour


def mosquitto_findings(host: str, file: Path = Path("/etc/mosquitto/mosquitto.conf")) -> Iterator[Finding]:
    """What the mosquitto of this machine is configured to lose."""
    if host not in ("127.0.0.1", "::1", "localhost"):
        return
    lines = _lines(file)
    if lines is None:
        return
    told = dict(line.split(None, 1) for line in lines if len(line.split(None, 1)) == 2)
    mend = "echo '{}' | sudo tee -a /etc/mosquitto/conf.d/transom.conf && sudo systemctl restart mosquitto"
    if told.get("persistence", "false").strip() != "true":
        yield Finding(
            f"{file}: no persistence",
            "when mosquitto is restarted, what waits for the agent and all retained alerts are lost",
            mend.format("persistence true"),
        )
    queued = told.get("max_queued_messages", "1000").strip()
    if not queued.isdigit() or int(queued) not in range(1, ENOUGH):
        return
    yield Finding(
        f"{file}: {told.get('max_queued_messages', '1000 (the default)')} messages are queued",
        "of what comes while the agent is away, the rest is lost",
        mend.format("max_queued_messages 100000"),
    )


def _lines(file: Path) -> list[str] | None:
    """Of the file and of the folders that it includes; None where it cannot be read."""
    try:
        lines = [line.strip() for line in file.read_text(errors="replace").splitlines()]
    except OSError:
        return None
    for line in list(lines):
        if line.startswith("include_dir "):
            folder = Path(line.split(None, 1)[1])
            for other in sorted(folder.glob("*.conf")):
                lines += _lines(other) or []
    return [line for line in lines if line and not line.startswith("#")]
