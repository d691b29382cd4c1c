"""What a sweep file says of the prompts that are to be refused, to the specification of them."""

from __future__ import annotations

from pathlib import Path

from sweeps.declaration.entries.sweep_spec import ModelEntry, RefusalEntry
from sweeps.declaration.sources import check_local, resolve_data, resolve_model
from sweeps.errors import UserError
from sweeps.refusals import detector, question
from sweeps.rows.prompts import (
    Asked,
    prompt_cells,
    prompts_of,
    require_harmful,
    require_one_kind,
)
from sweeps.sources.ability import ability_of
from sweeps.spec import Judge, PromptSet, Refusal

JUDGE = "judge"


def refusal_of(said: RefusalEntry | None, folder: Path) -> Refusal | None:
    """Return the prompts of an evaluation; None where it has none.

    Raises UserError for a dataset that cannot be used, a kind that is none, prompts of which none
    is to be refused or one both is and is not, and a list of phrases that there is not.
    """
    if said is None:
        return None
    sets, asked = [], list[Asked]()
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
        asked += prompts_of(one, rows) if rows else ()
        sets.append(one)
    require_one_kind(asked)
    if at_hand:  # what is on the hub the run sees
        require_harmful(asked)
    fields = {
        key: value
        for key in ("phrases", "max_new_tokens", "prompt_batch")
        if (value := getattr(said, key)) is not None
    }
    made = Refusal(prompts=tuple(sets), judge=_judge(said, folder), **fields)
    detector(made.phrases)
    return made


def _judge(said: RefusalEntry, folder: Path) -> tuple[Judge, ...]:
    """Return the model that judges answers, where one is said; UserError for one that cannot."""
    if said.judge is None:
        if said.judge_question is not None:
            raise UserError("judge_question does nothing without judge")
        return ()
    if said.judge.freeze or said.judge.compare_to:
        raise UserError("judge: is not trained; leave out freeze and compare_to")
    source = resolve_model(JUDGE, {JUDGE: said.judge}, folder)
    if source.pretraining != "clm":
        raise UserError(f"judge: was pretrained with {source.pretraining}; a judge answers: clm")
    ability_of(source).require_template(JUDGE)
    asked = {} if said.judge_question is None else {"question": said.judge_question}
    made = Judge(name=_called(said.judge), source=source, **asked)
    question(made.question)
    return (made,)


def _called(entry: ModelEntry) -> str:
    """Return what a judge is called where it is shown: as its entry names it."""
    named = entry.hub or entry.package or entry.standin
    return named or Path(str(entry.folder)).name
