"""The models of the study: where they are, and what their architecture is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BlockType = Literal["sequential", "parallel", "mixer", "unknown"]


@dataclass(frozen=True)
class Family:
    """What is true of every model of one architecture (a ``model_type`` of transformers)."""

    kind: Literal["encoder", "decoder", "ssm", "rnn"]
    block: BlockType
    pretraining: Literal["clm", "mlm"]


FAMILIES: dict[str, Family] = {
    "bert": Family("encoder", "sequential", "mlm"),
    "roberta": Family("encoder", "sequential", "mlm"),
    "albert": Family("encoder", "sequential", "mlm"),
    "gpt2": Family("decoder", "sequential", "clm"),
    "looped_gpt2": Family("decoder", "sequential", "clm"),
    "opt": Family("decoder", "sequential", "clm"),
    "gpt_neox": Family("decoder", "parallel", "clm"),
    "codegen": Family("decoder", "parallel", "clm"),
    "mamba": Family("ssm", "mixer", "clm"),
    "rwkv": Family("rnn", "sequential", "clm"),
}


@dataclass(frozen=True)
class CatalogModel:
    """One published model. ``parameters`` counts a tied output embedding once."""

    hub: str
    revision: str
    family: str
    layers: int
    width: int
    vocabulary: int
    parameters: int
    safetensors: bool = True


CATALOG: dict[str, CatalogModel] = {
    "bert-base-uncased": CatalogModel(
        "google-bert/bert-base-uncased",
        "86b5e0934494bd15c9632b12f734a8a67f723594",
        "bert",
        12,
        768,
        30522,
        109_514_298,
    ),
    "bert-large-uncased": CatalogModel(
        "google-bert/bert-large-uncased",
        "6da4b6a26a1877e173fca3225479512db81a5e5b",
        "bert",
        24,
        1024,
        30522,
        335_174_458,
    ),
    "roberta-base": CatalogModel(
        "FacebookAI/roberta-base",
        "e2da8e2f811d1448a5b465c236feacd80ffbac7b",
        "roberta",
        12,
        768,
        50265,
        124_697_433,
    ),
    "gpt2": CatalogModel(
        "openai-community/gpt2",
        "607a30d783dfa663caf39e06633721c8d4cfcd7e",
        "gpt2",
        12,
        768,
        50257,
        124_439_808,
    ),
    "gpt2-medium": CatalogModel(
        "openai-community/gpt2-medium",
        "6dcaa7a952f72f9298047fd5137cd6e4f05f41da",
        "gpt2",
        24,
        1024,
        50257,
        354_823_168,
    ),
    "opt-125m": CatalogModel(
        "facebook/opt-125m",
        "27dcfa74d334bc871f3234de431e71c6eeba5dd6",
        "opt",
        12,
        768,
        50272,
        125_239_296,
        safetensors=False,
    ),
    "opt-350m": CatalogModel(
        "facebook/opt-350m",
        "061d15c4d9cc3e25b93c0393d0bcca4934eaa033",
        "opt",
        24,
        1024,
        50272,
        331_196_416,
    ),
    "opt-1.3b": CatalogModel(
        "facebook/opt-1.3b",
        "3f5c25d0bc631cb57ac65913f76e22c2dfb61d62",
        "opt",
        24,
        2048,
        50272,
        1_315_758_080,
        safetensors=False,
    ),
    "pythia-160m": CatalogModel(
        "EleutherAI/pythia-160m",
        "50f5173d932e8e61f858120bcb800b97af589f46",
        "gpt_neox",
        12,
        768,
        50304,
        162_322_944,
    ),
    "pythia-410m": CatalogModel(
        "EleutherAI/pythia-410m",
        "9879c9b5f8bea9051dcb0e68dff21493d67e9d4f",
        "gpt_neox",
        24,
        1024,
        50304,
        405_334_016,
    ),
    "pythia-1.4b": CatalogModel(
        "EleutherAI/pythia-1.4b",
        "fedc38a16eea3bd36a96b906d78d11d2ce18ed79",
        "gpt_neox",
        24,
        2048,
        50304,
        1_414_647_808,
    ),
    "pythia-6.9b": CatalogModel(
        "EleutherAI/pythia-6.9b",
        "c0e3eee36dc47af0c49f361c74cfe459c09f7f23",
        "gpt_neox",
        32,
        4096,
        50432,
        6_857_302_016,
    ),
    "codegen-350M-mono": CatalogModel(
        "Salesforce/codegen-350M-mono",
        "d9107f71cca463240db1143f4a75a927a27fcb27",
        "codegen",
        20,
        1024,
        51200,
        356_712_448,
        safetensors=False,
    ),
    "mamba-130m": CatalogModel(
        "state-spaces/mamba-130m-hf",
        "1e76775f628fbf1350fbe4dbb3d971ba64af25a1",
        "mamba",
        24,
        768,
        50280,
        129_135_360,
    ),
    "rwkv-4-169m": CatalogModel(
        "RWKV/rwkv-4-169m-pile",
        "46bdc280eb97b6141d5d51a935e0c4870ecaefcc",
        "rwkv",
        12,
        768,
        50277,
        169_342_464,
        safetensors=False,
    ),
}


def by_hub(hub: str) -> CatalogModel | None:
    """Return the catalogue's model of a hub repository, or None."""
    return next((model for model in CATALOG.values() if model.hub == hub), None)
