"""The miniature is the paper's study, run for run, with a stand-in for each model."""

from __future__ import annotations

import itertools
from collections import Counter

import polars as pl
import pytest

from sweeps.declaration.expand import read_sweep
from sweeps.sources.catalog import CATALOG, FAMILIES
from sweeps.spec import RunSpec, StandinModel
from tests.readme.replica import findings, table

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


SUMMARY = pl.read_csv("sweeps/library/replica-summary.csv")


def test_the_committed_summary_has_every_run_as_it_is_declared() -> None:
    cells = SUMMARY.select("model", "objective", "control", "seed").rows()
    assert Counter(cells) == Counter(map(cell, REPLICA))
    assert set(SUMMARY["status"]) == {"finished"}


def test_every_stand_in_of_the_committed_summary_has_learned() -> None:
    below = SUMMARY["unigram_entropy"] - SUMMARY["pretraining_loss"]
    assert below.min() > 0.2


def planted(slope_of_seed_1: float) -> pl.DataFrame:
    rows = [
        ("a", "clm", "standard", 0, 0.2),
        ("a", "clm", "standard", 1, slope_of_seed_1),
        ("a", "clm", "standard", 2, 9.0),
        ("a", "clm", "equal_step", 0, 0.1),
        ("a", "clm", "equal_step", 1, 0.2),
        ("b", "contrastive", "standard", 0, 0.5),
    ]
    names = ["model", "objective", "control", "seed", "slope"]
    pretraining = {"pretraining_loss": pl.lit(4.0), "unigram_entropy": pl.lit(5.25)}
    return pl.DataFrame(rows, schema=names, orient="row").with_columns(**pretraining)


def test_findings_count_slopes_and_compare_matched_seeds() -> None:
    said = findings(planted(0.4)).splitlines()
    assert said[0] == "4 of 4 standard slopes are above 0, the smallest 0.200"
    assert said[1] == "under equal_step 1 conditions keep 50 % to 50 % of their mean slope"
    assert said[2].startswith("pretraining came 1.25 to 1.25 nats")
    assert findings(planted(-0.1)).startswith(
        "3 of 4 standard slopes are above 0, the smallest -0."
    )


def test_the_table_has_a_row_a_model_and_a_dot_where_nothing_was_run() -> None:
    lines = table(planted(0.4)).splitlines()
    assert lines[2].split() == ["a", "1.25", "3.200", "·", "·", "0.150", "·", "·"]
    assert lines[3].split() == ["b", "1.25", "·", "·", "0.500", "·", "·", "·"]
