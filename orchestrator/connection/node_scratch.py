"""Folders of this process in the machine's temporary one, gone when it ends."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_there: set[str] = set()


@contextmanager
def node_scratch(what: str) -> Iterator[Path]:
    """Yield a new folder that nobody else may read (mode 0700), and remove it at the end."""
    with tempfile.TemporaryDirectory(prefix=f"depthsweep-{what}-") as name:
        _there.add(name)
        try:
            yield Path(name)
        finally:
            _there.discard(name)


def remove_node_scratch() -> None:
    """Remove what is there: for a process that ends without leaving its contexts. Any thread."""
    for name in tuple(_there):
        shutil.rmtree(name, ignore_errors=True)
