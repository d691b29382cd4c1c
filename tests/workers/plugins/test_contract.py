"""The contract tests, as a user runs them: what is right passes, and what is not fails there."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tempfile

import pytest
import pytest.__main__
from own_sweep import EXAMPLES

from tests.servers.forked_ranks import run_forked

# Installed, pytest loads the plugin by itself.
REGISTERED = any(
    entry.value == "workers.contract.pytest_plugin"
    for entry in importlib.metadata.entry_points(group="pytest11")
)
CONTROL = """from sweeps.plugins import control
from workers.controls.layer_control import LayerControl

@control("mine")
class Mine(LayerControl):
    scales_gradients = True
    def __init__(self, *, power: float): self.power, self.calls = power, 0
    def gradient_scale(self, gradient_norms):
        self.calls += 1
        return {returned}
"""
METRIC = """from sweeps.plugins import metric

@metric("mine")
def mine(reference, current):
    return {returned}
"""
OPTIMIZER = """import torch
from sweeps.plugins import optimizer
from workers.updates.update_rule import UpdateRule

@optimizer("mine")
class Mine(UpdateRule):
    states = ("mean",)
    def __init__(self, spec):
        super().__init__(spec)
        self.calls = 0
    def update(self, slab, gradients, rate):
        self.calls += 1
        for update, gradient, mean in zip(slab.updates, gradients, slab.state("mean")):
            mean.lerp_(gradient, 0.1)
            update.copy_({returned})
"""
SELECTION = """import numpy as np
from sweeps.plugins import selection
from workers.selection.selection_rule import SelectionRule

@selection("mine")
class Mine(SelectionRule):
    calls = 0
    def choose(self, candidates, count, draw):
        self.calls += 1
        return {returned}
"""
# What trains runs takes a minute; the examples are trained with by other tests.
QUICK = ("-k", "not twice")


def command(*arguments):
    plugin = [] if REGISTERED else ["-p", "workers.contract.pytest_plugin"]
    return ["-q", "-p", "no:cacheprovider", *plugin, *arguments]


def fresh(*arguments, cwd):
    """Run the tests in a process that is started from nothing, as a user's is."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", *command(*arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=500,
    )


def contract(*arguments, cwd):
    """Run the tests in a fork that has their imports: seconds less than in a fresh process."""
    told, environment = command(*arguments), dict(os.environ)
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as shown:
        (code,) = run_forked(pytest.__main__.__file__, told, [environment], shown.name, 500, cwd)
        text = shown.read()
    return subprocess.CompletedProcess(told, code, text, text)


def tried(folder, text, *more, how=contract):
    (folder / "mine.py").write_text(text)
    return how("--depthsweep-plugin", "mine.py", *QUICK, *more, cwd=folder)


@pytest.mark.parametrize("how", [contract, pytest.param(fresh, marks=pytest.mark.slow)])
def test_the_worked_examples_keep_the_contract(tmp_path, how):
    (tmp_path / "test_of_the_user.py").write_text("def test_nothing(): assert False\n")
    names = ("soft_clip", "cosine_margin", "neighbours", "causal_mean", "adabelief")
    names += ("largest_loss",)
    files = [f"--depthsweep-plugin={EXAMPLES / name}.py" for name in names]
    shown = how(*files, *QUICK, cwd=tmp_path)
    assert shown.returncode == 0, shown.stdout
    assert "49 passed" in shown.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["soft_clip", "cosine_margin", "neighbours", "adabelief", "largest_loss"]
)
def test_the_worked_examples_train_twice_to_the_same_rows(tmp_path, name):
    shown = contract(f"--depthsweep-plugin={EXAMPLES / name}.py", "-k", "twice", cwd=tmp_path)
    assert shown.returncode == 0, shown.stdout


# By name: one or two of each kind that break it, all of which are tried in one process.
BROKEN = {
    "growing": (
        CONTROL,
        "gradient_norms * self.calls",
        "test_the_same_norms_give_the_same_factors_and_are_left",
    ),
    "endless": (
        METRIC,
        "1 / (current - reference).norm()",
        "test_states_that_did_not_change_have_a_value",
    ),
    "forgetful": (
        OPTIMIZER,
        "-rate * mean / self.calls",
        "test_from_its_states_it_goes_on_as_if_never_stopped",
    ),
    "greedy": (
        SELECTION,
        "candidates.norms.argsort()[-count - 1:]",
        "test_it_chooses_as_many_as_it_is_asked_for",
    ),
    "restless": (
        SELECTION,
        "(np.arange(count) + self.calls) % len(candidates)",
        "test_the_same_candidates_and_draw",
    ),
}


def test_one_of_each_kind_that_breaks_it_fails_where_it_does(tmp_path):
    files = []
    for name, (text, returned, _) in BROKEN.items():
        written = text.format(returned=returned).replace('("mine")', f'("{name}")')
        (tmp_path / f"{name}.py").write_text(written)
        files.append(f"--depthsweep-plugin={name}.py")
    options = ("--depthsweep-options", '{"growing": {"power": 2}}')
    shown = contract(*files, *QUICK, *options, cwd=tmp_path)
    assert shown.returncode == 1
    failures = [line for line in shown.stdout.splitlines() if line.startswith("FAILED ")]
    for name, (_, _, failed) in BROKEN.items():
        assert any(failed in one and f"[{name}" in one for one in failures), (name, failures)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("returned", "failed"),
    [
        ("1 / gradient_norms", "test_a_layer_without_gradient_or_weight_gets_a_number"),
        ("-gradient_norms", "test_there_is_a_factor_a_layer_whatever_the_size_of_norms"),
        ("gradient_norms.sum()", "test_there_is_a_factor_a_layer_whatever_the_size_of_norms"),
        ("gradient_norms.mul_(0.5)", "test_the_same_norms_give_the_same_factors_and_are_left"),
    ],
)
def test_a_control_that_breaks_it_fails_where_it_does(tmp_path, returned, failed):
    options = ("--depthsweep-options", '{"mine": {"power": 2}}')
    shown = tried(tmp_path, CONTROL.format(returned=returned), *options)
    assert shown.returncode == 1
    assert f"{failed}" in shown.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("returned", "failed"),
    [
        ("(reference[0] - current[1]).norm()", "test_the_order_of_the_probe_tokens_is_of_no_mat"),
        ("current.sub_(reference).norm()", "test_the_same_states_give_the_same_value_and_are_le"),
    ],
)
def test_a_metric_that_breaks_it_fails_where_it_does(tmp_path, returned, failed):
    shown = tried(tmp_path, METRIC.format(returned=returned))
    assert shown.returncode == 1
    assert f"{failed}" in shown.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("returned", "failed"),
    [
        ("rate * mean", "test_small_steps_lead_downhill"),
        (
            "-rate * mean / mean.abs()",
            "test_an_update_is_numbers_whatever_the_size_of_gradients[mine-0.0]",
        ),
        ("-rate * gradient.clamp_(-1, 1)", "test_weights_and_gradients_are_left_as_they_are"),
        ("-rate * (mean + 1)", "test_nothing_comes_of_nothing"),
        ("-rate * mean / (mean.norm() + 1)", "test_it_is_of_no_matter_where_layers_are_cut"),
    ],
)
def test_an_optimizer_that_breaks_it_fails_where_it_does(tmp_path, returned, failed):
    shown = tried(tmp_path, OPTIMIZER.format(returned=returned))
    assert shown.returncode == 1
    assert f"{failed}" in shown.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("returned", "failed"),
    [
        (
            "np.flatnonzero(candidates.norms >= 0)[:count]",
            "test_it_chooses_where_nothing_is_known_of_some_or_of_all",
        ),
    ],
)
def test_a_selection_that_breaks_it_fails_where_it_does(tmp_path, returned, failed):
    shown = tried(tmp_path, SELECTION.format(returned=returned))
    assert shown.returncode == 1
    assert f"{failed}" in shown.stdout


def test_a_mistake_is_one_line_and_a_missing_option_is_named(tmp_path):
    shown = tried(tmp_path, "1 / 0\n", how=fresh)
    assert shown.returncode == 4
    assert f"ERROR: {tmp_path}/mine.py:1: ZeroDivisionError: division by zero\n" in shown.stderr
    shown = tried(tmp_path, CONTROL.format(returned="gradient_norms"))
    assert "control mine: option power is required" in shown.stdout
