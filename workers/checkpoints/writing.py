"""One checkpoint on its way from copies in memory to the store, in a thread of its own."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from sweeps.files.whole_files import Place
from workers.checkpoints.layer_file import write_layer
from workers.progress import PULSE

# What the manifest says of the files that a rank has written; None where it gave up.
Accounts = dict[str, dict[str, Any]] | None
POLL_SECONDS = 0.1


class Dropped(Exception):
    """Nobody wants the checkpoint any more."""


class Writing:
    """Writes the layers it is given into a folder while training goes on, then says so.

    ``room`` is how many bytes of copies it holds at a time: whoever adds a layer beyond that waits
    until others are out. ``guard`` raises where nothing may be put in place any more. When all are
    written, or it has given up, ``then`` is called in the thread, with this and with the accounts
    of the files or None. What goes wrong there is raised by ``check`` and ``wait``.
    """

    def __init__(
        self,
        folder: Place,
        within: Place,
        room: int,
        guard: Callable[[], None],
        then: Callable[[Writing, Accounts], None],
    ) -> None:
        self._folder, self._within, self._room = folder, within, room
        self._guard, self._then = guard, then
        self._layers: queue.SimpleQueue[tuple[str, Mapping[str, Tensor]] | None] = (
            queue.SimpleQueue()
        )
        self._held = 0
        self._freed = threading.Condition()
        self.dropped = False
        self._error: BaseException | None = None
        self._moved = self._felt = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="checkpoint", daemon=True)
        self._thread.start()

    def add(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Hand over a layer's copies, under the name of its file."""
        size = _size(tensors)
        with self._freed:
            while self._held and self._held + size > self._room and self.goes_on:
                self._feel()
                self._freed.wait(POLL_SECONDS)
            self._held += size
        self.check()
        self._layers.put((name, tensors))

    def close(self) -> None:
        """Say that there are no more layers."""
        self._layers.put(None)

    @property
    def goes_on(self) -> bool:
        return self._thread.is_alive()

    def check(self) -> None:
        """Raise what has gone wrong, if anything has."""
        if self._error is not None:
            raise self._error

    def wait(self) -> None:
        """Wait until it has ended; the pulse goes on for as long as bytes go out."""
        while self.goes_on:
            self._thread.join(POLL_SECONDS)
            self._feel()
        self.check()

    def drop(self) -> None:
        """Give up: no file is put in place any more when this returns."""
        self.dropped = True
        self.close()
        self._thread.join()

    def moves(self) -> None:
        """Say, in the thread, that it gets on."""
        self._moved = time.monotonic()

    def _feel(self) -> None:
        if self._moved != self._felt:
            self._felt = self._moved
            PULSE.beat()

    def _work(self) -> None:
        files: Accounts = None
        try:
            files = self._write_layers()
        except Dropped:
            pass
        except BaseException as error:
            self._error = error
        try:
            self._then(self, files)
        except BaseException as error:
            self._error = self._error or error

    def _write_layers(self) -> dict[str, dict[str, Any]]:
        files = {}
        while (layer := self._layers.get()) is not None:
            name, tensors = layer
            path = self._folder / name
            files[name] = write_layer(path, tensors, self._within, self._may_put, self._beat)
            with self._freed:
                self._held -= _size(tensors)
                self._freed.notify_all()
            del layer, tensors
        self._beat()
        return files

    def _may_put(self) -> None:
        self._beat()
        self._guard()

    def _beat(self) -> None:
        self.moves()
        if self.dropped:
            raise Dropped


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(4 * tensor.numel() for tensor in tensors.values())
