"""``python -m tests.gpu`` where there is no GPU: the same checks, in little, on the CPU."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from orchestrator.ranks import rank_starter
from sweeps.sources.catalog import CATALOG
from sweeps.store.store import Store
from tests.gpu.__main__ import Result, Running, follow, may_begin, table_lines, write
from tests.gpu.catalogue import BEYOND, paper_run
from tests.gpu.checks import CHECKS, Check, Place, Seen, chosen, skipped
from tests.gpu.device import GIB
from tests.gpu.forked import Trial, reach
from tests.gpu.sizes import has_its_shape
from tests.orchestrator.sizing.test_memory import MEASURED, planned

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "name",
    [
        name if place % 5 == 0 else pytest.param(name, marks=pytest.mark.slow)
        for place, name in enumerate([*CATALOG, *BEYOND])
    ],
)
def test_a_model_of_random_weights_has_the_size_of_the_published_one(name):
    assert has_its_shape(name)
    assert paper_run(name).model.name == name


def test_all_checks_together_fit_into_twenty_minutes_and_have_a_body_each():
    assert sum(check.expects for check in CHECKS) < 20 * 60
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(check.expects < check.limit for check in CHECKS)


def test_checks_are_chosen_by_the_beginning_of_a_name_in_the_order_of_their_worth():
    assert [check.name for check in chosen("hung,parity-g,forked")] == [
        *("forked", "parity-gpt2", "hung"),
    ]
    assert chosen(None) == CHECKS
    with pytest.raises(ValueError, match="no such check; there are environment, forked"):
        chosen("forked,gpu")


def test_lines_of_the_table_are_80_columns_wide_and_say_how_it_was():
    long = "one way and another " * 9 + "w" * 90
    for seen, word in [(Seen(long), "ok"), (Seen(long, False), "FAILED"), (Seen(long, None), "")]:
        lines = table_lines("parity-mamba", seen)
        assert max(map(len, lines)) <= 80
        assert lines[0].endswith(word)
    assert table_lines("hung", skipped("needs a GPU"))[0].endswith("skipped")


def test_what_measures_time_has_the_machine_to_itself(tmp_path):
    timed, other = Check("t", "b", 1, 2, alone=True), Check("o", "b", 1, 2)
    running = [a_process(tmp_path, "pass", other)]
    assert may_begin(other, running, 2)
    assert not may_begin(other, running, 1)
    assert not may_begin(timed, running, 2)
    assert not may_begin(other, [a_process(tmp_path, "pass", timed)], 2)
    assert may_begin(timed, [], 1)


def a_process(folder, code, check=None, seconds=60.0):
    """A check in a process that leaves one line, then does what ``code`` says."""
    line = json.dumps({"text": "so far", "ok": True, "figures": {}})
    (folder / "seen").write_text(line + "\n" + '{"text": "half a li')
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    check = check or Check("crash", "b", 1, 2)
    now = time.monotonic()
    return Running(check, process, folder, now, now + seconds, Result(check.name))


@pytest.mark.parametrize(
    ("code", "seconds", "said"),
    [
        ("import sys; sys.exit('CUDA error: an illegal access')", 60, "an illegal access"),
        ("import os; os.abort()", 60, "exit code -6"),
        ("import time; print('waits', flush=True); time.sleep(99)", 0.5, "ended by its limit"),
    ],
)
def test_a_check_that_crashes_or_hangs_is_ended_and_keeps_what_it_said(
    code, seconds, said, tmp_path, capsys
):
    running = a_process(tmp_path, code, seconds=seconds)
    until = time.monotonic() + 30
    while not follow(running) and time.monotonic() < until:
        time.sleep(0.05)
    assert running.process.wait(10) != 0
    assert running.result.seen[0] == Seen("so far")
    assert running.result.failed
    assert said in " ".join(running.result.seen[-1].text.split())
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.slow
def test_a_check_leaves_the_ranks_of_one_beside_it_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_starter, "HOLD_SECONDS", 0.5)
    ranks = []
    for name in ("one", "other"):
        trial = Trial(Place(torch.device("cuda", 0), tmp_path / name))
        store = Store(tmp_path / name / "store")
        ranks.append(trial.begin("", store, body="tests.gpu.forked:never_end"))
        reach(ranks[-1], 1)
    try:
        reach(ranks[0], 20)
        assert [rank.ended for rank in ranks] == [None, None]
    finally:
        for rank in ranks:
            rank.close()


def test_the_json_has_every_line_and_is_whole(tmp_path):
    result = Result("hung", [Seen("found", figures={"seconds": 1.5}), skipped("no time")], 2.0)
    write(tmp_path / "kept.json", {"device": "one"}, [result])
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert kept["device"] == "one"
    assert [seen["ok"] for seen in kept["checks"][0]["seen"]] == [True, None]
    assert [path.name for path in tmp_path.iterdir()] == ["kept.json"]


def test_the_page_shows_what_was_measured_and_what_is_planned_now():
    page = Path(__file__).with_name("README.md").read_text()
    assert len(page.splitlines()) <= 80
    assert f"{MEASURED['device']} ({MEASURED['total_memory_gib']} GiB)" in page
    for entry in MEASURED["models"]:
        figures = (entry["allocated"], entry["used"], planned(entry).total)
        shown = " | ".join(f"{size / GIB:.1f}" for size in figures)
        assert re.search(rf"{entry['model']}( \([^|]*\))? \| {shown} \|", page), entry["model"]


@pytest.mark.parametrize(
    "names",
    [
        "speed-410m,parity-gpt2",
        pytest.param("speed,forked,out-of-memory,probes,hung", marks=pytest.mark.slow),
    ],
)
def test_without_a_gpu_the_checks_run_in_little_and_say_so(names, tmp_path):
    shown = subprocess.run(
        [
            *(sys.executable, "-m", "tests.gpu", "--only", names),
            *("--json", str(tmp_path / "kept.json"), "--at-once", "3"),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
        timeout=1200,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "No GPU is here" in shown.stdout.splitlines()[0]
    assert "needs a GPU" in shown.stdout
    kept = {
        c["name"]: c["seen"] for c in json.loads((tmp_path / "kept.json").read_text())["checks"]
    }
    assert set(kept) == {check.name for check in chosen(names)}
    done = {name for name in kept if "needs a GPU" not in kept[name][0]["text"]}
    assert done == set(kept) - {"speed-410m", "speed-1.4b"}
