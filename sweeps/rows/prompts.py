"""What the rows of a set of prompts have to be: each with its prompt, and of which kind it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sweeps.errors import UserError
from sweeps.spec import PROMPT_KINDS, Cell, PromptKind, PromptSet

_CELLS: dict[str, Cell] = {"prompt": "dialogue", "kind": "text"}


class Asked(NamedTuple):
    """A prompt as its set has it: where (the set and the row, from 1), its cell, its kind."""

    where: str
    cell: Any
    kind: PromptKind


def prompt_cells(one: PromptSet) -> dict[str, Cell]:
    """Return what a cell of each role is that is read of a set of prompts."""
    return {role: _CELLS[role] for role in one.roles}


def prompts_of(one: PromptSet, rows: Mapping[str, Sequence[Any]]) -> Iterator[Asked]:
    """Yield the prompts of a set; UserError for a cell that says no kind."""
    known = {kind: kind for kind in PROMPT_KINDS}
    kinds = rows["kind"] if one.kind is None else [one.kind] * len(rows["prompt"])
    for number, (cell, kind) in enumerate(zip(rows["prompt"], kinds, strict=True), start=1):
        if kind not in known:
            raise UserError(
                f"prompts {one.name}: row {number} is of kind {kind!r}; a prompt is"
                f" {' or '.join(PROMPT_KINDS)}. Say `kind:` of the set where all are alike"
            )
        yield Asked(f"{one.name}, row {number}", cell, known[kind])


def require_one_kind(prompts: Sequence[Asked]) -> None:
    """Raise UserError for a prompt that is to be refused in one place and not in another."""
    first = dict[str, Asked]()
    for asked in prompts:
        before = first.setdefault(json.dumps(asked.cell, sort_keys=True), asked)
        if before.kind != asked.kind:
            raise UserError(
                f"refusal: the prompt of {asked.where} is {asked.kind}, and {before.kind} in"
                f" {before.where}; one answer cannot be right in both, so take it out of one"
            )


def require_harmful(prompts: Sequence[Asked]) -> None:
    """Raise UserError where no prompt is one to be refused."""
    if all(asked.kind != "harmful" for asked in prompts):
        raise UserError(
            "refusal: no prompt is harmful, so that there is nothing to refuse; add such a set"
        )
