"""amqtt as a program: prints `port N` and serves until SIGTERM."""

import signal
import threading

from transom.edge.broker import EmbeddedBroker


def main() -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with EmbeddedBroker() as broker:
        print(f"port {broker.port}", flush=True)
        stop.wait()


if __name__ == "__main__":
    main()
