"""What a model scores on held-out examples, the same ones and in the same batches every time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sweeps.attempts.writer import EVALUATIONS, OnlookersWriter, RunWriter
from sweeps.errors import UserError
from sweeps.spec import LOSS, RunSpec, scores_of
from workers.data.array_file import examples_of
from workers.data.token_cache import objective_arrays
from workers.engines.engine import Batch, Engine
from workers.objectives.objective import micro_batches
from workers.objectives.registry import build_objective
from workers.progress import PULSE
from workers.ranks.process_group import Ranks


@dataclass(frozen=True)
class Batched:
    """What one batch gives: the sum of the loss's terms, how many, and predictions by name."""

    loss: float
    targets: int
    predictions: dict[str, NDArray[Any]]


class HeldOut:
    """The examples of a run that are held out, and their objective."""

    def __init__(self, run: RunSpec, tokenizer: Any, cache: Path) -> None:
        """Raises UserError for a dataset that cannot be used."""
        assert run.evaluation is not None
        said = run.evaluation
        data = said.data or run.objective.data
        objective = run.objective.model_copy(update={"data": data})
        self.objective = build_objective(objective, held_out=True)
        self.arrays = objective_arrays(
            self.objective, tokenizer, run.sequence_length, cache, said.fraction
        )
        self._batches = batches_of(examples_of(self.arrays), run.batch_size, said.batches)
        if self.objective.compares_examples:
            # Fewer to be compared with would be another, easier, question.
            self._batches = [batch for batch in self._batches if len(batch) == run.batch_size]
        if not self._batches:
            raise UserError(
                f"evaluation: {data.label} gives {examples_of(self.arrays)} held-out examples,"
                f" fewer than one batch of {run.batch_size}, in which {run.objective.kind} compares"
                " them; give more, or a smaller batch_size"
            )

    def __len__(self) -> int:
        return len(self._batches)

    def batch(self, index: int) -> Batch:
        """Return batch ``index``; what is random in it is drawn by the index alone."""
        return self.objective.batch_of(self.arrays, self._batches[index], (index,))


def batches_of(examples: int, size: int, most: int | None) -> list[NDArray[np.int64]]:
    """Return which examples each batch has: all in order, or ``most`` full batches of examples that
    are spread evenly over them, so that a sorted dataset is not known by its beginning alone."""
    count = examples if most is None else min(examples, most * size)
    chosen = np.arange(count, dtype=np.int64) * examples // count
    return [chosen[start : start + size] for start in range(0, count, size)]


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
        loss = sum(one.loss for one in found) / max(1, targets)
        names = found[0].predictions
        whole = {name: np.concatenate([one.predictions[name] for one in found]) for name in names}
        scores = {LOSS: loss, **self._held_out.objective.scores(whole, loss)}
        if set(scores) != set(self._scores):
            raise ValueError(f"scores {sorted(scores)} where spec.SCORES says {self._scores}")
        return [{"score": k, "value": scores[k], "targets": targets} for k in self._scores]

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


class Evaluations:
    """The evaluations of one attempt at a run, from where it goes on.

    ``newest`` is what a watcher is told of the last one: its step and scores. ``stopped`` says that
    the run's ``stop`` ends it there, short of its last step.
    """

    def __init__(
        self,
        run: RunSpec,
        evaluator: Evaluator | None,
        writer: RunWriter | OnlookersWriter,
        ranks: Ranks,
        step: int,
    ) -> None:
        """``step`` is the one that the attempt goes on after, whose rows ``writer`` has."""
        self._run, self._evaluator, self._writer = run, evaluator, writer
        self._losses: list[float] = [] if evaluator is None else writer.evaluation_losses()
        self._losses = ranks.agree(self._losses)
        self.newest: dict[str, Any] | None = None
        self.stopped = self._is_over(step)

    def after(self, step: int) -> bool:
        """Evaluate if it is time to; return whether the loss is a number, if so. A collective."""
        if self._evaluator is None or step not in self._run.evaluation_steps:
            return True
        rows = self._evaluator.evaluate()
        self._writer.add(EVALUATIONS, step, rows)
        self.newest = {"step": step, **{row["score"]: row["value"] for row in rows}}
        self._losses.append(self.newest[LOSS])
        self.stopped = self._is_over(step)
        return math.isfinite(self._losses[-1])

    def _is_over(self, step: int) -> bool:
        stop = self._run.stop
        return stop is not None and step < self._run.steps and stop.holds(self._losses)
