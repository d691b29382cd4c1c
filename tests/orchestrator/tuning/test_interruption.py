"""What a signal to a sweep's process does: Ray's own end is in tests/integration."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def ended(code):
    """Return the exit code of a process that runs ``code``, and what it said on stderr."""
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return process.returncode, process.stderr


SWEEP = """
    import os, signal, sys, time
    from orchestrator.tuning.interruption import Interruption
    over = False
    with Interruption({gone}) as interruption:
        try:
            os.kill(os.getpid(), signal.{signal})
            time.sleep(30)
        except KeyboardInterrupt:
            {then}
    over = True
    time.sleep(2)
    sys.exit(interruption.code)
"""


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_is_an_interrupt_and_the_code_says_which(number, code):
    sweep = SWEEP.format(gone="lambda: False", signal=number, then="pass")
    assert ended(sweep) == (code, "")


def test_where_ray_is_gone_too_nothing_is_waited_for_and_no_scratch_is_left(tmp_path):
    scratch = f"""
    import tempfile
    from orchestrator.connection.node_scratch import node_scratch
    tempfile.tempdir = {str(tmp_path)!r}
    token = node_scratch("token")
    assert token.__enter__().is_dir()
    """
    sweep = SWEEP.format(gone="lambda: True", signal="SIGTERM", then="time.sleep(40)")
    code, said = ended(scratch + sweep)
    assert list(tmp_path.iterdir()) == []
    assert code == 128 + signal.SIGTERM
    assert said == (
        "interrupted, and Ray with it: finished runs are kept; the same command runs the rest\n"
    )


def test_a_ray_that_is_put_away_in_order_is_not_taken_for_gone():
    sweep = SWEEP.format(gone="lambda: over", signal="SIGTERM", then="pass")
    assert ended(sweep) == (143, "")


STARTING = """
    import os, signal, sys, time
    from orchestrator import sweep_run
    from orchestrator.cli import main

    def run_sweep(*_):
        {ray}
        os.kill(os.getpid(), signal.{signal})
        time.sleep(30)

    sweep_run.run_sweep = run_sweep
    sys.argv = ["depthsweep", "run", "demo", "--store", {store!r}]
    main()
"""
RAYS_HANDLER = "signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))"


@pytest.mark.parametrize(
    ("number", "ray", "code"),
    [("SIGTERM", "", 143), ("SIGTERM", RAYS_HANDLER, 143), ("SIGINT", "", 130)],
    ids=["before Ray", "while Ray starts", "Ctrl-C"],
)
def test_a_command_that_is_ended_before_its_runs_begin_says_so(tmp_path, number, ray, code):
    words = STARTING.format(ray=ray, signal=number, store=str(tmp_path / "store"))
    found, said = ended(words)
    assert (found, said.strip()) == (code, "interrupted")
