"""Prompts as tokens, by the model's own chat template, and which are answered together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sweeps.errors import UserError
from sweeps.rows.prompts import (
    Asked,
    prompt_cells,
    prompts_of,
    require_harmful,
    require_one_kind,
)
from sweeps.spec import PromptKind, Refusal
from workers.data.conversations import text_of, written_prompts
from workers.data.datasets import load_rows
from workers.data.token_cache import require_declared


@dataclass(frozen=True)
class Prompt:
    """One prompt: what its answers are called by, of which kind it is, its tokens, and what it
    asks."""

    label: str
    kind: PromptKind
    ids: tuple[int, ...]
    text: str = ""


def read_prompts(refusal: Refusal, tokenizer: Any, positions: int | None) -> list[Prompt]:
    """Return all prompts of an evaluation, in the order of its sets and of their rows, each called
    by its set and its row, from 1.

    Raises UserError for rows that cannot be read, prompts of which none is to be refused, one that
    both is and is not, and one that leaves no room for an answer in the model's ``positions``;
    Impossible where there is no chat template.
    """
    found, everything = [], list[Asked]()
    for one in refusal.prompts:
        require_declared(one.data)
        try:
            rows = load_rows(one.data, prompt_cells(one))
            own = list(prompts_of(one, rows))
            written = list(written_prompts(tokenizer, rows["prompt"]))
        except UserError as error:
            raise UserError(f"prompts {one.name}: {error}") from None
        everything += own
        for number, (asked, ids) in enumerate(zip(own, written, strict=True), start=1):
            if positions is not None and len(ids) + refusal.max_new_tokens > positions:
                raise UserError(
                    f"prompts {one.name}: row {number} has {len(ids)} tokens, which with"
                    f" {refusal.max_new_tokens} of an answer are more than the {positions} of the"
                    " model; shorten it, or lower max_new_tokens"
                )
            text = text_of(asked.cell)
            found.append(Prompt(f"{one.name}/{number}", asked.kind, tuple(ids), text))
    require_one_kind(everything)
    require_harmful(everything)
    return found


def answered_together(
    prompts: Sequence[Prompt], most: int, *, padded: bool
) -> list[tuple[int, ...]]:
    """Return which prompts, by their number, are answered in each batch: up to ``most`` of about
    the same length, and of the very same where the model cannot be shown padding."""
    order = sorted(range(len(prompts)), key=lambda k: len(prompts[k].ids))
    batches: list[list[int]] = []
    for k in order:
        last = batches[-1] if batches else []
        fits = len(last) < most and last != []
        if fits and (padded or len(prompts[last[0]].ids) == len(prompts[k].ids)):
            last.append(k)
        else:
            batches.append([k])
    return [tuple(batch) for batch in batches]


def padded_left(rows: Sequence[Sequence[int]], filler: int) -> tuple[Tensor, Tensor]:
    """Return tokens and attention mask, (N, longest) int64, each row's tokens at its end."""
    return _padded(rows, filler, left=True)


def padded_right(rows: Sequence[Sequence[int]], filler: int) -> tuple[Tensor, Tensor]:
    """Return tokens and attention mask, (N, longest) int64, each row's tokens at its start."""
    return _padded(rows, filler, left=False)


def _padded(rows: Sequence[Sequence[int]], filler: int, *, left: bool) -> tuple[Tensor, Tensor]:
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), filler, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for k, row in enumerate(rows):
        here = slice(longest - len(row), longest) if left else slice(0, len(row))
        ids[k, here] = torch.tensor(row)
        mask[k, here] = 1
    return ids, mask
