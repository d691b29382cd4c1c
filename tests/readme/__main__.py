"""``make readme``: every marked output on any page, and the picture, from a store of the demo."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.readme.page import PAGES, ROOT, blocks, made_again, output_of
from tests.readme.picture import photograph

PICTURE = ROOT / "sweeps" / "library" / "demo-report.png"


def pages() -> list[Path]:
    """Return the pages of this checkout that have a marked output."""
    return [page for page in PAGES if any(blocks(page.read_text(encoding="utf-8")))]


def workplace(folder: Path, store: Path) -> Path:
    """Lay out a folder in which the commands of README.md find what they name."""
    for name in ("sweeps", "tests", "cluster"):
        os.symlink(ROOT / name, folder / name)
    os.symlink(store.absolute(), folder / "store")
    return folder


def main() -> int:
    store = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "store")
    if not (store / "sweeps").is_dir():
        print(f"{store}: no store of the demo; run make demo first", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        folder = workplace(Path(scratch), store)
        for page in pages():
            text = page.read_text(encoding="utf-8")
            page.write_text(
                made_again(text, lambda command: output_of(command, folder)), encoding="utf-8"
            )
            print(f"{page.relative_to(ROOT)}: {len(list(blocks(text)))} outputs made")
        if photograph("demo", folder, PICTURE):
            print(f"{PICTURE.relative_to(ROOT)}: made")
        else:
            print(
                f"{PICTURE.relative_to(ROOT)}: left as it is, for there is no Chromium here"
                " (Debian: apt-get install chromium); commit nothing before it is made",
                file=sys.stderr,
            )
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
