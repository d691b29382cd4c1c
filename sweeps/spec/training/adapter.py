"""What is trained in place of a model's own weights."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from sweeps.spec.frozen import Frozen, Positive, number_text

ADAPTERS = ("none", "lora")


def _of_blocks(entry: str) -> str:
    """Refuse what is no range of blocks."""
    found = _RANGE.fullmatch(entry)
    if found is None:
        raise ValueError(
            f"{entry!r} is no range of blocks: `blocks 3`, `blocks 1-6` (`encoder blocks 1-6` in a"
            " model of two stacks)"
        )
    first, last = int(found["first"]), int(found["last"] or found["first"])
    if not 1 <= first <= last:
        raise ValueError(f"{entry!r}: blocks are counted from 1, the lower number first")
    return entry


def _in_order(entries: tuple[str, ...]) -> tuple[str, ...]:
    """Return entries so that saying them in another order makes no other run."""
    return tuple(sorted(set(entries)))


def _merged(entries: tuple[str, ...]) -> tuple[str, ...]:
    """Return ranges so that saying the same blocks in other words makes no other run: of each stack
    as few as there can be."""
    blocks: dict[str, set[int]] = {}
    for entry in entries:
        found = _RANGE.fullmatch(entry)
        assert found is not None
        first, last = int(found["first"]), int(found["last"] or found["first"])
        blocks.setdefault(found["stack"], set()).update(range(first, last + 1))
    said = []
    for stack, numbers in blocks.items():
        for first in sorted(numbers - {number + 1 for number in numbers}):
            last = first
            while last + 1 in numbers:
                last += 1
            said.append(f"{stack}blocks {first}" + (f"-{last}" if last > first else ""))
    return _in_order(tuple(said))


_RANGE = re.compile(r"(?P<stack>(?:\w+ )?)blocks (?P<first>\d{1,6})(?:-(?P<last>\d{1,6}))?")


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
        tuple[Annotated[str, Field(pattern=r"^[\w.*?]+$")], ...], AfterValidator(_in_order)
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
