"""The training-free distance between objectives, on a stand-in pretrained for two steps."""

from __future__ import annotations

import pytest
import torch
from sweeps.reading.objective_distance import distance_key, recorded_distance

from sweeps.sources.corpora import corpus_digest, standin_digest
from sweeps.spec import (
    BuiltinData,
    EqualStep,
    ModelSpec,
    Objective,
    Optimizer,
    Probe,
    RunSpec,
    Standard,
    StandinModel,
)
from sweeps.store.store import Store
from workers.loading import load_model
from workers.objectives.registry import build_objective
from workers.probes.objective_distance import (
    BATCHES,
    block_gradients,
    cosine,
    measure_objective_distance,
)

CPU = torch.device("cpu")


def run_spec(kind="contrastive", seed=0, control=None):
    options = {"temperature": 0.05, "pooling": "mean"} if kind == "contrastive" else {}
    data = "python-pairs" if kind == "contrastive" else "python-source"
    return RunSpec(
        model=ModelSpec(
            name="tiny",
            source=StandinModel(
                standin="gpt2",
                layers=2,
                width=32,
                vocabulary=400,
                pretrain_steps=2,
                pretraining="clm",
                digest=standin_digest(),
            ),
        ),
        objective=Objective(
            kind=kind, data=BuiltinData(builtin=data, digest=corpus_digest(data)), **options
        ),
        control=control or Standard(),
        seed=seed,
        steps=2,
        batch_size=4,
        sequence_length=16,
        optimizer=Optimizer(learning_rate=1e-3),
        probe=Probe(
            data=BuiltinData(builtin="python-docs", digest=corpus_digest("python-docs")),
            sequence_length=16,
        ),
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store.at(str(tmp_path_factory.mktemp("distance") / "store"))


def test_the_pretraining_objective_has_distance_zero(store):
    assert measure_objective_distance(run_spec("clm"), store, CPU) == 0.0


def test_another_objective_has_a_distance_that_every_run_of_it_shares(store):
    distance = measure_objective_distance(run_spec(seed=0), store, CPU)
    # Two gradients of thousands of parameters are neither equal nor opposite.
    assert 0.2 < distance < 1.8
    other = run_spec(seed=7, control=EqualStep())
    assert recorded_distance(store, distance_key(other)) == distance
    assert measure_objective_distance(other, store, CPU) == distance


def test_gradients_are_those_of_the_mean_loss_over_the_batches(store):
    run = run_spec("clm").model_copy(update={"seed": 0})
    pretrained = load_model(run.model, store.cache, needs_head=True)
    got = block_gradients(pretrained, run.objective, run, store, CPU)

    objective = build_objective(run.objective)
    model = objective.build_model(pretrained)
    from workers.data.datasets import load_rows

    texts = load_rows(run.objective.data, objective.roles)
    arrays = objective.tokenise(pretrained.tokenizer, texts, run.sequence_length)
    losses = []
    for step in range(1, BATCHES + 1):
        batch = objective.batch(arrays, run, step)
        losses.append(objective.loss_sum(model, batch) / objective.targets(batch))
    mean = sum(losses) / len(losses)
    for block, gradient in zip(pretrained.blocks, got, strict=True):
        direct = torch.autograd.grad(mean, list(block.parameters()), retain_graph=True)
        flat = torch.cat([part.flatten() for part in direct])
        torch.testing.assert_close(gradient, flat, rtol=1e-4, atol=1e-6)


def test_measuring_changes_no_weight(store):
    run = run_spec()
    pretrained = load_model(run.model, store.cache, needs_head=True)
    before = {name: tensor.clone() for name, tensor in pretrained.backbone.state_dict().items()}
    block_gradients(pretrained, run.objective, run, store, CPU)
    after = pretrained.backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in pretrained.backbone.parameters())


def test_cosine():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])
    assert cosine(a, a) == pytest.approx(1)
    assert cosine(a, -a) == pytest.approx(-1)
    assert cosine(a, b) == pytest.approx(2**-0.5)
    assert cosine(a, torch.zeros(2)) == 0.0
