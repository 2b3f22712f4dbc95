"""A real headless Chromium for tests, driven through the WebDriver protocol by its bare words."""

import base64
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MISSING = "; ".join(
    f"no `{command}` on PATH (Debian: apt-get install {package})"
    for command, package in (("chromium", "chromium"), ("chromedriver", "chromium-driver"))
    if not shutil.which(command)
)
"""What of the browser is not installed, for the reason of a skip; empty if nothing."""
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)  # fmt: skip
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
LOOPBACK = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Browser:
    """One window. Scripts are the body of a function; `await` and `return` work."""

    def __init__(self, width: int = 1280, height: int = 860) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="sartm-browser-")
        self.downloads = Path(self.folder.name) / "downloads"
        self.downloads.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.driver = subprocess.Popen(
            [str(DRIVER), f"--port={port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"HOME": self.folder.name},
        )
        self.address = f"http://127.0.0.1:{port}"
        try:
            self._until_ready()
            self.session = f"/session/{self._open(width, height)}"
            self.cdp("Browser.setDownloadBehavior", behavior="allow", downloadPath=self.downloads)
        except BaseException:
            self.close()
            raise

    def _until_ready(self) -> None:
        for _ in range(200):
            try:
                if self._ask("GET", "/status")["ready"]:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise RuntimeError("chromedriver does not answer")

    def _open(self, width: int, height: int) -> str:
        profile = f"--user-data-dir={self.folder.name}/profile"
        options = {"binary": CHROMIUM, "args": [*FLAGS, profile, f"--window-size={width},{height}"]}
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "unhandledPromptBehavior": "accept",
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        answer = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        return str(answer["sessionId"])

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body, default=str).encode()
        request = urllib.request.Request(self.address + path, data, method=method)
        request.add_header("content-type", "application/json")
        try:
            with LOOPBACK.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def _do(self, method: str, path: str, body: Any = None) -> Any:
        return self._ask(method, self.session + path, body)

    def close(self) -> None:
        """End the browser and forget its profile."""
        if hasattr(self, "session"):
            self._do("DELETE", "")
        self.driver.terminate()
        self.driver.wait(10)
        self.folder.cleanup()

    def go(self, url: str) -> None:
        self._do("POST", "/url", {"url": url})

    def js(self, script: str, *arguments: Any) -> Any:
        """The result of a script; its promise is awaited."""
        body = f"return (async function() {{ {script} }}).apply(null, arguments)"
        return self._do("POST", "/execute/sync", {"script": body, "args": arguments})

    def wait(self, script: str, seconds: float = 60) -> Any:
        """Until a script gives something true."""
        limit = time.monotonic() + seconds
        while not (found := self.js(script)):
            if time.monotonic() > limit:
                raise AssertionError(f"never true: {script}")
            time.sleep(0.05)
        return found

    def find(self, css: str) -> str:
        found = self._do("POST", "/element", {"using": "css selector", "value": css})
        return str(found[ELEMENT])

    def click(self, css: str) -> None:
        """Click on an element, of which the driver would be content to see an edge."""
        self.js("document.querySelector(arguments[0])?.scrollIntoView({block: 'nearest'})", css)
        self._do("POST", f"/element/{self.find(css)}/click", {})

    def type(self, css: str, keys: str) -> None:
        self._do("POST", f"/element/{self.find(css)}/value", {"text": keys})

    def press(self, *keys: str) -> None:
        """Keys held together, on whatever has the focus."""
        actions = [{"type": "keyDown", "value": key} for key in keys]
        actions += [{"type": "keyUp", "value": key} for key in reversed(keys)]
        self._act([{"type": "key", "id": "keys", "actions": actions}])

    @contextmanager
    def holding(self, key: str) -> Iterator[None]:
        """With a key held down."""
        self._act([{"type": "key", "id": "keys", "actions": [{"type": "keyDown", "value": key}]}])
        yield
        self._act([{"type": "key", "id": "keys", "actions": [{"type": "keyUp", "value": key}]}])

    def drag(self, *points: tuple[float, float], button: bool = True) -> None:
        """Move the mouse from point to point, pressed or not."""
        moves = [
            {"type": "pointerMove", "x": round(x), "y": round(y), "duration": 20} for x, y in points
        ]
        if button:
            moves[1:1] = [{"type": "pointerDown", "button": 0}]
            moves.append({"type": "pointerUp", "button": 0})
        self._act([{"type": "pointer", "id": "mouse", "actions": moves}])

    def _act(self, actions: list[dict[str, Any]]) -> None:
        self._do("POST", "/actions", {"actions": actions})

    def dismiss(self) -> str:
        """Say no to the question that is open, or is about to be; returns it."""
        return self._decide("dismiss")

    def accept(self) -> str:
        """Say yes to it; returns it."""
        return self._decide("accept")

    def _decide(self, how: str) -> str:
        for _ in range(200):
            try:
                text = str(self._do("GET", "/alert/text"))
                break
            except AssertionError:  # no such alert
                time.sleep(0.05)
        else:
            raise AssertionError("no question is asked")
        self._do("POST", f"/alert/{how}", {})
        return text

    def cdp(self, command: str, **parameters: Any) -> Any:
        body = {"cmd": command, "params": parameters}
        return self._do("POST", "/goog/cdp/execute", body)

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        """Size of the page in CSS pixels; a phone has fingers and two pixels in one."""
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip
        self.cdp("Emulation.setTouchEmulationEnabled", enabled=phone, maxTouchPoints=5)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._do("GET", "/screenshot")))

    def complaints(self) -> list[str]:
        """What the page logged as errors since the last call."""
        entries = self._do("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def downloaded(self, act: Callable[[], None]) -> Path:
        """The file that an action downloads; it is there until the next one.

        While it is written, Chromium keeps it under a hidden or `.crdownload` name.
        """
        for old in self.downloads.iterdir():
            old.unlink()
        act()
        limit = time.monotonic() + 30
        while time.monotonic() < limit:
            names = [path.name for path in self.downloads.iterdir()]
            if len(names) == 1 and not names[0].startswith(".") and "crdownload" not in names[0]:
                return self.downloads / names[0]
            time.sleep(0.05)
        focus = self.js("return document.activeElement.outerHTML.slice(0, 200)")
        raise AssertionError(f"nothing was downloaded; there is {names}, the focus is on {focus}")


@contextmanager
def serving(app: Any, **settings: Any) -> Iterator[str]:
    """The address of an ASGI application that runs in a thread; `settings` are uvicorn's."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, log_level="error", **settings))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
