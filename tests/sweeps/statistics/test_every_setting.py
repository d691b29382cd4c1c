"""Whatever a sweep varies are two conditions, in everything that is shown of it.

The settings are those of the specification, found by rule: a new one is tested here by itself.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from planted_store import run_spec, save_sweep, write_run
from varied_settings import two_values, varying_settings

from sweeps.declaration.settings import SEED, TAKEN, Setting, condition_settings, settings_of
from sweeps.findings.claim_spec import Claim, Measure
from sweeps.findings.claims import evaluate
from sweeps.findings.evidence import Evidence
from sweeps.findings.persistence import verdicts_by_metric
from sweeps.reading.query import query
from sweeps.reading.run_table import ATTEMPT_COLUMNS, FACTS, OUTCOME, setting_columns
from sweeps.reading.tables import Tables, open_store
from sweeps.report.data import gather
from sweeps.report.persistence_text import persistence_text
from sweeps.report.profile_text import profile_text
from sweeps.spec import Frozen, Optimizer, RunSpec, Standard
from sweeps.statistics.conditions import (
    condition_columns,
    everyone,
    layer_bands,
    summarise,
)
from sweeps.statistics.profiles import measure, measure_each
from sweeps.store.schema import NULL_METRICS, TABLES
from sweeps.store.store import Store


def plant(root: Path, pair: tuple[RunSpec, ...], *, reference: bool = True) -> Tables:
    """Write each run of a pair with three seeds, and the same under standard training."""
    store = Store.at(str(root / "store"))
    runs: dict[str, RunSpec] = {}
    for slope, one in zip((0.2, 0.5), pair, strict=True):
        for seed in (3, 8, 9):
            for control in (one.control, *([Standard()] if reference else [])):
                run = one.model_copy(update={"control": control, "seed": seed})
                if run.run_id not in runs:
                    write_run(store, run, lambda x, k=slope: 0.1 + k * x, facts={"layers": 3})
                runs[run.run_id] = run
    save_sweep(store, "vary", list(runs.values()))
    return open_store(store.root, sweep="vary")


def witnesses_first() -> list[Any]:
    """Every setting as a parameter; all but the first of each part are of the whole suite."""
    before: Counter[str] = Counter()
    found = []
    for setting in varying_settings():
        before[setting.path[0]] += 1
        marks = pytest.mark.slow if before[setting.path[0]] > 1 else ()
        found.append(pytest.param(setting, id=setting.name, marks=marks))
    return found


@pytest.mark.parametrize("setting", witnesses_first())
def test_two_values_of_any_setting_are_two_conditions(setting: Setting, tmp_path: Path) -> None:
    pair = two_values(setting)
    control = pair[0].control.kind
    tables = plant(tmp_path, pair)
    name = setting.name

    profiles = measure_each(tables, NULL_METRICS)
    first = profiles["procrustes"]
    keys = condition_columns(everyone(first))
    # An adapter or a selection may bring other settings, which only some kinds of it have.
    parts = {one.name: one.path[0] for one in settings_of()}
    assert keys[:3] == ["model", "objective", "control"]
    assert name in keys[3:]
    assert {parts[key] for key in keys[3:]} == {setting.path[0]}
    assert len(keys) == 4 or setting.path[0] in ("adapter", "selection")
    conditions = summarise(first, keys).filter(control=control)
    assert conditions["n"].to_list() == conditions["seeds"].to_list() == [3, 3]
    assert conditions["slope"].to_list() == [pytest.approx(0.2), pytest.approx(0.5)]
    page = profile_text("vary", first, keys)
    assert max(map(len, page.splitlines())) <= 80
    assert name[:5] in page

    compared = verdicts_by_metric(profiles, control)
    assert compared["n"].to_list() == [3, 3]
    assert name in compared.columns
    page = persistence_text("vary", compared, control, "standard", list(profiles))
    assert max(map(len, page.splitlines())) <= 80
    assert "verdict" in page
    assert page.count("persists\n") + page.count("persists  ") >= 2
    assert name[:5] in page

    least = Measure(statistic="slope", where={"control": control}, reduce="min")
    known = Evidence(first).estimate(least, control)
    assert (known.n, known.of, known.unit) == (2, 2, "conditions")
    claim = Claim.model_validate(
        {
            "id": "both",
            "text": "Both persist.",
            "control": control,
            "tests": [
                {
                    "measure": {
                        "statistic": "persistence",
                        "reduce": "count",
                        "verdict": "persists",
                    },
                    "is": "at_least",
                    "than": 2,
                }
            ],
        }
    )
    assert evaluate([claim], profiles)[0].verdict == "supported"

    shown = gather(tables, "vary", "", "", None, switch=False).tables
    slopes = shown["slopes"].filter(control=control, view="procrustes @ final")
    assert slopes["n"].to_list() == [3, 3]
    assert slopes["treatment"].n_unique() == 2
    assert any(f"{name} " in treatment for treatment in slopes["treatment"])
    assert shown["curves"].filter(control=control)["treatment"].n_unique() == 2
    if control == "equal_step":
        cells = shown["persistence"].filter(view="procrustes @ final")
        cells = cells.select("model", "condition", "arm")
        assert cells.n_unique() == cells.height == 2

    sql = f"SELECT {name}, count(*) AS n FROM runs WHERE control = '{control}' GROUP BY ALL"
    assert query(tables, sql)["n"].to_list() == [3, 3]


@pytest.mark.parametrize("part", ["model", "objective"])
def test_two_names_are_two_conditions(part: str, tmp_path: Path) -> None:
    one = run_spec("m", "classification", "equal_step", steps=2, probe_every=2)
    inner = {"model": {"name": "other"}, "objective": {"name": "topic", "labels": 5}}[part]
    other = one.model_copy(update={part: getattr(one, part).model_copy(update=inner)})
    if part == "model":
        source = one.model.source.model_copy(update={"revision": "1" * 40})
        other = one.model_copy(update={"model": one.model.model_copy(update={"source": source})})
        other = other.model_copy(update={"model": other.model.model_copy(update=inner)})
    profiles = {"procrustes": measure(plant(tmp_path, (one, other)))}
    keys = condition_columns(everyone(profiles["procrustes"]))
    assert summarise(profiles["procrustes"], keys)["n"].to_list() == [3] * 4
    compared = verdicts_by_metric(profiles)
    assert compared["n"].to_list() == [3, 3]
    assert compared[part].to_list() == [
        *{"model": ["m", "other"], "objective": ["classification", "topic"]}[part]
    ]


def test_models_of_one_name_that_differ_are_two_conditions(tmp_path: Path) -> None:
    one = run_spec("m", control="equal_step", steps=2, probe_every=2)
    source = one.model.source.model_copy(update={"revision": "1" * 40})
    other = one.model_copy(update={"model": one.model.model_copy(update={"source": source})})
    found = measure(plant(tmp_path, (one, other)))
    keys = condition_columns(everyone(found))
    assert keys[3:] == ["model_revision"]
    assert summarise(found, keys)["n"].to_list() == [3] * 4


class Averaged(Optimizer):
    averaging: float = 0.0


class Waiting(Frozen):
    split: str = "held-out"
    patience: int = 3


class WiderRun(RunSpec):
    """A later version of the specification, with settings that nothing here has heard of."""

    optimizer: Averaged
    noise: float = 0.0
    waiting: Waiting = Waiting()

    def identity(self) -> dict[str, Any]:
        added = {"noise": self.noise, "waiting": self.waiting.model_dump()}
        return {**super().identity(), **added}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("averaging", {"optimizer": {"averaging": 0.9}}),
        ("noise", {"noise": 0.1}),
        ("patience", {"waiting": {"patience": 5}}),
    ],
)
def test_a_setting_that_is_added_arrives_as_a_column_and_splits(
    name: str, change: dict[str, Any], tmp_path: Path
) -> None:
    content = run_spec(control="equal_step", steps=2, probe_every=2).model_dump()
    content["optimizer"]["averaging"] = 0.0
    content["waiting"] = {"split": "held-out", "patience": 3}
    one = WiderRun.model_validate(content)
    for key, value in change.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    other = WiderRun.model_validate(content)
    store = Store.at(str(tmp_path / "store"))
    planned = []
    for run in (one, other):
        for seed in (0, 1, 2):
            for control in (one.control, Standard()):
                planned.append(run.model_copy(update={"seed": seed, "control": control}))
                write_run(store, planned[-1], [0.1, 0.2])
    tables = Tables(store, list(planned), include_running=False)
    runs = tables.runs().collect()
    assert runs[name].n_unique() == 2
    assert condition_columns(runs)[3:] == [name]
    found = measure(tables)
    assert summarise(found, condition_columns(everyone(found)))["n"].to_list() == [3] * 4
    assert verdicts_by_metric({"procrustes": found})["n"].to_list() == [3, 3]


def test_every_field_of_the_specification_is_one_column(tmp_path: Path) -> None:
    tables = plant(tmp_path, two_values(varying_settings()[0]))
    columns = tables.runs().collect().columns
    names = [one.name for one in settings_of()]
    assert len(set(names)) == len(names)
    assert set(names) <= set(columns)
    wanted = {"learning_rate", "warmup_steps", "schedule", "betas", "eps", "weight_decay"}
    wanted |= {"max_grad_norm", "mask_probability", "temperature", "pooling", "labels", "steps"}
    wanted |= {"batch_size", "sequence_length", "precision", "control", "max_norm", "target"}
    wanted |= {"objective", "probe_rows", "probe_sequence_length", "model", "final_loss", "seconds"}
    assert wanted <= set(columns)


def test_how_a_run_is_carried_out_and_where_its_files_lie_is_no_condition() -> None:
    apart = {one.name for one in settings_of()} - {one.name for one in condition_settings()}
    carried_out = {one.name for one in settings_of() if one.path[0] == "execution"}
    assert apart == carried_out | {
        SEED,
        "folder",
        *("objective_file", "objective_files"),
        *("probe_file", "probe_files"),
        *("evaluation_file", "evaluation_files"),
        *("model_plugin", "objective_plugin", "control_plugin", "optimizer_plugin"),
        "selection_plugin",
        *("state_tensors", "whole_matrices"),  # of an own optimizer: its code says them
        "place",  # of a checkpoint that was trained elsewhere
        "pickled_weights",
    }


def test_no_setting_can_take_the_name_of_another_column(tmp_path: Path) -> None:
    tables = plant(tmp_path, two_values(varying_settings()[0]))
    profiles = measure_each(tables, NULL_METRICS)
    first = profiles["procrustes"]
    keys = condition_columns(everyone(first))
    shown = gather(tables, "vary", "", "", None).tables
    made: set[str] = {*ATTEMPT_COLUMNS, *FACTS, *OUTCOME, *first.runs.columns}
    for frame in (
        first.blocks,
        first.left_out,
        summarise(first, keys),
        layer_bands(first, keys),
        verdicts_by_metric(profiles),
        *(table for table in shown.values()),
    ):
        made |= set(frame.columns)
    for schema in TABLES.values():
        made |= set(schema.names)
    made -= {one.name for one in settings_of()}
    # "setting" is made of settings, of a comparison alone.
    assert made <= TAKEN, sorted(made - TAKEN)
    assert setting_columns(pl.DataFrame({name: [0] for name in sorted(made)})) == []
