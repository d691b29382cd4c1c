"""Where a dataset comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from sweeps.spec.frozen import Frozen, Revision


class _Named(Frozen):
    """A dataset with columns of any name, by the role they have, whole or in part: its first
    ``limit`` rows, in its own order or in that of a seed."""

    columns: dict[str, str] = Field(default_factory=dict)
    limit: Annotated[int, Field(ge=1)] | None = None
    shuffle_seed: Annotated[int, Field(ge=0)] | None = None

    def left_out(self, name: str) -> Any:
        """Return the default; a column that is called like its role is one."""
        if name == "columns" and all(role == column for role, column in self.columns.items()):
            return self.columns
        return super().left_out(name)


class HubData(_Named):
    """A dataset on the hub at a pinned commit, loaded by ``datasets``."""

    hub: str
    config: str | None = None
    revision: Revision
    split: str = "train"
    stream: bool = Field(
        False,
        description="Read over the network each time it is needed, and not kept on the disk; of a"
        " shuffled one the order is another: files at random, and rows from so many that wait.",
    )

    def left_out(self, name: str) -> Any:
        """Return the default; the rows of a stream in its own order are those of a download."""
        if name == "stream" and self.shuffle_seed is None:
            return self.stream
        return super().left_out(name)

    @property
    def label(self) -> str:
        return "/".join(part for part in (self.hub.split("/")[-1], self.config) if part)


class FileData(_Named):
    """Local files of rows or texts; their content, in order, is their identity.

    ``file`` is what the sweep names: a file, a folder, a pattern. ``files`` are those it stood for,
    in order, where it is not one file itself.
    """

    not_in_identity: ClassVar[frozenset[str]] = frozenset({"file", "files"})

    file: str
    files: tuple[str, ...] = ()
    digest: str
    documents: Literal["line", "blank_line", "file"] = Field(
        "line", description="What makes a text of a .txt file."
    )

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(map(Path, self.files or (self.file,)))

    @property
    def label(self) -> str:
        return self.file.rsplit("/", 1)[-1]


class BuiltinData(_Named):
    """A corpus made from the documentation and source of the one release of transformers in use."""

    builtin: str
    digest: str

    @property
    def label(self) -> str:
        return self.builtin


DataSource = HubData | FileData | BuiltinData
