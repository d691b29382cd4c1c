"""Noise in the weights of a pretrained model: its size, its traces, and what depth makes of it."""

import hashlib

import pytest
import torch
from small_run import DOCS
from torch import nn

from sweeps.reading.measurements import propagation_of
from sweeps.sources.corpora import standin_digest
from sweeps.spec import ModelSpec, Probe, StandinModel
from sweeps.store.schema import NULL_METRICS
from workers.loading import load_model
from workers.models.pretrained import examine
from workers.probes.propagation import RATIO, Propagation, noise_in

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("propagation")


def model_of(family, layers=6, width=48, steps=40):
    source = StandinModel(
        standin=family,
        layers=layers,
        width=width,
        vocabulary=400,
        pretrain_steps=steps,
        pretraining="mlm" if family == "bert" else "clm",
        digest=standin_digest(),
    )
    return ModelSpec(name=f"tiny-{family}", source=source)


def propagation(model, cache, seed=0):
    probe = Probe(data=DOCS, rows=96, sequence_length=16, seed=seed)
    return Propagation(model, probe, load_model(model, cache, needs_head=False), cache, CPU)


def test_noise_has_a_tenth_of_each_tensors_norm_and_leaves_no_trace(make_language_model, family):
    model, _ = make_language_model(family)
    blocks = examine(model).stacks[0].blocks
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with noise_in(blocks, seed=5, draw=1) as kept:
        assert set(kept) == set(nn.ModuleList(blocks).parameters())
        for parameter, original in kept.items():
            moved, norm = (parameter.detach() - original).norm(), original.norm()
            assert float(moved) == pytest.approx(RATIO * float(norm), rel=1e-4, abs=1e-12)
        for block in blocks:
            moved = sum(float((p.detach() - kept[p]).square().sum()) for p in block.parameters())
            norm = sum(float(kept[p].square().sum()) for p in block.parameters())
            assert (moved / norm) ** 0.5 == pytest.approx(RATIO, rel=1e-4)
        inside = {id(parameter) for parameter in nn.ModuleList(blocks).parameters()}
        for name, parameter in model.named_parameters():
            if id(parameter) not in inside:
                assert torch.equal(parameter, before[name])
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_noise_is_of_its_seed_and_draw_and_gone_after_an_error(make_language_model):
    model, _ = make_language_model("gpt2")
    blocks = examine(model).stacks[0].blocks
    first = next(nn.ModuleList(blocks).parameters())
    before, seen = first.detach().clone(), {}
    for seed, draw in ((0, 1), (0, 2), (1, 1), (0, 1)):
        with noise_in(blocks, seed, draw):
            seen.setdefault((seed, draw), []).append(first.detach().clone())
    assert torch.equal(*seen[0, 1])
    kinds = [values[0] for values in seen.values()]
    assert not any(torch.equal(a, b) for a in kinds for b in kinds if a is not b)
    with pytest.raises(KeyboardInterrupt), noise_in(blocks, 0, 1):
        raise KeyboardInterrupt
    assert torch.equal(first, before)


def test_noise_of_a_draw_is_what_stored_measurements_were_made_with():
    """Where it moves, runs of one study are compared with two different measurements."""
    block = nn.Linear(4, 1, bias=False)
    before = block.weight.detach().clone()
    digest = hashlib.sha256(b"[3,1,0]").hexdigest()  # of the seed, the draw and the parameter
    drawn = torch.randn(1, 4, generator=torch.Generator().manual_seed(int(digest[:15], 16)))
    with noise_in([block], seed=3, draw=1):
        noise = block.weight.detach() - before
    assert torch.allclose(noise, RATIO * before.norm() * drawn / drawn.norm(), rtol=1e-4)


def test_it_is_reproducible_and_has_a_value_a_draw_block_and_metric(cache):
    model = model_of("gpt2", layers=3, width=32, steps=2)
    once, again = (propagation(model, cache) for _ in range(2))
    draws = list(once.draws(3))
    assert list(again.draws(3)) == draws
    assert list(propagation(model, cache, seed=1).draws(1)) != draws[:1]
    result = once.result(draws)
    assert set(result["draws"]) == set(NULL_METRICS)
    assert "stacks" not in result, "of one stack none is named, as in rows"
    assert all(
        len(row) == 3 and all(value > 0 for value in row)
        for rows in result["draws"].values()
        for row in rows
    )
    once._stacks = 2 * once._stacks  # as of an encoder and a decoder
    assert once.result(draws)["stacks"] == [[once._stacks[0].name, 3]] * 2


@pytest.mark.parametrize(
    ("family", "low", "high"),
    [("bert", 0.5, 1.2), pytest.param("gpt2", -0.25, 0.25, marks=pytest.mark.slow)],
)
def test_post_norm_blocks_pile_up_noise_and_pre_norm_ones_do_not(cache, family, low, high):
    one = propagation(model_of(family, layers=8, width=64, steps=60), cache)
    g, sd, draws, profile = propagation_of(one.result(list(one.draws(6))))
    assert draws == 6
    assert len(profile) == 8
    assert low < g < high
    assert 0 < sd < 0.2


def test_a_block_that_cannot_be_compared_is_no_number(cache):
    model = model_of("gpt2", layers=2, width=32, steps=2)
    one = propagation(model, cache)
    one._references[1] = None
    (draw,) = one.draws(1)
    assert all(row[0] is not None and row[1] is None for row in draw.values())
    assert propagation_of(one.result([draw])) == (None, None, 0, None)
