"""What a rank process carries out, a run or a measurement: from a job's words to the work."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from sweeps.spec import Measurement, RunSpec
from sweeps.store.store import Store
from workers.measurement import measure
from workers.progress import Progress
from workers.ranks.notice import Notice
from workers.ranks.process_group import Ranks
from workers.ranks.rank_process import CudaAfterFork, Job
from workers.train import train


def train_rank(job: Job, notice: Notice) -> Iterator[Progress]:
    """Carry out one rank of a run on the GPU that the environment leaves visible, or a CPU."""
    ranks = _settled(job)
    run = RunSpec.model_validate_json(job.spec)
    store = Store.at(job.store, waits=True)
    yield from train(run, store, ranks.device(), ranks, notice)


def measure_rank(job: Job, notice: Notice) -> Iterator[Progress]:
    """Carry out a measurement, by its one rank, where ``train_rank`` would train."""
    ranks = _settled(job)
    measurement = Measurement.model_validate_json(job.spec)
    store = Store.at(job.store, waits=True)
    yield from measure(measurement, store, ranks.device(), notice)


def _settled(job: Job) -> Ranks:
    torch.set_num_threads(job.threads)
    ranks = Ranks.from_environment()
    if job.environment.get("CUDA_VISIBLE_DEVICES"):
        _require_cuda()
    return ranks


def _require_cuda() -> None:
    if torch.version.cuda is None:
        return
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise CudaAfterFork(" ".join(str(error).split())) from error
