"""The notebook runs from start to end and gives the planted answer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from planted_store import run_spec, save_sweep, write_run

from sweeps.store.store import Store

NOTEBOOK = Path(__file__).parents[3] / "sweeps" / "library" / "reading_a_store.py"
# A process of its own: transformers, imported later where marimo ran, takes it for a notebook of
# IPython's and cannot import its Trainer.
RUN = """
import json, runpy, sys
_, found = runpy.run_path(sys.argv[0])["app"].run()
print(json.dumps({"answer": found["answer"], "held": dict(found["held"].rows())}))
"""


def test_the_notebook_answers_its_question(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    runs = []
    for objective, kept in (("clm", 0.2), ("classification", 0.0)):
        for seed in range(3):
            noise = 0.01 * (seed - 1)
            for control, slope in (("standard", 0.3), ("equal_step", kept)):
                run = run_spec("gpt2", objective, control, seed)
                ratios = [1e-3] * 4 if control == "equal_step" else None
                profile = [0.3 + (slope + noise) * i / 4 for i in range(1, 5)]
                write_run(store, run, profile, ratios=ratios)
                runs.append(run)
    save_sweep(store, "toy", runs)
    script = f"import sys; sys.argv = sys.argv[1:]{RUN}"
    words = [str(NOTEBOOK), "--store", str(store.root), "--sweep", "toy"]
    ended = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["answer"] == "Of 2 conditions: 1 collapses, 1 persists."
    assert found["held"] == {
        "equal_step": pytest.approx(0, abs=1e-9),
        "standard": pytest.approx(3),
    }
