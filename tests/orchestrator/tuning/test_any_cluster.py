"""Whatever a cluster does, every run of a sweep ends, once. No Ray: see ``tests.simulated``."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.ledger.sweep_account import Limits
from orchestrator.policy.next_start import Waiting
from orchestrator.policy.occupancy import UNITS, Demand
from tests.simulated.cluster import SimulatedRay
from tests.simulated.sweep import Fate, SimulatedSweep

DEMANDS = st.one_of(
    st.sampled_from([Demand(UNITS // k) for k in (2, 3, 4)]),
    st.integers(1, 6).map(lambda gpus: Demand(gpus=gpus)),
)
RUNS = st.lists(st.tuples(DEMANDS, st.integers(1, 60), st.booleans()), min_size=1, max_size=25)
SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=4)
LIMITS = st.builds(
    Limits, st.none() | st.integers(1, 5), st.none() | st.integers(1, 9), st.none(), st.none()
)
WHATS = ("gone", "preempted", "store", "lost", "superseded", "error", "memory", "mistake")
HAPPENINGS = st.lists(
    st.tuples(
        st.integers(1, 200), st.sampled_from(["joins", "leaves", "tenant", "away", "back"]),
        st.integers(1, 4),
    ),
    max_size=12,
)  # fmt: skip


def runs_of(drawn, most):
    return [
        Waiting(f"{k:02}", demand, float(seconds), opens)
        for k, (demand, seconds, opens) in enumerate(drawn)
        if demand.gpus <= most
    ]


@settings(max_examples=80, deadline=None)
@given(RUNS, SIZES, LIMITS, st.none() | st.integers(0, 10**6))
def test_on_nodes_that_stay_nothing_is_asked_for_that_has_no_room(drawn, sizes, limits, seed):
    """Ray puts runs on GPUs of its own choice on the wished node, or, with a seed, on any."""
    most = min([sum(sizes), *([limits.most_gpus] if limits.most_gpus else [])])
    draw = None if seed is None else random.Random(seed)
    ray = SimulatedRay({f"n{k}": size for k, size in enumerate(sizes)}, draw=draw)
    sweep = SimulatedSweep(ray, runs_of(drawn, most), limits=limits, largest=max(sizes))
    ray.run(10_000)
    assert set(sweep.ended) == set(sweep.runs)
    assert set(sweep.ended.values()) <= {"finished"}
    assert len(sweep.tries) == len(sweep.runs)
    assert not sweep.held()
    assert sweep.most_side_by_side <= (limits.most or len(drawn))
    if limits.most_gpus:
        assert sweep.most_held <= limits.most_gpus
    if seed is None:
        assert sweep.most_held < most + 1  # shares on other GPUs than the books have them
        assert sweep.notices == []


class Chances:
    """What becomes of each try, by chance: every fourth goes wrong."""

    def __init__(self, seed):
        self._draw = random.Random(seed)

    def __call__(self, run, *_):
        if self._draw.random() < 0.75:
            return None
        what = self._draw.choice(WHATS)
        text = f"{what} of {run.run_id}"
        return Fate(what, self._draw.uniform(0, 40), text, mute=self._draw.random() < 0.5)


@settings(max_examples=100, deadline=None)
@given(RUNS, SIZES, LIMITS, HAPPENINGS, st.integers(0, 10**6), st.integers(0, 3))
def test_whatever_happens_every_run_ends_once(drawn, sizes, limits, happenings, seed, brought):
    """Nodes join and leave, tenants come and go, processes die, the store is away; then there is a
    node that is large enough, and everybody else is gone."""
    draw = random.Random(seed)
    most = limits.most_gpus or 6
    ray = SimulatedRay(
        {f"n{k}": size for k, size in enumerate(sizes)}, (brought, 2), 30.0, random.Random(seed)
    )
    sweep = SimulatedSweep(
        ray, runs_of(drawn, most), Chances(seed), limits, largest=max([2, *sizes])
    )

    def happens(what, size):
        if what == "joins":
            ray.join(f"late {len(ray.free)} {ray.now}", size)
        elif what == "leaves" and ray.free:
            ray.leave(draw.choice(sorted(ray.free)))
        elif what == "tenant":
            tenant = ray.hold(size)
            ray.at(ray.now + 100, lambda: ray.give_back(tenant))
        elif what in ("away", "back"):
            sweep.away = "no answer" if what == "away" else None

    def settles():
        sweep.away = None
        ray.join("large", 6)

    for moment, what, size in happenings:
        ray.at(moment, lambda what=what, size=size: happens(what, size))
    ray.at(300, settles)
    ray.run(6_000)
    assert sweep.over, sweep.admission.books.waits_for()
    if sweep.admission.stopped is None:
        assert set(sweep.ended) == set(sweep.runs)
    failed = {run_id for run_id, status in sweep.ended.items() if status == "failed"}
    wrong = {run_id for _, run_id, kind, _ in sweep.events if kind in ("lost", "again")}
    ended = [r for _, r, kind, said in sweep.events if kind == "ended" and said.get("mistake")]
    memory = [r for _, r, kind, said in sweep.events if "memory" in str(said.get("error"))]
    assert failed <= wrong | set(ended) | set(memory)
