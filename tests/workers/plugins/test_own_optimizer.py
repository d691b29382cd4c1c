"""Runs by an optimizer of the user's own: its steps, what it keeps, what controls make of it."""

from __future__ import annotations

import polars as pl
import pytest
import torch
from own_sweep import EXAMPLES, own_optimizer, the_run

from sweeps.errors import UserError
from sweeps.spec import OPTIMIZERS, Optimizer
from sweeps.store.store import Store
from workers.train import train
from workers.updates.registry import build_rule

CPU = torch.device("cpu")
CODE = EXAMPLES / "adabelief.py"
ADABELIEF = "optimizer: {adabelief: {eps: 1e-6}}"


@pytest.fixture
def new_store(share_cache, tmp_path):
    def made(name):
        found = Store.at(str(share_cache(tmp_path / name)))
        found.identify()
        return found

    return made


@pytest.fixture
def store(new_store):
    return new_store("store")


def rows_of(run, store, table):
    return pl.read_parquet(store.run(run.run_id).parts(table))


def test_its_steps_are_those_of_the_papers_algorithm():
    rule = build_rule(own_optimizer("adabelief", {"beta2": 0.99}, learning_rate=1e-2))
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(50, generator=generator)
    mine, m, s = weight.clone(), torch.zeros(50).double(), torch.zeros(50).double()
    obvious = weight.double()
    engine_slab = _slab(mine, rule)
    for step in range(1, 21):
        gradient = torch.randn(50, generator=generator)
        m = 0.9 * m + 0.1 * gradient.double()
        s = 0.99 * s + 0.01 * (gradient.double() - m) ** 2
        obvious -= 1e-2 * (m / (1 - 0.9**step)) / ((s / (1 - 0.99**step)).sqrt() + 1e-8)
        engine_slab.steps[0].fill_(step)
        engine_slab.scratch.zero_()
        rule.update(engine_slab, [gradient], 1e-2)
        mine += engine_slab.scratch
    assert (mine - obvious).abs().max() < 1e-5
    assert (mine - weight).abs().max() > 0.05


def _slab(weight, rule):
    from workers.updates.update_rule import Slab

    scratch = torch.zeros_like(weight)
    held = {name: torch.zeros_like(weight) for name in rule.states}
    pieces, steps = [(0, 0, len(weight))], [torch.ones(())]
    return Slab("block", pieces, [weight], [scratch], [held], steps, scratch, [0], ([], []))


@pytest.mark.parametrize("unit", [pytest.param("block", marks=pytest.mark.slow), "matrix"])
def test_a_run_takes_equal_steps_by_it(tmp_path, store, unit):
    control = f"equal_step: {{target: budget, unit: {unit}}}"
    run = the_run(tmp_path, CODE, control=control, more=f"{ADABELIEF}, weight_decay: 0.1")
    assert [one.status for one in train(run, store, CPU)][-1] == "finished"
    blocks = rows_of(run, store, "layers").filter(pl.col("group") == "block")
    ratios = blocks.with_columns(ratio=pl.col("update_norm") / pl.col("weight_norm"))
    by_step = ratios.group_by("step").agg(least=pl.col("ratio").min(), most=pl.col("ratio").max())
    assert by_step["least"].min() > 1e-4
    assert ((by_step["most"] / by_step["least"]) - 1).max() < 1e-5


def test_a_run_that_was_stopped_goes_on_from_its_checkpoint_to_the_same_rows(tmp_path, new_store):
    more = f"{ADABELIEF}, part_steps: 2, checkpoint_share: 1"
    run = the_run(tmp_path, CODE, more=more)
    found = {}
    for how in ("whole", "stopped"):
        store = new_store(how)
        if how == "stopped":
            running = train(run, store, CPU)
            while next(running).step < 3:
                pass
            running.close()
        resumed = [one.resumed_from for one in train(run, store, CPU)][-1]
        assert resumed == (2 if how == "stopped" else 0)
        found[how] = [rows_of(run, store, table) for table in ("steps", "layers", "profiles")]
    for whole, stopped in zip(*found.values(), strict=True):
        assert whole.equals(stopped)


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_what_a_rule_keeps_is_counted_as_the_specification_says_of_our_own(rule):
    optimizer = Optimizer(rule=rule, learning_rate=1.0)
    assert build_rule(optimizer).numbers_kept() == optimizer.kept
    assert build_rule(optimizer).inconsistency() is None


def test_an_error_in_its_update_is_told_with_its_line(tmp_path, store):
    wrong = CODE.read_text().replace('slab.state("surprise")', 'slab.state("suprise")')
    (tmp_path / "mine.py").write_text(wrong, encoding="utf-8")
    run = the_run(tmp_path, "mine.py", more="optimizer: adabelief")
    line = wrong[: wrong.index("suprise")].count("\n") + 1
    with pytest.raises(UserError, match=rf"mine\.py:{line}: KeyError: 'suprise'"):
        list(train(run, store, CPU))
