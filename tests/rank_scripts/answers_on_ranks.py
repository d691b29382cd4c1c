"""A run whose model answers prompts, by the engine of two ranks or of this process.

``python tests/rank_scripts/answers_on_ranks.py STORE STAGE`` in each rank, under DeepSpeed.
"""

import sys

import torch

from sweeps.sources.corpora import TASKS, corpus_digest, standin_digest
from sweeps.spec import (
    BuiltinData,
    Evaluation,
    Execution,
    Judge,
    ModelSpec,
    Objective,
    PromptSet,
    Refusal,
    StandinModel,
)
from sweeps.store.store import Store
from tests.rank_scripts.sample_norms import cut_all
from tests.samples.small_run import make_run
from workers.ranks.process_group import Ranks
from workers.ranks.rank_process import end_process
from workers.train import train


def made_up(name):
    return BuiltinData(builtin=name, digest=corpus_digest(name))


def answering_run(**execution):
    """Return a run of four steps; prompts make an odd number of batches, so that a rank writes one
    more than the other."""
    source = StandinModel(
        standin="gpt2",
        layers=2,
        width=32,
        vocabulary=400,
        pretrain_steps=40,
        pretraining="clm",
        digest=standin_digest("made_up"),
        language="made_up",
    )
    prompts = PromptSet(name="p", data=made_up("made-up-prompts"))
    judge = Judge(name="judge", source=source)
    refusal = Refusal(prompts=(prompts,), max_new_tokens=6, prompt_batch=43, judge=(judge,))
    return make_run(
        model=ModelSpec(name="m", source=source),
        objective=Objective(kind="sft", packing="none", data=made_up(TASKS)),
        sequence_length=32,
        evaluation=Evaluation(fraction=0.1, batches=2, refusal=refusal),
        steps=4,
        execution=Execution(part_steps=2, checkpoint_share=0, **execution),
    )


def main():
    torch.set_num_threads(1)
    cut_all()
    store, stage = sys.argv[1:]
    run = answering_run(processes=2, engine="deepspeed", zero_stage=int(stage))
    list(train(run, Store.at(store), torch.device("cpu"), Ranks.from_environment()))
    end_process(0)


if __name__ == "__main__":
    main()
