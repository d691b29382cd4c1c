"""A sweep under ``Admission`` on a simulated cluster, and Tune's loop around it, without either."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.ledger.sweep_account import NO_LIMITS, Limits
from orchestrator.policy.next_start import Waiting
from orchestrator.policy.occupancy import UNITS
from orchestrator.sizing.placement import Placement
from orchestrator.tuning.admission import START_SECONDS, Admission
from orchestrator.tuning.cluster_view import View
from orchestrator.tuning.hearing import Hearing
from orchestrator.tuning.request import Request, request_of
from tests.simulated.cluster import Asked, SimulatedRay


@dataclass(frozen=True)
class Fate:
    """What becomes of one try of a run: how it goes on and after how many seconds, of which it
    reports steps unless it is ``mute``. ``what``: finished, failed, preempted, gone (its process),
    or what a report says that asks for another try (error, lost, memory, store, mistake, node)."""

    what: str
    seconds: float
    text: str = ""
    mute: bool = False


@dataclass(eq=False)
class Trial:
    sweep: SimulatedSweep
    run: Waiting
    state: str = "pending"  # running, paused, over
    tries: int = 0
    starts: int = 0
    asked: Asked | None = None
    done: float = 0.0


class PlainRequests:
    """Requests of runs as they wait, on nodes with a CPU beside each GPU."""

    def __init__(self, runs: Sequence[Waiting], largest: int) -> None:
        self.placement = Placement(True, 1)
        self._by_id = {
            run.run_id: Request(
                run.run_id,
                "",
                "",
                self.placement.holds(run.demand.units / UNITS),
                body="tests.rank_bodies:sleep",
                ranks=run.demand.gpus,
                spread=run.demand.gpus > largest,
            )
            for run in runs
        }

    def __getitem__(self, run_id: str) -> Request:
        return self._by_id[run_id]

    def fit(self, here: object, to_come: object) -> None:
        del here, to_come

    def taught(self, request: Request) -> Request:
        return request

    def with_less_memory(self, request: Request) -> None:
        del request


class SimulatedSweep:
    """A sweep under ``Admission``. ``fate`` says what becomes of a try: it is given the run, the
    nodes it is on, and which try of it this is; every run finishes where it is left out."""

    def __init__(
        self,
        ray: SimulatedRay,
        runs: Sequence[Waiting],
        fate: Callable[[Waiting, tuple[str, ...], int], Fate | None] = lambda *_: None,
        limits: Limits = NO_LIMITS,
        largest: int = 8,
        requests: PlainRequests | None = None,
        weighs: bool = False,
        start_seconds: float = START_SECONDS,
        report_seconds: float = 5.0,
    ) -> None:
        self.ray, self._fate = ray, fate
        self.group = f"sweep {len(ray.sweeps)}"
        self.runs = {run.run_id: run for run in runs}
        self.trials: dict[str, Trial] = {}
        self.events: list[tuple[float, str, str, dict[str, object]]] = []
        self.notices: list[str] = []
        self.touched: dict[str, list[str]] = defaultdict(list)  # node, runs
        self.tries: list[tuple[float, str, tuple[str, ...]]] = []
        self.away: str | None = None
        self.most_held, self.most_side_by_side = 0.0, 0
        self._start_seconds, self._report_seconds = start_seconds, report_seconds
        self.admission = Admission(
            requests or PlainRequests(runs, largest),  # type: ignore[arg-type]
            self.runs,
            self,
            limits,
            Hearing(
                lambda e: self.events.append((ray.now, e.run_id, e.kind, e.report)),
                self.notices.append,
            ),
            store_away=lambda: self.away,
            clock=lambda: ray.now,
        )
        if not weighs:
            self.admission.books.weigh = lambda _: None  # type: ignore[method-assign]
        ray.sweeps.append(self)

    def look(self) -> View:
        return self.ray.view(self)

    def doubt(self, node: str, why: str) -> None:
        self.ray.broken[node] = why

    def leaving(self, groups: Collection[str]) -> set[str]:
        return self.ray.leaving & set(groups)

    # -------------------------------------------------------------------------------- Tune's loop
    @property
    def over(self) -> bool:
        everything = len(self.trials) == len(self.runs)
        if self.admission.stopped is not None:
            return True
        return everything and all(trial.state == "over" for trial in self.trials.values())

    @property
    def ended(self) -> dict[str, str]:
        """The statuses of the runs that have ended; each has once."""
        ends = [(run_id, report) for _, run_id, kind, report in self.events if kind == "ended"]
        assert max(Counter(run_id for run_id, _ in ends).values(), default=1) == 1, ends
        return {run_id: str(report["status"]) for run_id, report in ends}

    def turn(self) -> None:
        if self.over:
            return
        self.admission.tick()
        while (found := self.admission.again()) is not None:
            trial = self.trials[found[0]]
            assert trial.state == "paused", f"{found[0]} was started twice"
            self._ask(trial, found[2])
        while (config := self.admission.offer()) is not None:
            request = request_of(config)
            assert request.run_id not in self.trials, f"{request.run_id} was offered twice"
            self.trials[request.run_id] = Trial(self, self.runs[request.run_id])
            self._ask(self.trials[request.run_id], request)

    def _ask(self, trial: Trial, request: Request) -> None:
        trial.state, trial.tries = "pending", trial.tries + 1
        attempt = trial.tries
        if request.given_up or request.steps_back:
            said = {"status": "failed", "done": True, "error": request.given_up}
            if request.steps_back:
                said = {"status": "again"}
            self.ray.at(self.ray.now + 1, lambda: self._report(trial, attempt, said))
            return
        share = min(1.0, request.holds["GPU"])
        trial.asked = Asked(
            int(share * UNITS),
            request.ranks,
            lambda: self.ray.at(
                self.ray.now + self._start_seconds, lambda: self._starts(trial, attempt)
            ),
            request.target,
            request.barred,
            request.spread,
            trial,
            request.group,
        )
        self.ray.asked.append(trial.asked)
        self.most_held = max(self.most_held, self.held())
        self.most_side_by_side = max(self.most_side_by_side, len(self._mine()))

    def held(self) -> float:
        """GPUs of what was asked for and is not over."""
        return sum(one.units * one.gpus for one in self._mine()) / UNITS

    def placed(self) -> float:
        """GPUs of what runs, or is being started."""
        return sum(one.units * len(one.seats) for one in self._mine()) / UNITS

    def _mine(self) -> list[Asked]:
        return [one for one in self.ray.asked if one.owner is not None and one.owner.sweep is self]

    def _starts(self, trial: Trial, attempt: int) -> None:
        if trial.tries != attempt or trial.state != "pending":
            return  # lost meanwhile
        trial.state, trial.starts = "running", trial.starts + 1
        assert trial.asked is not None
        seats = [(on, str(gpu)) for on, gpu in trial.asked.seats]
        nodes = tuple(dict.fromkeys(on for on, _ in seats))
        for on in nodes:
            self.touched[on].append(trial.run.run_id)
        self.tries.append((self.ray.now, trial.run.run_id, nodes))
        left = trial.run.seconds - trial.done
        fate = self._fate(trial.run, nodes, trial.starts) or Fate("finished", left)
        self._report(trial, attempt, {"status": None, "step": 0, "seats": seats})
        self._goes_on(trial, attempt, fate, self.ray.now, trial.done)

    def _goes_on(self, trial: Trial, attempt: int, fate: Fate, began: float, done: float) -> None:
        ends = began + min(fate.seconds, trial.run.seconds - done)
        if self.ray.now + self._report_seconds < ends:
            self.ray.at(
                self.ray.now + self._report_seconds,
                lambda: self._steps(trial, attempt, fate, began, done),
            )
        else:
            self.ray.at(ends, lambda: self._comes_to_its_end(trial, attempt, fate))

    def _steps(self, trial: Trial, attempt: int, fate: Fate, began: float, done: float) -> None:
        if trial.tries != attempt or trial.state != "running":
            return
        if not fate.mute:
            trial.done = done + self.ray.now - began
            steps = {"step": int(trial.done) + 1, "steps": int(trial.run.seconds) + 1, "loss": 1.0}
            self._report(trial, attempt, {**steps, "status": None, "resumed_from": int(done)})
        self._goes_on(trial, attempt, fate, began, done)

    def _comes_to_its_end(self, trial: Trial, attempt: int, fate: Fate) -> None:
        if trial.tries != attempt or trial.state != "running":
            return
        if fate.what == "gone":
            assert trial.asked is not None
            self.ray.give_back(trial.asked)
            self.is_lost(trial, fate.text)
            return
        said: dict[str, object] = {"status": fate.what, "error": fate.text, "step": 0}
        if fate.what == "finished":
            steps = int(trial.run.seconds) + 1
            said = {"status": "finished", "step": steps, "steps": steps, "loss": 1.0}
        elif fate.what not in ("failed", "preempted"):
            said = {"status": "again", "what": fate.what, "error": fate.text, "step": 0}
        self._report(trial, attempt, said)

    def _report(self, trial: Trial, attempt: int, said: Mapping[str, object]) -> None:
        if trial.tries != attempt or trial.state not in ("running", "pending"):
            return
        becomes = self.admission.reports(trial.run.run_id, {"run_id": trial.run.run_id, **said})
        if becomes == "pauses":
            trial.state = "paused"
        elif becomes == "ends" or said["status"] in ("finished", "failed"):
            trial.state = "over"
        if trial.state in ("paused", "over") and trial.asked in self.ray.asked:
            assert trial.asked is not None
            self.ray.give_back(trial.asked)

    def is_lost(self, trial: Trial, why: str) -> None:
        """Tune finds that a trial's process is gone, and starts it anew."""
        trial.state = "lost"
        _, request = self.admission.loses(trial.run.run_id, why)
        self._ask(trial, request)
