"""What a model became elsewhere."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from sweeps.spec.frozen import Frozen


class Tuned(Frozen):
    """A checkpoint that somebody else has trained of the run's model: the run measures how it
    differs, and trains nothing. The run's objective is called after it; seed, steps and optimizer
    say nothing of how it came about."""

    not_in_identity: ClassVar[frozenset[str]] = frozenset({"place"})

    digest: str = Field(description="What it holds: digest of a folder, or the hub's commit.")
    place: str = Field(description="Folder, or repository of the hub.")
