"""The run that a rank process carries out: from a job's words to the training loop."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from sweeps.spec import RunSpec
from sweeps.store.store import Store
from workers.progress import Progress
from workers.ranks.notice import Notice
from workers.ranks.process_group import Ranks
from workers.ranks.rank_process import CudaAfterFork, Job
from workers.train import train


def train_rank(job: Job, notice: Notice) -> Iterator[Progress]:
    """Carry out one rank of a run on the GPU that the environment leaves visible, or a CPU."""
    torch.set_num_threads(job.threads)
    ranks = Ranks.from_environment()
    if job.environment.get("CUDA_VISIBLE_DEVICES"):
        _require_cuda()
    run = RunSpec.model_validate_json(job.spec)
    store = Store.at(job.store, waits=True)
    yield from train(run, store, ranks.device(), ranks, notice)


def _require_cuda() -> None:
    if torch.version.cuda is None:
        return
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise CudaAfterFork(" ".join(str(error).split())) from error
