"""What an installation without torch takes is what the project asks for, without torch and what writes models."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
TRAINING = {"torch", "onnx"}  # these make models; the agent runs without


def test_the_light_list_is_the_dependencies_without_torch() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[<>=\[; ]", line)[0] for line in wanted}
    lines = [line for line in (ROOT / "light.txt").read_text().splitlines() if not line.startswith("#")]
    assert set(lines) == names - TRAINING
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert set(lines) <= pinned
