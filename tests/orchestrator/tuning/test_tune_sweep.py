"""Sweeps as Tune carries them out on a Ray of this machine: one row a run, whatever happens."""

import os
import signal
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import ray

from orchestrator.connection.nodes import local_ray, own_nodes
from orchestrator.ledger.sweep_account import Limits
from orchestrator.policy.next_start import Waiting
from orchestrator.policy.occupancy import Demand
from orchestrator.sizing.placement import place
from orchestrator.tuning.admission import Admission
from orchestrator.tuning.cluster_view import OwnCluster
from orchestrator.tuning.hearing import Hearing
from orchestrator.tuning.request import Request, request_of
from orchestrator.tuning.trainable import RunTrainable
from orchestrator.tuning.tune_sweep import run_all, trial_name


def environment():
    """What there is for processes, but for what pytest and an import of polars set."""
    others = {"PYTEST_CURRENT_TEST", "_RJEM_MALLOC_CONF"}
    return {name: value for name, value in os.environ.items() if name not in others}


@pytest.fixture(scope="module", autouse=True)
def a_ray():
    patch = pytest.MonkeyPatch()
    patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with local_ray(3):
        before = environment()
        yield
        assert environment() == before
    patch.undo()


class Given:
    """Requests as a test gives them."""

    def __init__(self, requests):
        self._by_id = {request.run_id: request for request in requests}
        self.placement = None

    def __getitem__(self, run_id):
        return self._by_id[run_id]

    def fit(self, here, to_come=()):
        del to_come
        self.placement = place(here)
        waiting = (Waiting(one.run_id, Demand(gpus=one.ranks), 9.0) for one in self._by_id.values())
        return {one.run_id: one for one in waiting}

    def taught(self, request):
        return request

    def with_less_memory(self, request):
        del request


class Sweep:
    """A sweep that is carried out, and what was heard of it."""

    def __init__(
        self, requests, reuse=False, limits=None, hears=lambda _: None, trainable=RunTrainable
    ):
        self.events = []
        self.passed = 0.0  # seconds that the clock is ahead
        self._hears = hears
        cluster = OwnCluster(own_nodes, None)
        given = Given(requests)
        admission = Admission(
            given,
            given.fit(cluster.look().nodes),
            cluster,
            limits or Limits(),
            Hearing(self._note),
            lambda run_id: {"model": "m/x", "seed": int(run_id, 16)},
            clock=lambda: time.monotonic() + self.passed,
        )
        self.grid = run_all(trainable, admission, reuse)
        self.stopped = admission.stopped

    def _note(self, event):
        self.events.append((event.run_id, event.kind))
        self.passed += self._hears(event) or 0.0

    def kinds(self, run_id):
        """How often what happened to a run, but for how far it was."""
        found = Counter(kind for run, kind in self.events if run == run_id)
        del found["progress"]
        return found

    @property
    def rows(self):
        """The status of each run by its id, as in Tune's results, of which each has one."""
        found = [(row.config["run_id"], row.metrics.get("status")) for row in self.grid]
        assert len(dict(found)) == len(found)
        return dict(found)


def request(number, folder, body="fail_at_first", ranks=1, fresh=False, **details):
    details = {"file": str(folder / str(number)), "folder": str(folder), "tries": [], **details}
    return Request(
        f"{number:012x}",
        "",
        str(folder / "store"),
        {"CPU": 1.0},
        body=f"tests.rank_bodies:{body}",
        details=details,
        ranks=ranks,
        fresh=fresh,
    )


@pytest.mark.parametrize("reuse", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_every_run_is_one_row_however_often_it_was_tried(tmp_path, reuse):
    tries = {
        0: [],
        1: ["preempted"],
        2: ["RuntimeError: one", "RuntimeError: two"],
        3: ["UserError: no such column"],
        4: ["StoreUnavailable: no space", "die"],
    }
    requests = [request(number, tmp_path, tries=said) for number, said in tries.items()]
    gang = request(5, tmp_path, "sleep", ranks=2, fresh=True, seconds=0.0)
    sweep = Sweep([*requests, gang], reuse)
    ids = [one.run_id for one in [*requests, gang]]
    failed = {ids[2], ids[3]}
    assert sweep.rows == {one: "failed" if one in failed else "finished" for one in ids}
    assert [sweep.kinds(one) for one in ids] == [
        {"started": 1, "ended": 1},
        {"started": 2, "preempted": 1, "ended": 1},
        {"started": 2, "again": 1, "ended": 1},
        {"started": 1, "ended": 1},
        {"started": 3, "again": 1, "lost": 1, "ended": 1},
        {"started": 1, "ended": 1},
    ]
    rows = {row.config["run_id"]: row for row in sweep.grid}
    assert (rows[ids[2]].config["model"], rows[ids[2]].config["seed"]) == ("m/x", 2)
    assert rows[ids[2]].metrics["error"] == "RuntimeError: two"
    assert rows[ids[4]].metrics["loss"] == 0.25
    assert all(row.metrics["run_id"] == run_id for run_id, row in rows.items())
    processes = len({row.metrics["pid"] for row in sweep.grid})
    assert processes < len(ids) if reuse else processes == len(ids)
    assert sweep.grid.num_errors == 0


def killing(folder, run_id, times):
    """Return what kills the process of a run's trial so often, and lets the run end then."""
    killed = []

    def hears(event):
        if event.run_id != run_id or event.kind != "progress":
            return
        pid = event.report.get("pid")
        if len(killed) < times and pid not in killed and event.report["step"]:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)
        elif len(killed) == times and pid not in killed:
            (folder / "gate").touch()

    return hears


def test_a_run_whose_trial_is_killed_starts_again_and_keeps_its_row(tmp_path):
    waits = request(1, tmp_path, "wait_for_file", file=str(tmp_path / "gate"))
    sweep = Sweep([waits, request(2, tmp_path)], hears=killing(tmp_path, waits.run_id, 1))
    assert sweep.rows == {waits.run_id: "finished", f"{2:012x}": "finished"}
    assert sweep.kinds(waits.run_id) == {"started": 2, "lost": 1, "ended": 1}


class FreezesOnce(RunTrainable):
    """A trial whose first process is frozen before it says anything."""

    def setup(self, config):
        named = request_of(config).details.get("freezes")
        if named and not Path(named).exists():
            Path(named).write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        super().setup(config)


def test_a_trial_that_is_frozen_before_its_first_report_is_ended_and_its_run_starts_again(tmp_path):
    gate, frozen = tmp_path / "gate", tmp_path / "frozen"
    waits = request(1, tmp_path, "wait_for_file", file=str(gate))
    freezes = request(2, tmp_path, freezes=str(frozen))

    def hears(event):
        if (event.run_id, event.kind) == (freezes.run_id, "started"):
            gate.touch()
        return 400.0 if frozen.exists() and not gate.exists() else 0.0

    sweep = Sweep([waits, freezes], hears=hears, trainable=FreezesOnce)
    assert sweep.kinds(freezes.run_id) == {"started": 1, "lost": 1, "ended": 1}
    assert sweep.rows == {waits.run_id: "finished", freezes.run_id: "finished"}
    assert not psutil.pid_exists(int(frozen.read_text()))


@pytest.mark.slow
def test_processes_serve_one_run_after_another_that_holds_the_same_where_that_is_wanted(tmp_path):
    """Of one rank and of two, in processes that are kept for the next run and in fresh ones."""
    shapes = [(1, False), (2, False), (1, False), (1, True), (2, False), (1, False), (1, True)]
    requests = [
        request(number, tmp_path, ranks=ranks, fresh=fresh)
        for number, (ranks, fresh) in enumerate(shapes)
    ]
    sweep = Sweep(requests, reuse=True)
    assert set(sweep.rows.values()) == {"finished"}
    assert len(sweep.rows) == len(shapes)
    assert len({row.metrics["pid"] for row in sweep.grid}) < len(shapes)
    assert nothing_is_held()


def nothing_is_held():
    """Whether a sweep that has ended left the CPUs, after a while."""
    until = time.monotonic() + 20
    while (free := ray.available_resources().get("CPU")) != 3 and time.monotonic() < until:
        time.sleep(0.1)
    return free == 3


def test_a_sweep_that_stops_ends_its_runs_with_a_checkpoint_and_starts_no_others(tmp_path):
    requests = [request(number, tmp_path, "write_why_it_stops") for number in range(5)]
    sweep = Sweep(
        requests,
        limits=Limits(most=1, seconds=3600),
        hears=lambda event: 4000.0 if event.report.get("step") else 0.0,
    )
    assert sweep.stopped == "the time budget is used up"
    assert (tmp_path / "why").read_text() == "cancelled"
    assert sum(kind == "started" for _, kind in sweep.events) == 1
    assert nothing_is_held()


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (
            {
                "run_id": "0a",
                "model": "org/m",
                "objective": "clm",
                "control": "standard",
                "seed": 0,
            },
            "0a_org-m_clm_standard_0",
        ),
        ({"run_id": "0b", "model": "m", "learning_rate": 1e-3}, "0b_m"),
        ({"run_id": "0c", "measurement": "distance"}, "0c"),
    ],
)
def test_a_trials_name_says_which_run_it_is(config, name):
    assert trial_name(SimpleNamespace(config=config)) == name


def test_a_sweep_whose_time_is_up_before_anything_has_started_ends(tmp_path):
    sweep = Sweep([request(1, tmp_path)], limits=Limits(seconds=1e-9))
    assert (len(sweep.grid), sweep.events) == (0, [])
    assert sweep.stopped == "the time budget is used up"
