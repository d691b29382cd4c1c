"""Tiny models of every family, untrained: the shapes are real, the weights random."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from sweeps.spec import STANDIN_FAMILIES, StandinModel
from workers.models.standins import build_config, build_tokenizer

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizers():
    return {
        kind: build_tokenizer(standin(family, kind))
        for family, kind in (("bert", "mlm"), ("gpt2", "clm"))
    }


def standin(family, pretraining=None, layers=3, width=32):
    if pretraining is None:
        pretraining = "mlm" if family in ("bert", "roberta", "albert") else "clm"
    return StandinModel(
        standin=family,
        layers=layers,
        width=width,
        vocabulary=400,
        pretrain_steps=2,
        pretraining=pretraining,
        digest="0" * 64,
    )


@pytest.fixture(scope="session")
def make_language_model(tokenizers):
    """Return ``make(family) -> (language model, tokenizer)``, seeded."""

    def make(family, seed=0, **shape):
        source = standin(family, **shape)
        tokenizer = tokenizers[source.pretraining]
        auto = AutoModelForCausalLM if source.pretraining == "clm" else AutoModelForMaskedLM
        torch.manual_seed(seed)
        return auto.from_config(build_config(source, tokenizer)), tokenizer

    return make


@pytest.fixture(scope="session")
def share_cache(tmp_path_factory):
    """Return ``share_cache(folder)``: a new store there has the cache that tests of this process
    share. Stand-ins, tokens and references, which any test may make again, are made once."""
    cache = tmp_path_factory.mktemp("cache")

    def share(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cache").symlink_to(cache)
        return folder

    return share


@pytest.fixture(params=STANDIN_FAMILIES)
def family(request):
    return request.param
