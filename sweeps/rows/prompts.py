"""What the rows of a set of prompts have to be: each with its prompt, and of which kind it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.errors import UserError
from sweeps.spec import PROMPT_KINDS, Cell, PromptKind, PromptSet

_CELLS: dict[str, Cell] = {"prompt": "dialogue", "kind": "text"}


def prompt_cells(one: PromptSet) -> dict[str, Cell]:
    """Return what a cell of each role is that is read of a set of prompts."""
    return {role: _CELLS[role] for role in one.roles}


def prompt_kinds(one: PromptSet, rows: Mapping[str, Sequence[Any]]) -> list[PromptKind]:
    """Return of which kind each prompt is; UserError for a cell that says none of them."""
    if one.kind is not None:
        return [one.kind] * len(rows["prompt"])
    known = {kind: kind for kind in PROMPT_KINDS}
    for number, cell in enumerate(rows["kind"], start=1):
        if cell not in known:
            raise UserError(
                f"prompts {one.name}: row {number} is of kind {cell!r}; a prompt is"
                f" {' or '.join(PROMPT_KINDS)}. Say `kind:` of the set where all are alike"
            )
    return [known[cell] for cell in rows["kind"]]


def require_harmful(kinds: Sequence[PromptKind] | None) -> None:
    """Raise UserError where no prompt is one to be refused."""
    if kinds is not None and "harmful" not in kinds:
        raise UserError(
            "refusal: no prompt is harmful, so that there is nothing to refuse; add such a set"
        )
