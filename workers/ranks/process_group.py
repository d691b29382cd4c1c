"""The processes of one run: which this is, of how many, and how they find each other.

As under torchrun, the environment says it: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore, PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from workers.ranks.notice import Cause, Notice, cause_of
from workers.ranks.peers import PEERS

T = TypeVar("T")

# A rank that waits this long for another one, which lives, ends with an error: longer than any step
# or checkpoint.
COLLECTIVE_TIMEOUT = timedelta(minutes=15)
# Nodes meet only when each has downloaded what the run needs, some of them much later than others.
MEETING_TIMEOUT = timedelta(hours=2)


@dataclass(frozen=True)
class Ranks:
    """This process is ``rank`` of ``size``; rank 0 writes."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def agree(self, value: T) -> T:
        """Return the first rank's value on every rank; a collective."""
        if self.size == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]

    def all_say(self, value: T) -> list[T]:
        """Return every rank's value, in order of rank, on every rank; a collective."""
        if self.size == 1:
            return [value]
        said: list[Any] = [None] * self.size
        dist.all_gather_object(said, value)
        return said

    def agreed_cause(self, notice: Notice, device: torch.device) -> Cause | None:
        """Return why all ranks stop after this step, if any was told to; a collective."""
        if self.size == 1:
            return notice.cause
        number = torch.tensor(notice.number, device=device)
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return cause_of(int(number))

    @contextmanager
    def first_then_others(self) -> Iterator[None]:
        """Let the first rank through, then the others: what makes a file, then what reads it.

        transformers writes a model on the first rank only.
        """
        if not self.leads:
            self.agree(None)
        yield
        if self.leads:
            self.agree(None)

    @classmethod
    def from_environment(cls) -> Ranks:
        """Return what the launcher said, or one process alone."""
        number = os.environ.get
        return cls(
            int(number("RANK", "0")), int(number("WORLD_SIZE", "1")), int(number("LOCAL_RANK", "0"))
        )

    def device(self) -> torch.device:
        """Return the device of this rank: its GPU where there is one, else the CPU."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", self.local % torch.cuda.device_count())


ALONE = Ranks()


# Where the ranks of this process's group found each other.
_met: list[Store] = []


def connect(ranks: Ranks, device: torch.device, timeout: timedelta = COLLECTIVE_TIMEOUT) -> None:
    """Join the process group, gloo on CPUs and NCCL on GPUs, unless this process is in it.

    From then on the process ends soon after another rank is silently gone: see ``peers``.
    """
    if dist.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    store: Store
    if ranks.size == 1:
        store = HashStore()
    else:
        store, *_ = next(rendezvous("env://", ranks.rank, ranks.size, timeout=MEETING_TIMEOUT))
        store.set_timeout(timeout)
        _met[:] = [store]
        PEERS.watch(ranks.rank, ranks.size, PrefixStore("peers", _own(store)))
    dist.init_process_group(
        backend,
        store=PrefixStore("runs", store),
        rank=ranks.rank,
        world_size=ranks.size,
        timeout=timeout,
    )


class Post:
    """Words from rank to rank beside the collectives: for threads, which must not take part in
    those. One end serves one thread."""

    def __init__(self) -> None:
        self._store = PrefixStore("post", _own(_met[0]))

    def send(self, subject: str, words: Any) -> None:
        """Leave words, as JSON data, for whoever asks for this subject."""
        self._store.set(subject, json.dumps(words))

    def receive(self, subject: str) -> Any:
        """Return the words of a subject and take them away; None where there are none so far."""
        if not self._store.check([subject]):
            return None
        words = json.loads(self._store.get(subject))
        self._store.delete_key(subject)
        return words


def _own(store: Any) -> Store:
    """Return a connection of its own to a store: one that waits keeps all others waiting that share
    it."""
    own: Store = store.clone()
    return own
