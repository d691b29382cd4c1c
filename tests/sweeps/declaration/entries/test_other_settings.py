"""A sweep with other settings than its file's: other runs, under a name that says so."""

import pytest
from own_sweep import EXAMPLES, own_sweep

from sweeps.declaration.expand import SweepFile, read_sweep
from sweeps.declaration.sweep_files import sweep_file_of
from sweeps.errors import UserError

FILE = """
name: study
models: {a: {standin: gpt2}, b: {standin: opt}}
objectives: {clm: {data: {builtin: python-docs}}}
probe: {data: {builtin: python-docs}, rows: 64, every: 10}
defaults: {steps: 40, batch_size: 8, sequence_length: 32, learning_rate: 1e-3, control: standard}
blocks:
  - name: rates
    grid: {model: [a, b], objective: [clm], seed: [0, 1], learning_rate: [1e-3, 1e-4]}
  - name: slow
    set: {steps: 80}
    grid: {model: [a], objective: [clm], seed: [7], batch_size: [4]}
    include: [{model: b, objective: clm, seed: 9, steps: 20}]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(FILE)
    return path


def changed(file, *said):
    return SweepFile.read(file).sweep(said)


def test_every_run_has_the_value_wherever_the_file_says_another(file):
    before, sweep = read_sweep(file), changed(file, "steps=30", "batch_size=2")
    assert {run.steps for run in before.runs} == {20, 40, 80}
    assert {(run.steps, run.batch_size) for run in sweep.runs} == {(30, 2)}
    assert len(sweep.runs) == len(before.runs)
    assert not {run.run_id for run in sweep.runs} & {run.run_id for run in before.runs}


def test_a_trial_shorter_than_the_way_to_the_first_probe_has_the_last_one(file):
    assert {run.probe_steps for run in changed(file, "steps=5").runs} == {(5,)}
    assert {run.probe_steps for run in changed(file, "steps=5", "probe.every=2").runs} == {
        (2, 4, 5)
    }
    with pytest.raises(UserError, match=r"probe.every 6 is beyond steps 5"):
        changed(file, "steps=5", "probe.every=6")


def test_it_is_another_sweep_by_name_and_says_what_is_other(file):
    sweep = changed(file, "weight_decay=0.1", "control={equal_step: {target: median}}")
    assert sweep.name == "study-control-equal_step-target-median-weight_decay-0.1"
    assert sweep.description.startswith("With control=")
    assert changed(file).name == "study"


def test_settings_of_the_probe_are_changed_by_their_full_name(file):
    sweep = changed(file, "steps=5", "probe.every=5", "probe.rows=128")
    assert {(run.probe.every, run.probe.rows) for run in sweep.runs} == {(5, 128)}


def test_what_a_block_varies_is_chosen_not_changed(file):
    with pytest.raises(UserError, match=r"'rates' varies it; choose .* --only learning_rate="):
        changed(file, "learning_rate=1e-2")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("stepz=3", "did you mean 'steps'"),
        ("probe.evry=3", "did you mean 'probe.every'"),
        ("steps=many", "valid integer"),
        ("steps=", "write name=value"),
        ("steps", "write name=value"),
        ("probe.every=0.5", "--set probe.every=0.5"),
        ("betas=[0.9", "malformed YAML"),
    ],
)
def test_a_wrong_word_is_answered_with_what_is_right(file, said, told):
    with pytest.raises(UserError, match="--set") as refused:
        changed(file, said)
    assert told in str(refused.value)


def test_what_a_plugin_of_the_sweep_brings_may_be_said(tmp_path):
    names = ("soft_clip", "adabelief", "neighbours")
    path = own_sweep(tmp_path, *(EXAMPLES / f"{name}.py" for name in names))
    said = ("control={soft_clip: {strength: 2}}", "optimizer=adabelief")
    (run,) = changed(path, *said, "probe.metrics=[neighbours_lost: {k: 3}]").runs
    assert (run.control.kind, run.control.options) == ("soft_clip", {"strength": 2.0})
    assert (run.optimizer.rule, run.optimizer.kept) == ("adabelief", 2)
    assert [(one.name, one.options) for one in run.probe.metrics] == [("neighbours_lost", {"k": 3})]
    with pytest.raises(UserError, match=r"--set optimizer=adabelif: .*did you mean 'adabelief'"):
        changed(path, "optimizer=adabelif")


def test_a_setting_given_twice_is_refused(file):
    with pytest.raises(UserError, match="given twice"):
        changed(file, "steps=3", "steps=4")


def test_a_name_is_that_of_a_sweep_that_comes_with_depthsweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_sweep("demo").name == "demo"
    (tmp_path / "demo").mkdir()
    assert read_sweep("demo").name == "demo"  # a folder is no sweep file
    (tmp_path / "demo").rmdir()
    (tmp_path / "demo").write_text(FILE)
    assert str(sweep_file_of("demo")) == "demo"  # a file that is there is meant
    with pytest.raises(UserError, match="did you mean 'replica'"):
        read_sweep("replika")
