"""Runs as trials have them carried out: by ranks that a node's rank server forks, into a store.

What a body of this file does in a rank is what a GPU does to a run: memory that ends, a kernel that
never does.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from orchestrator.ranks.held_rank import HANGS_VARIABLE, HeldRank
from orchestrator.ranks.rank_starter import RankStarter
from orchestrator.sizing.placement import with_half_the_micro_batch
from sweeps.files.whole_files import read_json
from sweeps.spec import Execution, Probe, RunSpec
from sweeps.store.store import Store
from tests.gpu.checks import Place, Seen
from tests.gpu.device import GIB
from tests.samples.small_run import DOCS, make_run
from workers.progress import Progress
from workers.rank_run import train_rank
from workers.ranks.notice import Notice
from workers.ranks.rank_process import Broken, Job

END_SECONDS = 75.0
HANGS_SECONDS = 4.0
# Losses of a run that was stopped and of one that was not: gradients of an embedding are summed in
# any order on a GPU.
LOSS_TOLERANCE = 1e-2


class Trial:
    """What a trial does for its one rank, on the first GPU or on a CPU.

    All of one check share a rank server, as the trials of a node do. Each check has its own: a
    server ends whoever has for long held a GPU that a rank asks for alone, and checks side by side
    have the same one.
    """

    def __init__(self, place: Place) -> None:
        self._starter = RankStarter(f"tests.gpu {place.folder}")
        self._devices = () if place.small else ("0",)

    def begin(self, spec: str, store: Store, *, alone: bool = True, **job: Any) -> HeldRank:
        """Start a rank, and have it carry out a run."""
        number, connection = self._starter.start(self._devices, alone)
        rank = HeldRank(number, connection)
        environment = {
            **{"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"},
            "CUDA_VISIBLE_DEVICES": ",".join(self._devices),
        }
        threads = 4 if self._devices else 1
        rank.begin(Job(spec, str(store.root), threads, environment=environment, **job))
        return rank


def a_store(folder: Path) -> Store:
    """Return a store as the command that runs something makes it."""
    store = Store(folder)
    store.identify()
    return store


def end_of(rank: HeldRank) -> Progress | Broken:
    """Wait for how a rank ends, and leave no process of it."""
    until = time.monotonic() + END_SECONDS
    while rank.ended is None and time.monotonic() < until:
        rank.listen(0.1)
    ended, latest = rank.ended, rank.latest
    rank.close()
    if ended is None:
        raise TimeoutError(f"a rank is at {latest} after {END_SECONDS:.0f} s")
    return ended


def reach(rank: HeldRank, step: int) -> None:
    """Wait until a rank has made a step; raise where it never does."""
    until = time.monotonic() + END_SECONDS
    while rank.latest.step < step and rank.ended is None and time.monotonic() < until:
        rank.listen(0.02)
    if rank.latest.step < step:
        raise RuntimeError(f"step {step} was not caught: {rank.latest}, {rank.ended}")


def a_run(place: Place, seed: int, **fields: Any) -> RunSpec:
    """Return a run of seconds of a tiny GPT-2."""
    steps = fields.get("steps", 150 if place.small else 300)
    probe = Probe(data=DOCS, rows=32, sequence_length=16, every=-(-steps // 4))
    given = {
        "steps": steps,
        "probe": probe,
        "execution": Execution(part_steps=-(-steps // 6), checkpoint_share=1),
    }
    return make_run(seed=seed, **(given | fields))


# ----------------------------------------------------------------------------------------- checks
def one_and_two(place: Place) -> Iterator[Seen]:
    """One rank after another, then two on one GPU, all forked by one server without CUDA."""
    trial, store = Trial(place), a_store(place.folder / "store")
    first = trial.begin(a_run(place, 0).model_dump_json(), store)
    reach(first, 1)
    parent = _parent(first.number)
    opened = {number: _cuda_of(number) for number in (first.number, parent)}
    ended = end_of(first)
    yield Seen(_how("a forked rank", ended), _finished(ended))
    if not place.small:
        yield Seen(
            f"CUDA's device is open in the rank: {_yes(opened[first.number])}, in the server that"
            f" forked it: {_yes(opened[parent])}",
            opened[first.number] and not opened[parent],
        )
    began = time.monotonic()
    second = trial.begin(a_run(place, 1).model_dump_json(), store)
    reach(second, 1)
    seconds = time.monotonic() - began
    same = _parent(second.number) == parent
    ended = end_of(second)
    yield Seen(
        f"{_how('the next one', ended)}, its first step after {seconds:.1f} s,"
        f" by the same server: {_yes(same)}",
        _finished(ended) and same,
        {"seconds_to_first_step": seconds},
    )
    two = [trial.begin(a_run(place, s).model_dump_json(), store, alone=False) for s in (2, 3)]
    for rank in two:
        reach(rank, 1)
    ends = [end_of(rank) for rank in two]
    yield Seen(f"two at once: {_word(ends[0])}, {_word(ends[1])}", all(map(_finished, ends)))
    ran_on = {
        read_json(store.run(a_run(place, seed).run_id).path / "run.json")["hardware"]["device"]
        for seed in range(4)
    }
    yield Seen(f"all ran on {', '.join(sorted(ran_on))}", ran_on == {place.device.type})


def resumed(place: Place, engine: str) -> Iterator[Seen]:
    """A run through SIGTERM and SIGKILL ends with the rows of one that nobody touched."""
    given = {"engine": "deepspeed", "zero_stage": 2} if engine == "deepspeed" else {}
    part = a_run(place, 4).execution.part_steps
    run = a_run(place, 4, execution=Execution(part_steps=part, checkpoint_share=1, **given))
    trial = Trial(place)
    whole, broken = a_store(place.folder / "whole"), a_store(place.folder / "broken")
    spec = run.model_dump_json()
    ended = end_of(trial.begin(spec, whole))
    yield Seen(_how(f"unbroken, engine {engine}", ended), _finished(ended))
    (broken.root / "cache").symlink_to(whole.cache)
    told = trial.begin(spec, broken)
    reach(told, part + part // 2)
    os.kill(told.number, signal.SIGTERM)
    first = end_of(told)
    killed = trial.begin(spec, broken)
    reach(killed, 3 * part + part // 2)
    os.kill(killed.number, signal.SIGKILL)
    second = end_of(killed)
    last = end_of(trial.begin(spec, broken))
    attempts = [a["resumed_from"] for a in broken.run(run.run_id).attempts()]
    stopped = _word(first) == "preempted" and isinstance(second, Broken) and second.what == "lost"
    yield Seen(
        f"SIGTERM: {_word(first)}, SIGKILL: {_word(second)}, then {_word(last)};"
        f" resumed from steps {', '.join(map(str, attempts))}",
        stopped and _finished(last) and bool(attempts[1]) and bool(attempts[2]),
    )
    counts = {
        t: [_rows(s, run, t) for s in (whole, broken)] for t in ("steps", "layers", "profiles")
    }
    alike = all(a == b > 0 for a, b in counts.values())
    difference = _loss_difference(whole, broken, run)
    yield Seen(
        f"rows unbroken and resumed: {_pairs(counts)}; losses within {difference:.1e}",
        alike and difference <= LOSS_TOLERANCE,
        {"loss_difference": difference},
    )


def out_of_memory(place: Place) -> Iterator[Seen]:
    """A micro-batch that does not fit is halved until it does, and the result is the smaller's."""
    source = make_run().model.source.model_copy(update={"width": 64, "vocabulary": 2048})
    size = {"batch_size": 8, "sequence_length": 16} if place.small else {}
    run = a_run(place, 5, **{"steps": 4, "batch_size": 64, "sequence_length": 128, **size})
    run = run.model_copy(update={"model": run.model.model_copy(update={"source": source})})
    trial, store = Trial(place), a_store(place.folder / "store")
    body = "tests.gpu.forked:short_of_memory"
    details = {"bytes": 256 << 20, "sequences": run.batch_size // 4}
    spec, tried, ended = run.model_dump_json(), list[int](), None
    while not isinstance(ended, Progress):
        tried.append(RunSpec.model_validate_json(spec).micro_batch_size)
        ended = end_of(trial.begin(spec, store, body=body, details=details))
        if isinstance(ended, Broken):
            smaller = with_half_the_micro_batch(spec)
            if ended.what != "memory" or smaller is None:
                yield Seen(f"micro-batch {tried[-1]}: {ended.what}: {ended.text}"[:300], False)
                return
            spec = smaller
    yield Seen(
        f"micro-batches {', '.join(map(str, tried))}: out of memory, then {ended.status}",
        len(tried) > 1 and _finished(ended),
    )
    other = a_store(place.folder / "other")
    (other.root / "cache").symlink_to(store.cache)
    plenty = end_of(trial.begin(spec, other))
    difference = _loss_difference(store, other, run)
    yield Seen(
        f"losses of that and of a run with micro-batch {tried[-1]} from the start within"
        f" {difference:.1e}",
        _finished(plenty) and difference <= LOSS_TOLERANCE,
        {"loss_difference": difference},
    )


def hung(place: Place) -> Iterator[Seen]:
    """A rank in a kernel that never ends is found by its pulse, and its memory comes back."""
    os.environ[HANGS_VARIABLE] = str(HANGS_SECONDS)
    free = _free(place)
    began = time.monotonic()
    trial, store = Trial(place), a_store(place.folder / "store")
    rank = trial.begin("", store, body="tests.gpu.forked:never_end")
    reach(rank, 20)
    quiet, held = time.monotonic(), free - _free(place)
    ended = end_of(rank)
    taken = time.monotonic() - quiet
    found = isinstance(ended, Broken) and ended.what == "lost" and "made no step" in ended.text
    stacks = isinstance(ended, Broken) and "never_end" in ended.text
    yield Seen(
        f"found and killed {taken:.1f} s after its last step (limit {HANGS_SECONDS:.0f} s), with"
        f" its stacks: {_yes(stacks)}",
        found and stacks and taken < HANGS_SECONDS + 15,
        {"seconds": taken, "began": quiet - began},
    )
    if place.small:
        return
    until = time.monotonic() + 10
    while free - _free(place) > GIB / 2 and time.monotonic() < until:
        time.sleep(0.1)
    left = free - _free(place)
    yield Seen(
        f"it held {held / GIB:.1f} GiB of the GPU; {left / GIB:.1f} are left"
        f" {time.monotonic() - quiet - taken:.1f} s later",
        held > GIB and left < GIB / 2,
    )
    torch.ones(1000, device=place.device).sum().item()
    yield Seen("the GPU computes for others")


# ----------------------------------------------------------------------------------------- bodies
def short_of_memory(job: Job, notice: Notice) -> Iterator[Progress]:
    """Train as ever, with so many bytes of a GPU; a CPU refuses more than so many sequences."""
    if torch.cuda.is_available():
        torch.cuda.init()
        share = job.details["bytes"] / torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(share)
    elif RunSpec.model_validate_json(job.spec).micro_batch_size > job.details["sequences"]:
        yield Progress(0, 4, None)
        raise torch.OutOfMemoryError("CUDA out of memory, as a test pretends")
    yield from train_rank(job, notice)


def never_end(job: Job, notice: Notice) -> Iterator[Progress]:
    """Make some steps, then wait for a kernel that runs for a century; a CPU sleeps."""
    del job, notice
    held = torch.empty(2 * GIB, dtype=torch.uint8, device="cuda") if _cuda() else None
    for step in range(1, 21):
        yield Progress(step, 100, 1.0)
        time.sleep(0.05)
    time.sleep(0.3)  # so that the last step is reported
    yield Progress(20, 100, 1.0)
    while held is not None:
        torch.cuda._sleep(1 << 62)
        torch.cuda.synchronize()
    while True:
        time.sleep(60)


# ---------------------------------------------------------------------------------------- reading
def _cuda() -> bool:
    return torch.cuda.is_available()


def _free(place: Place) -> int:
    return 0 if place.small else torch.cuda.mem_get_info()[0]


def _parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def _cuda_of(process: int) -> bool:
    """Return whether a process has opened the device file that contexts of CUDA live on; NVML, by
    which GPUs are counted, does not need it."""
    opened = []
    for link in Path(f"/proc/{process}/fd").iterdir():
        try:
            opened.append(os.readlink(link))
        except OSError:
            continue
    return any("nvidia-uvm" in name for name in opened)


def _rows(store: Store, run: RunSpec, table: str) -> int:
    return sum(pq.read_metadata(part).num_rows for part in store.run(run.run_id).parts(table))


def _loss_difference(one: Store, other: Store, run: RunSpec) -> float:
    """Return the largest difference of the losses of two runs, step by step; inf where one has
    other steps."""
    losses = []
    for store in (one, other):
        parts = [pq.read_table(part) for part in store.run(run.run_id).parts("steps")]
        losses.append([loss for part in parts for loss in part["loss"].to_pylist()])
    if len(losses[0]) != len(losses[1]) or not losses[0]:
        return float("inf")
    return max(abs(a - b) for a, b in zip(*losses, strict=True))


def _finished(ended: Progress | Broken) -> bool:
    return isinstance(ended, Progress) and ended.status == "finished"


def _word(ended: Progress | Broken) -> str:
    return (
        str(ended.status) if isinstance(ended, Progress) else f"{ended.what} ({ended.text})"[:200]
    )


def _how(who: str, ended: Progress | Broken) -> str:
    return f"{who}: {_word(ended)}"


def _yes(found: bool) -> str:
    return "yes" if found else "no"


def _pairs(counts: dict[str, list[int]]) -> str:
    return ", ".join(f"{table} {a} and {b}" for table, (a, b) in counts.items())
