"""Models written the way transformers reads them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


def save_model(model: Any, folder: Path) -> None:
    """Write a model's configuration and weights, as safetensors, to a folder."""
    # To look for a wrapped model transformers imports DeepSpeed where that is installed.
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or it says that it found none
    model.save_pretrained(folder, safe_serialization=True)
