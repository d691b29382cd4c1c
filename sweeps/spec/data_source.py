"""Where a dataset comes from."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from sweeps.spec.frozen import Frozen, Revision


class _Named(Frozen):
    """A dataset with columns of any name, by the role they have."""

    columns: dict[str, str] = Field(default_factory=dict)

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

    @property
    def label(self) -> str:
        return "/".join(part for part in (self.hub.split("/")[-1], self.config) if part)


class FileData(_Named):
    """A local .txt, .jsonl or .parquet file; its content is its identity."""

    not_in_identity: ClassVar[frozenset[str]] = frozenset({"file"})

    file: str
    digest: str

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
