"""The service on this machine: what its unit must say, and systemctl and systemd-analyze in plain words.

A configuration file and options in; a UnitSpec, or every obstacle at once, out. Writes only what `write` is told to.
"""

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from transom.edge.unit import NAME, UnitSpec, unseen
from transom.errors import TransomError
from transom.settings import Settings, load_settings
from transom.settings.options import ENV_PREFIX
from transom.settings.sources import read_toml

FOLDER = Path("etc/systemd/system")
STATE_ROOT = Path("/var/lib")
CREDENTIALS = re.compile(r"^\$(?:\{CREDENTIALS_DIRECTORY\}|CREDENTIALS_DIRECTORY)/([\w.-]+)$")
STORE = Path("/etc/credstore")  # where systemd keeps credentials by convention
SECRET_KEYS = {  # settings that name files with secrets -> their variable
    ("broker", "password_file"): "TRANSOM_BROKER__PASSWORD_FILE",
    ("broker", "tls", "key_file"): "TRANSOM_BROKER__TLS__KEY_FILE",
    ("http", "token_file"): "TRANSOM_HTTP__TOKEN_FILE",
    ("broker", "tls", "key_password_file"): "TRANSOM_BROKER__TLS__KEY_PASSWORD_FILE",
    ("privacy", "series_key_file"): "TRANSOM_PRIVACY__SERIES_KEY_FILE",
}


def plan(config: Path, name: str, credentials: Mapping[str, Path]) -> tuple[UnitSpec, list[TransomError]]:
    """What the unit must say, and what the service could not reach. Its command is `transom` of the environment that
    runs this. Raises SettingsError with every problem of the configuration, TransomError for a bad name.
    """
    if not NAME.fullmatch(name):
        raise TransomError("--name", f"{name!r} is no name of a service", "use letters, digits, - and _, 31 at most")
    config = config.absolute()
    found, variables = dict(credentials), dict[str, str]()
    tables = read_toml(config)
    for keys, variable in SECRET_KEYS.items():
        raw = _at(tables, keys)
        if not isinstance(raw, str):
            continue
        if asked := CREDENTIALS.match(raw):
            found.setdefault(asked[1], STORE / asked[1])
        else:
            file = config.parent / os.path.expandvars(raw)
            if not _anyone_reads(file):
                label = ".".join(keys).replace("_", "-").removesuffix("-file").replace(".", "-")
                found.setdefault(label, file)
                variables[variable] = label
    settings = _read(config, found)
    state, problems = _state(settings, name)
    command = lasting(Path(sys.executable).parent / "transom")
    problems += [*_reachable(command, config, settings, found)]
    return UnitSpec(command, config, name, state, found, variables), problems


def lasting(command: Path) -> Path:
    """The same command by a name that outlives an upgrade: scripts/install-pi keeps each version in PREFIX/venvs, and
    PREFIX/current is the one that runs."""
    version = command.parent.parent
    current = version.parent.parent / "current"
    if version.parent.name == "venvs" and current.is_symlink() and current.resolve() == version.resolve():
        return current / "bin" / command.name
    return command


def _read(config: Path, credentials: Mapping[str, Path]) -> Settings:
    """The configuration as the service will see it: without this shell's variables, with its credentials."""
    kept = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        try:
            for variable in [v for v in os.environ if v.startswith(ENV_PREFIX)]:
                del os.environ[variable]
            for name, file in credentials.items():
                (Path(folder) / name).symlink_to(file.absolute())
            os.environ["CREDENTIALS_DIRECTORY"] = folder
            return load_settings(config, {})
        finally:
            os.environ.clear()
            os.environ.update(kept)


def _state(settings: Settings, name: str) -> tuple[str, list[TransomError]]:
    if "state" not in settings.agent.model_fields_set:
        return name, []
    state = settings.agent.state
    if state.parent == STATE_ROOT and NAME.fullmatch(state.name):
        return state.name, []
    return name, [
        TransomError(
            f"{settings.config}: agent.state", f"{state} is no folder that the service may write",
            f"remove it, and the service uses {STATE_ROOT / name}; or name another folder directly below {STATE_ROOT}",
        )
    ]  # fmt: skip


def _reachable(
    command: Path, config: Path, settings: Settings, credentials: Mapping[str, Path]
) -> Iterator[TransomError]:
    """What the service's own user could not read or run; systemd itself reads the credentials, as root."""
    python = "the virtual environment lives best in /opt/transom: sudo scripts/install-pi makes it"
    wanted = [
        (command, command, python),
        (command, Path(sys.base_prefix), "make it with a Python that all users reach, such as /usr/bin/python3"),
        (command, Path(__file__), "install it there, not in place: pip install . without -e"),
        (config, config, "move it to /etc/transom/agent.toml; chmod 644, and secrets into files of their own"),
    ]
    for name, stream in settings.streams.items():
        file = settings.folder / stream.model
        if "/" in stream.model or file.suffix:
            wanted.append((Path(f"streams.{name}.model"), file, "move it to /etc/transom; chmod 644"))
    tls = settings.broker.tls
    for key, path in (("ca_file", tls.ca_file), ("cert_file", tls.cert_file)):
        if path is not None:
            wanted.append((Path(f"broker.tls.{key}"), path, "move it to /etc/transom; chmod 644"))
    for place, path, remedy in wanted:
        hidden = unseen(path.absolute())
        if hidden is not None:
            yield TransomError(str(place), f"{path} is not seen by the service, which has no {hidden}", remedy)
        elif not path.exists():
            yield TransomError(str(place), f"there is no {path}", remedy)
        elif not _anyone_reads(path):
            yield TransomError(str(place), f"{path} cannot be read by the service's own user", remedy)
    for name, path in credentials.items():
        if not path.is_file():
            yield TransomError(f"credential {name}", f"there is no file {path}", f"--credential {name}=FILE")


def _anyone_reads(path: Path) -> bool:
    """Whether a user who owns nothing here can read it: the bits of the file and of all folders above."""
    try:
        mode = path.stat().st_mode
        if not mode & stat.S_IROTH:
            return False
        return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)
    except OSError:
        return False


def _at(tables: object, keys: tuple[str, ...]) -> object:
    for key in keys:
        tables = tables.get(key) if isinstance(tables, Mapping) else None
    return tables


# --- systemd ----------------------------------------------------------------------------------------------------------


def booted() -> bool:
    """Whether systemd runs this machine: sd_booted(3)."""
    return Path("/run/systemd/system").is_dir()


def systemctl(*words: str, root: Path = Path("/")) -> str:
    """What it printed. Raises TransomError with what it said when it fails."""
    return _run(["systemctl", *([] if root == Path("/") else [f"--root={root}"]), *words])


def verify(text: str, name: str) -> str:
    """systemd's own view of a unit: its exposure, as systemd-analyze prints it. Raises TransomError for anything that
    it has to say against it; its exit status alone would let unknown directives pass."""
    if shutil.which("systemd-analyze") is None:
        raise TransomError("systemd-analyze", "is not installed", "apt install systemd")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.service"
        file.write_text(text)
        done = _quiet(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(file)])
        if done.returncode or done.stderr.strip():
            said = " | ".join(done.stderr.strip().splitlines()) or f"status {done.returncode}"
            raise TransomError(f"{name}.service", f"systemd-analyze verify: {said}", "nothing was written; report it")
        told = _quiet(["systemd-analyze", "security", "--offline=yes", "--no-pager", str(file)])
    found = re.search(r"exposure level for \S+: ([\d.]+)", told.stdout)
    return found[1] if found else "unknown"


def _run(words: list[str]) -> str:
    done = _quiet(words)
    if done.returncode:
        said = " | ".join((done.stderr or done.stdout).strip().splitlines())
        raise TransomError(" ".join(words), said or f"status {done.returncode}", "as root? see journalctl -xe")
    return done.stdout


def _quiet(words: list[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"}
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL)


def write(path: Path, text: str) -> None:
    """The whole file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text)
    beside.chmod(0o644)
    beside.replace(path)
