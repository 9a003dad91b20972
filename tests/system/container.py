"""A real systemd in a container: this system's own /usr, read-only, under a fresh /etc and /var; boots in a second.

The agent in it is the one under test, in a virtual environment at /opt/transom with this one's packages.
"""

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEEDED = ("systemd-nspawn", "nsenter", "mosquitto_pub")
BOOT = 60  # seconds
STICK = """\
# The agent, with a fault to switch on: while /etc/stuck is there its run loop hangs and its other threads go on.
import sys, time
from pathlib import Path
if sys.argv[1:2] == ["run"]:
    from transom.core.pipeline import Pipeline
    gather, take = Pipeline.gather, Pipeline.take
    def hang():
        while Path("/etc/stuck").exists():
            time.sleep(0.1)
    Pipeline.gather = lambda *a: (hang(), gather(*a))[1]
    Pipeline.take = lambda *a: (hang(), take(*a))[1]
from transom.cli import command
command()
"""


def lacking() -> str:
    """Why no container can be made here; empty when one can."""
    if os.geteuid() != 0:
        return "a container needs root"
    if not Path("/bin").is_symlink() or not Path("/usr/lib/systemd/systemd").exists():
        return "needs systemd and a merged /usr"
    missing = [name for name in NEEDED if shutil.which(name) is None]
    return f"no {', '.join(missing)} (apt install systemd-container mosquitto-clients)" if missing else ""


class Container:
    """`with Container(folder) as box: box.run("systemctl", …)`."""

    def __init__(self, folder: Path) -> None:
        self.tree, self._socket = folder / "tree", folder / "notify"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = ""
        _etc(self.tree)
        _venv(self.tree)

    def __enter__(self) -> "Container":
        log = self.tree.parent / "boot.log"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told, log.open("wb") as out:
            told.bind(str(self._socket))
            python = [f"--bind-ro={sys.base_prefix}:/opt/python"] if Path(sys.base_prefix) != Path("/usr") else []
            self._nspawn = subprocess.Popen(
                ["systemd-nspawn", "-q", "-D", str(self.tree), "-M", f"transom-{os.getpid()}", "--register=no",
                 "--keep-unit", "--console=pipe", "--private-network", "--notify-ready=yes", "--bind-ro=/usr", *python,
                 f"--bind-ro={sysconfig.get_path('purelib')}:/opt/packages",
                 f"--bind-ro={ROOT / 'agent'}:/opt/agent", f"--bind-ro={ROOT / 'models'}:/opt/models", "-b"],
                env=os.environ | {"NOTIFY_SOCKET": str(self._socket), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
            told.settimeout(1.0)
            words, end = "", time.monotonic() + BOOT
            while "READY=1" not in words.split():
                if self._nspawn.poll() is not None or time.monotonic() > end:
                    self.__exit__()
                    raise RuntimeError(f"no container boots here: {log.read_text(errors='replace')[-500:]}")
                with suppress(TimeoutError):
                    words += told.recv(4096).decode() + "\n"
        self._leader = next(w.partition("=")[2] for w in words.split() if w.startswith("X_NSPAWN_LEADER_PID="))
        return self

    def __exit__(self, *_: object) -> None:
        assert self._nspawn is not None
        self._nspawn.terminate()  # it asks the system inside to power off
        with suppress(subprocess.TimeoutExpired):
            self._nspawn.wait(20)
        if self._nspawn.poll() is None:
            self._nspawn.kill()
            self._nspawn.wait(10)

    def ask(self, *words: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Runs a command inside, as root."""
        inside = ["nsenter", "-t", self._leader, "-a", "env", "-i", "PATH=/usr/sbin:/usr/bin", "LC_ALL=C.UTF-8", *words]
        return subprocess.run(
            inside, capture_output=True, text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL
        )

    def run(self, *words: str, seconds: float = 60) -> str:
        done = self.ask(*words, seconds=seconds)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}{self.journal()}"
        return done.stdout

    def show(self, unit: str, key: str) -> str:
        return self.run("systemctl", "show", unit, "-P", key).strip()

    def journal(self) -> str:
        return self.ask("journalctl", "--no-pager", "-n", "60", "-o", "cat").stdout


def _etc(tree: Path) -> None:
    for name in ("etc/systemd/system", "usr", "var", "run", "tmp", "proc", "sys", "dev", "root", "opt", "home"):
        (tree / name).mkdir(parents=True)
    tree.chmod(0o755)
    for name in ("bin", "sbin", "lib", "lib64"):
        (tree / name).symlink_to(f"usr/{name}")
    files = {
        "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        "group": "root:x:0:\nnogroup:x:65534:\n",
        "nsswitch.conf": "passwd: files systemd\ngroup: files systemd\nhosts: files\n",
        "hosts": "127.0.0.1 localhost\n", "hostname": "gw\n", "machine-id": "0123456789abcdef0123456789abcdef\n",
    }  # fmt: skip
    for name, text in files.items():
        (tree / "etc" / name).write_text(text)
    shutil.copy("/usr/lib/os-release", tree / "etc/os-release")
    (tree / "etc/systemd/system/default.target").symlink_to("/usr/lib/systemd/system/multi-user.target")


def _venv(tree: Path) -> None:
    home = Path("/usr/bin") if Path(sys.base_prefix) == Path("/usr") else Path("/opt/python/bin")
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = tree / "opt/transom/lib" / version / "site-packages"
    packages.mkdir(parents=True)
    (packages / "host.pth").write_text("/opt/agent\n/opt/models\n/opt/packages\n")
    folder = tree / "opt/transom/bin"
    folder.mkdir()
    (tree / "opt/transom/pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n")
    (folder / "python").symlink_to(home / version)
    (tree / "opt/transom/stick.py").write_text(STICK)
    command = folder / "transom"
    command.write_text(
        '#!/bin/sh\nLD_LIBRARY_PATH=/opt/python/lib exec /opt/transom/bin/python /opt/transom/stick.py "$@"\n'
    )
    command.chmod(0o755)
