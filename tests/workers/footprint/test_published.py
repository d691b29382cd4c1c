"""Configurations that a plan takes where neither the hub nor its cache is at hand."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sweeps.declaration.expand import read_sweep
from sweeps.spec import HubModel
from workers.footprint.published import published_by_hub

# As published, with a tied output embedding once.
PARAMETERS = {
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
}


@pytest.mark.parametrize("tuned", ["", "-Instruct"])
@pytest.mark.parametrize("hub", PARAMETERS)
def test_models_of_the_safety_study_have_the_parameters_they_are_published_with(hub, tuned):
    settings = published_by_hub(hub + tuned)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings))
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[hub]


def test_every_model_of_a_committed_sweep_is_known_without_the_hub():
    for name in ("safety", "paper"):
        specs = [run.model for run in read_sweep(f"sweeps/library/{name}.yaml").runs]
        sources = [spec.source for spec in specs]
        sources += [spec.compared.source for spec in specs if spec.compared]
        hubs = {source.hub for source in sources if isinstance(source, HubModel)}
        assert len(hubs) >= 6
        assert [hub for hub in hubs if published_by_hub(hub) is None] == []


def test_of_other_repositories_nothing_is_known():
    assert published_by_hub("somebody/else") is None
