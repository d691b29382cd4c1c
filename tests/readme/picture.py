"""What a sweep's report says first, and its depth profiles, as a picture, by headless Chromium.

The file says in words, in a text chunk of PNG, what the profiles were when it was made: pixels
cannot be compared between two machines, these can.
"""

from __future__ import annotations

import shutil
import struct
import tempfile
import zlib
from pathlib import Path

from tests.readme.page import output_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Tall enough that nothing scrolls, which would leave the bar of models across the charts.
SIZE = {"width": 1300, "height": 8000}
SECTION = "depth profiles"
END = b"\x00\x00\x00\x00IEND"
KEYWORD = b"iTXtdepthsweep\x00\x00\x00\x00\x00"


def photograph(sweep: str, folder: Path, picture: Path) -> bool:
    """Write the picture of a sweep's report; False, and nothing written, without a Chromium."""
    if CHROMIUM is None:
        return False
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        report = Path(scratch, "report.html")
        output_of(f"depthsweep report {sweep} -o {report}", folder)
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(report.as_uri())
        page.wait_for_selector("html[data-charts=drawn]")
        last = page.locator("section", has=page.get_by_role("heading", name=SECTION))
        box = last.bounding_box()
        assert box is not None
        edge = 24
        bottom = box["y"] + box["height"] + edge
        clip = {"x": box["x"] - edge, "y": 0, "width": box["width"] + 2 * edge, "height": bottom}
        page.screenshot(path=picture, clip=clip)
        browser.close()
    _write_words(picture, output_of(words_of(sweep), folder))
    return True


def words_of(sweep: str) -> str:
    """Return the command whose output a picture of the sweep carries."""
    return f"depthsweep profile {sweep}"


def _write_words(picture: Path, words: str) -> None:
    image = picture.read_bytes()
    body = KEYWORD + words.encode()
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    at = image.index(END)
    picture.write_bytes(image[:at] + chunk + image[at:])


def words_in(picture: Path) -> str:
    """Return the words that ``photograph`` put into a picture; "" where there are none."""
    image = picture.read_bytes()
    at = image.find(KEYWORD)
    if at < 0:
        return ""
    (length,) = struct.unpack(">I", image[at - 4 : at])
    return image[at + len(KEYWORD) : at + 4 + length].decode()
