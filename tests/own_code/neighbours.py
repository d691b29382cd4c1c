"""A worked example of a metric: which tokens lie near which."""

import torch

from sweeps.plugins import metric


@metric("neighbours_lost")
def neighbours_lost(reference, current, *, k: int = 5) -> float:
    """Share of each row's k nearest rows that are not among them any more, meaned over rows."""
    before, now = (
        (torch.cdist(x, x).fill_diagonal_(torch.inf).topk(k, largest=False).indices)
        for x in (reference, current)
    )
    kept = (before[:, :, None] == now[:, None, :]).any(dim=2).double().mean()
    return 1.0 - float(kept)
