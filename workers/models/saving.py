"""Models written the way transformers reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


def save_model(model: Any, folder: Path) -> None:
    """Write a model's configuration and weights, as safetensors, to a folder: on every rank that
    asks for it. The cache of another node has only what a rank there writes."""
    # To look for a wrapped model transformers imports DeepSpeed where that is installed.
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or it says that it found none
    with _on_this_rank(model):
        model.save_pretrained(folder, safe_serialization=True)


@contextmanager
def _on_this_rank(model: Any) -> Iterator[None]:
    """Have transformers write whatever the rank: by itself it writes on the first one alone, and on
    others leaves an empty folder and says nothing."""
    model.should_save_on_this_rank = lambda *_, **__: True
    try:
        yield
    finally:
        del model.should_save_on_this_rank
