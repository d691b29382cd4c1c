"""W&B online, of which a stand-in shows what the client is asked; offline see test_feed."""

from types import SimpleNamespace

import pytest
import wandb
from planted_store import run_spec, save_sweep, write_run

from orchestrator.tracking.feed import Feed, export
from orchestrator.tracking.wandb_runs import WandbRuns
from sweeps.store.store import Store


class Server:
    """The runs of a project, as the client's ``init`` finds them again by their id."""

    def __init__(self):
        self.runs, self.asked, self.open = {}, [], set()

    def init(self, **asked):
        self.asked.append(asked)
        key = asked["id"]
        assert key not in self.open, "the client opens no run twice"
        self.open.add(key)
        run = self.runs.setdefault(key, SimpleNamespace(id=key, rows=[], summary={}))
        run.starting_step = run.rows[-1][0] + 1 if run.rows else 0
        run.finish = lambda **_: self.open.discard(key)

        def log(row, step, commit):
            assert commit, "a row that waits for the next one is not shown yet"
            assert not run.rows or step > run.rows[-1][0], "W&B drops a step that it has"
            run.rows.append((step, row))

        run.log = log
        return run

    def Api(self, timeout):
        assert timeout < 60
        return SimpleNamespace(runs=lambda *_, **__: list(self.runs.values()))


@pytest.fixture
def server(monkeypatch):
    server = Server()
    monkeypatch.setattr(wandb, "init", server.init)
    monkeypatch.setattr(wandb, "Api", server.Api)
    return server


@pytest.fixture
def sweep(tmp_path):
    store = Store.at(str(tmp_path))
    runs = [run_spec("opt", seed=seed, steps=6, probe_every=3, part_steps=3) for seed in (1, 2)]
    for run in runs:
        write_run(store, run, [0.2, 0.3])
    return save_sweep(store, "online", runs), store


def test_a_run_goes_on_after_the_steps_that_the_server_has(server, sweep):
    asked, store = sweep
    tracker = WandbRuns("depth", "us", ["pilot"], "online", None)
    export(tracker, asked, store)
    for run in server.runs.values():
        del run.rows[4:], run.summary["status"]
    export(tracker, asked, store)
    for run in server.runs.values():
        assert [step for step, _ in run.rows] == [1, 2, 3, 4, 5, 6]
        assert run.summary["status"] == "finished"
    assert not server.open


def test_runs_that_the_server_has_whole_are_not_opened(server, sweep):
    tracker = WandbRuns("depth", None, [], "online", None)
    export(tracker, *sweep)
    server.asked.clear()
    assert str(export(tracker, *sweep)) == "0 runs, 2 there already"
    assert server.asked == []


def test_a_run_has_its_name_group_and_tags_and_nothing_of_the_driver(server, sweep):
    export(WandbRuns("depth", "us", ["pilot"], "online", None), *sweep)
    asked = server.asked[0]
    run = sweep[0].runs[0]
    assert (asked["project"], asked["entity"], asked["group"]) == ("depth", "us", "online")
    assert asked["name"] == f"{run.run_id} opt clm standard seed 1"
    assert asked["tags"] == ["pilot", "opt", "clm", "standard"]
    assert (asked["resume"], asked["reinit"]) == ("allow", "create_new")
    settings = asked["settings"]
    assert settings.console == "off"
    assert settings.x_disable_meta
    assert settings.disable_git


def test_a_run_that_could_not_be_told_is_let_go_of_and_told_later(server, sweep, monkeypatch):
    asked, store = sweep
    feed = Feed(WandbRuns("depth", None, [], "online", None), asked, store)
    run_id = asked.runs[0].run_id
    with monkeypatch.context() as broken:
        broken.setattr(wandb, "Table", lambda **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            feed.bring(run_id, store, None)
    assert not server.open
    assert feed.bring(run_id, store, None)
    (run,) = server.runs.values()
    assert [step for step, _ in run.rows] == [1, 2, 3, 4, 5, 6]
