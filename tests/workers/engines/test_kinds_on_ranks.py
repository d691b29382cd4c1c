"""Every kind of objective under DeepSpeed, on two ranks that share the optimizer, as by itself."""

import itertools
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("deepspeed")

from engine_cells import in_ranks
from kinds_on_ranks import ADAPTERS, KINDS, trained
from safetensors.torch import load_file, save_file

from workers.ranks.process_group import Ranks
from workers.ranks.rank_process import end_process

# Steps are of 2e-3, and sums in another order make differences that depend on the processor: the
# plain engine's own micro-batches differ by 2.6e-6 where two ranks differ from it by 4.2e-6, and on
# another machine by 1.9e-6. InfoNCE divides by a temperature of 0.05, and its terms are 20 times as
# large before they cancel.
USUAL = 6e-6
TOLERANCE = {"negatives": 3e-5}


# Each kind is once in the usual suite, of the model or of an adapter beside it.
BY_ADAPTER = ("sft_within", "regression")
EVERY = tuple(itertools.product(KINDS, ADAPTERS))
ONCE = tuple((name, "lora" if name in BY_ADAPTER else "full") for name in KINDS)


@pytest.fixture(scope="module")
def on_ranks(request, tmp_path_factory):
    """What two ranks give, of those that are asked for today."""
    items = [item for item in request.session.items if item.path == request.path]
    slow = any("slow" in item.keywords for item in items)
    result = tmp_path_factory.mktemp("ranks") / "result.safetensors"
    in_ranks(__file__, [str(result), "every" if slow else "once"], 2)
    return load_file(result)


@pytest.mark.parametrize(
    ("name", "what"),
    [pytest.param(*one, marks=() if one in ONCE else pytest.mark.slow) for one in EVERY],
)
def test_two_ranks_give_the_weights_and_losses_of_one_process(name, what, on_ranks, tmp_path):
    alone = trained(name, tmp_path, what=what)
    for key, values in alone.items():
        difference = (values - on_ranks[key]).abs().max()
        assert difference <= TOLERANCE.get(name, USUAL), (key, float(difference))
    losses = next(values for key, values in alone.items() if key.endswith("/losses"))
    assert losses.isfinite().all()
    assert losses.unique().numel() == len(losses)


def main(path, table):
    torch.set_num_threads(1)
    ranks, result, found = Ranks.from_environment(), Path(path), {}
    for name, what in ONCE if table == "once" else EVERY:
        found |= trained(name, result.parent / "cache", ranks, what=what)
    if ranks.leads:
        save_file({name: t.contiguous() for name, t in found.items()}, result)


if __name__ == "__main__":
    main(*sys.argv[1:])
    end_process()
