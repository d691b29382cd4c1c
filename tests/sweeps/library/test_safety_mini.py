"""What pages say of the miniature of the safety study follows from the rows that it left."""

from __future__ import annotations

import polars as pl

from sweeps.declaration.expand import read_sweep
from sweeps.findings.alignment.outcomes import OPEN, OUTCOMES
from tests.readme.safety import COMPARED, outcomes, rates, read

RUNS = read_sweep("sweeps/library/safety-mini.yaml").runs


def test_the_rows_are_those_of_the_runs_as_they_are_declared_now() -> None:
    runs, compared = read()
    assert set(runs["run_id"]) == {run.run_id for run in RUNS}
    assert set(runs["status"]) == {"finished"}
    for control, table in compared.items():
        own = [run for run in RUNS if run.control.kind == control]
        assert table["alignment_n"].sum() == len(own)
        assert set(table["alignment_outcome"]) <= {*OUTCOMES, OPEN}


def test_rates_are_means_over_the_seeds_of_an_arm() -> None:
    runs, _ = read()
    own = runs.filter(pl.col("model") == "aligned-frozen", pl.col("selection") == "high")[
        "evaluation_refusal_rate"
    ]
    (line,) = [line for line in rates(runs).splitlines() if line.startswith("high")]
    assert line.endswith(f" {own.mean():.2f} ({own.min():.2f}–{own.max():.2f})")


def test_outcomes_are_those_of_the_comparison() -> None:
    _, compared = read()
    assert set(compared) == set(COMPARED)
    for control, table in compared.items():
        lines = outcomes(control, table).splitlines()[1:]
        assert [line.split()[-1] for line in lines] == table["alignment_outcome"].to_list()
        assert [line.split()[0] for line in lines] == table["selection"].to_list()
