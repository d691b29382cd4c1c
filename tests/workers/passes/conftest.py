"""What tests of passes share: how many threads torch has."""

import pytest
import torch


@pytest.fixture
def threads():
    """Set a number of threads; afterwards it is what it was."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
