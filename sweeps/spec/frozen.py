"""The base of every specification, and the numbers they share."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Steps = Annotated[int, Field(ge=1)]
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$", description="A full commit hash.")]


class Frozen(BaseModel):
    """Immutable, refusing unknown keys and silent conversions (the text "3" is not a number)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def content_id(data: Any, length: int = 12) -> str:
    """Return the first hex digits of SHA-256 over canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]
