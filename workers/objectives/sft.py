"""Supervised fine-tuning: the next token of an answer, given its prompt.

Examples have a row each, or share one: ``within`` packs whole examples into a row, of which each
sees itself alone; ``across`` cuts all examples, one after the other, without regard to where they
end.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sweeps.errors import Impossible, UserError
from workers.data.array_file import Arrays
from workers.data.conversations import Written, written_messages, written_pairs
from workers.engines.engine import Batch
from workers.models.pretrained import PretrainedModel
from workers.objectives.language_modelling import LanguageModel
from workers.objectives.objective import IGNORED, TrainingObjective, token_losses

# Tokens of the two examples with which it is seen whether one reads the other.
_TRIED = ((5, 7, 9, 11, 6), (8, 6, 10, 4, 12, 7))
# Of logits, relative to the largest: rounding is 1e-6 of it.
_APART = 1e-4


class SupervisedFineTuning(TrainingObjective):
    """Cross-entropy of each token of the answers."""

    needs_head = True
    reads_together = True

    @property
    def packed(self) -> bool:  # type: ignore[override]
        return self.objective.packing in ("within", "across")

    def build_model(self, pretrained: PretrainedModel) -> nn.Module:
        model = LanguageModel(pretrained.language_model)
        if self.objective.packing == "within":
            _require_apart(model)
        return model

    def tokenise(self, tokenizer: Any, rows: dict[str, list[Any]], length: int) -> Arrays:
        if "messages" in rows:
            written = list(written_messages(tokenizer, rows["messages"]))
        else:
            written = list(written_pairs(tokenizer, rows["prompt"], rows["completion"]))
        filler = filler_of(tokenizer)
        if self.objective.packing == "across":
            arrays = _stream(written, length)
        elif self.objective.packing == "within":
            arrays = _together(written, length, filler)
        else:
            arrays = answers_padded(written, length, filler)
        if not (arrays["labels"][:, 1:] != IGNORED).any():
            raise UserError(
                f"no answer has a token in its first {length}; raise sequence_length, or shorten"
                " the prompts"
            )
        return arrays

    def targets(self, batch: Batch) -> int:
        return int((batch["labels"][:, 1:] != IGNORED).sum())

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        others = {name: t for name, t in batch.items() if name not in ("input_ids", "labels")}
        logits = model(batch["input_ids"], **others)[:, :-1]
        return cross_entropy(
            logits.float().flatten(0, 1),
            batch["labels"][:, 1:].flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        others = {name: t for name, t in batch.items() if name not in ("input_ids", "labels")}
        logits = model(batch["input_ids"], **others)[:, :-1]
        return token_losses(logits, batch["labels"][:, 1:])

    def lengths(self, batch: Batch) -> Tensor:
        return (batch["labels"][:, 1:] != IGNORED).sum(dim=1)

    def scores(self, predictions: dict[str, NDArray[Any]], loss: float) -> dict[str, float]:
        """Return the perplexity of a token of an answer."""
        del predictions
        return {"perplexity": float(np.exp(loss))}


def filler_of(tokenizer: Any) -> int:
    """Return the token that fills rows up."""
    choices = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return int(next(token for token in choices if token is not None))


def answers_padded(written: Sequence[Written], length: int, filler: int) -> Arrays:
    """Return ``input_ids``, ``attention_mask`` and ``labels``, all (N, length) int32, one row an
    example: its first tokens; labels are IGNORED but for tokens that are answered."""
    ids = np.full((len(written), length), filler, dtype=np.int32)
    mask, labels = np.zeros_like(ids), np.full_like(ids, IGNORED)
    for row, one in enumerate(written):
        kept = one.ids[:length]
        if not len(kept):
            raise UserError(f"example {row + 1} has no token; remove empty texts")
        ids[row, : len(kept)] = kept
        mask[row, : len(kept)] = 1
        labels[row, : len(kept)] = _labels(one)[:length]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _labels(one: Written) -> NDArray[np.int32]:
    return np.where(one.answered, one.ids, IGNORED).astype(np.int32)


def _stream(written: Iterable[Written], length: int) -> Arrays:
    """Return ``input_ids`` and ``labels``, (N, length): all examples in one stream, cut."""
    kept = list(written)
    ids = np.concatenate([one.ids for one in kept])
    labels = np.concatenate([_labels(one) for one in kept])
    whole = len(ids) // length * length
    if not whole:
        raise UserError(
            f"the dataset has {len(ids)} tokens, less than one sequence of {length}; lower"
            " sequence_length or give more text"
        )
    return {
        "input_ids": ids[:whole].reshape(-1, length),
        "labels": labels[:whole].reshape(-1, length),
    }


def _together(written: Sequence[Written], length: int, filler: int) -> Arrays:
    """Return ``input_ids``, ``labels`` and ``position_ids``, (N, length): whole examples in as few
    rows as best fit finds; positions begin anew with each, and with each token that fills up."""
    rows = best_fit([min(len(one.ids), length) for one in written], length)
    ids = np.full((len(rows), length), filler, dtype=np.int32)
    labels, positions = np.full_like(ids, IGNORED), np.zeros_like(ids)
    for row, members in enumerate(rows):
        place = 0
        for number in members:
            one = written[number]
            size = min(len(one.ids), length)
            here = slice(place, place + size)
            ids[row, here], labels[row, here] = one.ids[:length], _labels(one)[:length]
            # The token before is another example's.
            labels[row, place] = IGNORED
            positions[row, here] = np.arange(size)
            place += size
    return {"input_ids": ids, "labels": labels, "position_ids": positions}


def best_fit(sizes: Sequence[int], room: int) -> list[list[int]]:
    """Return the numbers of what goes into each row of ``room``: the largest first, each into the
    row that it leaves least room in."""
    rows: list[list[int]] = []
    free: dict[int, list[int]] = {}
    left: list[int] = []  # the keys of ``free`` in order
    for number in sorted(range(len(sizes)), key=lambda k: -sizes[k]):
        size = sizes[number]
        at = bisect.bisect_left(left, size)
        if at == len(left):
            row, remains = len(rows), room - size
            rows.append([])
        else:
            row, remains = free[left[at]].pop(), left[at] - size
            if not free[left[at]]:
                del free[left.pop(at)]
        rows[row].append(number)
        if remains:
            if remains not in free:
                bisect.insort(left, remains)
            free.setdefault(remains, []).append(row)
    return rows


@torch.no_grad()
def _require_apart(model: LanguageModel) -> None:
    """Raise Impossible where a model's examples see each other though positions begin anew."""
    first = next(model.parameters())
    if first.is_meta or isinstance(first, torch._subclasses.FakeTensor):
        return  # it is seen where the weights are
    alone = [torch.tensor([tokens]) for tokens in _TRIED]
    positions = [torch.arange(tokens.shape[1])[None] for tokens in alone]
    name = type(model.language_model).__name__
    training = model.training
    model.eval()
    try:
        together = model(torch.cat(alone, dim=1), position_ids=torch.cat(positions, dim=1))
        wanted = torch.cat([model(tokens) for tokens in alone], dim=1)
    except TypeError:
        raise Impossible(f"{name} takes no position ids, {_REMEDY}") from None
    finally:
        model.train(training)
    if (together - wanted).abs().max() > _APART * wanted.abs().max():
        raise Impossible(f"{name} lets examples in one sequence read each other, {_REMEDY}")


_REMEDY = "which `packing: within` is to prevent; use packing none or across"
