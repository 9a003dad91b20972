"""`transom push` as a person types it, with real agents at a real broker: what it says, and with what it ends."""

import json
import logging
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from test_service import running

from conftest import Mosquitto
from tests_arrival import KEY, Noted, agent_of, configured, first_on, signed
from tests_support import Heard
from transom.cli import main
from transom.core.model import Channel, Manifest
from transom.edge import pushing
from transom.runtimes import bundle

pytestmark = pytest.mark.mosquitto


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    root = logging.getLogger("transom")
    before = root.handlers[:], root.level, root.propagate
    yield
    root.handlers[:], root.propagate = before[0], before[2]
    root.setLevel(before[1])


class Module(torch.nn.Module):
    def forward(self, window: torch.Tensor) -> dict[str, torch.Tensor]:
        window = torch.nan_to_num(window)  # [B, T, C]
        expected = window.mean(1)
        contribution = (window[:, -1] - expected).abs()
        return {"score": contribution.sum(1), "contribution": contribution, "expected": expected}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pump.pt, with its signature."""
    described = Manifest(
        name="pump", version="4", task="anomaly", family="none", channels=(Channel("flow"),), length=8
    )  # fmt: skip
    path = tmp_path_factory.mktemp("push") / "pump.pt"
    with bundle.quiet():
        bundle.write_bundle(torch.jit.script(Module()), described, path)
    Path(f"{path}.minisig").write_text(signed(path.read_bytes(), label="pump@4"))
    return path


def words(model: Path, port: int, *more: str) -> list[str]:
    return ["push", str(model), "--stream", "s", "--broker.port", str(port), "--agent.id", "gw", *more]


def test_the_command_says_how_each_agent_took_it(
    mosquitto_broker: Mosquitto, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port, takes, refuses = mosquitto_broker.port, Noted(), Noted("has another task")
    with running(agent_of(configured(tmp_path, port, groups=["hall"]), takes)):
        assert main(words(model, port)) == 0
        said = capsys.readouterr()
        assert said.out.splitlines()[1:] == ["gw: offered"]
        assert said.err == ""
        with running(agent_of(configured(tmp_path, port, "other", groups=["hall"]), refuses)):
            assert main(words(model, port, "--group", "hall", "--wait", "1")) == 1
            gw, other = capsys.readouterr().out.splitlines()[1:]
            assert gw == "gw: offered"
            assert other.startswith("other: refused: ")
            assert "has another task" in other


def test_the_command_waits_for_nobody_for_ever(
    mosquitto_broker: Mosquitto, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(model, mosquitto_broker.port, "--wait", "0.3")) == 1
    assert "no agent answered within 0.3 s; is it running" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--rate", "fast"], "no rate"), (["--agent", "a/b"], "not one topic level"), (["--group", "#"], "not one topic level"),
        (["--wait", "0"], "choose more than 0"), (["--group", "a", "--agent", "b"], "not allowed with"),
        (["--models.trusted_keys", KEY.public.text], "is not of this file"),
    ],
)  # fmt: skip
def test_the_command_refuses_what_cannot_be(
    model: Path, tmp_path: Path, more: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = shutil.copy(model, tmp_path / "pump.pt")
    Path(f"{changed}.minisig").write_text(signed(b"another"))
    assert main(words(Path(changed), 1, *more)) in (1, 2)
    assert says in capsys.readouterr().err


def test_an_unsigned_model_is_not_sent(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copy(model, tmp_path / "bare.pt"))
    assert main(words(copy, 1)) == 1
    assert f"is not signed, and agents take only signed models; transom sign {copy}" in capsys.readouterr().err


def test_an_interrupted_command_says_how_to_go_on(mosquitto_broker: Mosquitto, model: Path) -> None:
    command = [sys.executable, "-m", "transom", *words(model, mosquitto_broker.port, "--wait", "60")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first_on(mosquitto_broker.port, "transom/gw/update/offer/s")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "call it again to go on" in err
    assert "pump@4" in out


def test_following_ends_with_what_became_of_it(
    mosquitto_broker: Mosquitto, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = mosquitto_broker.port
    digest = pushing.read(model)[0].sha256
    with Heard(port, "transom/gw/update/progress") as other, running(agent_of(configured(tmp_path, port), Noted())):

        def tell() -> None:
            other.wait_until(lambda heard: any(b'"offered"' in p for p in heard.get("transom/gw/update/progress", [])))
            for event in ("offered", "switched", "rolled-back"):
                body = {"event": event, "stream": "s", "sha256": digest, "reason": "its alarm rate"}
                other.client.publish("transom/gw/models", json.dumps(body), 1)

        thread = threading.Thread(target=tell)
        thread.start()
        assert main(words(model, port, "--follow")) == 1
        thread.join(20)
    assert capsys.readouterr().out.splitlines()[1] == "gw: offered, switched, rolled-back"
