"""Writes locks/: each package at the version and with the digest of the one wheel that this platform takes.

    linux-MACHINE-pyXY.txt, …-light.txt   what an installation needs, with and without torch, and the demo's broker
    build.txt (--build)                   what makes the wheel: pure Python, the same everywhere

Runs with the Python of the platform and its pip (22.3 or newer), because only there are all markers what they will be.
Versions come from constraints.txt. Nothing is installed.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAD = "# Written by scripts/lock from pyproject.toml and constraints.txt, for {}. Installed with --require-hashes.\n"
Pin = tuple[str, str, str]  # name, version, SHA-256 of the wheel


def resolve(wanted: list[str], options: list[str]) -> list[Pin]:
    """What pip would install. Raises CalledProcessError when it finds no such set."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    command += ["--only-binary", ":all:", "-c", str(ROOT / "constraints.txt"), *options, *wanted]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return sorted(map(pin, report["install"]))


def pin(item: dict) -> Pin:
    archive = item["download_info"]["archive_info"]
    digest = archive.get("hashes", {}).get("sha256") or archive["hash"].removeprefix("sha256=")
    return re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower(), item["metadata"]["version"], digest


def write(name: str, purpose: str, pins: list[Pin]) -> None:
    lines = [f"{package}=={version} \\\n    --hash=sha256:{digest}\n" for package, version, digest in pins]
    (ROOT / "locks").mkdir(exist_ok=True)
    (ROOT / "locks" / name).write_text(HEAD.format(purpose) + "".join(lines))
    print(f"locks/{name}: {len(pins)} packages")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", action="store_true", help="also locks/build.txt")
    parser.add_argument(
        "--light-only", action="store_true", help="without torch only: where its CPU build is no default"
    )
    args, options = parser.parse_known_args()  # others are pip's, e.g. --extra-index-url
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    demo = project["project"]["optional-dependencies"]["demo"]
    light = [line for line in (ROOT / "light.txt").read_text().splitlines() if not line.startswith("#")]
    machine = f"linux-{platform.machine()}-py{sys.version_info[0]}{sys.version_info[1]}"
    purpose = f"Python {sys.version_info[0]}.{sys.version_info[1]} on {platform.machine()}"
    if args.build:
        write("build.txt", "the build of the wheel", resolve(project["build-system"]["requires"], options))
    write(f"{machine}-light.txt", f"{purpose}, without torch", resolve([*light, *demo], options))
    if not args.light_only:
        write(f"{machine}.txt", purpose, resolve([*project["project"]["dependencies"], *demo], options))


if __name__ == "__main__":
    main()
