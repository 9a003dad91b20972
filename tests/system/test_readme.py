"""What the README tells a reader to type for a broker of his own, typed."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from conftest import Mosquitto, missing
from tests_support import Heard

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(language: str, holds: str) -> str:
    (found,) = [b for b in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if holds in b]
    return str(found)


def test_the_loop_of_the_readme_raises_an_alert_with_the_readmes_configuration(
    mosquitto: Callable[..., Mosquitto], tmp_path: Path
) -> None:
    if shutil.which("mosquitto_pub") is None:
        missing("mosquitto_pub is not installed (apt install mosquitto-clients)")
    port = mosquitto().port
    (tmp_path / "plant.toml").write_text(block("toml", "[streams.pumps]"))
    command = [
        sys.executable,
        "-m",
        "transom",
        "run",
        "-c",
        "plant.toml",
        f"--broker.port={port}",
        "--agent.state=state",
    ]
    here = "".join(f'{name}() {{ command {name} -p {port} "$@"; }}\n' for name in ("mosquitto_pub", "mosquitto_sub"))
    loop = block("sh", "mosquitto_pub").replace("sleep 0.2", "sleep 0.02")
    with Heard(port, "transom/#") as other, subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as agent:
        try:
            other.wait_until(lambda m: any(b"online" in p[-1] for t, p in m.items() if t.endswith("/status")), 60)
            told = subprocess.run(["sh", "-c", here + loop], capture_output=True, text=True, timeout=60).stdout
        finally:
            agent.terminate()
            agent.communicate(timeout=30)
    assert '"event":"raise"' in told
    assert "vibration 90, expected 2" in told


def test_a_gateway_is_installed_with_the_versions_that_were_tested_and_apart_from_this_folders_environment() -> None:
    lines = [line for line in README.splitlines() if "pip install ." in line]
    assert lines
    for line in lines:
        assert "-c constraints.txt" in line
        assert "TRANSOM_TORCH_INDEX" in line
        assert ".venv/" not in line
