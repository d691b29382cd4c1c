"""What a block keeps, against what autograd saves of one; and for models that nobody measured."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from orchestrator.sizing.activations import (
    BLOCKS,
    UNKNOWN,
    WRITTEN_OUT,
    kept_by_config,
    kept_by_family,
)
from orchestrator.sizing.memory import ModelShape
from sweeps.sources.catalog import CATALOG
from tests.gpu.catalogue import language_model

WIDTH, TOKENS = 256, (4, 128)
# ALBERT is a stand-in alone, and counted as one that nobody has measured.
FAMILIES = sorted({model.family for model in CATALOG.values()})


def saved(name, layers):
    """Return the bytes that a forward pass in float32 saves, but for parameters."""
    shape = ModelShape(0, layers, WIDTH, 512, UNKNOWN)
    model = language_model(name, torch.device("cpu"), shape)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found, held = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)  # so that no other one gets its address
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=torch.ones(TOKENS, dtype=torch.long))
    return sum(found.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_is_what_autograd_saves_of_a_block(family):
    name = next(name for name, model in CATALOG.items() if model.family == family)
    block = (saved(name, 4) - saved(name, 2)) / 2
    each = block / (TOKENS[0] * TOKENS[1] * WIDTH)
    assert each == pytest.approx(kept_by_family(family).fp32, rel=0.05)


def test_every_family_of_the_catalogue_has_its_numbers():
    assert set(BLOCKS) == set(FAMILIES)


def test_an_unknown_model_is_counted_by_its_activation_and_its_scan():
    known = {"model_type": "new", "hidden_act": "silu", "hidden_size": 64}
    assert kept_by_config(known) == UNKNOWN
    assert kept_by_config({**known, "hidden_act": "gelu_fast"}) == UNKNOWN + WRITTEN_OUT
    wide = kept_by_config({**known, "state_size": 64, "expand": 4})
    assert wide.bf16 - UNKNOWN.bf16 == 8 * (kept_by_family("mamba").bf16 - BLOCKS["mamba"].bf16)
    assert UNKNOWN.bf16 >= max(kept.bf16 for name, kept in BLOCKS.items() if name != "rwkv")


def test_an_unknown_model_keeps_the_most_of_those_with_attention():
    attending = [kept for name, kept in BLOCKS.items() if name not in ("mamba", "rwkv")]
    assert UNKNOWN.fp32 == max(kept.fp32 for kept in attending)
    assert UNKNOWN.bf16 == max(kept.bf16 for kept in attending)
