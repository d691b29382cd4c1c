"""The code of plugins in a store: each bundle once, by its digest.

    plugins/<digest>.json         a user's file with what it imports beside itself, as text

It is written before the sweep whose runs use it is recorded, and replaces nothing: its name says
its content.
"""

from __future__ import annotations

from collections.abc import Iterable

from sweeps.files.whole_files import Place, write_text
from sweeps.plugins.bundle import Bundle

ROOM = "plugins"


def keep_code(root: Place, bundles: Iterable[Bundle]) -> None:
    """See to it that a store has bundles."""
    for bundle in bundles:
        if kept_code(root, bundle.digest) is None:
            write_text(_place(root, bundle.digest), bundle.as_text())


def kept_code(root: Place, digest: str) -> Bundle | None:
    """Return the bundle of a digest that a store has; None where it has none that is whole."""
    try:
        bundle = Bundle.of_text(_place(root, digest).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, KeyError):
        return None
    return bundle if bundle.digest == digest else None


def kept_digests(root: Place) -> list[str]:
    """Return the digests of all bundles of a store."""
    return sorted(path.name.removesuffix(".json") for path in (root / ROOM).glob("*.json"))


def _place(root: Place, digest: str) -> Place:
    return root / ROOM / f"{digest}.json"
