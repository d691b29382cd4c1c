"""The Gram trick against the gradients themselves."""

import pytest
import torch

from workers.sample_gradients import weight_uses
from workers.sample_gradients.weight_uses import WeightUses


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)


@pytest.mark.parametrize(
    ("tokens", "rows", "columns"), [(1, 5, 3), (4, 50, 40), (40, 5, 3), (7, 9, 9)]
)
@pytest.mark.parametrize("at_once", [1, 1 << 24])
def test_products_have_the_norm_of_their_sum(tokens, rows, columns, at_once, monkeypatch):
    monkeypatch.setattr(weight_uses, "AT_ONCE", at_once)
    r, c = random(3, tokens, rows), random(3, tokens, columns, seed=1)
    uses = WeightUses((rows, columns), products=[(r, c), (2 * r, c)])
    wanted = torch.einsum("btr,btc->brc", 3 * r.double(), c.double()).square().sum((1, 2))
    torch.testing.assert_close(uses.squares(), wanted, rtol=1e-5, atol=0.0)
    assert uses.squares() is None, "what it was made of is let go of"


def test_rows_that_are_looked_up_twice_add_up():
    numbers = torch.tensor([[0, 3, 0], [1, 1, 1]])
    gradients = random(2, 3, 4)
    table = torch.zeros(2, 6, 4, dtype=torch.float64)
    for example in range(2):
        for token in range(3):
            table[example, numbers[example, token]] += gradients[example, token].double()
    uses = WeightUses((6, 4), lookups=[(numbers, gradients)])
    torch.testing.assert_close(uses.squares(), table.square().sum((1, 2)), rtol=1e-6, atol=0.0)


def test_a_table_that_embeds_and_predicts_has_both_in_one_norm():
    numbers, gradients = torch.tensor([[0, 3, 0]]), random(1, 3, 4)
    r, c = random(1, 5, 6, seed=2), random(1, 5, 4, seed=3)
    lookups, products = [(numbers, gradients)], [(r, c)]
    table = torch.einsum("btr,btc->brc", r, c)
    table = table.scatter_add(1, numbers.unsqueeze(-1).expand(1, 3, 4), gradients).double()
    wanted = table.square().sum((1, 2))
    uses = WeightUses((6, 4), lookups=list(lookups), products=list(products))
    torch.testing.assert_close(uses.squares(), wanted, rtol=1e-5, atol=0.0)
    apart = [WeightUses((6, 4), lookups=lookups), WeightUses((6, 4), products=products)]
    assert not torch.allclose(sum(one.squares() for one in apart), wanted)
    uses = WeightUses((6, 4), lookups=[(numbers, gradients)], products=[(r, c)])
    uses.add_whole(torch.ones(1, 6, 4))
    torch.testing.assert_close(
        uses.squares(), (table + 1).square().sum((1, 2)), rtol=1e-5, atol=0.0
    )
