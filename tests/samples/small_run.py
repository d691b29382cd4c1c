"""A run of seconds, for tests that need one."""

from sweeps.sources.corpora import corpus_digest, standin_digest
from sweeps.spec import (
    BuiltinData,
    Execution,
    ModelSpec,
    Objective,
    Optimizer,
    Probe,
    RunSpec,
    Standard,
    StandinModel,
)

DOCS = BuiltinData(builtin="python-docs", digest=corpus_digest("python-docs"))


def make_run(**fields):
    source = StandinModel(
        standin="gpt2",
        layers=3,
        width=32,
        vocabulary=400,
        pretrain_steps=3,
        pretraining="clm",
        digest=standin_digest(),
    )
    return RunSpec(
        **{
            "model": ModelSpec(name="tiny", source=source),
            "objective": Objective(kind="clm", data=DOCS),
            "control": Standard(),
            "seed": 0,
            "steps": 7,
            "batch_size": 4,
            "sequence_length": 16,
            "optimizer": Optimizer(learning_rate=1e-3),
            "probe": Probe(data=DOCS, rows=32, sequence_length=16, every=3),
            "execution": Execution(part_steps=3, checkpoint_share=1),
            **fields,
        }
    )


class LoneAttempt:
    """Stands for ``sweeps.attempts.attempt.Attempt`` where nothing is claimed."""

    label = "a1-00000000"

    def require_ownership(self):
        """It is always the owner."""

    require_not_superseded = require_ownership

    def log(self, message, level="info", **fields):
        """Nobody reads it."""

    def superseded(self):
        return AssertionError("nobody else is there")
