"""Gradient norms of single examples, by layer group, from one forward and one backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from sweeps.errors import UserError
from workers.controls.layer_groups import LayerGroup
from workers.engines.engine import Batch
from workers.sample_gradients.known_uses import KNOWN
from workers.sample_gradients.watching import Watch, mark_as_examples

# So many numbers of gradients are held at once where they are taken one example at a time, or those
# of one layer.
AT_ONCE = 1 << 28


class SampleGradients:
    """What is measured of a model's layer groups."""

    def __init__(self, groups: Sequence[LayerGroup], sizes: Sequence[int] | None = None) -> None:
        """``sizes`` are the elements of each group, where parameters may be cut and do not tell."""
        told = sizes or [sum(p.numel() for p in group.parameters) for group in groups]
        # Layers in a row whose gradients are taken in one pass, by layer.
        self._pass = [sum(told[: g + 1]) // AT_ONCE for g in range(len(told))]
        self._weights = [p for group in groups for p in group.parameters]
        self._names = [name for group in groups for name in group.names]
        self._group = [g for g, group in enumerate(groups) for _ in group.parameters]
        self._groups = len(groups)
        # Weights of which examples are taken one by one; see ``learn``.
        self.one_by_one: frozenset[int] = frozenset()

    def learn(self, losses: Callable[[Batch], Tensor], batch: Batch, tolerance: float) -> None:
        """Look at a few examples, at each by itself too, and take the gradients of weights that are
        not understood one example at a time from then on.

        That are those of which no use is seen, and those whose norms differ by more than a
        ``tolerance`` of themselves. Raises UserError where the loss of an example depends on the
        others of its batch.
        """
        together, squares, apart = self._measured(losses, batch)
        self.one_by_one |= apart
        alone, exact = [], []
        for part in rows_of(batch):
            loss = losses(part)
            alone.append(loss.detach())
            exact.append(self._each_by_itself(loss, range(len(self._weights))))
        by_itself = torch.cat(alone)
        if not torch.allclose(together, by_itself, rtol=tolerance, atol=tolerance):
            raise UserError(
                "selection: the loss of an example depends on the other examples of its batch, in"
                f" this model ({together.tolist()} together, {by_itself.tolist()} alone): use"
                " selection all or random"
            )
        wanted = {k: torch.cat([each[k] for each in exact]) for k in range(len(self._weights))}
        whole = torch.stack(list(wanted.values())).sum(dim=0).sqrt()
        for k, each in wanted.items():
            norms = each.sqrt()
            near = k in squares and bool(
                ((squares[k].sqrt() - norms).abs() <= tolerance * (norms + whole * 1e-2)).all()
            )
            if not near:
                self.one_by_one |= {k}

    def names(self, numbers: Iterable[int]) -> tuple[str, ...]:
        """Return the names of weights, in order."""
        return tuple(self._names[number] for number in sorted(numbers))

    def squares(self, losses: Callable[[Batch], Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the losses of a batch's examples, (B,), and the squared norms of their gradients
        by layer group, (B, G) in float64.

        ``losses`` runs the model on the batch and returns (B,), each made of its own example alone.
        """
        found, by_weight, _ = self._measured(losses, batch)
        return found, self._by_group(by_weight, len(found))

    def _measured(
        self, losses: Callable[[Batch], Tensor], batch: Batch
    ) -> tuple[Tensor, dict[int, Tensor], frozenset[int]]:
        """Return losses, squared norms (B,) by a weight's number, and which of these were taken
        one example at a time."""
        examples = len(next(iter(batch.values())))
        seen = {name: tensor.view_as(tensor) for name, tensor in batch.items()}
        mark_as_examples(seen.values())
        watch = Watch(self._weights, examples, KNOWN)
        try:
            with torch.enable_grad(), watch:
                found = losses(seen)
            apart = self.one_by_one | watch.not_understood()
            squares = self._each_by_itself(found, sorted(apart))
            watch.backward(found.sum(), [self._weights[k] for k in sorted(apart)])
        finally:
            watch.let_go()
        for number, each in watch.squares.items():
            if number not in apart:
                squares[number] = each
        return found.detach(), squares, apart

    def _each_by_itself(self, losses: Tensor, numbers: Sequence[int]) -> dict[int, Tensor]:
        """Return the squared norms of some weights' gradients, from a backward pass an example."""
        if not numbers:
            return {}
        parts: dict[int, list[int]] = {}
        for number in numbers:
            parts.setdefault(self._pass[self._group[number]], []).append(number)
        found: dict[int, list[Tensor]] = {number: [] for number in numbers}
        for loss in losses:
            for part in parts.values():
                weights = [self._weights[k] for k in part]
                made = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
                for number, gradient in zip(part, made, strict=True):
                    norm = loss.new_zeros(()) if gradient is None else gradient.float().norm()
                    found[number].append(norm.double().square())
        return {number: torch.stack(squares) for number, squares in found.items()}

    def _by_group(self, squares: dict[int, Tensor], examples: int) -> Tensor:
        """Return the sums over each group's weights, (B, G), of squares (B,) by number."""
        device = self._weights[0].device
        found = torch.zeros((examples, self._groups), dtype=torch.float64, device=device)
        for number, each in squares.items():
            found[:, self._group[number]] += each
        return found


def rows_of(batch: Batch) -> Iterator[Batch]:
    """Yield each example of a batch as a batch of its own."""
    for k in range(len(next(iter(batch.values())))):
        yield {name: tensor[k : k + 1] for name, tensor in batch.items()}
