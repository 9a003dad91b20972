"""The baseline as a program: what one writes in an afternoon. Prints READY when it has subscribed.

    PORT QOS [MODEL FILTER PATH LENGTH]

paho as it comes, `json`, a deque a topic, the network once for each message, the answer published at once. Without
MODEL an LSTM(32) as `torch.jit.script` makes it, over {"ts", "seq", "v"} from plant/#, and with "tcn" a TCN of five
layers of 32; with a file's name the TorchScript of that file, over the number at PATH ("" for a bare one). Imports
nothing of Transom's.
"""

import json
import sys
from collections import defaultdict, deque
from typing import Any

import paho.mqtt.client as mqtt
import torch
from paho.mqtt.enums import CallbackAPIVersion
from torch import Tensor, nn

HIDDEN, LIMIT = 32, 100.0


class Forecaster(nn.Module):
    """[1, T, 1] -> [1, 1], the next value."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, 1)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(x)
        return self.head(states[:, -1])  # type: ignore[no-any-return]


class Convolutions(nn.Module):
    """[1, T, 1] -> [1, 1], by causal dilated convolutions that reach back 63 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv1d(1, HIDDEN, 1)
        self.layers = nn.ModuleList([nn.Conv1d(HIDDEN, HIDDEN, 3, dilation=2**i) for i in range(5)])
        self.head = nn.Linear(HIDDEN, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(x.transpose(1, 2))
        for i, layer in enumerate(self.layers):
            y = y + torch.relu(layer(nn.functional.pad(y, (int(2 * 2**i), 0))))
        return self.head(y[:, :, -1])  # type: ignore[no-any-return]


NETWORKS: dict[str, type[nn.Module]] = {"": Forecaster, "tcn": Convolutions}


class Watcher:
    def __init__(self, qos: int, model: str = "", topics: str = "plant/#", path: str = "v", length: str = "64") -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        network = NETWORKS.get(model)
        self.model: Any = torch.jit.script(network().eval()) if network else torch.jit.load(model).eval()  # type: ignore[no-untyped-call]
        self.qos, self.topics, self.path, self.length = qos, topics, path.split(".") if path else [], int(length)
        self.windows: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=self.length))

    def on_connect(self, client: mqtt.Client, *_: object) -> None:
        client.subscribe(self.topics, qos=self.qos)

    def on_subscribe(self, *_: object) -> None:
        print("READY", flush=True)

    def on_message(self, client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        body = value = json.loads(message.payload)
        for key in self.path:
            value = value[key]
        window = self.windows[message.topic]
        window.append(value)
        if len(window) < self.length:
            return
        with torch.inference_mode():
            given = self.model(torch.tensor(list(window)).view(1, self.length, 1))
            said = float((next(iter(given.values())) if isinstance(given, dict) else given).flatten()[0])
        answer = {"reading": body, "said": said, "alert": abs(said - value) > LIMIT}
        client.publish(f"naive/{message.topic}/prediction", json.dumps(answer), qos=self.qos)


def main() -> None:
    watcher = Watcher(int(sys.argv[2]), *sys.argv[3:])
    client = mqtt.Client(CallbackAPIVersion.VERSION2, "bench-naive")
    client.on_connect, client.on_subscribe = watcher.on_connect, watcher.on_subscribe
    client.on_message = watcher.on_message
    client.connect("127.0.0.1", int(sys.argv[1]))
    client.loop_forever()


if __name__ == "__main__":
    main()
