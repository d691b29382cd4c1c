"""Broken protocols: a campaign under one of them must find that it is broken."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any


def unchecked() -> None:
    """Whatever a checkpoint's manifest says, it is trusted."""
    from sweeps.files.whole_files import file_checksum
    from workers.checkpoints import layer_file, resuming

    read = layer_file._read
    layer_file._read = lambda path, size, _: read(path, size, file_checksum(path))
    resuming.damage = lambda *_, **__: None


def closed_first() -> None:
    """The closing record is created before the files that it lists are in place."""
    from sweeps.attempts.writer import RunWriter

    finish, whole = RunWriter.finish, RunWriter._whole

    def closing(self: RunWriter, status: Any, step: int) -> None:
        compact = self._compact
        with ExitStack() as late:

            @contextmanager
            def held_back(path: Path) -> Iterator[Path]:
                yield late.enter_context(whole(self, path))

            def compacted(table: str) -> None:
                self._whole = held_back
                compact(table)

            self._compact = compacted
            finish(self, status, step)

    RunWriter.finish = closing


def unconditional() -> None:
    """Whoever creates or replaces a record is told that it was theirs to do."""
    from sweeps.files import folder_records, objects

    def create(path: Path, data: bytes, token: str | None = None) -> str:
        aside = path.with_name(f".{path.name}.{folder_records._unique()}.tmp")
        folder_records.create_aside(aside, data)
        os.replace(aside, path)
        if token is None:
            return ""
        seal = folder_records._seal(path, token, token)
        seal.touch()
        return seal.name

    def replace_if(
        path: Path, data: bytes | None, version: str, by: str, *, last: bool = False
    ) -> str:
        del by
        for seal in path.parent.glob(f".{path.name}~*"):
            seal.unlink(missing_ok=True)
        if data is None:
            data = path.read_bytes()
        new = create(path, data, None if last else version.split("~")[1])
        return new or version

    def put(self: objects.ObjectFiles, key: str, data: bytes, wanted: str | None) -> Any:
        del wanted
        self.put(key, data)
        return self.tag(key)

    folder_records.create, folder_records.replace_if = create, replace_if
    objects.ObjectFiles._conditional = put


SABOTAGE: dict[str, Callable[[], None]] = {
    "unchecked": unchecked,
    "closed-first": closed_first,
    "unconditional": unconditional,
}
