"""Headless Chromium, driven by its own DevTools protocol: a page is opened, looked at and used as a reader would."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.processes import wait_until

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)
_ANSWER_S = 30.0


def find_browser() -> str | None:
    """The first of Chromium's and Chrome's programs that is installed, or None."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Page:
    """A page that is open.

    Attributes:
        complaints: Errors and warnings of the console, exceptions, and requests that left the page.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._events: list[dict[str, Any]] = []
        self.complaints: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its answer."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=_ANSWER_S))
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self._take(message)

    def open(self, path: Path) -> None:
        """Open a file and wait until it is there."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self._events.clear()
        self.call("Page.navigate", url=path.absolute().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._take(json.loads(self._connection.recv(timeout=_ANSWER_S)))

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Give the page another window, and the reader's preference."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path, *, whole: bool = False) -> Path:
        """Save what is to be seen, or the whole page, as a PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **self._clip(whole))
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}

    def _take(self, message: dict[str, Any]) -> None:
        self._events.append(message)
        method, told = message.get("method", ""), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(f"exception: {told['exceptionDetails']}")
        elif method == "Log.entryAdded":
            self.complaints.append(f"log: {told['entry']['text']}")
        elif method == "Runtime.consoleAPICalled" and told["type"] in {"error", "warning", "assert"}:
            self.complaints.append(f"console.{told['type']}: {told['args']}")
        elif method == "Network.requestWillBeSent" and not told["request"]["url"].startswith(
            ("file:", "data:")
        ):
            self.complaints.append(f"request: {told['request']['url']}")


@contextmanager
def browser(program: str, profile: Path) -> Iterator[Page]:
    """A browser of its own, with a profile of its own, and one page of it.

    Args:
        program: The browser's.
        profile: A directory for its profile, made if absent.
    """
    profile.mkdir(parents=True, exist_ok=True)
    with (profile / "browser.log").open("wb") as log:
        process = subprocess.Popen(
            [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        ready = profile / "DevToolsActivePort"

        def listens() -> bool:
            assert process.poll() is None, (profile / "browser.log").read_text(errors="replace")
            return ready.exists() and len(ready.read_text().split()) == 2

        wait_until(listens, what="the browser's port", deadline_s=300.0)
        port, root = ready.read_text().split()
        with connect(f"ws://127.0.0.1:{port}{root}", max_size=None) as whole:
            target = Page(whole).call("Target.createTarget", url="about:blank")["targetId"]
            address = f"ws://127.0.0.1:{port}/devtools/page/{target}"
            with connect(address, max_size=None) as connection:
                yield Page(connection)
    finally:
        process.terminate()
        process.wait(30)
