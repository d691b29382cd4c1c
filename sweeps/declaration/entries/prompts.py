"""What a sweep file says of the prompts that are to be refused, to the specification of them."""

from __future__ import annotations

from pathlib import Path

from sweeps.declaration.entries.sweep_spec import RefusalEntry
from sweeps.declaration.sources import check_local, resolve_data
from sweeps.errors import UserError
from sweeps.refusals import detector
from sweeps.rows.prompts import prompt_cells, prompt_kinds, require_harmful
from sweeps.spec import PromptKind, PromptSet, Refusal


def refusal_of(said: RefusalEntry | None, folder: Path) -> Refusal | None:
    """Return the prompts of an evaluation; None where it has none.

    Raises UserError for a dataset that cannot be used, a kind that is none, prompts of which none
    is to be refused, and a list of phrases that there is not.
    """
    if said is None:
        return None
    sets, kinds = [], list[PromptKind]()
    at_hand = True
    for name, entry in said.prompts.items():
        roles = ("prompt",) if entry.kind else ("prompt", "kind")
        try:
            one = PromptSet(
                name=name, data=resolve_data(entry.data, roles, folder), kind=entry.kind
            )
            rows = check_local(one.data, prompt_cells(one))
        except UserError as error:
            raise UserError(f"prompts {name}: {error}") from None
        at_hand = at_hand and bool(rows)
        kinds += prompt_kinds(one, rows) if rows else [one.kind] if one.kind else []
        sets.append(one)
    require_harmful(kinds if at_hand else None)  # of the hub's own kinds the run sees
    fields = {
        key: value
        for key in ("phrases", "max_new_tokens", "prompt_batch")
        if (value := getattr(said, key)) is not None
    }
    made = Refusal(prompts=tuple(sets), **fields)
    detector(made.phrases)
    return made
