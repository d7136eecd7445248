"""A browser for the tests that open pages: headless Chromium, spoken to through two pipes."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--window-size=1400,900", "--remote-debugging-pipe"),
)
KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " ")}


class Browser:
    """One page of headless Chromium, driven by the DevTools protocol.

    requests: addresses outside itself that the page has asked for. errors: what its scripts threw.
    """

    def __init__(self, profile: Path) -> None:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        command = [CHROMIUM, *OPTIONS, f"--user-data-dir={profile}"]
        script = f'exec "$@" 3<&{commands} 4>&{answers}'  # where Chromium expects its pipes
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command],
            pass_fds=(commands, answers),
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._ids, self._rest, self._session = itertools.count(1), b"", ""
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._attach()

    def _attach(self) -> None:
        page = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=page, flatten=True)
        self._session = session["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.send(f"{domain}.enable")
        self.send(
            "Network.emulateNetworkConditions",
            offline=True,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        self._process.wait(30)
        os.close(self._commands)
        os.close(self._answers)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Result of a command of the protocol."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        """The next answer or event; events are noted."""
        while b"\0" not in self._rest:
            part = os.read(self._answers, 1 << 20)
            assert part, "Chromium has ended"
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(text)
        if message.get("method") == "Network.requestWillBeSent":
            address = message["params"]["request"]["url"]
            self.requests += [address] if not address.startswith("data:") else []
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(message["params"]["exceptionDetails"]))
        return message

    def open(self, path: Path, width: int = 1400) -> None:
        """Show a file and wait until it is loaded."""
        self.requests.clear()
        self.errors.clear()
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.send("Page.navigate", url=path.resolve().as_uri())
        self.wait("document.readyState === 'complete'")

    def frames(self) -> list[str]:
        """Ids of the frames inside the page."""
        tree = self.send("Page.getFrameTree")["frameTree"]
        return [child["frame"]["id"] for child in tree.get("childFrames", [])]

    def ask(self, expression: str, frame: str | None = None) -> Any:
        """Value of a JavaScript expression in the page, or in a frame of it."""
        answer = self._evaluate(expression, frame)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def _evaluate(self, expression: str, frame: str | None) -> dict[str, Any]:
        where = {}
        if frame is not None:
            world = self.send("Page.createIsolatedWorld", frameId=frame)
            where = {"contextId": world["executionContextId"]}
        return self.send("Runtime.evaluate", expression=expression, returnByValue=True, **where)

    def wait(self, expression: str, frame: str | None = None, seconds: float = 30) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + seconds
        while not self._evaluate(f"Boolean({expression})", frame)["result"].get("value"):
            assert time.monotonic() < end, f"never came true: {expression}"
            time.sleep(0.05)

    def click(self, expression: str, frame: str | None = None) -> None:
        """Click with the mouse on the element that an expression finds, once it stands still."""
        self.wait(expression, frame)
        self.ask(f"({expression}).scrollIntoView({{block: 'center'}})", frame)
        place = None
        while place != (place := self._middle(expression, frame)):
            time.sleep(0.05)
        about = {"button": "left", "clickCount": 1, "x": place[0], "y": place[1]}
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, **about)

    def _middle(self, expression: str, frame: str | None) -> tuple[float, float]:
        """Where the middle of an element is in the window."""
        box = "(({}).getBoundingClientRect().toJSON())"
        found = self.ask(box.format(expression), frame)
        x, y = found["x"] + found["width"] / 2, found["y"] + found["height"] / 2
        if frame is None:
            return x, y
        outer = self.ask(box.format("document.querySelector('iframe')"))
        return x + outer["x"], y + outer["y"]

    def press(self, key: str) -> None:
        """Press one of KEYS."""
        code, text = KEYS[key]
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.send("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        """Type into the focused field."""
        self.send("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        """Write what is shown as png."""
        data = self.send("Page.captureScreenshot")["data"]
        path.write_bytes(base64.b64decode(data))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Headless Chromium without a network; the test is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()
