"""The notebook runs from start to end and gives the planted answer."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
from planted_store import run_spec, save_sweep, write_run

from sweeps.store.store import Store

NOTEBOOK = Path(__file__).parents[3] / "sweeps" / "library" / "reading_a_store.py"


def test_the_notebook_answers_its_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch.setattr(sys, "argv", [str(NOTEBOOK), "--store", str(store.root), "--sweep", "toy"])
    app = runpy.run_path(str(NOTEBOOK))["app"]
    _, found = app.run()
    assert found["answer"] == "Of 2 conditions: 1 collapses, 1 persists."
    assert dict(found["held"].rows()) == {
        "equal_step": pytest.approx(0, abs=1e-9),
        "standard": pytest.approx(3),
    }
