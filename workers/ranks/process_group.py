"""The processes of one run: which this is, of how many, and how they find each other.

As under torchrun, the environment says it: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from workers.ranks.notice import Cause, Notice, cause_of

T = TypeVar("T")

# A rank that waits this long for another ends with an error: longer than any step or checkpoint.
COLLECTIVE_TIMEOUT = timedelta(minutes=15)


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


def connect(ranks: Ranks, device: torch.device, timeout: timedelta = COLLECTIVE_TIMEOUT) -> None:
    """Join the process group, gloo on CPUs and NCCL on GPUs, unless this process is in it."""
    if dist.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    if ranks.size == 1:
        dist.init_process_group(
            backend,
            store=torch._C._distributed_c10d.HashStore(),
            rank=0,
            world_size=1,
            timeout=timeout,
        )
    else:
        dist.init_process_group(backend, rank=ranks.rank, world_size=ranks.size, timeout=timeout)
