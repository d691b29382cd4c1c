"""What is said of runs that ended before their sweep asked for their weights."""

from planted_store import run_spec, write_run

from orchestrator.ledger.kept_weights import without_weights
from orchestrator.ledger.recovery import decide, ledger
from sweeps.store.store import Store


def asking(run, keep):
    return run.model_copy(update={"execution": run.execution.model_copy(update={"keep": keep})})


def said(tmp_path, runs):
    store = Store(tmp_path)
    return without_weights("mine", decide(runs, ledger(store)), store)


def test_runs_that_ended_without_weights_are_named_and_others_are_not(tmp_path):
    store = Store(tmp_path)
    runs = [run_spec("opt", "mlm", seed=seed) for seed in range(6)]
    for run in runs[:5]:
        write_run(store, run, [0.3, 0.1])
    assert said(tmp_path, runs) is None
    asked = [asking(run, "final") for run in runs]
    assert said(tmp_path, asked[5:]) is None  # it is to run anyway
    text = said(tmp_path, [*asked[:1], *runs[1:]])
    assert text.startswith("1 run has ended without")
    assert f"resume mine --only ID --force` trains one again ({runs[0].run_id})" in text
    folder = store.run(runs[1].run_id).checkpoint_path(4, "a1-00000000")
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    text = said(tmp_path, asked)
    assert text.startswith("4 runs have")
    assert runs[1].run_id not in text
    assert text.endswith(", …)")
