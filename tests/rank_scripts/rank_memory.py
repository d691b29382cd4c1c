"""What a rank under DeepSpeed allocates on the CPU.

``python tests/rank_scripts/rank_memory.py run.json out``

The specification is that of a run with a settled execution, of a stand-in that is drawn at random.
Sizes that are a GPU's, of slabs and messages, are taken as ``BUCKET`` and ``SLAB`` say.
"""

import json
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from sweeps.spec import RunSpec
from workers.controls.layer_groups import find_layer_groups
from workers.controls.registry import build_control
from workers.engines import deepspeed, layer_optimizer
from workers.engines.registry import build_engine
from workers.footprint.word_tokenizer import TokenCount
from workers.models.pretrained import PretrainedModel, measure_facts
from workers.models.standins import build_config
from workers.objectives.registry import build_objective
from workers.ranks.process_group import Ranks
from workers.ranks.rank_process import end_process

BUCKET = 1 << 18
CPU = torch.device("cpu")


def train(run, ranks, mark):
    """Build what trains the run, and take two steps."""
    torch.manual_seed(0)
    objective = build_objective(run.objective)
    source = run.model.source
    auto = AutoModelForCausalLM if source.pretraining == "clm" else AutoModelForMaskedLM
    drawn = auto.from_config(build_config(source, TokenCount(source.vocabulary)))
    pretrained = PretrainedModel(drawn, None, measure_facts(drawn))
    model = objective.build_model(pretrained)
    batch = {"input_ids": torch.randint(5, 300, (run.batch_size, run.sequence_length))}
    groups = find_layer_groups(model, lambda: objective.loss_sum(model, batch))
    mark("model")
    engine = build_engine(run, model, pretrained, groups, build_control(run.control), ranks, CPU)
    mark("engine")
    for step in range(2):
        objective.accumulate(engine, batch, run.micro_batch_size)
        mark(f"gradients {step}")
        engine.step(1e-4)
        mark(f"step {step}")
    return engine


def allocated(prof):
    """Return (moment in ns, bytes allocated then) after each allocation."""
    found, total = [], 0
    events = [e for e in prof.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        found.append((event.start_ns(), total))
    return found


def main():
    torch.set_num_threads(1)
    deepspeed.BUCKET = BUCKET
    layer_optimizer.CPU_SLAB = layer_optimizer.DEVICE_SLAB
    run = RunSpec.model_validate_json(Path(sys.argv[1]).read_text())
    ranks = Ranks.from_environment()
    marks = []
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as prof:
        engine = train(run, ranks, lambda name: marks.append((name, time.time_ns())))
    del engine
    found, before = {}, 0
    timeline = allocated(prof)
    for name, until in marks:
        within = [total for moment, total in timeline if before <= moment < until]
        last = [total for moment, total in timeline if moment < until]
        found[name] = {"peak": max(within, default=0), "after": last[-1] if last else 0}
        before = until
    if ranks.leads:
        Path(sys.argv[2]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
    end_process()
