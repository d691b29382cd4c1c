"""Which faults, in which order, how far apart: a function of the seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

FILES = ("checkpoint", "manifest", "part", "done", "run", "attempt")
HARMS = ("flip", "truncate")

# To processes started as `python -m workers` is, and to the folder under them.
WORKER_KINDS = (
    "kill_worker",
    "kill_at_operation",
    "kill_rank",
    "kill_server",
    "terminate_worker",
    "stop_worker",
    "stop_at_operation",
    "stop_rank",
    "lost_reply",
    "late_put",
    "clock_off",
    "no_mount",
    "full_disk",
    "read_only_disk",
    "failing_write",
    *(f"{harm}_{file}" for harm in HARMS for file in FILES),
)
# To such processes, and to the requests that they send to an object store.
OBJECT_KINDS = (
    "kill_worker",
    "failing_requests",
    "lost_reply",
    "late_put",
    "late_writer",
    "stop_worker",
    "cut_wire",
    "kill_rank",
    "slow_requests",
    "clock_off",
    "terminate_worker",
    "stop_rank",
)
# To hosts of a network that such processes run on, and to what lies between them and a server.
HOST_KINDS = ("cut_host", "deaf_host", "mute_host", "lossy_host")
NETWORK_KINDS = (
    "cut_host",
    "kill_worker",
    "reset_put",
    "lossy_host",
    "deaf_host",
    "slow_server",
    "mute_host",
    "kill_rank",
    "stop_worker",
)
KINDS = {
    "folder": WORKER_KINDS,
    "s3": OBJECT_KINDS,
    "seaweedfs": OBJECT_KINDS,
    "network": NETWORK_KINDS,
}
# What an attempt is given before it begins, where its place does not apply it.
INSIDE = (
    "kill_at_operation",
    "stop_at_operation",
    "lost_reply",
    "late_put",
    "late_writer",
    "clock_off",
    "no_mount",
)
# After these what was sent before may arrive when nobody asks for it any more.
ARRIVES_LATE = ("late_put", *HOST_KINDS)
# Those who froze before they put something in place: they go on when a successor is done.
LATE = ("late_put", "late_writer")
# To a running `depthsweep run`, its Ray and its workers; the first ones occur in short campaigns.
COMMAND_KINDS = (
    "kill_trial",
    "kill_driver",
    "terminate_driver",
    "kill_raylet",
    "full_disk",
    "flip_checkpoint",
    "kill_rank",
    "kill_server",
    "terminate_worker",
    "stop_worker",
    "failing_write",
    "read_only_disk",
    "truncate_part",
    "interrupt_driver",
    "flip_manifest",
    "truncate_attempt",
)
# Of all faults, how many hit the command: six seconds each, against one for a worker's.
COMMAND_SHARE = 0.1
# A campaign of so many has each kind of them at least once.
WHOLE_CAMPAIGN = 100


@dataclass(frozen=True)
class Fault:
    """One fault: ``wait`` seconds after the one before; ``pick`` in [0, 1) chooses the target."""

    kind: str
    wait: float
    pick: float
    hold: float


def needs_mending(kind: str) -> bool:
    """Return whether only ``doctor`` undoes what a fault has done: it harms what was written."""
    harm, _, what = kind.partition("_")
    return harm in HARMS and what in FILES


def schedule(
    seed: int,
    count: int,
    only: str | None = None,
    kinds: tuple[str, ...] = (),
    store: str = "folder",
) -> tuple[list[Fault], list[Fault]]:
    """Return the faults of workers and of the command, every kind as often as another.

    ``kinds`` restricts those of workers; the command then has none, and none on an object store.
    """
    if kinds or store != "folder":
        kinds = kinds or KINDS[store]
        return _faults(random.Random(f"workers {seed}"), kinds, count, 0.02, 0.4), []
    least = len(COMMAND_KINDS) if count >= WHOLE_CAMPAIGN else 1
    shares = {"workers": 0, "command": count, None: max(least, round(COMMAND_SHARE * count))}
    on_command = shares[only]
    return (
        _faults(random.Random(f"workers {seed}"), WORKER_KINDS, count - on_command, 0.02, 0.4),
        _faults(random.Random(f"command {seed}"), COMMAND_KINDS, on_command, 0.2, 2.0),
    )


def _faults(
    rng: random.Random, kinds: tuple[str, ...], count: int, shortest: float, longest: float
) -> list[Fault]:
    decks = _decks(rng, kinds)
    return [
        Fault(next(decks), rng.uniform(shortest, longest), rng.random(), rng.uniform(0.2, 1.5))
        for _ in range(count)
    ]


def _decks(rng: random.Random, kinds: tuple[str, ...]) -> Iterator[str]:
    yield from kinds
    while True:
        yield from rng.sample(kinds, len(kinds))
