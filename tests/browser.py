"""Headless Chromium, driven through chromedriver's own protocol (W3C WebDriver)."""

import base64
import contextlib
import json
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

DRIVER = shutil.which("chromedriver")
NAMES = ("google-chrome", "chromium", "chromium-browser")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), "")
needs_browser = pytest.mark.skipif(
    not (DRIVER and CHROMIUM), reason="needs chromium and chromium-driver, as Debian calls them"
)


class Browser:
    """A window of a headless browser.

    Attributes:
      address: of the session.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    def __call__(self, command: str, **body: Any) -> Any:
        return request(f"{self.address}/{command}", body)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script's body, which may await, and return its result."""
        wrapped = "return (async () => {" + script + "}).apply(null, arguments)"
        return self("execute/sync", script=wrapped, args=list(arguments))

    def tell(self, method: str, **options: Any) -> Any:
        """Give a command of Chromium's own protocol."""
        return self("goog/cdp/execute", cmd=method, params=options)

    def open(self, path: pathlib.Path) -> None:
        """Open a page of the look from disk, and wait until it is drawn."""
        self("url", url=path.resolve().as_uri())
        drawn = "return Boolean(window.look)"
        end = time.monotonic() + 20
        while not self.run(drawn):
            assert time.monotonic() < end, f"the page did not begin: {self.errors()}"
            time.sleep(0.05)
        self.settle()

    def settle(self) -> None:
        """Wait until the next frames are drawn."""
        self.run("for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame)")

    def size(self, width: int, height: int, touch: bool = False) -> None:
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=touch)  # fmt: skip
        self.tell("Emulation.setTouchEmulationEnabled", enabled=touch)

    def scheme(self, name: str) -> None:
        feature = {"name": "prefers-color-scheme", "value": name}
        self.tell("Emulation.setEmulatedMedia", features=[feature])

    def click(self, x: float, y: float, touch: bool = False) -> None:
        """Click or tap a place of the window."""
        kind = "touch" if touch else "mouse"
        steps: list[dict[str, Any]] = [
            {"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        self._point(kind, steps)

    def move(self, x: float, y: float) -> None:
        step = {"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)}
        self._point("mouse", [step])

    def _point(self, kind: str, steps: list[dict[str, Any]]) -> None:
        pointer = {"type": "pointer", "id": kind, "parameters": {"pointerType": kind}}
        self("actions", actions=[{**pointer, "actions": steps}])
        self.settle()

    def press(self, *keys: str) -> None:
        for key in keys:
            steps = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
            self("actions", actions=[{"type": "key", "id": "keys", "actions": steps}])
        self.settle()

    def errors(self) -> list[str]:
        """What the console said since the last call, warnings too."""
        return [entry["message"] for entry in self("se/log", type="browser")]

    def screenshot(self, path: pathlib.Path) -> None:
        path.write_bytes(base64.b64decode(request(f"{self.address}/screenshot")))


def request(url: str, body: Any = None, method: str | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    call = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(call, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(json.load(error)["value"]["message"]) from None


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser; it ends with the block."""
    assert DRIVER
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        log = pathlib.Path(profile, "driver.log")
        with log.open("w") as out:
            driver = subprocess.Popen([DRIVER, "--port=0"], stdout=out)
        try:
            end = time.monotonic() + 20
            while "successfully on port" not in (said := log.read_text()):
                assert driver.poll() is None and time.monotonic() < end, said
                time.sleep(0.05)
            port = said.rpartition("on port ")[2].split(".")[0]
            options = {
                "binary": CHROMIUM,
                "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                         "--disable-dev-shm-usage", f"--user-data-dir={profile}/user"],
            }  # fmt: skip
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            root = f"http://127.0.0.1:{port}/session"
            session = request(root, {"capabilities": {"alwaysMatch": wanted}})
            try:
                yield Browser(f"{root}/{session['sessionId']}")
            finally:
                request(f"{root}/{session['sessionId']}", method="DELETE")
        finally:
            driver.terminate()
            driver.wait()
