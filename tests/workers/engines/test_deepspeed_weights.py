"""The first rank's weights on every rank: never whole in another one's memory."""

import json

import pytest
import torch

pytest.importorskip("deepspeed")

import memory_of_ranks
from engine_cells import build, forget, in_ranks
from memory_of_ranks import LAYERS, WHOLE

from workers.engines import deepspeed_weights
from workers.ranks.process_group import ALONE, Ranks

LAYER = WHOLE / LAYERS


def test_under_zero_3_no_rank_holds_the_model_besides_its_part(tmp_path):
    in_ranks(memory_of_ranks.__file__, [str(tmp_path), "3"], 2, fresh=True)
    first, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert other["peak"] < WHOLE / 2 + 1.5 * LAYER
    assert other["now"] > 0.45 * WHOLE  # it is its half
    # The first lets go of what it has read as it is cut: never all of it and its half besides.
    assert first["peak"] < 1.5 * LAYER
    assert first["now"] < -WHOLE / 2 + LAYER


def test_parameters_are_filled_in_place_of_those_that_others_hold():
    _, _, pretrained = build("bert")
    model = pretrained.language_model
    held = list(model.parameters())
    embeddings = model.get_input_embeddings().weight
    forget(model)
    assert all(parameter.is_meta for parameter in held)
    frozen = held[3].requires_grad_(False)
    deepspeed_weights.place(model, torch.bfloat16, Ranks(rank=1, size=2), torch.device("cpu"))
    assert [id(parameter) for parameter in model.parameters()] == [id(p) for p in held]
    assert {(p.device.type, p.dtype) for p in held} == {("cpu", torch.bfloat16)}
    assert not frozen.requires_grad
    assert embeddings is model.get_output_embeddings().weight  # tied still


def test_under_zero_3_buffers_go_to_the_device_that_computes(monkeypatch):
    """A CPU has no other device: of this model nothing but shapes goes there."""
    import deepspeed

    monkeypatch.setattr(deepspeed.zero, "Init", lambda *_, **__: None)
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(torch.ones(3, device="meta"))
    model.part = torch.nn.Module()
    model.part.register_buffer("kinds", torch.zeros(4, dtype=torch.long), persistent=False)
    there = torch.device("meta")
    deepspeed_weights.cut(model, torch.float32, {}, ALONE, there)
    assert (model.weight.device, model.part.kinds.device) == (there, there)
    assert list(model.state_dict()) == ["weight"]  # nor is it kept in what is saved
