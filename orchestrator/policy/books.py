"""The books of a sweep: what waits, what Ray was asked for, what runs where. Pure.

A run *waits* in line; once its turn has come it is *asked* of Ray, and stands where the policy
expects it; its first report says where it is, and the books follow. What was asked of Ray and has
no room on the nodes there are (a run for a node that an autoscaler is to bring, one that was lost
with its node) stays in line, so that the policy keeps room for it as for any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.policy.next_start import Line, Waiting, fits_now, next_start
from orchestrator.policy.occupancy import Demand, Occupancy
from orchestrator.policy.priorities import Weights

# How many weights are tried before the first start, and whenever something has changed; and for
# each second of trying, how many pass without.
TRIED_FIRST, TRIED_AGAIN = 100, 60
PAUSE_A_SECOND = 10.0
# What others seem to hold is believed once it has been so for as long: the books and what Ray says
# of free resources are seconds apart when runs start and end.
OTHERS_SECONDS = 5.0


@dataclass(frozen=True)
class NodeRoom:
    """A node: how many GPUs (or CPUs, where none has GPUs) runs can use of it, and how many of
    those nobody holds."""

    name: str
    size: int
    free: float


@dataclass(frozen=True)
class Ask:
    """A run to ask Ray for now, and the node that it is expected on; None where it is to come."""

    run: Waiting
    node: str | None


@dataclass
class _Held:
    """A run that was asked for: when, and since when it runs; its steps, once it has said so."""

    run: Waiting
    since: float
    started: float | None = None
    nodes: tuple[str, ...] = ()


class Books:
    """What is asked for when. All times are ``now`` in seconds of one clock.

    ``most`` limits the runs side by side, ``most_gpus`` the GPUs (or CPUs) they hold together.
    """

    def __init__(
        self,
        runs: Iterable[Waiting],
        most: int | None = None,
        most_gpus: float | None = None,
        start_seconds: float = 0.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        waiting = list(runs)
        self.cluster = Occupancy(())
        self.line = Line(waiting)
        # How many GPUs an autoscaler may bring; none is asked for beyond.
        self.growth = 0.0
        # GPUs that are ours while another sweep waits for some; None where none does.
        self.share: float | None = None
        self.room_on: Callable[[str], int | None] = lambda _: None
        self.aside: Mapping[str, str] = {}
        self._most, self._most_gpus = most, most_gpus
        self._start_seconds = start_seconds
        self._clock = clock
        self._weights = Weights(run.demand for run in waiting)
        self._changed = True
        self._weighs_from = float("-inf")
        self._held: dict[str, _Held] = {}
        self._asked: set[str] = set()  # of Ray, and in line: without a place
        self._too_small = {run.run_id: run.barred for run in waiting if run.barred}
        self._failed_on: dict[str, frozenset[str]] = {}
        self._steps_back: dict[str, Waiting] = {}
        self._others: dict[str, tuple[float, float]] = {}
        self._estimated = self._taken = 0.0

    # ------------------------------------------------------------------------------ what starts
    def next(self, now: float) -> Ask | None:
        """Return a run to ask Ray for now, or None to wait for a change."""
        while self._may_hold_more():
            self._close_unproven()
            start = next_start(self.cluster, self.line, now, self.pace)
            if start is None:
                return self._beyond(now)
            run = start.run
            if run.run_id not in self._asked and not self._allows(run):
                return None
            self.line.remove(run)
            until = now + self._start_seconds + self.pace * run.seconds
            self.cluster.occupy(run.run_id, run.demand, start.gpus, until)
            if run.run_id in self._asked:
                self._asked.discard(run.run_id)
                continue
            self._held[run.run_id] = _Held(run, now)
            return Ask(run, start.gpus[0].node)
        return None

    def _beyond(self, now: float) -> Ask | None:
        """Return a run for which there is no room now, to be asked for all the same: for what an
        autoscaler may bring; or the smallest where others hold some of what there is and the rest
        is taken, so that Ray and they know that it is waited for."""
        waiting = self.line.heads(self._asked)
        beyond = sum(self._held[run_id].run.demand.total for run_id in self._asked)
        size = sum(self.cluster.sizes.values())
        in_vain = not self._asked and not self._room_left() and self._held_by_all_others()
        # The smallest: what is asked for counts as held, and a gang would keep all others waiting.
        smallest = min((run.demand.total for run in waiting), default=0.0)
        for run in waiting:
            fits = beyond + run.demand.total <= self.growth and self._allows(run)
            small = run.demand.total <= smallest and run.demand.gpus <= size
            if fits or (in_vain and small and self._allows(run)):
                self._asked.add(run.run_id)
                self._held[run.run_id] = _Held(run, now)
                return Ask(run, None)
        return None

    def _may_hold_more(self) -> bool:
        if self._most is not None and len(self._held) >= self._most:
            return False
        return self.share is None or not self._held or self._holds() < self.share

    def _allows(self, run: Waiting) -> bool:
        return self._most_gpus is None or self._holds() + run.demand.total <= self._most_gpus

    def _holds(self) -> float:
        return sum(held.run.demand.total for held in self._held.values())

    def _room_left(self) -> bool:
        return any(self.cluster.free_on.values())

    def _close_unproven(self) -> None:
        """Have nothing start on nodes that have as many runs as they may until they show that they
        work."""
        closed = set()
        if len(self.cluster.nodes) > 1:
            for node in self.cluster.nodes:
                most = self.room_on(node)
                if most is not None and len(self._runs_on(node)) >= most:
                    closed.add(node)
        self.cluster.closed = frozenset(closed | set(self.aside))

    def _runs_on(self, node: str) -> set[str]:
        return {run_id for gpu in self.cluster.nodes[node] for run_id in gpu.tenants}

    def weigh(self, now: float) -> None:
        """Look for weights of demands under which the rest of the sweep ends sooner, if anything
        has changed since, for a tenth of the time at most."""
        if not self._changed or now < self._weighs_from or not self.cluster.nodes:
            return
        self._changed = False
        most = TRIED_AGAIN if self.cluster.placed else TRIED_FIRST
        began = self._clock() if self._clock else now
        waiting = list(self.line)
        self._weights.improve(self.cluster, waiting, now, self.pace, self._start_seconds, most)
        self.line.weights = self._weights.best
        after = self._clock() if self._clock else now
        self._weighs_from = now + PAUSE_A_SECOND * (after - began)

    @property
    def pace(self) -> float:
        """Seconds of the clock that an estimated second took, of the runs that have ended."""
        return self._taken / self._estimated if self._estimated else 1.0

    # ------------------------------------------------------------------------- what is said of it
    def is_at(self, run_id: str, seats: Sequence[tuple[str, str]], now: float) -> None:
        """A run has started on GPUs (node, name)."""
        held = self._held.get(run_id)
        if held is None:
            return
        held.started, held.nodes = now, tuple(dict.fromkeys(node for node, _ in seats))
        run = held.run
        if run_id in self._asked:
            self._asked.discard(run_id)
            self.line.remove(run)
        until = now + self.pace * run.seconds
        for moved in self.cluster.correct(run_id, run.demand, seats, until):
            self._asked.add(moved)
            self._held[moved].run = replace(self._held[moved].run, opens=True)
            self.line.add(self._held[moved].run)

    def has_reached(self, run_id: str, step: int, steps: int, now: float) -> None:
        """A run is at a step: when it ends is reckoned from that."""
        held = self._held.get(run_id)
        if held is None or held.started is None or not step or run_id not in self.cluster.placed:
            return
        self.cluster.expect(run_id, now + (now - held.started) * max(0.0, steps / step - 1))

    def has_ended(self, run_id: str, now: float, measures: bool = False) -> None:
        """A run is over and holds nothing any more; ``measures`` where this was all of it."""
        held = self._let_go(run_id)
        if measures and held is not None and held.started is not None:
            self._estimated += held.run.seconds
            self._taken += now - held.started

    def goes_back(
        self, run_id: str, off: frozenset[str] = frozenset(), demand: Demand | None = None
    ) -> Waiting:
        """A run is to start again, before the others, and off some nodes while there are others for
        it; return it as it waits. ``demand`` is what it demands now."""
        self.steps_back(run_id, off)
        return self.is_back(run_id, demand)

    def steps_back(self, run_id: str, off: frozenset[str] = frozenset()) -> None:
        """A run holds nothing any more, and cannot be asked for again before it ``is_back``."""
        held = self._let_go(run_id)
        assert held is not None, f"{run_id} was not asked for"
        self._failed_on[run_id] = self._failed_on.get(run_id, frozenset()) | off
        self._steps_back[run_id] = held.run

    def is_back(self, run_id: str, demand: Demand | None = None) -> Waiting:
        """A run that stepped back waits in line; see ``goes_back``."""
        run = self._steps_back.pop(run_id)
        run = replace(run, opens=True, demand=demand or run.demand)
        run = replace(run, barred=self._barred(run))
        self.line.add(run)
        return run

    def exchange(self, runs: Mapping[str, Waiting]) -> None:
        """Have runs (by id) that wait stand in line with other demands, estimates and nodes that
        are too small for them."""
        waiting = []
        for one in self.line:
            new = one if one.run_id in self._asked else runs.get(one.run_id, one)
            waiting.append(replace(new, opens=one.opens))
        self._too_small.update({run_id: run.barred for run_id, run in runs.items()})
        self._stand(waiting)

    def _stand(self, waiting: Iterable[Waiting]) -> None:
        """Have runs stand in line, each off the nodes that it is off now."""
        waiting = [replace(run, barred=self._barred(run)) for run in waiting]
        for run in waiting:
            if run.run_id in self._asked:
                self._held[run.run_id].run = run
        self.line = Line(waiting, self.line.weights)
        self._weights = Weights(run.demand for run in waiting)
        self._changed = True

    def demands(self, demand_of: Callable[[str], Demand]) -> None:
        """Have runs that wait stand in line with what they demand now, by their ids."""
        runs = {one.run_id: replace(one, demand=demand_of(one.run_id)) for one in self.waiting}
        for one in self.line:
            runs.setdefault(one.run_id, one)
        self._stand(runs.values())

    def _barred(self, run: Waiting) -> frozenset[str]:
        """Return the nodes that a run is off: those too small for it, and those on which it has
        failed, unless it finds no place on the others."""
        small = self._too_small.get(run.run_id, frozenset())
        failed = self._failed_on.get(run.run_id, frozenset())
        room = {
            name: size if self._most_gpus is None else len(self.cluster.nodes[name])
            for name, size in self.cluster.sizes.items()
            if name not in small and name not in self.aside
        }
        left = [gpus for name, gpus in room.items() if name not in failed]
        on_one = run.demand.gpus <= max(room.values(), default=0)
        most = max(left, default=0) if on_one else sum(left)
        return small | failed if run.demand.gpus <= most else small

    def bars(self, run: Waiting) -> frozenset[str]:
        """Return the nodes that Ray is to keep a run off that has no place yet: where it would wait
        for one, those that it can never use alone, since the others may leave before it starts."""
        if fits_now(self.cluster, run):
            return run.barred
        return self._too_small.get(run.run_id, frozenset())

    def holds(self, run_id: str) -> bool:
        """Whether a run was asked for and is not over."""
        return run_id in self._held

    @property
    def waiting(self) -> list[Waiting]:
        """The runs that Ray was not asked for yet."""
        return [run for run in self.line if run.run_id not in self._asked]

    def nodes_of(self, run_id: str) -> tuple[str, ...]:
        """Return where a run is, or is expected to be."""
        held = self._held.get(run_id)
        if held is not None and held.nodes:
            return held.nodes
        placed = self.cluster.placed.get(run_id, ())
        return tuple(dict.fromkeys(gpu.node for gpu in placed))

    def _let_go(self, run_id: str) -> _Held | None:
        held = self._held.pop(run_id, None)
        if run_id in self._asked and held is not None:
            self._asked.discard(run_id)
            self.line.remove(held.run)
        self.cluster.release(run_id)
        self._changed = True
        return held

    # ---------------------------------------------------------------------------- what there is
    def look(self, nodes: Sequence[NodeRoom], now: float) -> None:
        """Take in which nodes there are, and what others hold of them; see ``NodeRoom``."""
        present = {node.name: node for node in nodes}
        before = self._places()
        for name in [name for name in self.cluster.nodes if name not in present]:
            for run_id in self.cluster.remove_node(name):
                held = self._held.get(run_id)
                if held is not None and held.started is None:  # Ray will place it elsewhere
                    self._asked.add(run_id)
                    self.line.add(held.run)
            self._others.pop(name, None)
            self._changed = True
        usable = {node.name: node.size - self._held_by_others(node, now) for node in nodes}
        for name, gpus in self._within_limit(usable).items():
            if name not in self.cluster.nodes:
                self.cluster.add_node(name, gpus, present[name].size)
                self._changed = True
            elif len(self.cluster.nodes[name]) != gpus:
                self.cluster.resize(name, gpus)
                self._changed = True
        if self._failed_on and self._places() != before:
            self._stand(list(self.line))

    def _places(self) -> tuple[dict[str, int], frozenset[str]]:
        limited = self._most_gpus is not None
        nodes = self.cluster.nodes if limited else {}
        sizes = {name: len(gpus) for name, gpus in nodes.items()} or dict(self.cluster.sizes)
        return sizes, frozenset(self.aside)

    def _held_by_others(self, node: NodeRoom, now: float) -> int:
        """Return how many GPUs of a node are not for us, by what Ray says is free there."""
        ours = self.cluster.held_on(node.name) if node.name in self.cluster.nodes else 0.0
        there = max(0.0, round(node.size - node.free - ours, 6))
        seen, since = self._others.get(node.name, (0.0, float("-inf")))
        if there > seen and (node.name in self.cluster.nodes or self._asked):
            # More than before: a run of ours that has just started, or somebody else. On a node
            # that has come Ray may have put what was asked for.
            if since == float("-inf"):
                since = now
            if now - since < OTHERS_SECONDS:
                self._others[node.name] = (seen, since)
                return math.ceil(seen)
        self._others[node.name] = (there, float("-inf"))
        return math.ceil(there)

    def _held_by_all_others(self) -> int:
        open_nodes = self.cluster.nodes.keys() - self.aside.keys()
        return sum(math.ceil(self._others.get(name, (0.0, 0.0))[0]) for name in open_nodes)

    def _within_limit(self, usable: Mapping[str, int]) -> dict[str, int]:
        """Return how many GPUs to use of each node, those that runs hold first."""
        if self._most_gpus is None:
            return dict(usable)
        left = int(self._most_gpus)
        found: dict[str, int] = {}
        held = {
            name: sum(bool(gpu.tenants) for gpu in self.cluster.nodes.get(name, ()))
            for name in usable
        }
        for name in sorted(usable, key=lambda name: (-held[name], -usable[name], name)):
            found[name] = min(usable[name], max(held[name], left))
            left = max(0, left - found[name])
        return found

    # ------------------------------------------------------------------------- what is waited for
    def waits_for(self) -> str | None:
        """Return why the first in line does not start, for a person; None where all is well."""
        heads = self.line.heads()
        if not heads:
            return None
        first = heads[0]
        gpus = f"{first.demand.gpus} GPUs" if first.demand.gpus > 1 else "a GPU"
        if not self.cluster.nodes:
            return "no node is there yet"
        open_nodes = [name for name in self.cluster.nodes if name not in self.aside]
        if not open_nodes:
            return "every node has been set aside"
        size = sum(self.cluster.sizes[name] for name in open_nodes)
        if first.demand.gpus > size + self.growth:
            return f"{first.run_id} waits for {gpus}: the nodes there are have {size}"
        others = self._held_by_all_others()
        if others and not self._room_left():
            return f"{first.run_id} waits for {gpus}: others hold {others} of {size}"
        if self._asked and not self._room_left():
            runs = "run waits" if len(self._asked) == 1 else "runs wait"
            return f"{len(self._asked)} {runs} for nodes to come"
        return None
