"""A number of a text, or of a pair of texts: the squared error of a new linear head."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from workers.data.array_file import Arrays
from workers.engines.engine import Batch
from workers.objectives.classification import OfATextOrAPair


class Regression(OfATextOrAPair):
    """Mean squared error, in the unit of the data squared."""

    def outputs(self) -> int:
        return 1

    def tokenise(self, tokenizer: Any, rows: dict[str, list[Any]], length: int) -> Arrays:
        wanted = np.asarray(rows["label"], dtype=np.float32)
        return {**self.texts(tokenizer, rows, length), "wanted": wanted}

    def targets(self, batch: Batch) -> int:
        return len(batch["wanted"])

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        return mse_loss(self.logits(model, batch)[:, 0], batch["wanted"], reduction="sum")

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        return mse_loss(self.logits(model, batch)[:, 0], batch["wanted"], reduction="none")

    def predictions(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"predicted": self.logits(model, batch)[:, 0], "wanted": batch["wanted"]}

    def scores(self, predictions: dict[str, NDArray[Any]], loss: float) -> dict[str, float]:
        """Return the root of the mean squared error and, where both vary, the correlations."""
        predicted = predictions["predicted"].astype(np.float64)
        wanted = predictions["wanted"].astype(np.float64)
        found = {"rmse": float(np.sqrt(np.mean((predicted - wanted) ** 2)))}
        del loss
        if len(wanted) > 1 and np.ptp(predicted) > 0 and np.ptp(wanted) > 0:
            found["pearson"] = float(stats.pearsonr(predicted, wanted).statistic)
            found["spearman"] = float(stats.spearmanr(predicted, wanted).statistic)
        return found
