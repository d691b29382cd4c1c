"""The study as slopes drawn from a known truth, in the frames that findings are made of."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl

from sweeps.reading.tables import open_store
from sweeps.statistics.profiles import Profiles, measure
from sweeps.store.store import Store
from tests.samples.planted_paper import paper_runs
from tests.samples.planted_store import run_spec, write_run

# What a condition keeps of its standard slope, from its kind of block and its objective; None where
# there is no slope to keep, under either control.
Truth = Callable[[str, str], float] | None
FLAT: Truth = None


def PUBLISHED(block: str, objective: str) -> float:
    """Half is kept, but by parallel blocks under other objectives than causal modelling nothing."""
    return 0.5 if block != "parallel" or objective == "clm" else 0.0


def simulate(
    truth: Truth,
    *,
    cv: float,
    seeds: int,
    seed: int,
    model_spread: float = 0.0,
    small: bool = False,
) -> Profiles:
    """Return the profiles of one simulated study.

    Standard slopes have mean 1 (0 where nothing is there) and standard deviation ``cv`` over seeds;
    the controlled ones as much, correlated with them by a half. Wherever a control is compared both
    sides have ``seeds``; a condition under standard alone has as many.

    Args:
        model_spread: standard deviation of what each model adds to all of its slopes.
        small: eight models under standard, half of them of block a and half of block b.
    """
    design = _small_design(seeds) if small else _design(seeds)
    generator = np.random.default_rng([20260417, seed])

    def shared(*keys: str) -> np.ndarray:
        codes = design.select(pl.struct(keys).rank("dense").alias("code"))["code"].to_numpy()
        return generator.standard_normal(codes.max())[codes - 1]

    noise = shared("model", "objective", "seed") + generator.standard_normal(design.height)
    kept = np.zeros(design.height)
    if truth is not None:
        pairs = zip(design["block"], design["objective"], strict=True)
        kept = np.array([truth(block, objective) for block, objective in pairs])
        kept = np.where(design["control"] == "standard", 1.0, kept)
    slope = kept + cv * noise / np.sqrt(2) + model_spread * shared("model")
    runs = design.with_columns(
        pl.Series("slope", slope),
        pl.Series("slope_normalised", slope),
        pl.when(pl.col("control") == "standard").then(pl.Series(slope)).alias("steepness"),
    )
    return replace(_template(), runs=runs)


@cache
def _template() -> Profiles:
    """Return the frames of a store, with one run, of which only the columns are taken."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.at(folder)
        write_run(store, run_spec(), [0.1, 0.2, 0.3])
        return measure(open_store(folder))


@cache
def _design(seeds: int) -> pl.DataFrame:
    conditions = {
        (run.model.name, run.objective.label, run.control.kind): facts
        for run, facts in paper_runs()
    }
    return _rows(
        [
            {"model": model, "objective": objective, "control": control, **facts}
            for (model, objective, control), facts in conditions.items()
        ],
        seeds,
    )


@cache
def _small_design(seeds: int) -> pl.DataFrame:
    return _rows(
        [
            {"model": f"m{k}", "objective": objective, "control": "standard", "block": "ab"[k % 2]}
            for k in range(8)
            for objective in ("clm", "contrastive")
        ],
        seeds,
    )


def _rows(conditions: list[dict[str, object]], seeds: int) -> pl.DataFrame:
    one = _template().runs
    names = [name for name in conditions[0] if name in one.columns]
    rows = pl.DataFrame([{name: each[name] for name in names} for each in conditions])
    rows = rows.join(pl.DataFrame({"seed": range(seeds)}), how="cross")
    ids = [f"{k:012x}" for k in range(rows.height)]
    rest = one.drop(*names, "seed", "run_id").select(pl.all().repeat_by(rows.height).explode())
    return (
        pl.concat([rows, rest], how="horizontal")
        .with_columns(run_id=pl.Series(ids))
        .select(pl.col(name).cast(kind) for name, kind in one.schema.items())
    )
