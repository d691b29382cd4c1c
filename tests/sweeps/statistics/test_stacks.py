"""Models of several stacks, of blocks that run several times, and of several kinds of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from planted_measurements import draws_of_slope, record_propagation
from planted_store import run_spec, save_sweep, write_run

from sweeps.errors import UserError
from sweeps.reading.tables import Tables, open_store
from sweeps.statistics.conditions import condition_columns, everyone, layer_bands, summarise
from sweeps.statistics.profiles import measure
from sweeps.statistics.run_summary import run_summary
from sweeps.store.schema import TABLES
from sweeps.store.store import Store

SEEDS = (0, 1, 2)


def line(slope: float, layers: int, seed: int = 0) -> list[float]:
    return [0.5 + (slope + 0.01 * seed) * i / layers for i in range(1, layers + 1)]


def translation(seed: int = 0) -> dict[str, Sequence[float]]:
    """An encoder of 5 blocks that falls, a decoder of 7 that rises."""
    return {"encoder": line(-0.2, 5, seed), "decoder": line(0.4, 7, seed)}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """A study of an encoder-decoder and of a model of one stack."""
    store = Store.at(str(tmp_path_factory.mktemp("stacks") / "store"))
    unlike = {"encoder": [1e-3, 2e-3, 2e-3, 2e-3, 3e-3], "decoder": [1e-3] * 6 + [8e-3]}
    runs = []
    for seed in SEEDS:
        run = run_spec("marian", "classification", "standard", seed)
        write_run(
            store,
            run,
            translation(seed),
            ratios=unlike,
            deleted={name: [own, own[::-1]] for name, own in translation(seed).items()},
        )
        runs.append(run)
        runs.append(run_spec("gpt2", "classification", "standard", seed))
        write_run(store, runs[-1], line(0.3, 8, seed))
    draws = [
        [*a, *b]
        for a, b in zip(draws_of_slope(-0.1, layers=5), draws_of_slope(0.6, layers=7), strict=True)
    ]
    record_propagation(store, runs[0], draws, [("encoder", 5), ("decoder", 7)])
    runs.append(run_spec("marian", "classification", "standard", 7))
    write_run(store, runs[-1], translation(), status="diverged", stop=10)
    runs.append(run_spec("marian", "classification", "standard", 8))  # never began
    runs.append(run_spec("unseen", "classification", "standard", 0))  # nor did any of its model
    save_sweep(store, "translate", runs)
    return open_store(store.root, sweep="translate")


def of_marian(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(model="marian")


def test_each_stack_of_a_run_is_a_profile_at_its_own_depth(tables: Tables) -> None:
    runs = measure(tables).runs
    slopes = {
        (stack, seed): slope
        for stack, seed, slope in of_marian(runs).select("stack", "seed", "slope").rows()
    }
    expected = {
        (stack, seed): slope + 0.01 * seed
        for stack, slope in (("encoder", -0.2), ("decoder", 0.4))
        for seed in SEEDS
    }
    assert slopes == pytest.approx(expected)
    assert set(of_marian(runs).select("stack", "blocks").rows()) == {("encoder", 5), ("decoder", 7)}
    assert runs.filter(model="gpt2")["stack"].null_count() == len(SEEDS)


def test_stacks_tell_conditions_apart_and_their_runs_are_counted_once(tables: Tables) -> None:
    profiles = measure(tables)
    assert condition_columns(everyone(profiles)) == ["model", "objective", "control", "stack"]
    table = summarise(profiles)
    found = {
        stack: (n, round(slope, 9), diverged, missing)
        for stack, n, slope, diverged, missing in of_marian(table)
        .select("stack", "n", "slope", "diverged", "missing")
        .rows()
    }
    assert found == {"encoder": (3, -0.19, 1, 1), "decoder": (3, 0.41, 1, 1)}
    pooled = of_marian(summarise(profiles, ["model"])).row(0, named=True)
    assert (pooled["n"], pooled["diverged"], pooled["missing"]) == (3, 1, 1)
    assert pooled["slope"] == pytest.approx((0.41 - 0.19) / 2)
    assert pooled["flags"].startswith("pools 2 conditions of one model")


def test_what_was_never_run_has_the_stacks_of_its_model_where_another_run_tells(
    tables: Tables,
) -> None:
    left_out = measure(tables).left_out
    assert set(left_out.select("model", "seed", "stack", "reason").rows()) == {
        ("marian", 7, "encoder", "diverged"),
        ("marian", 7, "decoder", "diverged"),
        ("marian", 8, "encoder", "pending"),
        ("marian", 8, "decoder", "pending"),
        ("unseen", 0, None, "pending"),
    }


def test_dose_and_propagation_are_each_stacks_own(tables: Tables) -> None:
    runs = of_marian(measure(tables).runs)
    doses = dict(runs.group_by("stack").agg(pl.col("dose").first()).rows())
    assert doses == pytest.approx({"encoder": 3.0, "decoder": 8.0})
    by_stack = dict(runs.group_by("stack").agg(pl.col("propagation").first()).rows())
    assert by_stack == pytest.approx({"encoder": -0.1, "decoder": 0.6})
    # Of all of the model there is neither.
    whole = of_marian(tables.runs().collect()).filter(status="finished")
    assert whole.select(pl.col("dose", "dose_slope", "propagation").is_null().all()).row(0) == (
        True,
        True,
        True,
    )


def test_noise_is_drawn_beside_the_stack_that_it_is_of(tables: Tables) -> None:
    bands = of_marian(layer_bands(measure(tables)))
    for stack, slope in (("encoder", -0.1), ("decoder", 0.6)):
        own = bands.filter(stack=stack)
        noise = (own["without_gradient"] / own["without_gradient"].mean()).to_numpy()
        assert np.polyfit(own["depth"].to_numpy(), noise, 1)[0] == pytest.approx(slope)


def test_rows_of_a_group_of_sequences_move_the_stack_they_were_measured_on(tables: Tables) -> None:
    deleted = measure(tables).deleted.filter(pl.col("stack").is_not_null())
    first = deleted.filter(sequence_group=1).group_by("stack").agg(pl.col("slope").mean())
    assert dict(first.rows()) == pytest.approx({"encoder": 0.19, "decoder": -0.41})
    assert summarise(measure(tables)).filter(model="marian")["rows"].to_list() == [True, True]


def test_a_stack_that_lacks_a_block_leaves_the_other_where_it_is(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    whole, short = run_spec(seed=0), run_spec(seed=1)
    write_run(store, whole, translation())
    write_run(store, short, {"encoder": line(-0.2, 5), "decoder": [*line(0.4, 6), float("nan")]})
    profiles = measure(open_store(store.root))
    assert profiles.runs.filter(seed=1)["stack"].to_list() == ["encoder"]
    reason = "procrustes was not measured, or is not finite, in some block"
    assert profiles.left_out.select("seed", "stack", "reason").rows() == [(1, "decoder", reason)]


def test_a_stack_is_shown_only_where_some_model_has_several(tables: Tables, tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    write_run(store, run_spec(), line(0.3, 8))
    plain = measure(open_store(store.root))
    shown = {"stack", "model_depth", "block_class"}
    for table in (summarise(plain), layer_bands(plain), run_summary(plain)):
        assert not shown & set(table.columns)
    summary = run_summary(measure(tables))
    assert {"stack", "model_depth"} <= set(summary.columns)
    assert summary.filter(model="marian", seed=0)["model_depth"].to_list() == [12, 12]


# --------------------------------------------------------------------------------- unrolled depth
def test_a_block_that_runs_again_is_a_layer_for_each_call(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    looped = [1, 2, 3, 2, 3, 2, 3, 4]
    write_run(store, run_spec(), line(0.3, 8), calls=looped, ratios=[1e-3, 1e-3, 4e-3, 2e-3])
    tables = open_store(store.root)
    run = measure(tables).runs.row(0, named=True)
    assert (run["model_layers"], run["model_depth"], run["blocks"]) == (4, 8, 8)
    assert run["slope"] == pytest.approx(0.3)
    # What is controlled is weights: each distinct block once.
    assert run["dose"] == pytest.approx(4.0)
    calls = tables.profiles().filter(pl.col("step") == 20).select("block_number", "iteration")
    assert calls.collect().rows()[1:] == [
        *[(1, 0), (2, 0), (3, 0), (2, 1), (3, 1), (2, 2), (3, 2), (4, 0)]
    ]


def test_calls_that_are_missing_leave_a_looped_run_out(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    write_run(store, run_spec(), line(0.3, 6), calls=[1, 1, 1, 1, 1, 1], facts={"layers": 1})
    run = store.run(run_spec().run_id).path / "run.json"
    run.write_text(run.read_text().replace('"depth": 6', '"depth": 8'))
    assert measure(open_store(store.root)).left_out["reason"].to_list() == [
        "not every block has one row at its last step"
    ]


def test_rows_of_before_there_were_stacks_are_read_as_they_were(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    write_run(store, run_spec(), line(0.3, 8))
    for table, schema in TABLES.items():
        old = [one for one in schema.names if one not in _NEW]
        for part in (store.run(run_spec().run_id).path / table).glob("*.parquet"):
            pl.read_parquet(part).select(old).write_parquet(part)
    assert measure(open_store(store.root)).runs["slope"].to_list() == pytest.approx([0.3])


_NEW = ("stack", "block_number", "iteration", "block_class", "stack_layers")


# ------------------------------------------------------------------------------- kinds of blocks
HYBRID = ["Mamba", "Mamba", "Attention", "Mamba", "Mamba", "Attention", "Mamba", "Mamba"]


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    store = Store.at(str(tmp_path_factory.mktemp("hybrid") / "store"))
    mixed = [0.2 * k if kind == "Mamba" else 0.9 for k, kind in enumerate(HYBRID, 1)]
    for seed in SEEDS:
        profile = [value + 0.01 * seed for value in mixed]
        groups = [profile, profile]
        write_run(store, run_spec("jamba", seed=seed), profile, classes=HYBRID, deleted=groups)
    write_run(store, run_spec("gpt2"), line(0.3, 4), classes=["Layer"] * 4)
    return open_store(store.root)


def test_blocks_of_one_kind_are_a_profile_of_their_own(hybrid: Tables) -> None:
    profiles = measure(hybrid, block_class="Mamba")
    assert set(profiles.runs["blocks"]) == {6}
    ranks = np.arange(1, 7) / 6
    slope = np.polyfit(ranks, [0.2, 0.4, 0.8, 1.0, 1.4, 1.6], 1)[0]
    assert profiles.runs["slope"].to_list() == pytest.approx([slope] * 3)
    assert profiles.blocks.filter(seed=0)["depth"].to_list() == pytest.approx(list(ranks))
    assert profiles.deleted["slope"].to_list() == pytest.approx([slope] * 6)
    reason = "no block is a Mamba, or procrustes was not measured, or is not finite, in some block"
    assert profiles.left_out.select("model", "reason").rows() == [("gpt2", reason)]
    attention = measure(hybrid, block_class="Attention").runs.sort("seed")
    assert attention["mean"].to_list() == pytest.approx([0.9, 0.91, 0.92])


def test_a_kind_that_no_block_is_of_is_refused_with_those_there_are(hybrid: Tables) -> None:
    with pytest.raises(UserError, match=r"--block-class Atention: .*did you mean 'Attention'"):
        measure(hybrid, block_class="Atention")


def test_bands_say_which_kind_each_block_is_of(hybrid: Tables) -> None:
    bands = layer_bands(measure(hybrid)).filter(model="jamba").sort("layer")
    assert bands["block_class"].to_list() == HYBRID
