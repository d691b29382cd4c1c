"""What commands and the report show of runs that were scored on held-out examples."""

import csv
import io
import json
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from planted_store import evaluated, run_spec, save_sweep, write_run

from orchestrator.cli import cli
from orchestrator.studies import status
from sweeps.reading.tables import open_store
from sweeps.report.data import gather
from sweeps.report.page import render
from sweeps.store.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two arms of a classification, of which the second learned little and stopped."""
    place = str(tmp_path_factory.mktemp("evaluated") / "store")
    store = Store.at(place)
    runs = []
    for control, least in (("standard", 0.2), ("equal_step", 0.9)):
        for seed in (1, 2, 4):
            run = evaluated(run_spec("opt", "classification", control, seed, steps=20))

            def scores(step, least=least):
                return {"loss": 1 - (1 - least) * step / 20, "accuracy": 0.5 + step / 100}

            early = {"status": "stopped", "stop": 10} if control == "equal_step" else {}
            write_run(store, run, [0.1, 0.2, 0.3 + 0.01 * seed], scores=scores, **early)
            runs.append(run)
    save_sweep(store, "scored", runs)
    return place


def asked(*words):
    result = CliRunner().invoke(cli, list(words))
    assert result.exit_code == 0, result.output
    return result.output


def test_status_has_the_means_of_each_condition(store):
    lines = asked("status", "scored", "--store", store).splitlines()
    head = next(line for line in lines if line.startswith("model"))
    assert "held-out loss  accuracy" in head
    assert "stopped" in head
    of = {line.split()[2]: line.split()[-2:] for line in lines if line.startswith("opt ")}
    assert of == {"standard": ["0.2", "0.7"], "equal_step": ["0.95", "0.6"]}
    rows = json.loads(asked("status", "scored", "--store", store, "--json"))["scored"]
    assert rows[0]["evaluation"] == {"loss": pytest.approx(0.2), "accuracy": pytest.approx(0.7)}
    assert (
        status("scored", store)["evaluation_accuracy"].round(6).to_list() == [0.7] * 3 + [0.6] * 3
    )


def test_compare_has_both_arms_beside_the_verdict(store):
    page = asked("compare", "scored", "--store", store)
    assert max(map(len, page.splitlines())) <= 80
    assert "held-out examples, standard → equal_step" in page
    assert "0.2 → 0.95" in page
    assert "0.7 → 0.6" in page
    row = json.loads(asked("compare", "scored", "--store", store, "--json"))["conditions"][0]
    assert row["evaluation_loss_against"] == pytest.approx(0.2)
    assert row["evaluation_loss_control"] == pytest.approx(0.95)
    assert "evaluation_perplexity_control" not in row


def test_a_score_that_no_compared_run_has_takes_no_room(tmp_path):
    """Runs under another control have one of their own."""
    store = Store.at(str(tmp_path / "store"))
    runs = []
    for control in ("standard", "equal_step", "layer_clip"):
        for seed in (1, 2, 4):
            run = evaluated(run_spec("opt", "classification", control, seed))
            own = {"macro_f1": 0.25} if control == "layer_clip" else {}

            def scores(step, own=own):
                return {"loss": 1 - step / 40, "accuracy": 0.5, **own}

            write_run(store, run, [0.1, 0.2, 0.3 + 0.01 * seed], scores=scores)
            runs.append(run)
    save_sweep(store, "scored", runs)
    page = asked("compare", "scored", "--store", store.location)
    head, row = page.partition("held-out examples")[2].splitlines()[1:3]
    assert head.split()[-2:] == ["loss", "accuracy"]
    assert row.split()[-6:] == [*("0.5", "→", "0.5") * 2]
    assert "– → –" not in page
    other = asked("compare", "scored", "--store", store.location, "--control", "layer_clip")
    assert "– → 0.25" in other


def test_profiles_of_runs_have_their_scores(store):
    said = asked("profile", "scored", "--runs", "--export", "csv", "--store", store)
    rows = list(csv.DictReader(io.StringIO(said)))
    assert {row["status"] for row in rows} == {"finished", "stopped"}
    assert {(row["last_step"], row["evaluation_accuracy"]) for row in rows} == {
        ("20", "0.7"),
        ("10", "0.6"),
    }
    assert "evaluation_perplexity" not in rows[0]
    assert float(rows[0]["evaluation_loss_change"]) < 0


def test_the_report_has_them_where_there_are_any(store, tmp_path):
    def page_of(place, name):
        data = gather(open_store(place, sweep=name), name, "", "", None)
        return data, render(data, datetime(2026, 1, 2, tzinfo=UTC))

    data, page = page_of(store, "scored")
    assert '<th class="number">held-out loss</th>' in page
    ended = data.tables["learned"].filter(control="equal_step")
    assert ended["evaluation_loss"].item() == pytest.approx(0.95)
    curve = data.tables["evaluation_curves"].filter(control="standard")
    assert curve["step"].to_list()[0] == 0
    assert curve["n"].unique().to_list() == [3]
    plain = Store.at(str(tmp_path / "plain"))
    run = run_spec("opt", steps=4, probe_every=2)
    write_run(plain, run, [0.1, 0.2])
    save_sweep(plain, "plain", [run])
    assert "held-out loss</th>" not in page_of(tmp_path / "plain", "plain")[1]
