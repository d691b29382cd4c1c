"""A model whose weights were cast to bf16 against a float32 one of the same values under autocast:
the arithmetic is one, to the last bit, in every architecture."""

import pytest
import torch
from engine_cells import CPU, batch_of, build
from torch import nn

from sweeps.spec import STANDIN_FAMILIES
from workers.engines.bf16_weights import compute_as_under_autocast


def as_cast(model):
    """Cast the weights of a model, not its buffers, as the DeepSpeed engine has it."""
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    compute_as_under_autocast(model, CPU)


@pytest.mark.parametrize("family", STANDIN_FAMILIES)
def test_cast_weights_give_the_loss_of_their_values_under_autocast(family):
    objective, cast, _ = build(family)
    _, whole, _ = build(family)
    as_cast(cast)
    for parameter in whole.parameters():
        parameter.data = parameter.data.bfloat16().float()
    batch = batch_of(family, 0)
    with torch.autocast("cpu", torch.bfloat16):
        expected = objective.loss_sum(whole, batch)
    # As DeepSpeed's engine calls a model on a GPU: an autocast that is around it is switched off.
    with torch.autocast("cpu", enabled=False):
        found = objective.loss_sum(cast, batch)
    assert found.item() == expected.item()
    expected.backward()
    found.backward()
    for (name, mine), theirs in zip(cast.named_parameters(), whole.parameters(), strict=True):
        assert mine.grad.dtype == torch.bfloat16
        apart = (mine.grad.float() - theirs.grad).norm()
        # Most are apart by their rounding, 2**-9; an embedding that all tokens share is summed in
        # bf16 on a CPU.
        assert apart <= 2e-2 * theirs.grad.norm() + 1e-6, name


class Gate(nn.Module):
    """What none of the families has: a vector beside parts, another norm, a learned token."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 8))
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.norm = nn.GroupNorm(2, 8)
        self.inner = nn.Linear(8, 8)

    def forward(self, x):
        return torch.cat([self.token[0], self.scale * self.norm(self.inner(x))])


def test_modules_of_ones_own_are_found_by_what_their_parameters_are():
    torch.manual_seed(0)
    gate, x = Gate(), torch.randn(3, 8)
    whole = Gate()
    for mine, theirs in zip(gate.parameters(), whole.parameters(), strict=True):
        mine.data = mine.data.bfloat16()
        theirs.data = mine.data.float()
    own = dict(gate.named_parameters())
    compute_as_under_autocast(gate, CPU)
    with torch.autocast("cpu", torch.bfloat16):
        assert gate(x).equal(whole(x))
    assert gate(x).dtype == torch.float32
    assert all(own[name] is parameter for name, parameter in gate.named_parameters())
    assert isinstance(gate, Gate)
    assert type(gate).__name__ == "Gate"
