"""Models that are written by other ranks than the first."""

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, GPT2Config

from workers.models.saving import save_model


def test_every_rank_that_asks_writes_a_whole_model(tmp_path, monkeypatch):
    """Of a run over two nodes each has a cache of its own where the store is an object store."""
    torch.manual_seed(0)
    config = GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=16, n_positions=8)
    model = AutoModelForCausalLM.from_config(config)
    save_model(model, tmp_path / "first")
    # As transformers sees it on the second of two ranks.
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda *_: 1)
    monkeypatch.setattr(dist, "get_world_size", lambda *_: 2)
    save_model(model, tmp_path / "second")
    first = {path.name: path.read_bytes() for path in (tmp_path / "first").iterdir()}
    assert "model.safetensors" in first
    assert {p.name: p.read_bytes() for p in (tmp_path / "second").iterdir()} == first
    assert "should_save_on_this_rank" not in vars(model)
