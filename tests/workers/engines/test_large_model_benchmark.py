"""The large-model benchmark in little: the same script, the same engine, on the CPU."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("deepspeed")

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_it_measures_a_control_without_a_gpu_or_a_network():
    small = ["--small", "--steps", "1", "--control", "equal_step_mean"]
    shown = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.large_model", *small],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=200,
    )
    assert shown.returncode == 0, shown.stderr[-2000:]
    line = shown.stdout.splitlines()[-1]
    assert line.startswith("equal_step_mean")
    assert line.endswith("ZeRO-2 on 1, micro-batch 4")
