"""What a study is and what it found: pure data, with neither torch nor ray.

``from sweeps import open_store`` is the way in for a notebook. It is resolved on first use, so that
planning a sweep does not load Polars.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.reading.tables import open_store

__all__ = ["open_store"]


def __getattr__(name: str) -> Any:
    if name == "open_store":
        from sweeps.reading.tables import open_store

        return open_store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
