"""Metrics of the user's own, of each layer beside those that are always computed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from sweeps.errors import UserError
from sweeps.plugins.opened import opened
from sweeps.spec import PluginMetric


class OwnMetrics:
    """What a run's own metrics say of a layer, given what it was before."""

    def __init__(self, metrics: Sequence[PluginMetric], reference: Sequence[Tensor]) -> None:
        """``reference`` has a matrix (n, d) a layer; the metrics' code has been opened."""
        self._metrics = [(one, opened(one.code, "metric", one.name)) for one in metrics]
        self._reference = reference if metrics else ()

    def of_layer(self, layer: int, state: Tensor, label: str) -> Iterator[dict[str, Any]]:
        """Yield ``metric`` and ``value`` of each metric, NaN where a state is not finite.

        Both matrices are given in float64, each metric copies of its own. Raises UserError for
        what is no number.
        """
        for metric, mark in self._metrics:
            before, now = (
                one.to(state.device, torch.float64, copy=True)
                for one in (self._reference[layer], state)
            )
            value: Any = math.nan
            if bool(before.isfinite().all()) and bool(now.isfinite().all()):
                with torch.no_grad():
                    value = mark.build(before, now, options=metric.options)
            try:
                yield {"metric": metric.name, "value": float(value)}
            except (TypeError, ValueError, RuntimeError):
                raise UserError(
                    f"{mark.where}: metric {metric.name!r} returns {str(value)[:60]!r} of {label},"
                    " and has to return one number"
                ) from None
