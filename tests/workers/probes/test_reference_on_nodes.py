"""Reference states of a gang on nodes that share no cache: those of the first one count."""

from collections import deque

import torch

from sweeps.sources.corpora import corpus_digest
from sweeps.spec import BuiltinData, Probe
from workers.models.pretrained import PretrainedModel, examine, measure_facts
from workers.probes.capture import reference_states
from workers.probes.rows import choose_rows
from workers.ranks.process_group import Ranks

CPU = torch.device("cpu")
PROBE = Probe(
    data=BuiltinData(builtin="python-docs", digest=corpus_digest("python-docs")),
    rows=64,
    sequence_length=16,
)


def pair():
    """Return ranks 0 and 1, of which the second is told later what the first has said."""
    said = deque()

    class First(Ranks):
        def agree(self, value):
            said.append(value)
            return value

    class Second(Ranks):
        def agree(self, value):
            del value
            return said.popleft()

    return First(0, 2), Second(1, 2)


def test_a_rank_on_a_node_without_the_reference_measures_the_same_rows(
    make_language_model, tmp_path
):
    model, tokenizer = make_language_model("gpt2")
    stacks = examine(model).stacks
    nodes = [tmp_path / name for name in ("first", "second")]
    rows = choose_rows(PROBE, 32, tokenizer, tmp_path)
    loaded = PretrainedModel(model, tokenizer, measure_facts(model), "content")
    for _ in ("made", "found"):
        found = [
            reference_states(loaded, "any", node, model.base_model, stacks, rows, CPU, ranks)
            for node, ranks in zip(nodes, pair(), strict=True)
        ]
        assert len(found[0].states) == 4
        assert found[1].states == []
        assert found[0].rows.position.equal(found[1].rows.position)
        assert found[0].rows.input_ids.equal(found[1].rows.input_ids)
    assert list((nodes[0] / "reference").glob("*.safetensors"))
    assert not nodes[1].exists()
