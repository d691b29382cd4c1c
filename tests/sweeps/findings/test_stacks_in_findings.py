"""Findings of models with several stacks, and of the one whose steps are equal anyhow."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from planted_store import run_spec, save_sweep, write_run

from orchestrator.cli import cli
from sweeps.declaration.yaml_source import YamlSource
from sweeps.errors import UserError
from sweeps.findings.arms import paths_of
from sweeps.findings.claim_spec import ClaimsFile
from sweeps.findings.claims import ClaimResult, evaluate
from sweeps.findings.deciding import deciding
from sweeps.findings.persistence import compare
from sweeps.reading.tables import Tables, open_store
from sweeps.report.charts.calls import call_charts, called
from sweeps.report.charts.profiles import profile_charts
from sweeps.report.data import ReportData, gather
from sweeps.report.page import render
from sweeps.statistics.profiles import measure
from sweeps.store.store import Store

SEEDS = range(4)
LOOPED = [1] * 6


def line(slope: float, layers: int) -> list[float]:
    return [0.5 + slope * i / layers for i in range(1, layers + 1)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Under equal steps an encoder's slope stays and its decoder's goes; ALBERT is one block; a
    third model has one stack of distinct blocks."""
    store = Store.at(str(tmp_path_factory.mktemp("findings") / "store"))
    runs = []
    for control in ("standard", "equal_step"):
        equal = control == "equal_step"
        for seed in SEEDS:
            noise = 0.01 * (seed - 1.5) * (-1 if equal else 1)
            both = {"encoder": line(0.3 + noise, 6), "decoder": line(noise / 4, 4)}
            if not equal:
                both["decoder"] = line(0.3 + noise, 4)
            run = run_spec("bart", "contrastive", control, seed)
            ratios = {name: [1e-3] * len(own) for name, own in both.items()} if equal else None
            write_run(store, run, both, ratios=ratios)
            tied = run_spec("albert", "contrastive", control, seed)
            write_run(store, tied, line(0.3 + noise, 6), calls=LOOPED)
            plain = run_spec("opt", "contrastive", control, seed)
            write_run(store, plain, line(0.3 + noise, 8))
            runs += [run, tied, plain]
    save_sweep(store, "towers", runs)
    return store


@pytest.fixture(scope="module")
def tables(store: Store) -> Tables:
    return open_store(store.root, sweep="towers")


def test_each_stack_has_a_verdict(tables: Tables) -> None:
    table = compare(measure(tables), paths=paths_of(tables, "procrustes"))
    found = {
        (model, stack): verdict
        for model, stack, verdict in table.select("model", "stack", "verdict_equal_change").rows()
    }
    assert found["bart", "encoder"] == "persists"
    assert found["bart", "decoder"] == "collapses"
    assert table["verdict"].to_list() == table["verdict_equal_change"].to_list()
    assert table.filter(model="bart", stack="decoder")["n"].to_list() == [len(SEEDS)]
    assert dict(table.filter(model="bart").select("stack", "dose").rows()) == pytest.approx(
        {"encoder": 6.0, "decoder": 4.0}
    )


def test_one_block_that_is_all_of_the_depth_is_the_negative_control(tables: Tables) -> None:
    table = compare(measure(tables))
    tied = table.filter("negative_control")
    assert tied["model"].to_list() == ["albert"]
    assert tied["dose"].to_list() == [1.0]
    assert tied["verdict"].to_list() == ["idle"]
    assert "negative control" in tied["flags"][0]
    assert not any("negative control" in flag for flag in table.filter(model="opt")["flags"])


def test_it_is_one_of_equal_steps_alone(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    for seed in SEEDS:
        for control in ("standard", "layer_clip"):
            run = run_spec("albert", "clm", control, seed)
            write_run(store, run, line(0.3, 6), calls=LOOPED)
    assert not compare(measure(open_store(store.root)), "layer_clip")["negative_control"].any()


def claimed(tables: Tables, test: str) -> ClaimResult:
    text = f"claims:\n- id: C\n  text: t\n  tests:\n  - {test}\n"
    claims = YamlSource.parse(text, "claims.yaml").validate(ClaimsFile)
    return evaluate(claims.claims, {"procrustes": measure(tables)})[0]


def test_claims_select_and_compare_stacks_and_name_the_negative_control(tables: Tables) -> None:
    persists = "statistic: persistence, verdict: persists, reduce: share"
    kept = claimed(
        tables, f"{{measure: {{{persists}, where: {{stack: encoder}}}}, is: at_least, than: 1}}"
    )
    assert (kept.verdict, kept.flags) == ("supported", ())
    lost = claimed(
        tables, f"{{measure: {{{persists}, where: {{model: bart}}}}, is: at_least, than: 1}}"
    )
    assert lost.verdict == "contradicted"
    every = claimed(tables, f"{{measure: {{{persists}}}, is: at_least, than: 0.5}}")
    assert "negative control: albert" in every.flags
    rising = claimed(
        tables,
        "{measure: {statistic: slope, where: {stack: decoder, control: standard}, reduce: share,"
        " above: 0}, is: at_least, than: 1}",
    )
    assert rising.verdict == "supported"
    with pytest.raises(UserError, match="did you mean 'stack'"):
        claimed(tables, f"{{measure: {{{persists}, where: {{stak: x}}}}, is: at_least, than: 1}}")


def test_power_plans_for_the_stack_whose_slopes_lie_farthest_apart() -> None:
    runs = [
        run_spec("bart", "contrastive", control, seed)
        for control in ("standard", "equal_step")
        for seed in SEEDS
    ]
    slopes = {
        run.run_id: {"encoder": 0.3 + 0.01 * run.seed, "decoder": 0.3 + 0.05 * run.seed}
        for run in runs
    }
    one = {name: {None: both["decoder"]} for name, both in slopes.items()}
    worse, alone = (deciding(runs, slopes=known).rows[0].spread for known in (slopes, one))
    assert worse == alone
    assert worse.seeds == len(SEEDS)


# ----------------------------------------------------------------------------------- what is shown
@pytest.fixture(scope="module")
def data(tables: Tables) -> ReportData:
    return gather(tables, "towers", "", "name: towers\n", None)


def test_a_report_has_a_panel_for_each_stack(data: ReportData) -> None:
    shown = set(data.tables["bands"].select("model", "treatment").rows())
    assert {("bart", "standard · encoder"), ("bart", "standard · decoder")} <= shown
    assert ("opt", "standard") in shown
    compared = set(data.shown("persistence").select("model", "setting").rows())
    assert compared == {("bart", "encoder"), ("bart", "decoder"), ("albert", ""), ("opt", "")}
    # Training is of the whole model, its steps are of each stack.
    assert set(data.tables["curves"]["treatment"]) == {"standard", "equal_step"}
    layers = data.tables["ratios"].group_by("model", "treatment").agg(pl.col("layer").max())
    found = {(model, treatment): layer for model, treatment, layer in layers.rows()}
    assert found["bart", "standard · decoder"] == 4
    assert found["albert", "standard"] == 1


def test_a_report_calls_the_negative_control_so(data: ReportData) -> None:
    page = render(data, datetime(2026, 11, 26, tzinfo=UTC))
    (cell,) = [
        row["cell"] for row in data.shown("persistence").to_dicts() if row["model"] == "albert"
    ]
    assert "n 4\nnegative control" in cell
    assert "idle, negative control" in page
    assert re.search(r"<th[^>]*>depth in calls", page)


def run(*words: str) -> str:
    result = CliRunner().invoke(cli, list(words))
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_line_shows_stacks_and_the_negative_control(store: Store) -> None:
    at = ("--store", str(store.root))
    text = run("profile", "towers", *at)
    assert re.search(r"contrastive, standard, encoder\n +4", text)
    assert re.search(r"contrastive, standard\n +4", text)  # of one stack
    assert "24 of 24 runs" in text
    compared = run("compare", "towers", *at)
    assert re.search(r"idle, negative control", compared)
    assert re.search(r"decoder +4 .*collapses", compared)
    exported = json.loads(run("compare", "towers", *at, "--json"))["conditions"]
    assert [row["model"] for row in exported if row["negative_control"]] == ["albert"]


def test_a_report_marks_the_kinds_of_blocks_of_a_hybrid_and_of_no_other(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    kinds = ["Mamba", "Attention"] * 3
    runs = [run_spec("zamba", seed=seed) for seed in (0, 1, 2)]
    runs += [run_spec("opt", seed=seed) for seed in (0, 1, 2)]
    for one in runs:
        hybrid = one.model.name == "zamba"
        write_run(store, one, line(0.3, 6), classes=kinds if hybrid else ["Layer"] * 6)
    save_sweep(store, "mixed", runs)
    shown = gather(open_store(store.root, sweep="mixed"), "mixed", "", "", None)
    drawn = {chart.only["model"]: json.dumps(chart.spec) for chart in profile_charts(shown)}
    assert "block_class" in drawn["zamba"]
    assert "block_class" not in drawn["opt"]


def test_a_report_draws_change_over_iteration_and_block_where_a_block_runs_twice(
    tmp_path: Path,
) -> None:
    store = Store.at(str(tmp_path / "store"))
    for seed in (0, 1, 2):
        write_run(store, run_spec("looped", seed=seed), line(0.3, 6), calls=[1, 2] * 3)
        write_run(store, run_spec("opt", seed=seed), line(0.3, 6))
    runs = [run_spec(name, seed=seed) for name in ("looped", "opt") for seed in (0, 1, 2)]
    save_sweep(store, "loops", runs)
    shown = gather(open_store(store.root, sweep="loops"), "loops", "", "", None)
    (chart,) = call_charts(shown)
    assert chart.only["model"] == "looped"
    cells = called(shown.shown("bands")).sort("layer")
    assert cells["block_number"].to_list() == [1, 2] * 3
    assert cells["iteration"].to_list() == [0, 0, 1, 1, 2, 2]
    assert cells["value"].to_list() == pytest.approx(line(0.3, 6))
    page = render(shown, datetime.now(UTC))
    assert "change by iteration and block" in page
    assert [one.only["model"] for one in profile_charts(shown)] == ["looped", "opt"]


def test_without_loops_there_is_no_such_chart(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    write_run(store, run_spec("opt"), line(0.3, 6))
    save_sweep(store, "plain", [run_spec("opt")])
    shown = gather(open_store(store.root, sweep="plain"), "plain", "", "", None)
    assert call_charts(shown) == []
    assert "by iteration and block" not in render(shown, datetime.now(UTC))
