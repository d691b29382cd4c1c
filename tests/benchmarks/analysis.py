"""From tables to findings on a store of the study's size: 240 runs, 8 million rows of ``layers``.

    python -m tests.benchmarks.analysis [--rows 8e6]

Prints the time of profile + persistence + claims, of a grouped aggregate beside DuckDB on the same
files in the same process (best of five, both on all cores), and what ten times the rows cost.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from sweeps.findings.claims import evaluate, read_claims
from sweeps.findings.persistence import verdicts_by_metric
from sweeps.reading.closings import add_to_index
from sweeps.reading.tables import open_store
from sweeps.statistics.conditions import condition_columns, everyone, layer_bands, summarise
from sweeps.statistics.profiles import measure_each
from sweeps.store.schema import NULL_METRICS
from sweeps.store.store import Store
from tests.samples.planted_paper import paper_runs, plant_paper

REPEATS = 5
# What is to be reached on two cores that have nothing else to do.
FINDINGS_SECONDS, RATIO_TO_DUCKDB = 0.7, 1.2
CLAIMS = Path(__file__).parents[2] / "sweeps" / "library" / "paper.claims.yaml"


def best(work: Callable[[], Any]) -> float:
    """Return the shortest of five runs, in seconds."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def findings(store: Store) -> None:
    """Profile, persistence and claims under every distance, from an unopened store."""
    tables = open_store(store.root, sweep="paper")
    profiles = measure_each(tables, NULL_METRICS)
    keys = condition_columns(everyone(profiles["procrustes"]))
    summarise(profiles["procrustes"], keys)
    layer_bands(profiles["procrustes"], keys)
    verdicts_by_metric(profiles)
    evaluate(read_claims(CLAIMS).claims, profiles)


def aggregate_polars(store: Store) -> pl.DataFrame:
    return (
        open_store(store.root)
        .layers()
        .group_by("model", "control", "layer")
        .agg(pl.col("update_norm").mean())
        .collect(engine="streaming")
    )


def aggregate_duckdb(store: Store) -> list[Any]:
    """The same question of the same files, with the columns of runs joined as Polars joins them."""
    connection = duckdb.connect()
    connection.register("runs", open_store(store.root).runs().collect().to_arrow())
    files = store.root / "runs" / "*" / "layers" / "*.parquet"
    return connection.execute(
        "SELECT model, control, layer, avg(update_norm)"
        f" FROM read_parquet('{files}') JOIN runs USING (run_id) GROUP BY ALL"
    ).fetchall()


def rows_per_step() -> int:
    return sum(facts["layers"] + 2 for _, facts in paper_runs())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=8e6, help="rows of layers in the big store")
    rows = parser.parse_args(arguments).rows
    steps = max(round(rows / rows_per_step()) // 10 * 10, 100)
    with tempfile.TemporaryDirectory() as folder:
        small = plant_paper(Path(folder) / "small", steps=steps // 10, part_steps=steps // 40)
        large = plant_paper(Path(folder) / "large", steps=steps, part_steps=steps // 4)
        for store in (small, large):  # as a sweep leaves it when it ends
            add_to_index(store, [run.run_id for run in store.runs()])
        count = open_store(large.root).layers().select(pl.len()).collect().item()
        print(f"240 runs, {count / 1e6:.1f} million rows of layers, 4 parts a run and table")
        print(
            f"profile + persistence + claims   {best(lambda: findings(large)):8.2f} s"
            f"   target {FINDINGS_SECONDS:.2f}"
        )
        ours, theirs = best(lambda: aggregate_polars(large)), best(lambda: aggregate_duckdb(large))
        assert aggregate_polars(large).height == len(aggregate_duckdb(large))
        print(f"grouped aggregate, Polars        {ours:8.2f} s")
        print(
            f"grouped aggregate, DuckDB        {theirs:8.2f} s   ratio {ours / theirs:.2f},"
            f" target {RATIO_TO_DUCKDB:.2f}"
        )
        tenth = best(lambda: aggregate_polars(small))
        print(f"the same on a tenth of the rows  {tenth:8.2f} s   ratio {ours / tenth:.1f}")


if __name__ == "__main__":
    main()
