"""What the miniature of the study found, read from what `make replica` committed of it.

``python -m tests.readme.replica`` prints what it amounts to, with ``--table`` the verdict of every
condition. The summary has a row a run, the comparison a row a controlled condition as ``depthsweep
compare`` exports it, and the claims are those of ``depthsweep claims --json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl

LIBRARY = Path(__file__).resolve().parents[2] / "sweeps" / "library"
SUMMARY = LIBRARY / "replica-summary.csv"
COMPARED = LIBRARY / "replica-compare.csv"
CLAIMS = LIBRARY / "replica-claims.json"
# AdamW as it is mostly used, and with an eps under which steps are as large as their gradients.
ARMS = {1e-6: "AdamW", 1e-2: "AdamW, eps 0.01"}


def table(compared: pl.DataFrame) -> str:
    """Return a line per condition: dose, slopes, what was kept, and the verdict."""
    lines = [
        f"{'stand-in of':<18} {'objective':<14} {'eps':>5} {'n':>2} {'dose':>5} {'standard':>9}"
        f" {'kept':>6}  verdict"
    ]
    for row in compared.sort("eps", "model", "objective").to_dicts():
        kept = "–" if row["retained"] is None else f"{100 * row['retained']:.0f} %"
        lines.append(
            f"{row['model']:<18} {row['objective']:<14} {row['eps']:>5g} {row['n']:>2}"
            f" {row['dose']:>5.2f} {row['slope_against']:>9.3f} {kept:>6}  {row['verdict']}"
        )
    return "\n".join(lines) + "\n"


def findings(runs: pl.DataFrame, compared: pl.DataFrame, claims: list[dict[str, Any]]) -> str:
    """Return what it amounts to, a line each."""
    return (
        "\n".join(
            [
                *_slopes(runs),
                *[_arm(compared.filter(pl.col("eps") == eps), name) for eps, name in ARMS.items()],
                *_distances(runs),
                *_claims(claims),
            ]
        )
        + "\n"
    )


def _slopes(runs: pl.DataFrame) -> list[str]:
    standard = runs.filter(control="standard")
    above = int((standard["slope"] > 0).sum())
    conditions = standard.group_by("model", "objective", "eps").agg(
        pl.col("slope_beyond_propagation").mean(), pl.len().alias("seeds")
    )
    beyond = int((conditions["slope_beyond_propagation"] > 0).sum())
    return [
        f"{above} of {standard.height} standard slopes are above 0",
        f"{beyond} of {conditions.height} standard conditions are steeper than noise in the weights"
        " makes them",
    ]


def _arm(compared: pl.DataFrame, name: str) -> str:
    verdicts = dict(compared["verdict"].value_counts(sort=True).rows())
    said = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    low, high = compared["dose"].min(), compared["dose"].max()
    return f"{name}: {compared.height} conditions, dose {low:.2f} to {high:.2f}: {said}"


def _distances(runs: pl.DataFrame) -> list[str]:
    known = runs.drop_nulls("objective_distance").unique(["model", "objective"])
    if known.is_empty():
        return []
    noisy = int(known["objective_distance_noisy"].sum())
    means = (
        known.filter(~pl.col("objective_distance_noisy"))
        .group_by("objective")
        .agg(pl.col("objective_distance").mean(), pl.len())
    )
    said = ", ".join(
        f"{objective} {mean:.2f} ({count})"
        for objective, mean, count in means.sort("objective_distance").rows()
    )
    return [f"objective distance: {noisy} of {known.height} too noisy to tell; means {said}"]


def _claims(claims: list[dict[str, Any]]) -> list[str]:
    by_verdict: dict[str, list[str]] = {}
    for claim in claims:
        by_verdict.setdefault(claim["verdict"], []).append(claim["id"])
    said = "; ".join(f"{verdict}: {', '.join(ids)}" for verdict, ids in by_verdict.items())
    return [f"claims {said}"]


def read() -> tuple[pl.DataFrame, pl.DataFrame, list[dict[str, Any]]]:
    """Return the committed summary, comparison and claims."""
    claims = json.loads(CLAIMS.read_text(encoding="utf-8"))["claims"]
    return (
        pl.read_csv(SUMMARY, infer_schema_length=None),
        pl.read_csv(COMPARED, infer_schema_length=None),
        claims,
    )


if __name__ == "__main__":
    runs, compared, claims = read()
    print(
        table(compared) if "--table" in sys.argv[1:] else findings(runs, compared, claims), end=""
    )
