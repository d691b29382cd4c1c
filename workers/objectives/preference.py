"""Which of two answers is preferred: direct preference optimisation (DPO).

Rafailov et al. 2023, arXiv 2305.18290, equation 7: −log σ(β·((π_c − ρ_c) − (π_r − ρ_r))), with
the log-probability of the chosen and the rejected answer under the model, π, and under it as it was
before training, ρ. The latter is computed once, before the first step, and kept: no second model is
ever held.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from sweeps.errors import UserError
from sweeps.spec import RunSpec
from workers.data.array_file import Arrays
from workers.data.conversations import written_pairs
from workers.data.datasets import examples_read
from workers.data.token_cache import CachedArrays, arrays_digest
from workers.engines.engine import Batch, Engine
from workers.models.pretrained import PretrainedModel
from workers.objectives.language_modelling import LanguageModel
from workers.objectives.objective import IGNORED, TrainingObjective
from workers.objectives.sft import answers_padded, filler_of
from workers.progress import PREPARATION

SIDES = ("chosen", "rejected")
# Raise it with any change of what a reference is computed as.
REFERENCE_VERSION = 1


class Preference(TrainingObjective):
    """The mean over pairs of which both answers have a token.

    A batch without references is one of before training: the model is then its own reference.
    """

    needs_head = True
    reads_together = True

    def build_model(self, pretrained: PretrainedModel) -> nn.Module:
        return LanguageModel(pretrained.language_model)

    def tokenise(self, tokenizer: Any, rows: dict[str, list[Any]], length: int) -> Arrays:
        found: Arrays = {}
        for side in SIDES:
            written = list(written_pairs(tokenizer, rows["prompt"], rows[side]))
            arrays = answers_padded(written, length, filler_of(tokenizer))
            found |= {f"{side}_{name}": array for name, array in arrays.items()}
        if not _compared(found["chosen_labels"], found["rejected_labels"]).any():
            raise UserError(
                f"no pair has a token of both answers in its first {length}; raise sequence_length,"
                " or shorten the prompts"
            )
        return found

    def completed(
        self,
        arrays: Arrays,
        engine: Engine,
        run: RunSpec,
        pretrained: PretrainedModel,
        cache: Path,
        chosen: NDArray[np.int64] | None = None,
    ) -> Arrays:
        """Return arrays with ``chosen_reference`` and ``rejected_reference``, (N,) float32, of the
        examples that ``chosen`` numbers, or that the run's steps will read; others are NaN."""
        examples = len(arrays["chosen_input_ids"])
        if chosen is None:
            chosen = examples_read(run, run.steps, examples)
        tokens = {name: arrays[name][chosen] for name in sorted(arrays)}
        key = {
            "model": pretrained.content,
            "tokens": arrays_digest(*tokens.values()),
            "precision": run.precision,
            "version": REFERENCE_VERSION,
        }
        kept = CachedArrays(cache, "preference", key)
        found = kept.read()
        here = torch.tensor(0 if found is None else 1, device=engine.device)
        if found is None or int(engine.total(here)) < engine.ranks:
            found = self._references(tokens, engine, run.micro_batch_size)
            if engine.rank == 0:
                kept.write(found)
        references = {}
        for name, values in found.items():
            references[name] = np.full(examples, np.nan, dtype=np.float32)
            references[name][chosen] = values
        return {**arrays, **references}

    @torch.no_grad()
    def _references(self, tokens: Arrays, engine: Engine, micro: int) -> Arrays:
        """Return the log-probabilities of answers, (N,) a side; a collective."""
        count = len(tokens["chosen_input_ids"])
        found: dict[str, list[Tensor]] = {side: [] for side in SIDES}
        training = engine.model.training
        engine.model.eval()
        starts = range(0, count, micro * engine.ranks)
        for start in PREPARATION.counted(starts, "computing references", "batches"):
            # Every rank has as many; what is read twice counts once.
            numbers = np.minimum(np.arange(start, start + micro * engine.ranks), count - 1)
            rows = {name: torch.from_numpy(a[numbers]).long() for name, a in tokens.items()}
            mine = engine.share(rows)
            for side in SIDES:
                with engine.forward_precision():
                    values = _log_probability(engine.model, mine, side)
                found[side].append(engine.gather(values).cpu())
        engine.model.train(training)
        return {f"{s}_reference": torch.cat(found[s])[:count].numpy() for s in SIDES}

    def targets(self, batch: Batch) -> int:
        return int(_compared(batch["chosen_labels"], batch["rejected_labels"]).sum())

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.losses(model, batch).sum()

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        counted = _compared(batch["chosen_labels"], batch["rejected_labels"])
        assert self.objective.beta is not None
        losses = -logsigmoid(self.objective.beta * self._margins(model, batch))
        return torch.where(counted, losses, 0.0)

    def lengths(self, batch: Batch) -> Tensor:
        sides = [batch[f"{side}_labels"][:, 1:] != IGNORED for side in SIDES]
        return torch.cat(sides, dim=1).sum(dim=1)

    def _margins(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return by how much more than its reference the model prefers the chosen one, (B,)."""
        gains = []
        for side in SIDES:
            here = _log_probability(model, batch, side)
            gains.append(here - batch.get(f"{side}_reference", here.detach()))
        return gains[0] - gains[1]

    def predictions(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        counted = _compared(batch["chosen_labels"], batch["rejected_labels"])
        return {"margin": self._margins(model, batch)[counted]}

    def scores(self, predictions: dict[str, NDArray[Any]], loss: float) -> dict[str, float]:
        """Return in which share of the pairs the model has come to prefer the chosen answer."""
        del loss
        return {"accuracy": float(np.mean(predictions["margin"] > 0))}


def _compared(chosen: Any, rejected: Any) -> Any:
    """Return which pairs have a token of both answers, (N,), of labels (N, T)."""
    return (chosen[:, 1:] != IGNORED).any(1) & (rejected[:, 1:] != IGNORED).any(1)


def _log_probability(model: nn.Module, batch: Batch, side: str) -> Tensor:
    """Return the sum of the log-probabilities of an answer's tokens, (B,), in float32."""
    labels = batch[f"{side}_labels"][:, 1:]
    logits = model(batch[f"{side}_input_ids"], attention_mask=batch[f"{side}_attention_mask"])
    there = labels != IGNORED
    every = logits[:, :-1].float().log_softmax(-1)
    each = every.gather(-1, labels.masked_fill(~there, 0).unsqueeze(-1)).squeeze(-1)
    return torch.where(there, each, 0.0).sum(dim=1)
