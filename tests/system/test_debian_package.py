"""The Debian package: what it holds, and its life under the real dpkg, in a copy of this system that has no network.

The copy is an overlay over this machine's root in namespaces of its own: what dpkg does to it is gone with the test.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from conftest import missing

ROOT = Path(__file__).parents[2]
PYTHON = str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}")
COPY = """\
set -eu
mount -t tmpfs none "$BASE" && mkdir "$BASE/upper" "$BASE/work" "$BASE/tree"
mount -t overlay overlay -o "lowerdir=/,upperdir=$BASE/upper,workdir=$BASE/work" "$BASE/tree"
mount -t proc none "$BASE/tree/proc" && mount --rbind /dev "$BASE/tree/dev"
mount -t tmpfs none "$BASE/tree/tmp" && mount -t tmpfs none "$BASE/tree/opt"
for folder in "$PACKAGES" "$BASE_PYTHON" "$DEB"; do
    mkdir -p "$BASE/tree$folder" && mount --bind "$folder" "$BASE/tree$folder"
done
exec chroot "$BASE/tree" sh -eu -c "$STORY"
"""


def story(text: str, folder: Path, deb: Path, **env: str) -> str:
    """Runs a shell's lines as root of the copy; what it said, both ways. Without a network there is nothing to wait for,
    so pip does not try again. The packages that ours depends on may be missing: Python comes from elsewhere here."""
    (folder / "base").mkdir()
    given = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "PIP_RETRIES": "0", "PYTHON": PYTHON, "STORY": text,
        "BASE": str(folder / "base"), "DEB": str(deb.parent), "BASE_PYTHON": sys.base_prefix,
        "PACKAGES": sysconfig.get_path("purelib"), "INSTALL": f"dpkg --force-depends -i {deb}",
    }  # fmt: skip
    words = ["unshare", "--mount", "--net", "--pid", "--fork", "sh", "-c", COPY]
    done = subprocess.run(words, env=given | env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("dpkg-deb") is None:
        missing("no dpkg-deb: not a Debian")
    if not (ROOT / ".venv/installed-dev").exists():
        missing("no .venv here with what builds (scripts/install dev)")
    return build(tmp_path_factory.mktemp("deb"))


def build(out: Path) -> Path:
    told = subprocess.run(
        [str(ROOT / "scripts/build-deb"), str(out)], check=True, capture_output=True, text=True
    ).stdout
    return Path(told.splitlines()[-1])


def field(deb: Path, name: str) -> str:
    return subprocess.run(["dpkg-deb", "-f", str(deb), name], check=True, capture_output=True, text=True).stdout.strip()


def test_it_says_what_it_needs_and_holds_wheel_lists_and_installer(deb: Path) -> None:
    assert (field(deb, "Package"), field(deb, "Version"), field(deb, "Architecture")) == ("transom", "0.1.0", "all")
    assert {"python3 (>= 3.11)", "python3 (<< 3.14)", "python3-venv"} <= set(field(deb, "Depends").split(", "))
    listed = subprocess.run(["dpkg-deb", "-c", str(deb)], check=True, capture_output=True, text=True).stdout
    files = {line.split()[-1].removeprefix("."): line.split()[:2] for line in listed.splitlines()}
    assert {owner for _, owner in files.values()} == {"root/root"}
    for name in ("/usr/bin/transom", "/usr/sbin/transom-setup", "/usr/share/transom/install.sh"):
        assert files[name][0] == "-rwxr-xr-x"
    share = {name.removeprefix("/usr/share/transom/") for name in files if name.startswith("/usr/share/transom/")}
    locks = {f"locks/{path.name}" for path in (ROOT / "locks").iterdir()}
    assert {"transom-0.1.0-py3-none-any.whl", "constraints.txt", "light.txt", *locks} <= share


def test_built_again_it_is_the_same_file(deb: Path, tmp_path: Path) -> None:
    assert build(tmp_path).read_bytes() == deb.read_bytes()


LIFE = """
$INSTALL
dpkg-query -f '${Status}\\n' -W transom
transom --version || true
transom-setup --packages "$PACKAGES"
transom --version
ls /opt/transom
mkdir -p /var/lib/transom && echo windows >/var/lib/transom/state
mkdir -p /opt/transom/mine
dpkg --purge transom
ls /opt/transom
cat /var/lib/transom/state
"""


def test_its_life_without_a_network(deb: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("a copy of this system needs root")
    told = story(LIFE, tmp_path, deb)
    order = [
        "the package is installed and its environment is not; when that is mended: sudo transom-setup",
        "install ok installed", "transom: is not set up yet; run: sudo transom-setup",
    ]  # fmt: skip
    for words in order:
        assert words in told
    out = told.partition("install ok installed\n")[2]
    assert "is in /opt/transom/current" in out
    assert "transom 0.1.0\n" in out
    assert "current\nmode\nvenvs\n" in out
    assert "\nmine\nwindows\n" in out, "purging leaves state, and what is not ours"
    assert "transom: /var/lib/transom stays; if it is not wanted: sudo rm -r /var/lib/transom" in told


def test_a_32_bit_system_is_refused_before_anything_is_unpacked(deb: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("a copy of this system needs root")
    pretend = "printf '#!/bin/sh\necho armhf\n' >/usr/local/bin/dpkg; chmod +x /usr/local/bin/dpkg"
    run = f"{pretend}\nPATH=/usr/local/bin:$PATH /usr/bin/$INSTALL || true\nls /usr/share/transom || true"
    told = story(run, tmp_path, deb)
    assert "transom: this system is armhf, for which there is no torch; install the 64-bit image" in told
    assert "cannot access '/usr/share/transom'" in told
