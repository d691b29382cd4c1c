from sweeps.declaration.changes import compare_sweeps
from sweeps.declaration.expand import read_sweep

RUNS = read_sweep("sweeps/library/demo.yaml").runs


def test_the_same_sweep_has_not_changed():
    changes = compare_sweeps(RUNS, RUNS)
    assert (changes.same, changes.any) == (len(RUNS), False)


def test_a_changed_setting_is_listed_with_both_values_and_its_runs():
    new = [
        run.model_copy(update={"batch_size": 32}) if run.model.name == "tiny-pythia" else run
        for run in RUNS
    ]
    changes = compare_sweeps(RUNS, new)
    of_pythia = sum(run.model.name == "tiny-pythia" for run in RUNS)
    assert 0 < of_pythia < len(RUNS)
    assert (changes.same, changes.changed) == (len(RUNS) - of_pythia, of_pythia)
    assert (changes.added, changes.gone) == (0, ())
    assert changes.fields == {"batch_size": (16, 32, of_pythia)}


def test_runs_come_and_go():
    changes = compare_sweeps(RUNS[:-4], RUNS[4:])
    assert (changes.same, changes.changed, changes.added) == (len(RUNS) - 8, 0, 4)
    assert {run.run_id for run in changes.gone} == {run.run_id for run in RUNS[:4]}
