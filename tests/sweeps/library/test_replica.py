"""The miniature is the paper's study, run for run, with a stand-in for each model."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from sweeps.declaration.catalog import CATALOG, FAMILIES
from sweeps.declaration.expand import read_sweep
from sweeps.spec import RunSpec, StandinModel

PAPER = read_sweep("sweeps/library/paper.yaml").runs
REPLICA = read_sweep("sweeps/library/replica.yaml").runs
SOURCES: dict[str, StandinModel] = {run.model.name: run.model.source for run in REPLICA}
CLASS = {"opt_post_norm": "opt"}


def cell(run: RunSpec) -> tuple[str, str, str, int]:
    return run.model.name, run.objective.kind, run.control.kind, run.seed


def test_its_runs_are_those_of_the_paper() -> None:
    assert Counter(map(cell, REPLICA)) == Counter(map(cell, PAPER))
    assert len({run.run_id for run in REPLICA}) == 240
    assert Counter(run.control.kind for run in REPLICA) == {"standard": 190, "equal_step": 50}


@pytest.mark.parametrize("name", SOURCES)
def test_a_stand_in_is_of_the_class_of_its_model(name: str) -> None:
    source = SOURCES[name]
    assert CLASS.get(source.standin, source.standin) == CATALOG[name].family
    assert source.pretraining == FAMILIES[CATALOG[name].family].pretraining
    assert (source.standin == "opt_post_norm") == (name == "opt-350m")


def test_deeper_and_wider_models_have_deeper_and_wider_stand_ins() -> None:
    for a, b in itertools.permutations(SOURCES, 2):
        for size in ("layers", "width"):
            if getattr(CATALOG[a], size) < getattr(CATALOG[b], size):
                assert getattr(SOURCES[a], size) < getattr(SOURCES[b], size), (a, b, size)


def test_the_largest_goes_through_deepspeed_on_two_ranks() -> None:
    ways = {
        (run.execution.engine, run.execution.processes, run.execution.zero_stage)
        for run in REPLICA
        if run.model.name == "pythia-6.9b"
    }
    assert ways == {("deepspeed", 2, 3)}


def test_the_committed_summary_has_every_run_and_the_readme_says_what_it_says() -> None:
    summary = pl.read_csv("sweeps/library/replica-summary.csv")
    cells = summary.select("model", "objective", "control", "seed").rows()
    assert Counter(cells) == Counter(map(cell, REPLICA))
    assert set(summary["status"]) == {"finished"}
    standard = summary.filter(pl.col("control") == "standard")
    positive = (standard["slope"] > 0).sum()
    readme = Path("README.md").read_text(encoding="utf-8")
    assert f"{positive} of {standard.height} standard slopes are above 0" in readme
    for model, of_model in summary.group_by("model"):
        facts = of_model.row(0, named=True)
        below = facts["unigram_entropy"] - facts["pretraining_loss"]
        assert below > 0.4
        (line,) = re.findall(rf"^{re.escape(str(model[0]))} +[0-9].*$", readme, flags=re.M)
        assert line.split()[1:] == [f"{below:.2f}", *slopes_of(of_model)]


def slopes_of(runs: pl.DataFrame) -> list[str]:
    """Return the mean slopes as the README's table has them."""
    pretraining = pl.col("objective").is_in(["clm", "mlm"])
    shown = []
    for control in ("standard", "equal_step"):
        here = runs.filter(pl.col("control") == control)
        for name in ("pretraining", "classification", "contrastive"):
            chosen = pretraining if name == "pretraining" else pl.col("objective") == name
            slopes = here.filter(chosen)["slope"]
            shown.append("·" if slopes.is_empty() else f"{slopes.mean():.3f}")
    return shown
