"""The state folder, the models, and the unit of the service. Reads; of what it writes, a trial file, nothing stays."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from transom.edge import gate, installing
from transom.edge.checkup import Finding
from transom.edge.unit import MARK, unit
from transom.errors import TransomError
from transom.runtimes import choice
from transom.runtimes.trust import Policy, Voucher, vouch
from transom.settings import ModelsSettings, StreamSettings

LEAST_FREE = 500 << 20  # bytes: the journal, a new model beside the old one, and some days of the system's own logs
SECRET = "LoadCredential="
UNITS = Path("/etc/systemd/system")


def state_findings(folder: Path, *, trial: bool = True) -> Iterator[Finding]:
    """Whether this user can write the folder, or the nearest one above that is there, and how full its disk is.
    trial: whether this user should be able to write there; the service's folder is that of another."""
    there = folder if trial else folder.parent  # into the service's own others cannot even look
    try:
        while not there.exists() and there != there.parent:
            there = there.parent
        disk = os.statvfs(there)
        if disk.f_flag & os.ST_RDONLY:
            yield Finding(
                f"{there} is on a disk that is mounted read-only",
                "nothing survives a restart; a worn SD card ends like this",
                "dmesg | grep -i -e mmc -e ext4 -e remount",
            )
            return
        free = disk.f_bavail * disk.f_frsize
        if disk.f_blocks and free < LEAST_FREE:
            yield Finding(
                f"{free >> 20} MB are free where state is kept ({there})",
                "when it is full nothing survives a restart, until there is room again",
                "sudo journalctl --vacuum-size=100M; sudo apt clean",
            )
        if disk.f_files and not disk.f_favail:
            yield Finding(
                f"no file can be made where state is kept ({there}): no inodes",
                "nothing survives a restart",
                f"df -i {there}",
            )
        if trial:
            with tempfile.NamedTemporaryFile(dir=there, prefix=".transom-doctor-"):
                pass
    except OSError as error:
        yield Finding(
            f"state cannot be written to {folder}: {error.strerror}",
            "nothing survives a restart",
            f'sudo mkdir -p {folder} && sudo chown -R "$(id -un)" {folder}',
        )


def model_findings(
    streams: dict[str, StreamSettings], folder: Path, runtime: choice.Runtime = "auto",
    trust: ModelsSettings | None = None,
) -> Iterator[Finding]:  # fmt: skip
    """Models that are missing, damaged, not those whose digest is written down, or those for which nobody vouches.
    trust: None where that cannot be known."""
    models = trust or ModelsSettings(allow_unsigned=True)
    policy = Policy.of(models.trusted_keys, allow_unsigned=models.allow_unsigned)
    vouchers: dict[str, Voucher] = {}
    for name, stream in streams.items():
        try:
            file = choice.find(stream.model, folder, runtime)
            vouchers[name] = vouch(file, stream.model_sha256, policy)
            choice.open_file(file, vouchers[name].sha256)
        except TransomError as error:
            mend = (
                f"{error.remedy}; its digest: sha256sum {error.place}" if "SHA-256" in error.problem else error.remedy
            )
            yield Finding(f"streams.{name}: {error.place}: {error.problem}", "this stream would not run", mend)
    for note in gate.notes(allow_unsigned=trust is not None and trust.allow_unsigned, vouchers=vouchers):
        yield Finding(
            note.partition("; sign them")[0],
            "whoever can write a model file, or its folder, decides what the agent computes",
            "transom keygen; transom sign MODEL; then models.trusted_keys in place of models.allow_unsigned",
        )


def state_of(settings_state: Path, *, named: bool, service: str = "transom", units: Path = UNITS) -> tuple[Path, bool]:
    """The folder that the agent uses on this machine, and whether it is the service's, which others cannot write.
    named: whether the configuration names it."""
    text = _unit_text(units / f"{service}.service")
    if named or text is None:
        return settings_state, False
    lines = (line.partition("=") for line in text.splitlines())
    return installing.STATE_ROOT / next((v for k, _, v in lines if k == "StateDirectory"), service), True


def service_findings(config: Path | None, service: str = "transom", units: Path = UNITS) -> Iterator[Finding]:
    """The unit that is installed against the one that this version would write, and how the service is."""
    file = units / f"{service}.service"
    text = _unit_text(file)
    if text is None:
        if installing.booted():
            yield Finding(
                "not installed as a service",
                "it does not start with the machine, nor again after a crash",
                "sudo transom service install",
                note=True,
            )
        return
    if MARK in text and config is not None:
        try:
            kept = {
                n: Path(f)
                for n, _, f in (
                    line.removeprefix(SECRET).partition(":") for line in text.splitlines() if line.startswith(SECRET)
                )
            }
            spec, problems = installing.plan(config, service, kept)
            for problem in problems:
                yield Finding(
                    f"the service: {problem.place}: {problem.problem}",
                    "the service cannot start like this",
                    problem.remedy,
                )
            if not problems and unit(spec) != text:
                yield Finding(
                    f"{file} is not what this version would install",
                    "it lacks what has changed since, or runs another installation",
                    "transom service install --dry-run   (shows the difference; without --dry-run it is made)",
                )
        except TransomError as error:
            first = str(error).splitlines()[0]
            yield Finding(f"the service refuses its configuration: {first}", "it does not start", "transom check")
    if installing.booted():
        try:
            state = installing.systemctl("show", f"{service}.service", "-P", "ActiveState").strip()
        except TransomError as error:
            yield Finding(
                f"systemd does not tell of the service: {error.problem}",
                "nobody knows whether it runs",
                f"systemctl status {service}",
            )
            return
        if state == "failed":
            yield Finding("the service has failed", "nothing is watched", f"journalctl -eu {service}")


def _unit_text(file: Path) -> str | None:
    try:
        return file.read_text()
    except OSError:
        return None
