"""`transom service`: the agent as a systemd service. edge/unit.py has the text, edge/installing.py what it needs."""

import argparse
import difflib
import sys
import time
from pathlib import Path

from transom.edge import installing
from transom.edge.unit import MARK, unit
from transom.errors import SettingsError, TransomError
from transom.flags import default_config

EXAMPLES = """\
transom service show                               the unit that install would write
sudo /opt/transom/bin/transom service install      shows the changes, verifies, writes, enables and starts
sudo transom service install --dry-run             shows the changes and verifies them
sudo transom service install --credential broker-password=/etc/transom/secrets/broker
sudo transom service uninstall                     leaves the state; --purge-state removes it too"""

FOLLOWED = 30.0  # seconds for which the start is watched
GLANCE = 0.5  # seconds between two looks at it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("show", "install", "uninstall"))
    parser.add_argument(
        "-c", "--config", type=Path, metavar="FILE",
        help="configuration (default: $TRANSOM_CONFIG, ./transom.toml, /etc/transom/agent.toml)",
    )  # fmt: skip
    parser.add_argument("--name", default="transom", help="name of the service (default: transom)")
    parser.add_argument(
        "--credential", action="append", default=[], metavar="NAME=FILE",
        help="a secret that systemd hands over as $CREDENTIALS_DIRECTORY/NAME; files that only root can read and the "
        "configuration names become credentials by themselves",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="install: show and verify, change nothing")
    parser.add_argument("--no-start", action="store_true", help="install: enable only; it starts at the next boot")
    parser.add_argument("--force", action="store_true", help="install: also over a unit that somebody else wrote")
    parser.add_argument("--purge-state", action="store_true", help="uninstall: remove the state folder too")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("/"),
        metavar="DIR",
        help="write into a system that does not run, e.g. an image",
    )


def run(args: argparse.Namespace) -> int:
    try:
        return _run(args)
    except PermissionError as error:
        raise TransomError(
            str(error.filename), "may not be changed by this user", "run it as root, with sudo"
        ) from None


def _run(args: argparse.Namespace) -> int:
    if args.action == "uninstall":
        return _uninstall(args)
    config = args.config or default_config()
    if config is None:
        raise TransomError("service", "there is no configuration", "write /etc/transom/agent.toml, or give -c FILE")
    spec, problems = installing.plan(config, args.name, _credentials(args.credential))
    text = unit(spec)
    if args.action == "show":
        sys.stdout.write(text)
        for problem in problems:
            print(f"transom: install would refuse: {problem}", file=sys.stderr)
        return 0
    if problems:
        raise SettingsError(problems)
    return _install(args, text)


def _credentials(given: list[str]) -> dict[str, Path]:
    found = {}
    for word in given:
        name, equals, file = word.partition("=")
        if not equals or not name or not file or "/" in name or ":" in name:
            raise TransomError("--credential", f"{word!r} is not NAME=FILE", "e.g. broker-password=/etc/transom/secret")
        found[name] = Path(file).absolute()
    return found


def _install(args: argparse.Namespace, text: str) -> int:
    path = args.root / installing.FOLDER / f"{args.name}.service"
    old = path.read_text() if path.exists() else ""
    if old and MARK not in old and not args.force:
        raise TransomError(
            str(path), "was not written by transom", "see it with --dry-run --force; --force replaces it"
        )
    difference = list(difflib.unified_diff(
        old.splitlines(keepends=True), text.splitlines(keepends=True), str(path) if old else "/dev/null", str(path)
    ))  # fmt: skip
    sys.stdout.writelines(difference or [f"{path} stays as it is\n"])
    exposure = installing.verify(text, args.name)
    print(f"verified; exposure {exposure} of 10 by systemd-analyze security")
    if args.dry_run:
        print("nothing was changed (--dry-run)")
        return 0
    running = args.root == Path("/") and installing.booted()
    installing.write(path, text)
    if running:
        installing.systemctl("daemon-reload")
    installing.systemctl("enable", f"{args.name}.service", root=args.root)
    print(f"written to {path}, and enabled: it starts at each boot")
    if args.no_start or not running:
        print("not started" + ("" if args.no_start else ": systemd does not run here"))
        return 0
    installing.systemctl("restart", "--no-block", f"{args.name}.service")
    return _follow(args.name)


def _follow(name: str) -> int:
    """Says what the start comes to. A broker that is away is no failure: the service waits for it."""
    end, state, last = time.monotonic() + FOLLOWED, {}, ""
    while time.monotonic() < end:
        shown = installing.systemctl(
            "show", f"{name}.service", "-p", "ActiveState,SubState,StatusText,Result,NRestarts"
        )
        state = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        if state.get("ActiveState") == "active":
            print(f"running: {state.get('StatusText', '')}")
            return 0
        if state.get("ActiveState") == "failed" or int(state.get("NRestarts") or 0) > 0:
            raise TransomError(
                f"{name}.service", f"does not start ({state.get('Result')})", f"see: journalctl -eu {name}"
            )
        if sys.stdout.isatty() and state.get("StatusText", "") != last:
            last = state.get("StatusText", "")
            print(f"  {last}")
        time.sleep(GLANCE)
    print(f"still starting: {state.get('StatusText') or state.get('SubState', '')}; follow it: journalctl -fu {name}")
    return 0


def _uninstall(args: argparse.Namespace) -> int:
    path = args.root / installing.FOLDER / f"{args.name}.service"
    if not path.exists():
        raise TransomError(str(path), "there is no such service", "give its name with --name")
    text = path.read_text()
    if MARK not in text and not args.force:
        raise TransomError(str(path), "was not written by transom", "--force removes it all the same")
    running = args.root == Path("/") and installing.booted()
    unit_name = f"{args.name}.service"
    state = next(
        (line.partition("=")[2] for line in text.splitlines() if line.startswith("StateDirectory=")), args.name
    )
    if running:
        installing.systemctl("disable", "--now", unit_name)
        if args.purge_state:
            installing.systemctl("clean", "--what=state", unit_name)
    else:
        installing.systemctl("disable", unit_name, root=args.root)
    path.unlink()
    if running:
        installing.systemctl("daemon-reload")
    print(f"removed {path}")
    if not (running and args.purge_state):
        hint = (
            ": systemd does not run here, so it was not removed" if args.purge_state else "; --purge-state removes it"
        )
        print(f"its state stays in {installing.STATE_ROOT / state}{hint}")
    return 0
