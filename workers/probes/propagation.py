"""What depth does to a change without any gradient: noise in the weights of the pretrained model.

Definition ("Profile", propagation): in each draw every parameter tensor of every block gets
Gaussian noise of ``RATIO`` times its own norm, so that ‖ΔW_l‖/‖W_l‖ is the same in all blocks;
embedding and head stay. The change of every block is then measured as that of a run is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sweeps.spec import ModelSpec, Probe, content_id
from sweeps.store.schema import NULL_METRICS
from workers.depth.stacks import distinct_blocks, positions
from workers.models.fit import require_known_tokens
from workers.models.pretrained import PretrainedModel
from workers.probes.capture import capture, reference_states
from workers.probes.rows import choose_rows
from workers.probes.similarity import Reference, compare
from workers.spectra.inputs import Incomparable

DRAWS = 20
RATIO = 0.1


class Propagation:
    """The measurement of one model and probe, draw by draw."""

    def __init__(
        self,
        model: ModelSpec,
        probe: Probe,
        pretrained: PretrainedModel,
        cache: Path,
        device: torch.device,
    ) -> None:
        """Read or capture the states before any noise; UserError where the probe does not fit."""
        self._seed, self._device = probe.seed, device
        self._backbone = pretrained.backbone.to(device).eval()
        self._stacks = pretrained.stacks
        rows = choose_rows(probe, pretrained.facts.width, pretrained.tokenizer, cache)
        highest = int(rows.input_ids.max())
        require_known_tokens(model.name, pretrained, highest, needs_head=False)
        reference = reference_states(
            pretrained, model.name, cache, self._backbone, self._stacks, rows, device
        )
        self._rows = reference.rows
        self._entering = [position.layer == 0 for position in positions(self._stacks)]
        self._references = [_prepared(state.to(device)) for state in self._given(reference.states)]

    def draws(self, count: int = DRAWS) -> Iterator[dict[str, list[float | None]]]:
        """Yield, of each draw, the change d_i of each call of a block under every metric with a
        null, stack after stack.

        None is a state that cannot be compared. The weights are restored after each draw.
        """
        for draw in range(1, count + 1):
            with noise_in(distinct_blocks(self._stacks), self._seed, draw):
                states = capture(self._backbone, self._stacks, self._rows, self._device)
            changes = [
                _change(reference, state.to(self._device))
                for reference, state in zip(self._references, self._given(states), strict=True)
            ]
            yield {name: [change[name] for change in changes] for name in NULL_METRICS}

    def _given(self, states: list[Tensor]) -> list[Tensor]:
        """Return the states that blocks gave, without those that enter a stack."""
        return [s for s, enters in zip(states, self._entering, strict=True) if not enters]

    def result(self, draws: list[dict[str, list[float | None]]]) -> dict[str, Any]:
        """Return what is recorded: per metric the draws' lists of d_i, and what they are of."""
        return {
            "draws": {name: [draw[name] for draw in draws] for name in NULL_METRICS},
            "ratio": RATIO,
            "rows": len(self._rows.sequence),
            "sequences": self._rows.sequences,
            "rows_left_out": self._rows.left_out,
            **({"stacks": [[s.name, s.depth] for s in self._stacks]} if self._stacks[1:] else {}),
        }


@contextmanager
@torch.no_grad()
def noise_in(
    blocks: Sequence[nn.Module], seed: int, draw: int, ratio: float = RATIO
) -> Iterator[dict[Tensor, Tensor]]:
    """Add the noise of one draw to the weights of blocks while entered; yield what they were.

    In each tensor ‖noise‖ is ``ratio`` times ‖W‖, so one of norm 0 gets none. Afterwards every
    weight is, bit for bit, what it was. Equal seeds, draws and devices give equal noise.
    """
    parameters = list(dict.fromkeys(p for block in blocks for p in block.parameters()))
    kept: dict[Tensor, Tensor] = {}
    try:
        for number, parameter in enumerate(parameters):
            kept[parameter] = parameter.detach().cpu().clone()
            generator = torch.Generator(parameter.device)
            generator.manual_seed(int(content_id([seed, draw, number], 15), 16))
            noise = torch.randn(parameter.shape, generator=generator, device=parameter.device)
            wanted = ratio * torch.linalg.vector_norm(parameter, dtype=torch.float64)
            noise *= (wanted / torch.linalg.vector_norm(noise, dtype=torch.float64)).float()
            parameter.add_(noise.to(parameter.dtype))
        yield kept
    finally:
        for changed, before in kept.items():
            changed.copy_(before)


def _prepared(state: Tensor) -> Reference | None:
    try:
        return Reference.of(state)
    except Incomparable:
        return None


def _change(reference: Reference | None, state: Tensor) -> dict[str, float | None]:
    try:
        if reference is None:
            return dict.fromkeys(NULL_METRICS)
        change = compare(reference, state)
    except Incomparable:
        return dict.fromkeys(NULL_METRICS)
    values = {name: float(getattr(change, name)) for name in NULL_METRICS}
    return {name: value if value == value else None for name, value in values.items()}
