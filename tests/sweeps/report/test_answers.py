"""The sentences a report begins with: computed, over how many, and honest about what is unknown."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from planted_store import run_spec, save_sweep, write_run
from planted_verdicts import plant_settings, plant_verdicts

from sweeps.reading.tables import open_store
from sweeps.report.answers import Answer, answers_of
from sweeps.report.data import ReportData, gather
from sweeps.store.store import Store


def answers(data: ReportData) -> tuple[Answer, ...]:
    return data.answers[data.views[0].name]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    store = plant_settings(tmp_path_factory.mktemp("settings") / "store")
    return gather(open_store(store.root, sweep="settings"), "settings", "", "", None)


def test_every_group_of_conditions_has_a_sentence_of_its_own(settings: ReportData) -> None:
    whole, *groups = answers(settings)
    assert whole.group == ""
    assert [one.group for one in groups] == [
        "clm · learning_rate 0.001 · schedule linear",
        "clm · learning_rate 0.001 · schedule cosine",
        "clm · learning_rate 0.0001 · schedule linear",
        "clm · learning_rate 0.0001 · schedule cosine",
    ]
    where = "Under standard training, change concentrates in the last quarter of depth in 4 of 4"
    assert whole.sentences[0].startswith(where)
    assert "the profile persists in 2, collapses in 1 and reverses in 1 of 4" in whole.sentences[1]
    last = [one.sentences[-1] for one in groups]
    assert last[0].startswith("Equal steps keep 90 % of the slope [")
    assert [said.rpartition("; ")[2] for said in last] == [
        "the profile persists.",
        "the profile collapses.",
        "the profile persists.",
        "the profile reverses.",
    ]
    assert all("(n = 3 seeds, dose 6.00)" in said for said in last)


def test_the_numbers_are_those_of_the_tables(settings: ReportData) -> None:
    slopes = settings.shown("slopes").filter(pl.col("control") == "standard")
    first = answers(settings)[1]
    row = slopes.filter(pl.col("condition") == first.group).row(0, named=True)
    share, low, high = (
        100 * row[f"concentration_last_quarter{end}"] for end in ("", "_low", "_high")
    )
    assert (
        f"{share:.1f} % [{low:.1f}, {high:.1f}] of it lies there (n = 3 seeds)"
        in first.sentences[0]
    )


def test_each_view_has_its_own(settings: ReportData) -> None:
    assert len(settings.views) == 6
    assert set(settings.answers) == {view.name for view in settings.views}
    of_means = settings.answers["cka_distance @ 10"][0].sentences[0]
    assert of_means != answers(settings)[0].sentences[0]


def test_two_seeds_say_nothing_of_where(tmp_path: Path) -> None:
    store = plant_settings(tmp_path / "store", seeds=2)
    data = gather(open_store(store.root, sweep="settings"), "settings", "", "", None)
    for one in answers(data):
        assert "where change concentrates is not shown: no condition has 3 seeds" in one.sentences[
            0
        ].replace("Where", "where")
        assert "[" not in " ".join(one.sentences)
    assert answers(data)[0].sentences[1] == (
        "Of equal steps nothing is shown: 4 insufficient (fewer than 3 matched seeds)."
    )


def test_states_of_knowledge_are_not_counted_as_findings(tmp_path: Path) -> None:
    store = plant_verdicts(tmp_path / "store")
    data = gather(open_store(store.root, sweep="verdicts"), "verdicts", "", "", None)
    whole = answers(data)[0].sentences
    tested = data.shown("persistence").filter(
        pl.col("verdict").is_in(["persists", "collapses", "reverses", "inconclusive"])
    )
    assert (
        f"of {tested.height} conditions. 4 more conditions in which nothing is shown:" in whole[1]
    )
    assert "1 idle (the reference moves its blocks alike" in whole[1]
    # Two models are too few for an interval over models.
    assert " models" not in whole[1]
    assert "with fewer than 3 seeds" in whole[0]


def test_a_ratio_over_models_has_them_as_its_unit(tmp_path: Path) -> None:
    store = plant_verdicts(tmp_path / "store", models=6)
    data = gather(open_store(store.root, sweep="verdicts"), "verdicts", "", "", None)
    said = answers(data)[0].sentences[1]
    models = data.shown("persistence").filter(pl.col("verdict") != "insufficient")
    assert models["model"].n_unique() > 3
    assert "(n = 4 models, dose 3.00)" in said


def test_without_a_control_or_a_reference_it_says_so(tmp_path: Path) -> None:
    for control, said in (
        ("standard", "Only standard training was run: nothing is said of a control."),
        ("equal_step", "No run has standard training to compare its control with."),
    ):
        store = Store.at(str(tmp_path / control))
        runs = [run_spec("m", control=control, seed=seed) for seed in range(3)]
        for run in runs:
            write_run(store, run, [0.1, 0.2 + 0.01 * run.seed, 0.3, 0.6])
        save_sweep(store, "toy", runs)
        (only,) = answers(gather(open_store(store.root, sweep="toy"), "toy", "", "", None))
        assert only.group == "clm"
        assert only.sentences[-1] == said
        under = "standard training" if control == "standard" else control
        where = f"Under {under}, change concentrates in the last quarter of depth: "
        assert only.sentences[0].startswith(where)


def test_a_metric_that_is_no_distance_says_nothing_of_where(settings: ReportData) -> None:
    slopes, persistence = settings.shown("slopes"), settings.shown("persistence")
    whole = answers_of(slopes, persistence, "effective_rank")[0].sentences[0]
    assert whole == (
        "Under standard training, the slope of effective_rank on depth is above 0 in 4 and below 0"
        " in 0 of 4 conditions; it is no distance, and says nothing of where change is."
    )


def test_a_share_that_is_not_defined_is_counted_and_not_called_few_seeds(
    settings: ReportData,
) -> None:
    slopes = settings.shown("slopes").with_columns(
        pl.when(pl.col("setting").str.contains("cosine"))
        .then(None)
        .otherwise(pl.col(name))
        .alias(name)
        for name in settings.shown("slopes").columns
        if name.startswith("concentration_last_quarter")
    )
    whole = answers_of(slopes, settings.shown("persistence"), "cka_distance_debiased")[0]
    assert "in 2 of 2 conditions" in whole.sentences[0]
    assert "2 more conditions without a share: of both signs, or none." in whole.sentences[0]
    assert "fewer than 3 seeds" not in whole.sentences[0]


def test_a_flat_profile_is_not_said_to_concentrate(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path / "store"))
    runs = [run_spec("m", seed=seed) for seed in range(3)]
    for run in runs:
        write_run(store, run, [0.3 + 0.01 * run.seed] * 3 + [0.3])
    save_sweep(store, "toy", runs)
    (only,) = answers(gather(open_store(store.root, sweep="toy"), "toy", "", "", None))
    assert "is not shown to concentrate in the last quarter of depth" in only.sentences[0]
