"""`transom run`: the agent until SIGTERM or SIGINT. Settings in, an exit status out."""

import argparse
import faulthandler
import logging
import signal
import threading
from types import FrameType

from transom.edge import logs
from transom.edge.assembly import build_pipeline
from transom.edge.reload import Reload
from transom.edge.rollout.store import Store
from transom.edge.service import Agent
from transom.edge.systemd import Supervisor
from transom.flags import settings_arguments
from transom.settings import load_settings

log = logging.getLogger(__name__)

EXAMPLES = """\
transom run                        the first of $TRANSOM_CONFIG, ./transom.toml, /etc/transom/agent.toml
transom run -c plant.toml
transom run -c plant.toml --broker.host gateway.local --streams.pumps.false_alarms 1/day"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    settings_arguments(parser)


def run(args: argparse.Namespace) -> int:
    settings = load_settings(args.config, args.overrides)
    logs.set_up(settings.agent.log_level)
    stop = threading.Event()
    supervisor = Supervisor()
    if supervisor:
        faulthandler.enable()  # the watchdog ends a stuck agent with SIGABRT; where it was stuck is then in the journal
    supervisor.say("loading models")
    store = Store(settings.agent.state / "models")
    store.begin()
    assembly = build_pipeline(settings, updates=store)
    for error in assembly.broken.values():
        log.error("a stream is left out: %s", error)
    reload = Reload(lambda: load_settings(args.config, args.overrides), settings.config, store)

    def on_signal(number: int, _frame: FrameType | None) -> None:
        log.info("%s: finishing", signal.Signals(number).name)
        stop.set()  # the loop looks at it several times a second; a handler must not wait for a lock

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda *_: reload.ask())
    Agent(settings, assembly, reload=reload, supervisor=supervisor, store=store).run(stop)
    return 0
