"""The kernel of AdamW against torch's operations, which tests of engines compare with torch's own.

Sums of squares are added in another order, so that norms agree within 1e-6 of their size.
"""

import multiprocessing
import os
from dataclasses import fields

import pytest
import torch
from torch import nn

from sweeps import spec
from tests.servers.forked_ranks import run_forked
from workers.controls.layer_groups import LayerGroup
from workers.controls.registry import build_control
from workers.engines.layer_optimizer import LayerOptimizer
from workers.engines.plain import PlainEngine
from workers.passes import choosing, row_threads
from workers.passes.kernel_passes import KernelPasses
from workers.passes.torch_passes import TorchPasses
from workers.updates.shards import Piece, Shard

RATE = 1e-2
SHAPES = [(33, 20), (70_000,), (7,), (300, 300), (5, 4)]
CONTROLS = {
    "standard": spec.Standard(),
    "layer_clip": spec.LayerClip(max_norm=0.05),
    "fixed": spec.EqualStep(target=0.003),
    "mean": spec.EqualStep(),
    "median, all": spec.EqualStep(target="median", scope="all"),
    "budget": spec.EqualStep(target="budget"),
    "matrix": spec.EqualStep(target="median", unit="matrix"),
}
OPTIONS = {
    "plain": {},
    "decay": {"weight_decay": 0.1},
    "decay of some": {"weight_decay": 0.1, "decay_all": False},
    "clipped": {"max_grad_norm": 0.3},
}


@pytest.fixture(autouse=True)
def _small_models_too(monkeypatch):
    monkeypatch.setattr(choosing, "KERNEL_FROM", 0)
    monkeypatch.setattr(row_threads, "WORTH", 1)


def layer_groups():
    generator = torch.Generator().manual_seed(0)
    groups = []
    for layer, kind in enumerate(("embedding", "block", "block", "head")):
        weights = [torch.randn(shape, generator=generator) * 0.1 for shape in SHAPES]
        groups.append(
            LayerGroup(
                layer=layer,
                kind=kind,
                names=tuple(f"{layer}.{k}.weight" for k in range(len(SHAPES))),
                parameters=tuple(nn.Parameter(one) for one in weights),
            )
        )
    return groups


def engine_of(control="standard", passes=KernelPasses, **options):
    groups = layer_groups()
    model = nn.ParameterList([p for group in groups for p in group.parameters])
    optimizer = spec.Optimizer(learning_rate=RATE, eps=1e-6, **options)
    rule = build_control(CONTROLS[control])
    with pytest.MonkeyPatch.context() as patch:
        if passes is TorchPasses:
            patch.setattr(choosing, "KERNEL_FROM", 1 << 60)
        engine = PlainEngine(model, groups, rule, optimizer, "fp32")
    assert type(engine.optimizer._passes) is passes
    return engine


def stepped(engine, steps=4, act=PlainEngine.step):
    """Return the record of each step, with gradients drawn by its number."""
    records = []
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in engine.model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator) * 0.01
        records.append(act(engine, RATE / (1 + step)))
    return records


def state(engine):
    """Return weights and moments, each flat."""
    names = ("weights", "exp_avg", "exp_avg_sq")
    return {
        name: torch.cat([engine.optimizer.tensor(s, name) for layer in shards for s in layer])
        for name in names
        for shards in [engine.optimizer.layers]
    }


def numbers(record):
    return torch.tensor(
        [
            value
            for field in fields(record)
            for one in [getattr(record, field.name)]
            for value in (one if isinstance(one, list) else [one])
        ],
        dtype=torch.float64,
    )


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("control", CONTROLS)
def test_weights_moments_and_records_are_those_of_torchs_operations(control, options):
    mine, other = (
        engine_of(control, passes, **OPTIONS[options]) for passes in (KernelPasses, TorchPasses)
    )
    for found, expected in zip(stepped(mine), stepped(other), strict=True):
        torch.testing.assert_close(numbers(found), numbers(expected), rtol=1e-6, atol=0)
    for name, expected in state(other).items():
        found = state(mine)[name]
        assert (found - expected).norm() <= 1e-6 * expected.norm(), name
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("control", ["standard", "layer_clip", "mean", "matrix"])
def test_neither_the_number_of_threads_nor_who_takes_which_part_shows(control, threads):
    found = []
    for count in (1, 2, 3):
        threads(count)
        engine = engine_of(control, weight_decay=0.1)
        found.append((stepped(engine), state(engine)))
    for records, kept in found[1:]:
        assert records == found[0][0]
        assert all(torch.equal(kept[name], found[0][1][name]) for name in kept)


@pytest.mark.parametrize("passes", [KernelPasses, TorchPasses])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("control", CONTROLS)
def test_a_step_that_is_not_recorded_is_the_same_to_the_last_bit(control, options, passes):
    every, none = (engine_of(control, passes, **OPTIONS[options]) for _ in range(2))
    stepped(every)

    def unrecorded(engine, rate):
        return engine.step(rate, record=False)

    assert stepped(none, act=unrecorded) == [None] * 4
    for name, expected in state(every).items():
        assert torch.equal(state(none)[name], expected), name


def test_a_forked_process_steps_with_threads_of_its_own(threads):
    threads(2)
    engine = engine_of()
    stepped(engine)  # its threads live in this process
    for parameter in engine.model.parameters():
        parameter.grad = torch.full_like(parameter, 0.01)
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sending.send_bytes(_after_a_step(engine)), daemon=True)
    child.start()
    assert receiving.poll(60), "the forked process never stepped"
    assert receiving.recv_bytes() == _after_a_step(engine)
    child.join(60)
    assert child.exitcode == 0


def _after_a_step(engine):
    """Return the weights' bytes; torch's own threads, which do not survive a fork, are not used."""
    engine.step(RATE)
    shards = [shard for layer in engine.optimizer.layers for shard in layer]
    return b"".join(shard.weights.detach().numpy().tobytes() for shard in shards)


@pytest.mark.parametrize("control", ["standard", "mean", "layer_clip"])
def test_at_a_rate_of_nought_nothing_moves_and_updates_are_exactly_nought(control):
    engine = engine_of(control, weight_decay=0.1)
    before = state(engine)["weights"].clone()
    (record,) = stepped(engine, 1, lambda engine, _: engine.step(0.0))
    assert torch.equal(state(engine)["weights"], before)
    assert record.update_norms == [0.0] * 4


@pytest.mark.parametrize("control", ["standard", "mean", "layer_clip"])
def test_what_has_no_gradient_does_not_move(control):
    engine = engine_of(control)
    before = state(engine)["weights"].clone()
    for p in engine.model.parameters():
        p.grad = None
    record = engine.step(RATE)
    assert torch.equal(state(engine)["weights"], before)
    assert record.update_norms == record.gradient_norms == [0.0] * 4
    assert record.coefficients == [1.0] * 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_shows_in_its_layer(value):
    engine = engine_of()
    for parameter in engine.model.parameters():
        parameter.grad = torch.full_like(parameter, 0.01)
    engine.groups[2].parameters[3].grad[7, 7] = value
    record = engine.step(RATE)
    finite = [bool(torch.tensor(one).isfinite()) for one in record.gradient_norms]
    assert finite == [True, True, False, True]
    assert not torch.isfinite(engine.groups[2].parameters[3][7, 7])


def test_measuring_moves_nothing_and_says_the_norms():
    engine = engine_of()
    before = state(engine)["weights"].clone()
    (record,) = stepped(engine, 1, lambda engine, _: engine.measure())
    assert torch.equal(state(engine)["weights"], before)
    for group, norm in zip(engine.groups, record.weight_norms, strict=True):
        whole = torch.cat([p.detach().flatten() for p in group.parameters]).double()
        assert norm == pytest.approx(whole.norm().item(), rel=1e-6)
    assert engine.optimizer.steps == 0


def test_a_gradient_laid_out_otherwise_is_read_as_it_is():
    mine, other = (engine_of("mean", passes) for passes in (KernelPasses, TorchPasses))
    for engine in (mine, other):
        for parameter in engine.model.parameters():
            parameter.grad = torch.full_like(parameter, 0.01)
        square = engine.groups[1].parameters[3]
        square.grad = torch.linspace(-1, 1, square.numel()).view(300, 300).T
        engine.step(RATE)
    # Weights of up to 0.5, by steps of 1e-2.
    assert (state(mine)["weights"] - state(other)["weights"]).abs().max() < 1e-6


@pytest.mark.parametrize("passes", [KernelPasses, TorchPasses])
def test_padding_stays_nought_and_only_this_ranks_pieces_move(passes, monkeypatch):
    """A stretch of a layer that ends in no parameter, as ZeRO cuts them."""
    if passes is TorchPasses:
        monkeypatch.setattr(choosing, "KERNEL_FROM", 1 << 60)
    (group, *_) = layer_groups()
    flat = nn.Parameter(torch.cat([p.detach().flatten() for p in group.parameters])[:1000])
    sizes = [p.numel() for p in group.parameters]
    pieces = ((Piece(0, 0, sizes[0], 0), Piece(1, 0, 300, sizes[0])), ())
    shard = Shard(flat, (flat,), pieces, padding=((sizes[0] + 300, 1000),))
    options = spec.Optimizer(learning_rate=RATE, eps=1e-6, weight_decay=0.1)
    optimizer = LayerOptimizer([group], build_control(spec.Standard()), options)
    optimizer.bind([(shard,)])
    assert type(optimizer._passes) is passes
    before = flat.detach().clone()
    flat.grad = torch.ones(1000)
    optimizer.step()
    held = sizes[0] + 300
    assert torch.equal(flat[held:], torch.zeros(1000 - held))
    moved = before[:held] * (1 - RATE * 0.1) - RATE
    torch.testing.assert_close(flat.detach()[:held], moved, rtol=1e-5, atol=1e-6)
    assert optimizer.record.gradient_norms[0] == pytest.approx(held**0.5, rel=1e-6)


def test_nothing_is_held_a_parameter_beside_the_moments():
    engine = engine_of("mean")
    elements = sum(p.numel() for p in engine.model.parameters())
    held = sum(t.numel() * t.element_size() for t in engine.optimizer.held_beside_state())
    assert held < 0.05 * 4 * elements


class TestChoosing:
    def test_of_small_models_and_other_rules_torch_steps(self, monkeypatch):
        engine_of(rule="lion", passes=TorchPasses)
        monkeypatch.setattr(choosing, "KERNEL_FROM", 1 << 20)
        groups = layer_groups()
        model = nn.ParameterList([p for group in groups for p in group.parameters])
        assert sum(p.numel() for p in model.parameters()) < 1 << 20
        engine = PlainEngine(
            model,
            groups,
            build_control(spec.Standard()),
            spec.Optimizer(learning_rate=1e-3),
            "fp32",
        )
        assert type(engine.optimizer._passes) is TorchPasses

    def test_without_a_compiler_torch_steps_and_the_log_says_so_once(self, monkeypatch, capsys):
        def fails():
            raise OSError("no such processor")

        monkeypatch.setattr(choosing, "_import_kernel", fails)
        choosing.compiles.cache_clear()
        try:
            for _ in range(2):
                groups = layer_groups()
                model = nn.ParameterList([p for group in groups for p in group.parameters])
                control = build_control(spec.Standard())
                engine = PlainEngine(
                    model, groups, control, spec.Optimizer(learning_rate=1e-3), "fp32"
                )
                assert type(engine.optimizer._passes) is TorchPasses
            stepped(engine, 1)
        finally:
            choosing.compiles.cache_clear()
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert "no such processor" in said[0]

    def test_the_compiler_is_not_loaded_before_it_is_used(self, tmp_path):
        """In a fork of a process that has imported all that a run imports, and steps by nothing."""
        (tmp_path / "asks.py").write_text(
            "import sys, workers.train; print('numba' in sys.modules)"
        )
        said = tmp_path / "said"
        asks = str(tmp_path / "asks.py")
        assert run_forked(asks, [], [dict(os.environ)], str(said), 120) == [0], said.read_text()
        assert said.read_text().split()[-1:] == ["False"]
