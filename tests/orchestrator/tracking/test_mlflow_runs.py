"""What a lost answer of an MLflow server leaves, mended."""

import pytest
from mlflow.tracking import MlflowClient
from planted_store import run_spec, save_sweep, write_run
from shown_runs import by_run, in_mlflow

from orchestrator.tracking.feed import export
from orchestrator.tracking.mlflow_runs import MlflowRuns
from sweeps.store.store import Store

# Each file starts a server of its own, and that of test_feed has a driver killed while it tells.
pytestmark = pytest.mark.slow


@pytest.fixture
def sweep(tmp_path):
    store = Store.at(str(tmp_path))
    run = run_spec("opt", seed=4, steps=300, probe_every=100, part_steps=100)
    write_run(store, run, [0.2, 0.3])
    return save_sweep(store, tmp_path.name, [run]), store


def answers_lost(monkeypatch, method, times=1):
    """Have a request carried out and its answer lost, as a connection that breaks does."""
    left = [times]
    real = getattr(MlflowClient, method)

    def lossy(self, *words, **named):
        answer = real(self, *words, **named)
        if left[0]:
            left[0] -= 1
            raise ConnectionError("the answer is lost")
        return answer

    monkeypatch.setattr(MlflowClient, method, lossy)


@pytest.mark.parametrize("method", ["create_run", "log_batch", "set_terminated", "set_tag"])
def test_a_request_whose_answer_was_lost_doubles_nothing(method, mlflow_uri, sweep, monkeypatch):
    tracker = MlflowRuns(mlflow_uri, sweep[0].name, {}, sweep[0].name)
    answers_lost(monkeypatch, method)
    with pytest.raises(Exception, match="the answer is lost"):
        export(tracker, *sweep)
    export(tracker, *sweep)
    (run,) = by_run(in_mlflow(mlflow_uri, sweep[0].name)).values()
    assert [step for step, _ in run.losses] == list(range(1, 301))
    assert (run.status, run.table_rows) == ("finished", 3 * 3)


def test_two_runs_of_one_key_become_one(mlflow_uri, sweep):
    tracker = MlflowRuns(mlflow_uri, sweep[0].name, {}, sweep[0].name)
    export(tracker, *sweep)
    client = MlflowClient(mlflow_uri)
    experiment = client.get_experiment_by_name(sweep[0].name).experiment_id
    (run,) = client.search_runs([experiment])
    client.delete_tag(run.info.run_id, "depthsweep.status")
    client.create_run(experiment, tags={"depthsweep.key": run.data.tags["depthsweep.key"]})
    export(tracker, *sweep)
    assert [one.info.run_id for one in client.search_runs([experiment])] == [run.info.run_id]


def test_rows_sent_again_after_all_are_the_same_rows(mlflow_uri, sweep):
    tracker = MlflowRuns(mlflow_uri, sweep[0].name, {}, sweep[0].name)
    export(tracker, *sweep)
    client = MlflowClient(mlflow_uri)
    (run,) = client.search_runs([client.get_experiment_by_name(sweep[0].name).experiment_id])
    before = client.get_metric_history(run.info.run_id, "loss")
    client.log_batch(run.info.run_id, metrics=before)  # a request that came late
    assert len(client.get_metric_history(run.info.run_id, "loss")) == len(before) == 300
