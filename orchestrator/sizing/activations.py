"""What a block keeps for the backward pass, by architecture: bytes a token and unit of width.

Korthikanti et al. 2022 (arXiv 2205.05198, eq. 2 without the T×T term, which fused attention does
not keep) count 17 words for an MLP of one kernel an operation. A family's code keeps more or less:
numbers in bf16 are fitted to peaks of an H100 (``tests/orchestrator/sizing/measured.json``, within
2 % of what was allocated), those in float32 are what autograd saves of a block on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kept:
    """Bytes a token and unit of width that a block keeps, under autocast and in float32."""

    bf16: float
    fp32: float

    def __add__(self, other: Kept) -> Kept:
        return Kept(self.bf16 + other.bf16, self.fp32 + other.fp32)


# An activation that is written out operation by operation, over four MLP elements: autocast has the
# cube of gelu_new in float32, and all that follows from it.
WRITTEN_OUT = Kept(54, 64)
# Activations of one kernel, which keeps its input alone.
ONE_KERNEL = frozenset(
    ("gelu", "gelu_pytorch_tanh", "mish", "relu", "relu6", "sigmoid", "silu", "swish", "tanh")
)
# A scan in plain PyTorch keeps four float32 tensors of the expanded width times the state.
SCAN_BYTES = 4 * 4.0
# By ``model_type``, what is not said by the two above.
BLOCKS = {
    "bert": Kept(40, 64),
    "roberta": Kept(40, 64),
    "gpt2": Kept(30, 48),
    "opt": Kept(30, 48),
    "gpt_neox": Kept(36, 72),
    "codegen": Kept(36, 48),
    "mamba": Kept(10, 94),
    "rwkv": Kept(122, 148),
}
# Of an architecture that nobody has measured: the most of those with attention.
UNKNOWN = Kept(40, 72)


def kept_by_family(family: str) -> Kept:
    """Return what a block of a family keeps as it is published."""
    config: dict[str, Any] = {"model_type": family}
    if family in ("gpt2", "codegen"):
        config["activation_function"] = "gelu_new"
    if family == "mamba":
        config |= {"state_size": 16, "expand": 2}
    return kept_by_config(config)


def kept_by_config(config: Mapping[str, Any]) -> Kept:
    """Return what a block keeps by a configuration of transformers."""
    kept = BLOCKS.get(str(config.get("model_type")), UNKNOWN)
    keys = ("activation_function", "hidden_act", "hidden_activation")
    named = next((config[key] for key in keys if config.get(key)), "gelu")
    if named not in ONE_KERNEL:
        kept += WRITTEN_OUT
    if config.get("state_size"):
        scan = SCAN_BYTES * config["state_size"] * config.get("expand", 2)
        kept += Kept(scan, scan)
    return kept
