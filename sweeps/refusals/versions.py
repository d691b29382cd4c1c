"""Versioned data of this folder, ``STEM-VERSION.yaml``: lists of refusals, questions to a judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sweeps.errors import UserError, closest

FOLDER = Path(__file__).parent


def versions_of(stem: str) -> tuple[str, ...]:
    """Return the versions that there are, in order."""
    return tuple(
        sorted(path.stem.removeprefix(f"{stem}-") for path in FOLDER.glob(f"{stem}-*.yaml"))
    )


def read_version(stem: str, version: str, unknown: str) -> dict[str, Any]:
    """Return what a version says; UserError that begins with ``unknown`` for one that there is
    not."""
    if version not in versions_of(stem):
        raise UserError(f"{unknown} {version!r}; {closest(version, versions_of(stem))}")
    text = (FOLDER / f"{stem}-{version}.yaml").read_text(encoding="utf-8")
    said: dict[str, Any] = yaml.safe_load(text)
    return said
