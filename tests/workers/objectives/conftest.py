"""An engine with nothing in it."""

import pytest
import torch


class AloneEngine:
    """The engine protocol of one process; counts how often its model is asked."""

    rank, ranks, device = 0, 1, torch.device("cpu")

    def __init__(self, model):
        self.model = model
        self.forward_precision = lambda _=None: torch.autocast("cpu", torch.bfloat16, enabled=False)
        self.share = self.gather = self.total = lambda tensor: tensor
        self.asked = 0
        model.register_forward_hook(lambda *_: setattr(self, "asked", self.asked + 1))

    def backward(self, loss):
        loss.backward()


@pytest.fixture
def engine_of():
    return AloneEngine
