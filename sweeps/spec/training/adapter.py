"""What is trained in place of a model's own weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from sweeps.spec.frozen import Frozen, Positive, number_text
from sweeps.spec.training.block_ranges import block_range, in_order, is_block_range

ADAPTERS = ("none", "lora")


def _of_blocks(entry: str) -> str:
    """Refuse what is no range of blocks."""
    if not is_block_range(entry):
        raise ValueError(
            f"{entry!r} is no range of blocks: `blocks 3`, `blocks 1-6` (`encoder blocks 1-6` in a"
            " model of two stacks)"
        )
    return entry


def _merged(entries: tuple[str, ...]) -> tuple[str, ...]:
    """Return ranges so that saying the same blocks in other words makes no other run: of each stack
    as few as there can be."""
    blocks: dict[str | None, set[int]] = {}
    for found in filter(None, map(block_range, entries)):
        blocks.setdefault(found.stack, set()).update(range(found.first, found.last + 1))
    said = []
    for stack, numbers in blocks.items():
        prefix = f"{stack} " if stack else ""
        for first in sorted(numbers - {number + 1 for number in numbers}):
            last = first
            while last + 1 in numbers:
                last += 1
            said.append(f"{prefix}blocks {first}" + (f"-{last}" if last > first else ""))
    return in_order(tuple(said))


class NoAdapter(Frozen):
    """The model's own weights are trained."""

    kind: Literal["none"] = "none"

    @property
    def setting(self) -> str:
        return ""


class Lora(Frozen):
    """Beside each matrix W of some blocks a product of two thin ones is trained, W stays as it is:
    W + alpha / rank · B·A (Hu et al. 2021, arXiv 2106.09685). B begins at zero."""

    model_config = ConfigDict(populate_by_name=True)

    kind: Literal["lora"] = "lora"
    rank: Annotated[int, Field(ge=1)] = 8
    alpha: Positive = 16.0
    targets: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[\w.*?]+$")], ...], AfterValidator(in_order)
    ] = Field(
        (),
        description="Names or patterns of the linear maps of a block that have one (c_attn,"
        " attention.*.query); without any all of them.",
    )
    # Said as `layers`; by that name a column of stand-ins is known.
    blocks: Annotated[
        tuple[Annotated[str, AfterValidator(_of_blocks)], ...], AfterValidator(_merged)
    ] = Field(
        (),
        validation_alias="layers",
        description="Which blocks have any: `blocks 1-6`; without it all of them.",
    )

    @property
    def setting(self) -> str:
        """What tells two of them apart, for a line about a run."""
        said = [str(self.rank)]
        if self.alpha != 2 * self.rank:
            said.append(f"alpha {number_text(self.alpha)}")
        return ",".join([*said, *self.targets, *self.blocks])


Adapter = Annotated[NoAdapter | Lora, Field(discriminator="kind")]
