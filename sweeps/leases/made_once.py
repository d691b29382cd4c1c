"""What several processes need and one of them makes: tokens, stand-ins, references.

One makes, under a lease, and the others wait for what it makes. A maker that is frozen or killed
holds them up for no longer than a lease lasts: then another one makes it. Both may then put it in
place; what is made is a function of its name, and is put there whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sweeps.files.whole_files import remove_folder
from sweeps.leases.lease import Lease, now, owner

Made = TypeVar("Made")


def made_once(path: Path, find: Callable[[], Made | None], make: Callable[[], Made]) -> Made:
    """Return what ``find`` finds at ``path``, or what ``make`` makes there if it finds nothing.

    ``find`` must tell something whole from something that is being made.
    """
    found = find()
    if found is not None:
        return found
    with turn(path, lambda: find() is None):
        found = find()
        return make() if found is None else found


@contextmanager
def turn(path: Path, need: Callable[[], bool]) -> Iterator[None]:
    """Be the one who makes what belongs at ``path``; go on without that once there is no ``need``.

    Whoever has waited for its turn finds what was made, and looks first.
    """
    folder = path.with_name(f".{path.name}.making")
    lease = Lease(folder, record := {**owner(), "cause": None})
    if lease.take(need) is None:
        yield
        return
    try:
        with lease.beating():
            yield
    finally:
        record |= {"ended": now(), "cause": "made"}
        with contextlib.suppress(OSError):
            if lease.end():  # whoever waits has its answer at ``path``, or makes it now
                remove_folder(folder)
