"""What ZeRO cuts: two ranks on the CPU, what they allocated against the plan."""

import json

import pytest
import rank_memory
from engine_cells import ROOT, in_ranks
from small_run import make_run

from orchestrator.sizing import zero
from orchestrator.sizing.memory import traced_memory
from orchestrator.sizing.traces import Footprint, asked
from sweeps.spec import Execution, ModelSpec, StandinModel
from workers.footprint.trace import trace

RANKS = 2
SOURCE = StandinModel(
    standin="gpt_neox",
    layers=4,
    width=256,
    vocabulary=2048,
    pretrain_steps=1,
    pretraining="clm",
    digest="0" * 64,
)


@pytest.mark.parametrize(
    ("stage", "precision", "micro_batch"),
    [
        (2, "bf16", 2),
        *(
            pytest.param(*rest, marks=pytest.mark.slow)
            for rest in ((0, "fp32", 4), (1, "bf16", 2), (2, "fp32", 4), (3, "bf16", 2))
        ),
    ],
)
def test_a_rank_allocates_what_is_planned(stage, precision, micro_batch, tmp_path, monkeypatch):
    monkeypatch.setattr(zero, "BUCKET", rank_memory.BUCKET)
    how = Execution(
        engine="deepspeed", processes=RANKS, zero_stage=stage, micro_batch_size=micro_batch
    )
    run = make_run(
        model=ModelSpec(name="drawn", source=SOURCE),
        batch_size=8,
        sequence_length=64,
        precision=precision,
        execution=how.settled(),
    )
    (tmp_path / "run.json").write_text(run.model_dump_json())
    arguments = [str(tmp_path / "run.json"), str(tmp_path / "out.json")]
    script = str(ROOT / "tests" / "rank_scripts" / "rank_memory.py")
    in_ranks(script, arguments, RANKS, timeout=900, fresh=True)
    found = json.loads((tmp_path / "out.json").read_text())
    trained = [name for name in found if name not in ("model", "engine")]
    measured = max(found[name]["peak"] for name in trained)
    traced = trace(asked(run, micro_batch, "deepspeed", False)).as_record()
    planned = traced_memory(run, Footprint({micro_batch: traced}), run.execution)
    assert planned.allocated == pytest.approx(measured, rel=0.1)
