"""Headless Chromium, driven by selenium; tests that need it skip where it is not installed."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cleansteer.report.picture import QUIET

SECONDS = 60
"""Longest wait for the page: machines that test are busy."""
SWITCHES = (*QUIET, "disable-dev-shm-usage", "host-resolver-rules=MAP * ~NOTFOUND")


@contextmanager
def chromium(folder: Path, width: int = 1280, height: int = 900) -> Iterator[Any]:
    """A browser that reaches no host and downloads into ``folder / "downloads"``."""
    found = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed (apt-get install chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = found["chromium"]
    for switch in (*SWITCHES, f"window-size={width},{height}", f"user-data-dir={folder}/profile"):
        options.add_argument(f"--{switch}")
    options.add_experimental_option(
        "prefs", {"download.default_directory": str(folder / "downloads")}
    )
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(found["chromedriver"]))
    try:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get("about:blank")
        browser.get_log("performance")
        yield browser
    finally:
        browser.quit()


def visit(browser: Any, page: Path) -> None:
    """Open a report, and wait until it is drawn."""
    browser.get(page.resolve().as_uri())
    until(lambda: browser.execute_script("return window.ready !== undefined"))


def until(what: Callable[[], Any]) -> Any:
    """Wait for something to be true."""
    import time

    deadline = time.monotonic() + SECONDS
    while not (found := what()):
        assert time.monotonic() < deadline, f"not so after {SECONDS} s"
        time.sleep(0.05)
    return found


def requested(browser: Any) -> list[str]:
    """Addresses that were asked for since the last call, but for the browser's own pages."""
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    addresses = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    return [address for address in addresses if not address.startswith(("chrome:", "about:"))]


def complaints(browser: Any) -> list[str]:
    """What the console shows as a warning or worse."""
    return [e["message"] for e in browser.get_log("browser") if e["level"] in ("WARNING", "SEVERE")]
