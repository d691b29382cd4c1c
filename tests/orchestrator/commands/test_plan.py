"""``plan --gpus … --simulate``: the schedule of a sweep on GPUs that are not there."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli import cli
from sweeps.errors import UserError

PAPER = "sweeps/library/paper.yaml"


def plan(*arguments):
    result = CliRunner().invoke(cli, ["plan", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


@pytest.mark.parametrize("gpus", ["8x80", "64x80", "512x80"])
def test_the_paper_is_scheduled_near_its_lower_bound(gpus):
    simulated = json.loads(plan(PAPER, "--gpus", gpus, "--simulate", "--json"))["simulation"]
    assert 1 <= simulated["ratio"] <= 1.05
    assert len({row["run_id"] for row in simulated["schedule"]}) == 240
    assert simulated["makespan"] == max(row["ends"] for row in simulated["schedule"])
    assert simulated["measured_estimates"] == 0


def test_the_summary_fits_the_screen_and_says_where_estimates_come_from():
    text = plan(PAPER, "--gpus", "64x80/4", "--simulate")
    assert "simulated on 64 GPUs of 80 GiB, 4 a node: 240 runs" in text
    assert "0 from finished runs, 240 from FLOPs" in text
    assert all(len(line) <= 80 for line in text.split("simulated on")[1].splitlines())


def test_simulating_needs_gpus_and_drawing_a_simulation(tmp_path):
    with pytest.raises(UserError, match="--simulate needs the GPUs"):
        plan(PAPER, "--simulate")
    with pytest.raises(UserError, match="add --simulate"):
        plan(PAPER, "--gpus", "8x80", "--gantt", "x.html")
    missing = str(tmp_path / "no" / "x.html")
    with pytest.raises(UserError, match="cannot be written"):
        plan(PAPER, "--gpus", "8x80", "--simulate", "--gantt", missing)


def test_unequal_probe_rows_a_feature_are_said(tmp_path):
    text, length = Path(PAPER).read_text(encoding="utf-8"), "sequence_length: 128\n  every"
    assert length in text
    fixed = tmp_path / "fixed.yaml"
    fixed.write_text(text.replace(length, length.replace("every", "rows: 1024\n  every")))
    assert "probe rows are 0.25 to 1.3 a feature" in plan(str(fixed))
    assert "a feature" not in plan(PAPER)


def test_a_dataset_that_is_streamed_is_no_download(tmp_path):
    text, hub = Path(PAPER).read_text(encoding="utf-8"), "hub: nyu-mll/glue\n"
    streamed = tmp_path / "streamed.yaml"
    streamed.write_text(text.replace(hub, f"{hub}      limit: 5000\n      stream: true\n"))
    whole, said = plan(PAPER), plan(str(streamed))
    assert "3 datasets from the hub" in whole
    assert "streams" not in whole
    assert "2 datasets from the hub" in said
    assert "\n  streams    glue/sst2\n" in said
