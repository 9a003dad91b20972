"""The commands of docs/looking.md, typed one after the other beside a broker with sensors."""

import re
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Mosquitto
from tests_support import Heard

PAGE = (Path(__file__).parents[2] / "docs" / "looking.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.mark.mosquitto
def test_the_page_leads_from_a_broker_to_a_table_of_budgets(
    mosquitto: Callable[..., Mosquitto], tmp_path: Path
) -> None:
    port = mosquitto().port
    (tmp_path / "plant.toml").write_text(
        f'[broker]\nport = {port}\n[streams.pumps]\ntopic = "plant/{{site}}/{{device}}/{{channel}}"\nfalse_alarms = "1/week"\n'
    )
    ended, begin = threading.Event(), int(time.time()) - 30 * 86_400

    def sensor(other: Heard) -> None:
        for i in range(100_000):
            if ended.wait(0.01):
                return
            value = 20 + i % 20 + (90 if 150 <= i % 200 < 155 else 0)
            other.client.publish("plant/hall/pump-1/vibration", f'{{"time": {begin + 600 * i}, "value": {value}}}')

    said = {}
    with Heard(port, "none") as other:
        publishing = threading.Thread(target=sensor, args=(other,))
        publishing.start()
        try:
            for command in COMMANDS:
                line = command.replace("--seconds 60", "--seconds 3").replace("--epochs 5", "--epochs 1")
                shell = f'transom() {{ {sys.executable} -m transom "$@"; }}\n{line}'
                done = subprocess.run(["sh", "-c", shell], cwd=tmp_path, capture_output=True, text=True, timeout=120)
                assert done.returncode == 0, (command, done.stderr)
                said[command] = done.stdout
                if "record" in command:
                    ended.set()
        finally:
            ended.set()
            publishing.join(20)
    assert len(said) == 6
    for picture in ("day.svg", "budgets.svg", "models.svg"):
        assert "hall/pump-1/vibration" in "".join(ET.parse(tmp_path / picture).getroot().itertext())
    (budgets,) = [told for command, told in said.items() if "1/month" in command]
    assert re.search(r"with false_alarms=1/month it would have alerted \d+ times? in", budgets)
    assert "model=pump.pt" in (tmp_path / "models.svg").read_text()
