"""Every kind of objective under DeepSpeed, on two ranks that share the optimizer, as by itself."""

import pytest

pytest.importorskip("deepspeed")

import kinds_on_ranks
from engine_cells import in_ranks
from kinds_on_ranks import ADAPTERS, KINDS, trained
from safetensors.torch import load_file

# Steps are of 2e-3, and sums in another order make differences that depend on the processor: the
# plain engine's own micro-batches differ by 2.6e-6 where two ranks differ from it by 4.2e-6, and on
# another machine by 1.9e-6. InfoNCE divides by a temperature of 0.05, and its terms are 20 times as
# large before they cancel.
USUAL = 6e-6
TOLERANCE = {"negatives": 3e-5}


@pytest.fixture(scope="module")
def on_ranks(tmp_path_factory):
    result = tmp_path_factory.mktemp("ranks") / "result.safetensors"
    in_ranks(kinds_on_ranks.__file__, [str(result)], 2)
    return load_file(result)


@pytest.mark.parametrize("what", ADAPTERS)
@pytest.mark.parametrize("name", KINDS)
def test_two_ranks_give_the_weights_and_losses_of_one_process(name, what, on_ranks, tmp_path):
    alone = trained(name, tmp_path, what=what)
    for key, values in alone.items():
        difference = (values - on_ranks[key]).abs().max()
        assert difference <= TOLERANCE.get(name, USUAL), (key, float(difference))
    losses = next(values for key, values in alone.items() if key.endswith("/losses"))
    assert losses.isfinite().all()
    assert losses.unique().numel() == len(losses)
