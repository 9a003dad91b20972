"""A headless Chromium for tests of the live page: the DevTools protocol over one WebSocket.

https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import json
import shutil
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.sync.client import connect

PATIENCE = 30.0  # seconds until a page that does not become as awaited fails its test


def chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Gone(Exception):  # noqa: N818  # no error: another page has come
    """The page went before it had answered."""


class Browser:
    """`with Browser(tmp_path) as browser: browser.open(url)`. errors: what the page has complained of."""

    def __init__(self, folder: Path) -> None:
        binary = chromium()
        assert binary is not None
        self._process = subprocess.Popen(
            [binary, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--disable-extensions", "--remote-debugging-port=0",
             f"--user-data-dir={folder / 'profile'}", "about:blank"],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stderr is not None
        address = next(line.split()[-1] for line in self._process.stderr if "listening on ws" in line)
        self._reader = threading.Thread(target=self._process.stderr.read)
        self._reader.start()
        self._socket = connect(address, max_size=None)
        self._number, self._session = 0, ""
        self.errors: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(20)
        self._reader.join(20)
        assert self._process.stderr is not None
        self._process.stderr.close()

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": given, **session}))
        while True:
            message = json.loads(self._socket.recv(timeout=PATIENCE + 10))
            self._note(message)
            if message.get("id") == self._number:
                if "navigated" in message.get("error", {}).get("message", ""):
                    raise Gone
                assert "error" not in message, message["error"]
                result: dict[str, Any] = message["result"]
                return result

    def _note(self, message: dict[str, Any]) -> None:
        given = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(given["exceptionDetails"])[:500])
        elif message.get("method") == "Log.entryAdded" and given["entry"]["level"] == "error":
            self.errors.append(f"{given['entry']['text']} {given['entry'].get('url', '')}")

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def look(self, width: int, height: int, *, dark: bool) -> None:
        """The size of the screen, px, and its suit."""
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )  # fmt: skip
        suit = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[suit])

    def ask(self, expression: str) -> Any:
        """The value of an expression in the page; a promise is awaited."""
        told = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until an expression in the page is true."""
        waiting = f"""new Promise((done) => {{
            const end = performance.now() + {1000 * PATIENCE};
            const look = () => {{
                let there = false;
                try {{ there = Boolean({condition}); }} catch (error) {{ if (!(error instanceof TypeError)) throw error; }}
                if (there || performance.now() > end) done(there);
                else setTimeout(look, 20);
            }};
            look();
        }})"""
        try:
            there = self.ask(waiting)
        except Gone:
            there = self.ask(waiting)  # of the page that came
        if not there:
            raise AssertionError(f"never: {condition}; the page says: {self.ask('document.body.innerText')}")

    def picture(self, file: Path, *, whole: bool = False) -> None:
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))
