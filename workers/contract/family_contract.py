"""What every model family is held to: blocks that are found, a head, weights that come back."""

from __future__ import annotations

from pathlib import Path

import torch

from workers.contract.pytest_plugin import Subject
from workers.models.pretrained import examine, input_rows


def test_its_blocks_are_found_and_each_token_has_a_row(subject: Subject) -> None:
    torch.manual_seed(0)
    model = subject.plugin.mark.target(subject.plugin.mark.target.config_class()).eval()
    stacks = examine(model, None).stacks
    assert sum(len(stack.blocks) for stack in stacks) > 0
    assert input_rows(model) == model.config.vocab_size


def test_its_logits_are_the_same_after_saving_and_loading(subject: Subject, tmp_path: Path) -> None:
    torch.manual_seed(0)
    target = subject.plugin.mark.target
    model = target(target.config_class()).eval()
    model.save_pretrained(tmp_path)
    again = target.from_pretrained(tmp_path).eval()
    tokens = torch.randint(0, model.config.vocab_size, (2, 9))
    mask = torch.ones_like(tokens)
    with torch.no_grad():
        one, other = (each(input_ids=tokens, attention_mask=mask).logits for each in (model, again))
    assert one.shape == (2, 9, model.config.vocab_size)
    assert torch.equal(one, other)
