"""What each step trains on: the examples as they come, or those that a selection chooses.

Candidates are chosen of the whole batch, whatever rank has them, at the weights before the step. A
step's candidates, and what a rule draws, are functions of (seed, step): a run that is resumed
chooses what it would have chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sweeps.errors import UserError
from sweeps.spec import RunSpec
from workers.data.array_file import Arrays, examples_of
from workers.data.datasets import batch_indices
from workers.engines.engine import Batch, Engine
from workers.objectives.objective import TrainingObjective, micro_batches
from workers.progress import PULSE
from workers.sample_gradients.measuring import SampleGradients
from workers.selection.registry import build_selection
from workers.selection.selection_rule import Candidates, checked_choice

# Examples on which it is looked at how the model uses its weights: no usual length of anything.
TRIED = 3
# By how much two ways to the same norm may differ, as a share of it, by precision.
TOLERANCES = {"fp32": 1e-3, "bf16": 0.05}


class Batches:
    """The batches of a run, step by step, on each of its ranks."""

    def __init__(
        self, run: RunSpec, objective: TrainingObjective, arrays: Arrays, engine: Engine
    ) -> None:
        """A collective where the selection measures gradients: it learns on a few examples how the
        model uses its weights.

        Raises UserError where the objective has too few examples, or no loss of a single one.
        """
        self._run = run
        self._objective = objective
        self.arrays = arrays
        self._engine = engine
        self._rule = build_selection(run.selection)
        if self._rule is None:
            return
        said, examples = f"selection {run.selection.kind}", examples_of(arrays)
        if examples < run.candidates:
            raise UserError(
                f"{said}: chooses from {run.candidates} candidates, and there are {examples}"
                " examples; lower batch_size, raise its share, or give more data"
            )
        if objective.compares_examples:
            raise UserError(
                f"{said}: {run.objective.label} compares the examples of a batch, so that none has"
                " a loss of its own; use selection all"
            )
        if self._rule.needs_gradients:
            self._gradients = SampleGradients(engine.groups, engine.sizes)
            whole, _ = self.candidates(1)
            few = {name: tensor[:TRIED].to(engine.device) for name, tensor in whole.items()}
            with self._as_it_is():
                for part in micro_batches(few, self._size):
                    self._gradients.learn(self._losses, part, TOLERANCES[run.precision])

    def of(self, step: int) -> tuple[Batch, list[dict[str, Any]]]:
        """Return the batch of a step and, where it was chosen, a row of ``samples`` a candidate;
        a collective."""
        if self._rule is None:
            return self._objective.batch(self.arrays, self._run, step), []
        run = self._run
        batch, examples = self.candidates(step)
        lengths = self._objective.lengths(batch).numpy()
        unknown = np.full(len(examples), math.nan)
        known, layers = Candidates(unknown, unknown, lengths), None
        if self._rule.needs_gradients:
            losses, squares = self.measured(batch)
            norms = squares.sum(dim=1).sqrt()
            layers = (squares / squares.sum(dim=1, keepdim=True)).tolist()
            known = Candidates(norms.numpy(), losses.numpy(), lengths)
        # Other things are drawn from (seed, step) under other numbers.
        draw = np.random.default_rng([run.seed, step, 3])
        made = self._rule.choose(known, run.batch_size, draw)
        chosen = checked_choice(self._rule, made, len(examples), run.batch_size)
        taken = set(chosen.tolist())
        rows = [
            {
                "candidate": k,
                "example": int(examples[k]),
                "grad_norm": float(known.norms[k]) if layers else None,
                "loss": None if math.isnan(known.losses[k]) else float(known.losses[k]),
                "length": int(lengths[k]),
                "chosen": k in taken,
                "layer_shares": layers[k] if layers else None,
            }
            for k in range(len(examples))
        ]
        return self._objective.chosen_of(batch, chosen), rows

    @property
    def taken_one_by_one(self) -> tuple[str, ...]:
        """Names of the weights of which no use is understood: each costs a backward pass of its
        own for every candidate."""
        gradients = getattr(self, "_gradients", None)
        return () if gradients is None else gradients.names(gradients.one_by_one)

    @property
    def _size(self) -> int:
        """Examples of one pass: one where blocks would be computed again to save memory, since in
        this pass they are not."""
        together = self._objective.reads_together and not self._computes_again
        return self._run.micro_batch_size if together else 1

    @property
    def _computes_again(self) -> bool:
        return bool(self._run.execution.checkpoint_activations)

    def candidates(self, step: int) -> tuple[Batch, np.ndarray[Any, np.dtype[np.int64]]]:
        run = self._run
        numbers = batch_indices(run.seed, step, run.candidates, examples_of(self.arrays))
        return self._objective.batch_of(self.arrays, numbers, (run.seed, step)), numbers

    def _losses(self, part: Batch) -> Tensor:
        """Return the mean loss of each example, (B,)."""
        terms = self._objective.terms(part).to(self._engine.device)
        with self._engine.forward_precision():
            sums = self._objective.losses(self._engine.measured_model, part)
        return sums / terms.clamp(min=1)

    @contextmanager
    def _as_it_is(self) -> Iterator[None]:
        """Surround passes without dropout, whose noise would be in each norm, and of which nothing
        is computed again, which would be another pass than the one that is watched."""
        model = self._engine.model
        training = model.training
        if self._run.dropout or self._computes_again:
            model.eval()
        try:
            yield
        finally:
            model.train(training)

    def measured(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return of all candidates the losses, (N,), NaN where there are no terms, and the squared
        norms of gradients by layer, (N, G), in float64 on the CPU; a collective."""
        engine, count = self._engine, len(next(iter(batch.values())))
        # Every rank has as many; what is read twice counts once.
        each = math.ceil(count / engine.ranks)
        numbers = torch.arange(each * engine.ranks).clamp(max=count - 1)
        mine = engine.share({name: tensor[numbers] for name, tensor in batch.items()})
        found = []
        with self._as_it_is():
            for part in micro_batches(mine, self._size):
                found.append(self._gradients.squares(self._losses, part))
                PULSE.beat()
        losses, squares = (torch.cat(side) for side in zip(*found, strict=True))
        losses, squares = engine.gather(losses.double()), engine.gather(squares)
        losses, squares = losses[:count].cpu(), squares[:count].cpu()
        return losses.masked_fill(self._objective.terms(batch) == 0, math.nan), squares
