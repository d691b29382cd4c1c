"""What a model scores on held-out examples, whatever engine and however many ranks hold it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sweeps.spec import LOSS, RunSpec, scores_of
from workers.engines.engine import Batch, Engine
from workers.evaluation.held_out import HeldOut
from workers.objectives.objective import micro_batches
from workers.progress import PULSE
from workers.ranks.process_group import Ranks


@dataclass(frozen=True)
class Batched:
    """What one batch gives: the sum of the loss's terms, how many, and predictions by name."""

    loss: float
    targets: int
    predictions: dict[str, NDArray[Any]]


class Evaluator:
    """Scores the model of an engine; where several ranks share it, each takes whole batches."""

    def __init__(self, run: RunSpec, held_out: HeldOut, engine: Engine, ranks: Ranks) -> None:
        self._held_out, self._engine, self._ranks = held_out, engine, ranks
        self._micro = run.micro_batch_size
        self._parts = -(-run.batch_size // self._micro)
        self._scores = scores_of(run.objective.kind)

    def evaluate(self) -> list[dict[str, Any]]:
        """Return a row a score, the mean loss of all targets first; a collective.

        Figures do not depend on how many ranks there are, beyond rounding: sums are made batch by
        batch, in order.
        """
        mine = []
        with scoring(self._engine.model):
            for first in range(0, len(self._held_out), self._ranks.size):
                index = first + self._ranks.rank
                if index < len(self._held_out):
                    mine.append(self._scored(index))
                else:
                    self._keep_company(self._held_out.batch(0), self._parts)
        said = self._ranks.all_say(mine)
        found = [said[i % len(said)][i // len(said)] for i in range(len(self._held_out))]
        targets = sum(one.targets for one in found)
        loss = sum(one.loss for one in found) / targets
        names = found[0].predictions
        whole = {name: np.concatenate([one.predictions[name] for one in found]) for name in names}
        scores = {LOSS: loss, **self._held_out.objective.scores(whole, loss)}
        if unknown := set(scores) - set(self._scores):
            raise ValueError(f"scores {sorted(unknown)}, where spec.SCORES has {self._scores}")
        there = [name for name in self._scores if name in scores]
        return [{"score": k, "value": scores[k], "targets": targets} for k in there]

    def _scored(self, index: int) -> Batched:
        whole = self._held_out.batch(index)
        parts = self._cut(whole)
        objective, engine = self._held_out.objective, self._engine
        with engine.forward_precision():
            loss, predictions = objective.evaluated(engine.model, parts)
        self._keep_company(whole, self._parts - len(parts))
        PULSE.beat()
        names = predictions[0] if predictions else {}
        there = {name: _array(torch.cat([one[name] for one in predictions])) for name in names}
        return Batched(loss, objective.targets(whole), there)

    def _keep_company(self, batch: Batch, parts: int) -> None:
        """Compute as often as ranks with more to score do: a forward pass may be a collective."""
        if self._ranks.size > 1:
            first = self._cut(batch)[:1]
            for _ in range(parts):
                with self._engine.forward_precision():
                    self._held_out.objective.evaluated(self._engine.model, first)

    def _cut(self, batch: Batch) -> list[Batch]:
        here = {name: tensor.to(self._engine.device) for name, tensor in batch.items()}
        return list(micro_batches(here, self._micro))


def _array(tensor: Tensor) -> NDArray[Any]:
    # NumPy knows no bfloat16.
    whole = tensor.float() if tensor.is_floating_point() else tensor
    array: NDArray[Any] = whole.cpu().numpy()
    return array


@contextmanager
def scoring(model: nn.Module) -> Iterator[None]:
    """Have a model compute without gradients and as it is used, not as it is trained; each of its
    modules is then in the mode in which it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
