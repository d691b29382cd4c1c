"""A headless Chromium, and a page opened in it with everything it said and asked for."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NONE = "no Chromium on this machine (Debian: apt-get install chromium)"


@contextmanager
def open_chromium() -> Iterator[Any]:
    """Yield a browser; skips where playwright is not installed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """A page that was opened, with everything it said and asked for."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.page = browser.new_context(**options).new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.url = path.as_uri()
        started = time.perf_counter()
        self.page.goto(self.url)
        self.page.wait_for_selector("html[data-ready=yes]")
        self.interactive = time.perf_counter() - started
        self.page.wait_for_selector("html[data-charts=drawn]", timeout=60_000)
        self.drawn = time.perf_counter() - started

    def settle(self) -> None:
        self.page.wait_for_timeout(100)
        self.page.wait_for_selector("html[data-charts=drawn]", timeout=60_000)
