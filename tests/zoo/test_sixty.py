"""Sixty architectures of every kind: a step under control, groups, and captured states.

``python -m tests.zoo`` tries all there are.
"""

import pytest
import torch

from sweeps.errors import UserError
from tests.zoo import trial

# Of each kind of block: dense decoders, mixtures of experts, state spaces and recurrences, hybrids
# of unlike blocks, shared and looped blocks, several residual streams, encoders, and
# encoder-decoders; of wrappers that see or hear, the language model.
CHOSEN = {
    "clm": (
        "bloom", "codegen", "falcon", "gemma2", "gpt2", "gpt_neox", "gptj", "llama", "mpt",
        "olmo2", "openai-gpt", "opt", "phi3", "qwen3", "stablelm", "xlnet", "bert-generation",
        "deepseek_v3", "gpt_oss", "llama4_text", "mixtral", "olmoe", "qwen3_moe", "jetmoe",
        "falcon_mamba", "mamba", "mamba2", "rwkv", "xlstm",
        "bamba", "granitemoehybrid", "jamba", "nemotron_h", "olmo_hybrid", "qwen3_next",
        "recurrent_gemma", "zamba", "zamba2",
        "hrm_text", "gemma3n_text", "hy_v4",
        "bart", "gemma3", "moshi",
    ),
    "mlm": (
        "albert", "bert", "deberta-v2", "distilbert", "electra", "fnet", "modernbert", "mpnet",
        "nystromformer", "roberta",
    ),
    "span_corruption": (
        "bart", "encoder-decoder", "longt5", "m2m_100", "switch_transformers", "t5", "t5gemma",
    ),
    "image_text": ("llava", "paligemma", "smolvlm"),
    "bare": ("llama", "mpnet"),
}  # fmt: skip
CASES = [(kind, name) for kind, names in CHOSEN.items() for name in names]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_there_are_sixty_of_them_and_transformers_has_them():
    assert len(CASES) >= 60
    for kind, names in CHOSEN.items():
        assert set(names) <= set(trial.architectures(kind))


@pytest.mark.parametrize(("kind", "model_type"), CASES)
def test_an_architecture_is_trained_grouped_and_captured(kind, model_type):
    model, examined = trial.tiny(model_type, kind)
    assert not isinstance(examined, UserError), str(examined)
    # One objective each, so that all are tried on every kind of model.
    every = trial.objectives(kind)
    objective = every[CASES.index((kind, model_type)) % len(every)]
    grouping = trial.step(model, examined, objective, "equal_step")
    assert all(group.block_class for group in grouping.groups if group.kind == "block")
    assert trial.captured(model, examined.stacks) == ""
