"""Runs `transom demo` and draws its screen as it is after some seconds: docs/demo.svg, the README's picture."""

import argparse
import io
import tempfile
import threading
from pathlib import Path

from rich.console import Console

from transom.edge.broker import EmbeddedBroker
from transom.scenes import NAMES, scene
from transom.verbs.demo import Demo, scene_settings

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seconds", type=float, default=44, help="of the demo before the picture (default: 44)")
parser.add_argument("--scenario", choices=NAMES, default="plant", help="which demo (default: plant)")
parser.add_argument("--output", type=Path, default=Path("docs/demo.svg"))
args = parser.parse_args()

stop = threading.Event()
console = Console(width=118, height=24, record=True, file=io.StringIO(), force_terminal=True)
with EmbeddedBroker() as broker, tempfile.TemporaryDirectory() as state:
    place = scene(args.scenario)
    demo = Demo(place, scene_settings(place, broker.port, state), None, 0, stop)
    running = threading.Thread(target=demo.run, name="demo")
    running.start()
    demo.agent.ready.wait()
    while demo.elapsed() < args.seconds:
        stop.wait(0.05)
    console.print(demo.view)
    stop.set()
    running.join()
args.output.write_text(console.export_svg(title="transom demo"))
