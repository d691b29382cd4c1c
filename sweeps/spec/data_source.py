"""Where a dataset comes from."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from sweeps.spec.frozen import Frozen, Revision


class HubData(Frozen):
    """A dataset on the hub at a pinned commit, loaded by ``datasets``."""

    hub: str
    config: str | None = None
    revision: Revision
    split: str = "train"
    columns: dict[str, str] = Field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @property
    def label(self) -> str:
        return "/".join(part for part in (self.hub.split("/")[-1], self.config) if part)


class FileData(Frozen):
    """A local .txt, .jsonl or .parquet file; its content is its identity."""

    file: str
    digest: str
    columns: dict[str, str] = Field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        return {"file": self.digest, "columns": self.columns}

    @property
    def label(self) -> str:
        return self.file.rsplit("/", 1)[-1]


class BuiltinData(Frozen):
    """A corpus made from the documentation and source of the one release of transformers in use."""

    builtin: str
    digest: str
    columns: dict[str, str] = Field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        return {"builtin": self.builtin, "digest": self.digest}

    @property
    def label(self) -> str:
        return self.builtin


DataSource = HubData | FileData | BuiltinData
