"""Norms of candidates on two ranks under DeepSpeed, and what is chosen of the whole batch."""

import pytest

pytest.importorskip("deepspeed")

import sample_norms
import torch
from engine_cells import in_ranks
from safetensors.torch import load_file

FAMILIES = ("gpt2", "bert", "opt", "gpt_neox", "mamba")


@pytest.mark.parametrize("stage", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_two_ranks_have_the_norms_and_choose_the_examples_of_one_process(stage, tmp_path):
    # In the usual suite as few as show it.
    families = FAMILIES if stage == 0 else ("gpt2",)
    result = tmp_path / "result.safetensors"
    in_ranks(sample_norms.__file__, [str(result), ",".join(families), str(stage)], 2)
    found = load_file(result)
    for family in families:
        for what in sample_norms.ADAPTERS:
            losses, norms = sample_norms.norms_of(family, what, 16)
            torch.testing.assert_close(found[f"{family} {what}/norms"], norms, rtol=1e-5, atol=1e-9)
            torch.testing.assert_close(
                found[f"{family} {what}/losses"], losses, rtol=1e-5, atol=0.0
            )
    # The last one is trained, too: the passes that measure leave no gradient behind.
    chosen, weights = sample_norms.trained(families[-1], "full")
    assert found[f"{families[-1]}/chosen"].tolist() == chosen.tolist()
    assert (found[f"{families[-1]}/weights"] - weights).abs().max() <= 3e-6
