"""A headless browser that opens a page from disk: Chromium, spoken to by its DevTools protocol over a socket."""

import asyncio
import base64
import itertools
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp  # comes with DVC

PROGRAM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
               None)
SECONDS = 120  # that one answer may take on a busy machine


class Page:
    """An open page. `said`: what its console, its errors and the browser's log told."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: Any, session: str) -> None:
        self.loop, self.socket, self.session = loop, socket, session
        self.numbers, self.said, self.loaded = itertools.count(1000), list[str](), 0

    def ask(self, method: str, **given: Any) -> dict[str, Any]:
        """One command and its answer."""
        return self.loop.run_until_complete(asyncio.wait_for(self._ask(method, given), SECONDS))

    async def _ask(self, method: str, given: dict[str, Any]) -> dict[str, Any]:
        number = next(self.numbers)
        await self.socket.send_json({"id": number, "method": method, "params": given, "sessionId": self.session})
        while True:
            answer = await self.socket.receive_json()
            self._listen(answer)
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _listen(self, event: dict[str, Any]) -> None:
        params, method = event.get("params", {}), event.get("method")
        if method == "Runtime.consoleAPICalled":
            self.said.append(" ".join(str(one.get("value", one)) for one in params["args"]))
        elif method == "Runtime.exceptionThrown":
            self.said.append(str(params["exceptionDetails"].get("exception", params["exceptionDetails"])))
        elif method == "Page.loadEventFired":
            self.loaded += 1
        elif method == "Log.entryAdded":
            self.said.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent" and not params["request"]["url"].startswith(("file:", "data:")):
            self.said.append(f"loads {params['request']['url']}")

    def open(self, address: str, *, width: int, height: int) -> None:
        """Load an address in a window of that size, which is a phone's up to 480 pixels."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                 mobile=width <= 480)
        for url in ("about:blank", address):  # from a blank one, so that another fragment is another opening too
            before = self.loaded
            self.ask("Page.navigate", url=url)
            while self.loaded == before:
                time.sleep(0.05)
                self.run("1")  # whose answer comes behind what the browser tells

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def choose(self, name: str, value: str) -> None:
        """Choose an entry of one of the page's lists, as a hand does."""
        assert self.run(f"""(() => {{ const select = document.querySelector('select[name="{name}"]');
            select.value = "{value}"; select.dispatchEvent(new Event("change", {{bubbles: true}}));
            return select.value; }})()""") == value

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of what the window shows, or of the whole page."""
        taken = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(taken["data"]))


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A page of a browser of its own; profile: a folder for what it keeps."""
    assert PROGRAM is not None
    command = [PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
               "--hide-scrollbars", f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
    loop = asyncio.new_event_loop()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        address = next(line.split()[-1] for line in process.stderr if line.startswith("DevTools listening on"))
        client, page = loop.run_until_complete(_connected(address))
        try:
            yield page
        finally:
            loop.run_until_complete(client.close())
    finally:
        process.terminate()
        process.communicate(timeout=SECONDS)
        loop.close()


async def _connected(address: str) -> tuple[aiohttp.ClientSession, Page]:
    client = aiohttp.ClientSession()
    socket = await client.ws_connect(address, max_msg_size=0)
    page = Page(asyncio.get_running_loop(), socket, "")
    await socket.send_json({"id": 1, "method": "Target.createTarget", "params": {"url": "about:blank"}})
    target = (await _answer(socket, 1))["targetId"]
    await socket.send_json({"id": 2, "method": "Target.attachToTarget",
                            "params": {"targetId": target, "flatten": True}})
    page.session = (await _answer(socket, 2))["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Network"):
        await page._ask(f"{domain}.enable", {})
    return client, page


async def _answer(socket: Any, number: int) -> dict[str, Any]:
    while True:
        answer = await socket.receive_json()
        if answer.get("id") == number:
            return answer["result"]
