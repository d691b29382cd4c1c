"""Whether the store can be used now: looked at now and then beside the sweep, by the driver.

While it cannot, no run is started: a run would only wait for it, holding a GPU.
"""

from __future__ import annotations

import tempfile
import threading
import time

from sweeps.errors import UserError
from sweeps.files.whole_files import is_local
from sweeps.store.store import Store

LOOK_SECONDS = 5.0
# A store that takes so long for an answer is away: a file system that hangs raises nothing.
ANSWER_SECONDS = 20.0
# Enough to notice a disk that is full.
BYTES = 65_536


class StoreWatch:
    """Looks at a store in a thread of its own until it is closed."""

    def __init__(self, store: Store, store_id: str, every: float = LOOK_SECONDS) -> None:
        self._store = store
        self._store_id = store_id
        self._every = every
        self._wrong: str | None = None
        self._asked: float | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="store", daemon=True).start()

    def away(self) -> str | None:
        """Return why the store cannot be used now, or None where it can, as far as is known."""
        asked = self._asked
        if asked is not None and time.monotonic() - asked > ANSWER_SECONDS:
            return f"{self._store.location} does not answer"
        return self._wrong

    def looked_at(self) -> str | None:
        """Return the same, by a look now; a store that takes long for it is away."""
        looking = threading.Thread(target=self._look_now, name="store", daemon=True)
        looking.start()
        looking.join(LOOK_SECONDS)
        return f"{self._store.location} does not answer" if looking.is_alive() else self._wrong

    def _look_now(self) -> None:
        self._wrong = self._look()

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(self._every):
            self._asked = time.monotonic()
            self._wrong = self._look()
            self._asked = None

    def _look(self) -> str | None:
        try:
            wrong = self._store.complaint(self._store_id)
            if wrong is not None:
                return wrong
            if is_local(self._store.root):
                with tempfile.TemporaryFile(dir=self._store.root) as probe:
                    probe.write(b"\0" * BYTES)
                    probe.flush()
        except (OSError, UserError) as error:
            return " ".join(str(error).split())
        return None
