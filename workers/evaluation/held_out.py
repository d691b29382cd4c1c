"""The examples that a run is scored on, in batches that are the same every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps.errors import UserError
from sweeps.spec import RunSpec
from workers.data.array_file import examples_of
from workers.data.token_cache import objective_arrays
from workers.engines.engine import Batch, Engine
from workers.models.pretrained import PretrainedModel
from workers.objectives.registry import build_objective


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
        # The mean of no term at all would be a loss of 0, the best there is.
        if not any(self.objective.targets(self.batch(index)) for index in range(len(self))):
            raise UserError(
                f"evaluation: {data.label} gives {run.objective.kind} nothing to predict in its"
                f" first {run.sequence_length} tokens; raise sequence_length, or give rows of which"
                " more fits"
            )

    def complete(
        self, engine: Engine, run: RunSpec, pretrained: PretrainedModel, cache: Path
    ) -> None:
        """Have what the model says of the examples before it is trained; a collective."""
        chosen = np.unique(np.concatenate(self._batches))
        objective = self.objective
        self.arrays = objective.completed(self.arrays, engine, run, pretrained, cache, chosen)

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
