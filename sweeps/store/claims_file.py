"""Where the claims about a sweep lie: beside the sweep file, and with the sweep in the store.

Beside ``study.yaml`` that is ``study.claims.yaml``, or ``claims.yaml`` for every sweep of the
folder.
"""

from __future__ import annotations

from pathlib import Path

from sweeps.files.whole_files import Place, write_text
from sweeps.store.store import Store

LIBRARY = Path(__file__).parents[1] / "library"


def keep_claims(store: Store, sweep: str, sweep_file: Path) -> None:
    """Keep a copy of the claims beside a sweep file; nothing where there are none."""
    for path in (sweep_file.with_suffix(".claims.yaml"), sweep_file.with_name("claims.yaml")):
        if path.is_file():
            write_text(_kept(store, sweep), path.read_text(encoding="utf-8"))
            return


def find_claims(store: Store, sweep: str, given: str | None = None) -> Path:
    """Return the claims file of a sweep: the one given, the one kept, or the study's own.

    ``store`` is one for reading: see ``Store.reading``.
    """
    if given is not None:
        return Path(given)
    kept = _kept(store, sweep)
    return kept if isinstance(kept, Path) and kept.is_file() else LIBRARY / "claims.yaml"


def _kept(store: Store, sweep: str) -> Place:
    return store.sweep_folder(sweep) / "claims.yaml"
