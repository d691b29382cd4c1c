"""The miniature is the paper's study, run for run, with a stand-in for each model."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from sweeps.declaration.expand import read_sweep
from sweeps.findings.claims import read_claims
from sweeps.findings.deciding import deciding
from sweeps.sources.catalog import CATALOG, FAMILIES
from sweeps.spec import RunSpec, StandinModel
from tests.readme.replica import findings, read, table

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


# ------------------------------------------------------------------------- with seeds for verdicts
def library(name: str) -> tuple[RunSpec, ...]:
    return read_sweep(f"sweeps/library/{name}.yaml").runs


@pytest.mark.parametrize(("of", "more"), [("paper", 28), ("replica", 28 + 136)])
def test_a_sweep_with_the_seeds_for_verdicts_has_all_runs_of_the_other(of: str, more: int) -> None:
    runs = {run.run_id for run in library(of)}
    added = {run.run_id for run in library(f"{of}-verdicts")} - runs
    assert len(added) == more
    assert runs <= {run.run_id for run in library(f"{of}-verdicts")}


@pytest.mark.parametrize("name", ["paper-verdicts", "replica-verdicts"])
def test_each_controlled_condition_has_the_seeds_that_a_verdict_takes(name: str) -> None:
    found = deciding(library(name))
    assert found.rows
    assert all(row.persists >= found.target for row in found.rows)
    assert all(row.collapses >= found.target for row in found.rows)


SUMMARY, COMPARED, CLAIMS = read()


def test_the_committed_summary_has_every_run_as_it_is_declared() -> None:
    runs = library("replica-verdicts")
    assert set(SUMMARY["run_id"]) == {run.run_id for run in runs}
    assert SUMMARY.height == len(runs) == 404
    assert set(SUMMARY["status"]) == {"finished"}
    assert not SUMMARY["propagation"].has_nulls()


def test_every_stand_in_of_the_committed_summary_has_learned() -> None:
    below = SUMMARY["unigram_entropy"] - SUMMARY["pretraining_loss"]
    assert below.min() > 0.2


def test_the_control_is_called_idle_where_it_is_and_is_not_so_everywhere() -> None:
    idle = COMPARED.filter(pl.col("dose") < 1.5)
    assert set(idle["verdict"]) <= {"idle", "unstable", "saturated"}
    rest = COMPARED.filter(pl.col("dose") >= 1.5)
    assert rest.height >= 10
    assert "idle" not in set(rest["verdict"])


def test_the_committed_claims_are_those_of_the_sweep() -> None:
    declared = read_claims(Path("sweeps/library/replica-verdicts.claims.yaml")).claims
    assert [claim["id"] for claim in CLAIMS] == [claim.id for claim in declared]


def planted() -> tuple[pl.DataFrame, pl.DataFrame]:
    runs = pl.DataFrame(
        [
            ("a", "clm", "standard", 1e-6, 0.2, 0.1, 0.3, False),
            ("a", "clm", "standard", 1e-6, -0.1, 0.3, 0.3, False),
            ("a", "clm", "equal_step", 1e-6, 9.0, 9.0, 0.3, False),
            ("b", "mlm", "standard", 1e-2, 0.5, -0.4, 0.9, True),
        ],
        schema=[
            *("model", "objective", "control", "eps", "slope", "slope_beyond_propagation"),
            *("objective_distance", "objective_distance_noisy"),
        ],
        orient="row",
    )
    compared = pl.DataFrame(
        [
            ("a", "clm", 1e-6, 4, 1.1, 0.2, 1.0, "idle"),
            ("a", "mlm", 1e-6, 4, 1.3, 0.2, 1.0, "idle"),
            ("b", "mlm", 1e-2, 4, 3.0, 0.5, 0.5, "persists"),
        ],
        schema=[
            *("model", "objective", "eps", "n", "dose", "slope_against", "retained", "verdict"),
        ],
        orient="row",
    )
    return runs, compared


def test_findings_count_slopes_verdicts_by_arm_distances_and_claims() -> None:
    claims = [{"id": "C2", "verdict": "supported"}, {"id": "C3", "verdict": "contradicted"}]
    assert findings(*planted(), claims).splitlines() == [
        "2 of 3 standard slopes are above 0",
        "1 of 2 standard conditions are steeper than noise in the weights makes them",
        "AdamW: 2 conditions, dose 1.10 to 1.30: 2 idle",
        "AdamW, eps 0.01: 1 conditions, dose 3.00 to 3.00: 1 persists",
        "objective distance: 1 of 2 too noisy to tell; means clm 0.30 (1)",
        "claims supported: C2; contradicted: C3",
    ]


def test_the_table_has_a_row_a_condition_and_fits() -> None:
    lines = table(planted()[1]).splitlines()
    assert lines[1].split() == ["a", "clm", "1e-06", "4", "1.10", "0.200", "100", "%", "idle"]
    assert max(map(len, table(COMPARED).splitlines())) <= 80
