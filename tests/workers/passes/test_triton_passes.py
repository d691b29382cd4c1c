"""The kernels of a GPU, compiled, and under Triton's interpreter against torch's operations; who
takes them.

What a GPU makes of them is a check of ``tests/gpu``.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from workers.passes import choosing
from workers.passes.passes import Stepped
from workers.passes.torch_passes import TorchPasses

ROOT = Path(__file__).parents[3]
DEVICE = torch.device("cuda", 0)


has_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="Triton is not here: `make test-kernels` brings it",
)


def shown_by(script):
    """Return what the last line of a process says: how Triton runs kernels is of a process."""
    shown = subprocess.run(
        [sys.executable, str(ROOT / "tests/rank_scripts" / script)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])},
        timeout=600,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    return json.loads(shown.stdout.splitlines()[-1])


@has_triton
def test_the_kernels_compile_for_a_gpu_that_is_not_here():
    """The interpreter takes what the compiler refuses, such as annotations."""
    found = shown_by("triton_compiled.py")
    assert set(found) == {"update", "measure", "apply", "add"}
    assert all(size > 0 for size in found.values())


@has_triton
def test_the_kernels_do_what_torchs_operations_do():
    found = shown_by("triton_interpreted.py")
    assert len(found["apart"]) == 14
    for case, apart in found["apart"].items():
        assert apart["records"] <= 1, (case, apart)
        assert apart["states"] <= 1, (case, apart)
        assert apart["same"], case
    assert found["measured"] <= 1
    assert found["seconds"] > 0


@pytest.fixture(autouse=True)
def _asked_anew():
    choosing.wins.cache_clear()
    yield
    choosing.wins.cache_clear()


@pytest.fixture
def timed(monkeypatch):
    """Pretend that Triton is here, and how long both ways take."""

    def pretend(torchs, kernels):
        way = type("TritonPasses", (TorchPasses,), {})
        module = type(sys)("workers.passes.triton_passes")
        module.TritonPasses = way
        monkeypatch.setitem(sys.modules, module.__name__, module)
        taken = {TorchPasses: torchs, way: kernels}
        monkeypatch.setattr(choosing, "seconds", lambda asked, _: taken[asked])

    return pretend


@pytest.mark.parametrize(
    ("torchs", "kernels", "taken", "said"),
    [
        (2e-3, 1e-3, True, "by a Triton kernel: 17 M parameters take it 1.00 ms, torch's"),
        (2e-3, 1.9e-3, False, "in torch operations: 17 M parameters take it 1.90 ms"),
        (1e-3, 2e-3, False, "in torch operations"),
    ],
)
def test_the_kernel_is_taken_where_it_was_seen_to_be_clearly_faster_and_it_is_said_once(
    torchs, kernels, taken, said, timed, capsys
):
    timed(torchs, kernels)
    assert [choosing.wins(DEVICE), choosing.wins(DEVICE)] == [taken, taken]
    told = capsys.readouterr().err
    assert said in told
    assert len(told.splitlines()) == 1


def test_without_triton_torchs_operations_step_and_it_is_said(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "workers.passes.triton_passes", None)
    assert not choosing.wins(DEVICE)
    assert "in torch's operations, without Triton" in capsys.readouterr().err


def test_the_way_that_a_kernel_is_compared_with_is_timed_by_its_steps(monkeypatch):
    monkeypatch.setattr(choosing, "TRIED_SIZE", 1000)
    seen = []

    class Counted(TorchPasses):
        def update(self, rates, factors, waits, columns):
            seen.append((len(rates), factors, tuple(columns)))
            return super().update(rates, factors, waits, columns)

    assert choosing.seconds(Counted, torch.device("cpu")) > 0
    assert seen == [(choosing.TRIED_LAYERS, None, (0, 1, 2))] * (2 + choosing.TRIED_STEPS)


def test_a_cpu_is_never_asked(monkeypatch):
    monkeypatch.setattr(choosing, "wins", lambda _: pytest.fail("it has no GPU"))
    stepped = made_up(monkeypatch)
    assert type(choosing.passes_for(stepped)) is TorchPasses


def made_up(monkeypatch) -> Stepped:
    """Return what is stepped when both ways are timed."""
    monkeypatch.setattr(choosing, "TRIED_SIZE", 10)
    found = []

    class Kept(TorchPasses):
        def __init__(self, stepped):
            found.append(stepped)
            super().__init__(stepped)

    choosing.seconds(Kept, torch.device("cpu"))
    return found[0]
