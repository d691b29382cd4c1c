"""``--track`` and ``export`` as words of the command line, and on their way to a cluster."""

import json

import pytest
import yaml
from click.testing import CliRunner
from planted_store import run_spec, save_sweep, write_run
from shown_runs import by_run, in_tensorboard

from cluster.library import read_profile
from cluster.render import render
from orchestrator import sweep_submit
from orchestrator.cli import cli
from orchestrator.jobs import submission
from orchestrator.jobs.ray_jobs import JobsApiClient
from orchestrator.jobs.submission import READY, Request, job_of, submit
from orchestrator.tracking.feed import TrackerFailed
from sweeps.declaration.expand import SweepFile, read_sweep
from sweeps.errors import UserError
from sweeps.store.store import Store

SWEEP = """
name: sent
models: {a: {standin: bert, layers: 2, width: 32, vocabulary: 300}}
objectives: {mlm: {data: {builtin: python-docs}}}
probe: {data: {builtin: python-docs}, rows: 40, sequence_length: 20}
track: {tensorboard: {folder: events}}
blocks:
  - name: all
    set: {steps: 5, batch_size: 2, sequence_length: 12, learning_rate: 0.01}
    grid: {model: [a], objective: [mlm], control: [equal_step], seed: [4]}
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "sent.yaml").write_text(SWEEP, encoding="utf-8")
    return tmp_path / "sent.yaml"


def call(*words):
    return CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)


def test_a_tracker_that_cannot_be_is_refused_before_anything_is_started(file, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store = file.parent / "store"
    with pytest.raises(UserError, match="set MLFLOW_TRACKING_URI"):
        call("run", file, "--store", store, "--track", "mlflow")
    assert not (store / "runs").exists()
    assert not list(store.glob("sweeps/sent/**/resolved.json"))


def test_an_unknown_tracker_is_answered_with_those_there_are(file):
    shown = call("run", file, "--track", "notebook")
    assert shown.exit_code == 2
    assert all(kind in shown.output for kind in ("wandb", "mlflow", "tensorboard"))


@pytest.mark.parametrize("command", ["submit", "resume"])
def test_what_is_said_to_submit_is_told_to_the_driver(command, file, monkeypatch):
    requests = []
    monkeypatch.setattr(sweep_submit, "submit_sweep", lambda request, *_: requests.append(request))
    store = Store.at(str(file.parent / "store"))
    store.save_sweep(read_sweep(file))
    what = file if command == "submit" else "sent"
    tracks = ("--track", "wandb", "--track", "mlflow")
    call(command, what, "--cluster", "local", "--store", store.location, *tracks)
    assert requests[0].options == tracks


def test_the_driver_of_a_ray_job_is_told(file, monkeypatch):
    class Taking(JobsApiClient):
        def __init__(self):
            self.entrypoints = []

        def jobs(self):
            return []

        def log(self, _):
            return READY

        def submit(self, submission_id, entrypoint, *_):
            self.entrypoints.append((submission_id, entrypoint))
            return True

    queue = Taking()
    monkeypatch.setattr(submission, "queue_of", lambda *_: queue)
    store = str(file.parent / "store")
    options = ("--track", "mlflow")
    profile = read_profile("local")
    sweep = read_sweep(file)
    sent = SweepFile.read(file)
    submit(Request(sweep, sent, ["run", file.name], store, "local", profile, options), print)
    ((_, entrypoint),) = queue.entrypoints
    assert f"run {file.name} --track mlflow --address auto --store {store}" in entrypoint


@pytest.mark.parametrize("kind", ["slurm", "kuberay"])
def test_the_driver_of_a_batch_cluster_is_told(kind, file):
    job = job_of(file, read_sweep(file), "s3://bucket/x", 1, ("--track", "wandb"))
    text = render(read_profile(kind), job)
    (line,) = (line for line in text.splitlines() if "depthsweep run" in line)
    assert "--track wandb" in line
    if kind == "kuberay":
        assert list(yaml.safe_load_all(text))


def test_export_takes_a_name_and_the_options_that_the_store_has_of_it(tmp_path):
    store = Store.at(str(tmp_path / "store"))
    run = run_spec("opt", "clm", seed=8, steps=4, probe_every=2, part_steps=2)
    write_run(store, run, [0.2, 0.1])
    save_sweep(store, "named", [run])
    record = store.version("named").folder / "resolved.json"
    resolved = json.loads(record.read_text())
    record.write_text(json.dumps({**resolved, "track": {"tensorboard": {"folder": "events"}}}))
    words = ("export", "named", "--to", "tensorboard", "--store", store.location)
    assert call(*words).output == "named: 1 run to tensorboard\n"
    assert call(*words).output == "named: 0 runs, 1 there already to tensorboard\n"
    (shown,) = by_run(in_tensorboard(store.root / "events" / "named")).values()
    assert [step for step, _ in shown.losses] == [1, 2, 3, 4]


def test_export_says_what_the_tracker_said_and_that_it_can_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    store = Store.at(str(tmp_path / "store"))
    run = run_spec(steps=4, probe_every=2, part_steps=2)
    write_run(store, run, [0.2, 0.1])
    save_sweep(store, "away", [run])
    with pytest.raises(TrackerFailed, match="the same export goes on"):
        call("export", "away", "--to", "mlflow", "--store", store.location)
