"""Norms of single examples' gradients, by layer, against one backward pass an example."""

import gc

import pytest
import sample_norms
import torch
from kinds_on_ranks import ADAPTERS, KINDS, built
from torch import nn
from torch.nn import functional as F

from sweeps.errors import UserError
from workers.controls.layer_groups import LayerGroup, find_layer_groups
from workers.objectives.objective import micro_batches
from workers.sample_gradients.measuring import SampleGradients, rows_of

# Float32 products in another order: the largest difference seen in any cell is 4e-7.
EXACT = 1e-5


def one_backward_an_example(groups, losses, batch):
    """Return squared norms by layer, (N, G), the obvious way."""
    found = []
    for part in rows_of(batch):
        loss = losses(part).sum()
        parameters = [p for group in groups for p in group.parameters]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        squares = iter([0.0 if g is None else float(g.double().square().sum()) for g in gradients])
        found.append([sum(next(squares) for _ in group.parameters) for group in groups])
    return torch.tensor(found, dtype=torch.float64)


def off_by(found, wanted, floor=0.0):
    """Return the largest relative error; norms below a share of the largest are as one of it."""
    norms = wanted.sqrt()
    return float(((found.sqrt() - norms) / norms.clamp(min=floor * norms.max())).abs().max())


SIZES = (1, 2, 3, 5, 8, 16)
# The usual suite cuts one family in every way, and one that has other layers in two.
USUAL = {("bert", "full"): SIZES, ("bert", "lora"): (1, 5, 16), ("mamba", "full"): (3, 16)}
FAMILIES = ("bert", "mamba", "gpt2", "opt", "gpt_neox")


@pytest.mark.parametrize(
    ("family", "what", "sizes"),
    [
        *(pytest.param(*one, sizes, id="-".join(one)) for one, sizes in USUAL.items()),
        *(
            pytest.param(family, what, SIZES, id=f"{family}-{what}-all", marks=pytest.mark.slow)
            for family in FAMILIES
            for what in sample_norms.ADAPTERS
            if USUAL.get((family, what)) != SIZES
        ),
    ],
)
def test_norms_are_those_of_one_backward_pass_an_example(family, what, sizes):
    batches, engine, objective = sample_norms.batches_of(family, what, 1)
    assert batches.taken_one_by_one == (), "every use of a weight in these families is understood"
    batch, _ = batches.candidates(1)

    def losses(part):
        terms = objective.terms(part).clamp(min=1)
        return objective.losses(engine.model, part) / terms

    wanted = one_backward_an_example(engine.groups, losses, batch)
    assert wanted.shape == (sample_norms.CANDIDATES, len(engine.groups))
    for micro in sizes:
        of_cut, _, _ = sample_norms.batches_of(family, what, micro)
        found_losses, found = of_cut.measured(batch)
        assert off_by(found, wanted) < EXACT, micro
        torch.testing.assert_close(found_losses, losses(batch).detach().double())


@pytest.mark.parametrize("family", ["rwkv", "codegen", "opt_post_norm", "roberta"])
def test_norms_of_the_other_families_are_exact_too(family):
    batches, engine, objective = sample_norms.batches_of(family, "full", 4)
    batch, _ = batches.candidates(1)
    wanted = one_backward_an_example(
        engine.groups,
        lambda part: objective.losses(engine.model, part) / objective.terms(part).clamp(min=1),
        batch,
    )
    assert off_by(batches.measured(batch)[1], wanted) < EXACT


# Of adapters, in the usual suite, the kinds whose examples are rows, and parts of rows.
BY_ADAPTER = ("pairs", "sft_within")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        pytest.param(
            name, what, marks=() if what == "full" or name in BY_ADAPTER else pytest.mark.slow
        )
        for name in KINDS
        if name != "negatives"
        for what in ADAPTERS
    ],
)
def test_every_objective_has_a_loss_and_a_norm_of_each_example(name, what):
    objective, arrays, model, pretrained, _ = built(name, ADAPTERS[what])
    examples = len(next(iter(arrays.values())))
    batch = objective.batch_of(arrays, torch.arange(examples).numpy(), (0, 1))
    groups = find_layer_groups(model, lambda: objective.loss_sum(model, batch), pretrained.stacks)
    gradients = SampleGradients(groups)

    def losses(part):
        return objective.losses(model, part) / objective.terms(part).clamp(min=1)

    wanted = one_backward_an_example(groups, losses, batch)
    gradients.learn(losses, {key: value[:3] for key, value in batch.items()}, 1e-3)
    parts = [gradients.squares(losses, part) for part in micro_batches(batch, 5)]
    # Of a pair whose answers are alike there is no gradient, and rounding alone is left.
    assert off_by(torch.cat([squares for _, squares in parts]), wanted, floor=1e-2) < EXACT
    terms = objective.terms(batch)
    assert int(terms.sum()) == objective.targets(batch)
    sums = torch.cat([each for each, _ in parts]) * terms
    whole = objective.loss_sum(model, batch).detach()
    assert float(sums.sum()) == pytest.approx(float(whole), rel=1e-5)
    assert (objective.lengths(batch) > 0).all()


# -------------------------------------------------------------------------------- uses of weights
class Own(nn.Module):
    """What is done with weights here no model of the study does."""

    def __init__(self, use):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(11, 6, padding_idx=2)
        self.square = nn.Parameter(torch.randn(6, 6))
        self.vector = nn.Parameter(torch.randn(6))
        self.out = nn.Linear(6, 11, bias=False)
        self.conv = nn.Conv1d(6, 4, 3, padding=1, groups=2)
        self.use = use

    def forward(self, ids):
        return self.use(self, self.table(ids))


def _shared(model, x):
    """The table embeds and, twice, predicts."""
    hidden = torch.tanh(x @ model.square)
    return hidden @ model.table.weight.t() + F.linear(hidden * 2, model.table.weight)


USES = {
    "product on either side": lambda m, x: (m.square @ torch.tanh(x @ m.square).mT).mT,
    "elementwise after a function of its own": lambda m, x: x * torch.exp(-m.vector) + m.vector,
    "subtracted from": lambda m, x: (1 - m.vector) * x - m.vector,
    "in a quotient": lambda m, x: x / (m.vector.square() + 1),
    "a convolution in groups": lambda m, x: m.conv(x.mT).mT,
    "embeds and predicts": _shared,
    "a map twice": lambda m, x: m.out(torch.tanh(x) @ m.square) + m.out(x),
    "a product of weights": lambda m, x: x @ (m.square @ m.square),
    "einsum": lambda m, x: torch.einsum("btd,de->bte", x, m.square),
    "chosen by the data": lambda m, x: torch.where(x > 0, x * m.vector, x @ m.square),
    "tokens before examples": lambda m, x: F.linear(x.transpose(0, 1), m.square).transpose(0, 1),
    "as a vector of one": lambda m, x: F.layer_norm(x, (6,), m.vector.float() * 2, m.vector),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("examples", [1, 4, 5])
def test_any_use_of_a_weight_is_exact_or_taken_one_by_one(use, examples):
    model = Own(USES[use])
    ids = torch.randint(0, 11, (examples, 5), generator=torch.Generator().manual_seed(1))
    names = [name for name, _ in model.named_parameters()]
    groups = [
        LayerGroup(k, "block", (name,), (model.get_parameter(name),))
        for k, name in enumerate(names)
    ]

    def losses(part):
        return model(part["ids"]).square().flatten(1).mean(1)

    gradients = SampleGradients(groups)
    gradients.learn(losses, {"ids": ids[:3]}, 1e-3)
    found = gradients.squares(losses, {"ids": ids})[1]
    wanted = one_backward_an_example(groups, losses, {"ids": ids})
    used = wanted.sum(0) > 0
    assert used.any()
    assert off_by(found[:, used], wanted[:, used]) < EXACT
    assert not found[:, ~used].any()


class OfItsOwn(torch.autograd.Function):
    """A kernel: nothing of torch's own is called in it."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x * weight

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        return gradient * weight, (gradient * x).sum((0, 1))


def test_a_weight_in_a_kernel_that_nobody_sees_is_taken_one_by_one():
    model = Own(lambda m, x: OfItsOwn.apply(x @ m.square, m.vector) * OfItsOwn.apply(x, -m.vector))
    model.table.requires_grad_(False)
    groups = [LayerGroup(0, "block", ("vector", "square"), (model.vector, model.square))]

    def losses(part):
        return model(part["ids"]).square().flatten(1).mean(1)

    ids = torch.arange(20).reshape(4, 5) % 11
    gradients = SampleGradients(groups)
    gradients.learn(losses, {"ids": ids[:3]}, 1e-3)
    assert gradients.one_by_one == {0}
    found = gradients.squares(losses, {"ids": ids})[1]
    assert off_by(found, one_backward_an_example(groups, losses, {"ids": ids})) < EXACT


def test_a_loss_that_depends_on_the_other_examples_is_refused():
    model = Own(lambda m, x: (x - x.mean(0, keepdim=True)) * m.vector)
    groups = [LayerGroup(0, "block", ("vector",), (model.vector,))]

    def losses(part):
        return model(part["ids"]).square().flatten(1).mean(1)

    with pytest.raises(UserError, match="depends on the other examples"):
        SampleGradients(groups).learn(losses, {"ids": torch.arange(15).reshape(3, 5) % 11}, 1e-3)


@pytest.fixture
def others_aside():
    """What is there before a test is neither looked through nor counted."""
    gc.freeze()
    yield
    gc.unfreeze()


def tensors_alive():
    gc.collect()
    return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())


@pytest.mark.usefixtures("others_aside")
@pytest.mark.parametrize("family", ["gpt_neox", "rwkv", "mamba"])
def test_nothing_of_a_pass_is_kept(family):
    """Ranks are kept warm from run to run: what one pass leaves behind adds up over a sweep."""
    batches, _, _ = sample_norms.batches_of(family, "full", 4)
    batch, _ = batches.candidates(1)
    batches.measured(batch)
    before = tensors_alive()
    batches.measured(batch)
    assert tensors_alive() <= before


@pytest.mark.usefixtures("others_aside")
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_nothing_is_kept_however_weights_are_used(use):
    model = Own(use)
    groups = [
        LayerGroup(0, "block", tuple(dict(model.named_parameters())), tuple(model.parameters()))
    ]
    gradients = SampleGradients(groups)
    ids = torch.arange(15).reshape(3, 5) % 11
    alive = []
    for _ in range(3):
        gradients.squares(lambda part: model(part["ids"]).square().flatten(1).mean(1), {"ids": ids})
        alive.append(tensors_alive())
    assert alive[2] <= alive[1]  # what others left may go meanwhile


@pytest.mark.usefixtures("others_aside")
def test_nothing_is_kept_of_a_pass_that_failed():
    model = Own(lambda m, x: F.linear(x, m.square)).requires_grad_(False)
    model.square.requires_grad_(True)
    groups = [LayerGroup(0, "block", ("square",), (model.square,))]

    def losses(part):
        model(part["ids"])
        raise ValueError("no loss")

    alive = []
    for _ in range(3):
        with pytest.raises(ValueError, match="no loss"):
            SampleGradients(groups).squares(losses, {"ids": torch.arange(15).reshape(3, 5) % 11})
        alive.append(tensors_alive())
    assert alive[2] <= alive[1]  # what others left may go meanwhile
