"""Two studies side by side."""

import json
from pathlib import Path

import polars as pl
from click.testing import CliRunner

from orchestrator.cli import cli
from orchestrator.difference import finding_lines, findings, with_settings_of

FILE = """
name: {name}
models: {{a: {{standin: gpt2}}, b: {{standin: opt}}}}
objectives: {{clm: {{data: {{builtin: python-docs}}}}}}
probe: {{data: {{builtin: python-docs}}, rows: 64}}
defaults: {{steps: {steps}, batch_size: 8, sequence_length: 32, learning_rate: 1e-3}}
blocks:
  - {{name: all, grid: {{model: [a, b], objective: [clm], control: [standard], seed: {seeds}}}}}
"""


def said(*words):
    result = CliRunner().invoke(cli, ["diff", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_two_files_differ_in_settings_and_in_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = Path("first.yaml"), Path("second.yaml")
    first.write_text(FILE.format(name="one", steps=20, seeds="[0, 1, 2]"))
    second.write_text(FILE.format(name="two", steps=30, seeds="[0, 1]"))
    page = json.loads(said(first, second, "--json"))
    assert (page["both"], page["differ"], page["only_second"]) == (0, 4, 0)
    assert len(page["only_first"]) == 2
    assert page["settings"] == [{"name": "steps", "first": 20, "second": 30, "runs": 4}]
    assert page["conditions"] is None
    text = said(first, second)
    assert "4 differ in settings" in text
    assert max(map(len, text.splitlines()[1:])) <= 80
    assert json.loads(said(first, first, "--json"))["both"] == 6


def test_a_sweep_that_comes_with_depthsweep_is_known_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "one.yaml"
    file.write_text(FILE.format(name="one", steps=20, seeds="[0]"))
    page = json.loads(said("demo", file, "--json"))
    assert page["both"] == 0
    assert page["conditions"] is None
    assert [path.name for path in tmp_path.iterdir()] == ["one.yaml"]


def condition(model, objective, n, slope, verdict):
    return {
        "model": model,
        "objective": objective,
        "family": "x",
        "n": n,
        "slope_against": slope,
        "retained": 1.0,
        "verdict": verdict,
    }


def test_findings_stand_side_by_side_and_one_that_is_missing_is_none():
    a = [condition("m", "clm", 3, 0.5, "persists"), condition("k", "clm", 3, 0.1, "idle")]
    b = [condition("m", "clm", 5, 0.2, "collapses"), condition("z", "mlm", 3, 0.3, "persists")]
    rows = {row["condition"]["model"]: row for row in findings(pl.DataFrame(a), pl.DataFrame(b))}
    assert list(rows) == ["m", "k", "z"]
    assert rows["m"]["condition"] == {"model": "m", "objective": "clm"}
    assert rows["m"]["verdict"] == ["persists", "collapses"]
    assert (rows["m"]["n"], rows["m"]["slope_against"]) == ([3, 5], [0.5, 0.2])
    assert rows["k"]["verdict"] == ["idle", None]
    assert rows["z"]["verdict"] == [None, "persists"]


def varied(**setting):
    return [
        {"model": "m", "objective": "clm", **dict(zip(setting, values, strict=True)), **rest}
        for values, rest in zip(
            zip(*setting.values(), strict=True),
            (
                {"n": 3, "slope_against": 0.1 * k, "retained": 1.0, "verdict": "persists"}
                for k in (1, 2, 3, 4)
            ),
            strict=False,
        )
    ]


def test_what_one_side_varies_and_the_other_does_not_hides_no_condition():
    a = pl.DataFrame(varied(schedule=["constant", "linear"]))
    b = pl.DataFrame(varied(optimizer=["sgd", "adamw"]))
    rows = findings(a, b)
    assert [row["slope_against"] for row in rows] == [
        [0.1, None],
        [0.2, None],
        [None, 0.1],
        [None, 0.2],
    ]
    text = " ".join(finding_lines(("a", "b"), rows))
    assert "0 of 0 verdicts differ, 4 conditions in one alone" in text


def test_a_setting_that_all_runs_of_a_side_share_is_theirs():
    a = pl.DataFrame(varied(schedule=["constant", "linear"]))
    b = pl.DataFrame(varied(optimizer=["sgd", "adamw"]))
    runs_of_a = pl.DataFrame({"optimizer": ["adamw"] * 4, "schedule": ["constant", "linear"] * 2})
    runs_of_b = pl.DataFrame({"optimizer": ["sgd", "adamw"], "schedule": ["constant"] * 2})
    rows = findings(with_settings_of(a, b, runs_of_a), with_settings_of(b, a, runs_of_b))
    found = {
        (r["condition"]["schedule"], r["condition"]["optimizer"]): r["slope_against"] for r in rows
    }
    assert found == {
        ("constant", "adamw"): [0.1, 0.2],
        ("linear", "adamw"): [0.2, None],
        ("constant", "sgd"): [None, 0.1],
    }
