"""`transom service` where no systemd runs: what it shows, refuses and writes. tests/system/test_systemd.py boots one."""

import shutil
from pathlib import Path

import pytest

from conftest import missing
from transom.cli import main
from transom.edge import installing
from transom.edge.checkup import storage
from transom.edge.unit import MARK, UnitSpec, unit, unseen
from transom.errors import TransomError

CONFIG = """\
[broker]
username = "transom"
password_file = "secret"

[streams.pumps]
topic = "plant/{site}/{device}/{channel}"
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration and a secret; nothing is hidden, for the test's own folders are where a service sees nothing."""
    if shutil.which("systemd-analyze") is None:
        missing("no systemd-analyze (apt install systemd)")
    monkeypatch.setattr(installing, "unseen", lambda _path: None)
    monkeypatch.setattr(installing, "_anyone_reads", lambda path: path.name != "secret")
    monkeypatch.setattr(installing, "booted", lambda: False)
    (tmp_path / "secret").write_text("hunter2\n")
    (tmp_path / "secret").chmod(0o600)
    file = tmp_path / "agent.toml"
    file.write_text(CONFIG)
    return file


def test_show_prints_the_unit_and_says_what_install_would_refuse(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["service", "show", "-c", str(config)]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(MARK)
    assert f"ExecStart={Path(installing.sys.executable).parent}/transom run -c {config}\n" in shown.out
    assert shown.err == ""
    monkeypatch.setattr(installing, "unseen", unseen)
    assert main(["service", "show", "-c", str(config)]) == 0
    assert "is not seen by the service" in capsys.readouterr().err
    assert main(["service", "install", "-c", str(config), "--dry-run"]) == 2


def test_a_file_that_only_root_reads_becomes_a_credential(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["service", "show", "-c", str(config)]) == 0
    text = capsys.readouterr().out
    assert f"LoadCredential=broker-password:{config.parent / 'secret'}\n" in text
    assert "Environment=TRANSOM_BROKER__PASSWORD_FILE=%d/broker-password\n" in text
    assert "hunter2" not in text


def test_a_credential_that_the_configuration_asks_for_by_name(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(CONFIG.replace('"secret"', '"${CREDENTIALS_DIRECTORY}/mqtt"'))
    words = ["service", "show", "-c", str(config)]
    assert main([*words, "--credential", f"mqtt={config.parent / 'secret'}"]) == 0
    text = capsys.readouterr().out
    assert f"LoadCredential=mqtt:{config.parent / 'secret'}\n" in text
    assert "PASSWORD_FILE" not in text
    assert main([*words, "--credential", "mqtt"]) == 1
    assert "is not NAME=FILE" in capsys.readouterr().err


def test_install_shows_the_difference_verifies_writes_and_enables(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "image"
    words = ["service", "install", "-c", str(config), "--root", str(root)]
    assert main([*words, "--dry-run"]) == 0
    assert not root.exists()
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "+DynamicUser=yes\n" in told
    written = root / "etc/systemd/system/transom.service"
    assert (root / "etc/systemd/system/multi-user.target.wants/transom.service").is_symlink()
    written.write_text(written.read_text().replace("MemoryMax=75%", "MemoryMax=10%"))
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "-MemoryMax=10%\n+MemoryMax=75%\n" in told
    assert "-DynamicUser" not in told
    assert main(["service", "uninstall", "--root", str(root)]) == 0
    assert "its state stays in /var/lib/transom" in capsys.readouterr().out
    assert not list((root / "etc/systemd/system/multi-user.target.wants").glob("*"))
    assert not written.exists()
    assert main(["service", "uninstall", "--root", str(root)]) == 1


def test_a_unit_that_somebody_else_wrote_stays(config: Path, tmp_path: Path) -> None:
    written = tmp_path / "image/etc/systemd/system/transom.service"
    written.parent.mkdir(parents=True)
    written.write_text("[Service]\nExecStart=/bin/true\n")
    words = ["-c", str(config), "--root", str(tmp_path / "image")]
    assert main(["service", "install", *words]) == 1
    assert main(["service", "uninstall", *words]) == 1
    assert written.read_text() == "[Service]\nExecStart=/bin/true\n"
    assert main(["service", "install", *words, "--force"]) == 0
    assert MARK in written.read_text()


def test_the_unit_is_hardened_to_an_exposure_of_one_and_a_half(config: Path) -> None:
    spec, problems = installing.plan(config, "transom", {})
    assert not problems
    assert float(installing.verify(unit(spec), "transom")) <= 1.5


def test_paths_with_blanks_and_signs_that_systemd_would_read_are_verified(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a b %h"
    folder.mkdir()
    command = folder / "transom"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    assert installing.verify(
        unit(UnitSpec(command, folder / "it's $HOME.toml", credentials={"x": folder / "s"})), "transom"
    )


def test_what_systemd_only_warns_of_is_refused(config: Path) -> None:
    """systemd-analyze verify ends with 0 for a directive that it does not know."""
    spec, _ = installing.plan(config, "transom", {})
    with pytest.raises(TransomError, match="Dynamicuser"):
        installing.verify(unit(spec).replace("DynamicUser=", "Dynamicuser="), "transom")


@pytest.mark.parametrize(("state", "folder"), [("/var/lib/plant", "plant"), (None, "transom"), ("/srv/plant", None)])
def test_the_state_folder_is_one_that_the_service_may_write(
    config: Path, state: str | None, folder: str | None
) -> None:
    if state:
        config.write_text(CONFIG + f'[agent]\nstate = "{state}"\n')
    spec, problems = installing.plan(config, "transom", {})
    assert spec.state == (folder or "transom")
    assert bool(problems) == (folder is None)


def test_the_variables_of_the_shell_are_not_taken_for_those_of_the_service(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text(CONFIG.partition("[streams")[0])
    monkeypatch.setenv("TRANSOM_STREAMS__PUMPS__TOPIC", "plant/{device}/{channel}")
    assert main(["service", "show", "-c", str(config)]) == 2


def test_the_doctor_tells_of_a_unit_that_is_not_what_this_version_installs(config: Path, tmp_path: Path) -> None:
    folder = tmp_path / "etc/systemd/system"
    words = ["-c", str(config), "--root", str(tmp_path)]
    assert main(["service", "install", *words]) == 0
    assert list(storage.service_findings(config, units=folder)) == []
    assert storage.state_of(Path("/x"), named=False, units=folder) == (Path("/var/lib/transom"), True)
    written = folder / "transom.service"
    written.write_text(written.read_text().replace("UMask=0077", "UMask=0022"))
    (found,) = storage.service_findings(config, units=folder)
    assert "is not what this version would install" in found.what
    (tmp_path / "secret").unlink()
    assert "the service" in " ".join(f.what for f in storage.service_findings(config, units=folder))


def test_homes_and_temporary_folders_are_not_seen_by_the_service() -> None:
    assert unseen(Path("/home/pi/.local/bin/transom")) == Path("/home")
    assert unseen(Path("/root/agent.toml")) == Path("/root")
    assert unseen(Path("/opt/transom/bin/transom")) is None
