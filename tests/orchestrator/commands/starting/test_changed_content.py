"""A sweep whose data was edited: no command starts a run of it."""

import json

import pytest
from click.testing import CliRunner
from small_run import make_run

from orchestrator.cli import cli
from sweeps.declaration.expand import read_sweep
from sweeps.sources.content import data_digest
from sweeps.spec import FileData, Objective, Probe
from sweeps.store.store import Store
from workers import __main__ as worker

SWEEP = """
name: s
models: {tiny: {standin: gpt2}}
objectives: {clm: {data: {file: rows.txt}}}
probe: {data: {file: probe.txt}, sequence_length: 16}
defaults: {steps: 4, batch_size: 4, sequence_length: 16, learning_rate: 1.0e-3}
blocks: [{name: all, grid: {model: [tiny], objective: [clm], control: [standard], seed: [0, 1]}}]
"""


@pytest.fixture
def study(tmp_path):
    for name in ("rows.txt", "probe.txt"):
        (tmp_path / name).write_text("words of a text\n" * 400)
    (tmp_path / "s.yaml").write_text(SWEEP)
    Store(tmp_path / "store").save_sweep(read_sweep(tmp_path / "s.yaml"))
    return tmp_path


@pytest.mark.parametrize("name", ["rows.txt", "probe.txt"])
@pytest.mark.parametrize("on", [[], ["--cluster", "local"]], ids=["here", "on a cluster"])
def test_resume_refuses_before_it_starts_anything(study, name, on):
    (study / name).write_text("other words here\n" * 400)
    ended = CliRunner().invoke(
        cli, ["resume", "s", "--store", str(study / "store"), *on], standalone_mode=False
    )
    said = str(ended.exception)
    assert str(study / name) in said
    assert "has other content than the run was declared with" in said
    assert not (study / "store" / "runs").exists()


def test_doctor_says_so_and_cannot_mend_it(study):
    doctor = ["doctor", "--store", str(study / "store")]
    assert CliRunner().invoke(cli, doctor, standalone_mode=False).return_value == 0
    (study / "rows.txt").write_text("other words here\n" * 400)
    for more in ([], ["--fix"]):
        ended = CliRunner().invoke(cli, [*doctor, *more], standalone_mode=False)
        assert ended.return_value == 1
        assert f"{study / 'rows.txt'} has other content" in " ".join(ended.output.split())


@pytest.mark.parametrize("changed", ["rows.txt", "probe.txt"])
def test_a_worker_refuses_with_exit_code_2(study, changed, monkeypatch, capsys):
    rows, probe = (
        FileData(file=str(study / name), digest=data_digest([study / name]))
        for name in ("rows.txt", "probe.txt")
    )
    run = make_run(
        objective=Objective(kind="clm", data=rows),
        probe=Probe(data=probe, rows=32, sequence_length=16),
    )
    (study / "run.json").write_text(json.dumps({"spec": run.model_dump(mode="json")}))
    (study / changed).write_text("other words here\n" * 400)
    monkeypatch.setattr(
        "sys.argv", ["workers", str(study / "run.json"), "--store", str(study / "store")]
    )
    assert worker.main() == 2
    said = capsys.readouterr().err
    assert f"{study / changed} has other content" in said
    assert said.count("\n") == 1
