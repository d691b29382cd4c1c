"""The same sixty architectures traced without memory: what a plan of a model outside the catalogue
rests on. Of the rest a formula says what they need."""

import pytest
from small_run import DOCS, make_run

from sweeps.errors import Impossible
from sweeps.spec import OBJECTIVE_DEFAULTS, FolderModel, ModelSpec, Objective
from tests.zoo import trial
from tests.zoo.test_sixty import CASES
from workers.footprint.trace import trace

# They cut a tensor, or choose an expert, by numbers that they read back.
NOT_TRACED = {"jetmoe": RuntimeError, "switch_transformers": KeyError}
# As these are configured, a token sees those after it: of text alone the third has a prefix only.
NOT_CAUSAL = ("xlnet", "bert-generation", "paligemma")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "model_type"), CASES)
def test_an_architecture_is_traced(kind, model_type, tmp_path):
    model, _ = trial.tiny(model_type, kind)
    model.config.save_pretrained(tmp_path)
    pretraining = trial.KINDS[kind][2] or "clm"
    source = FolderModel(folder=str(tmp_path), pretraining=pretraining, digest="0" * 64)
    name = trial.objectives(kind)[0]
    objective = Objective(kind=name, data=DOCS, **OBJECTIVE_DEFAULTS[name])
    run = make_run(
        model=ModelSpec(name="tiny", source=source), objective=objective, sequence_length=12
    )
    if model_type in NOT_CAUSAL:
        with pytest.raises(Impossible, match="sees the tokens that it is to predict"):
            trace(run)
        return
    if model_type in NOT_TRACED:
        with pytest.raises(NOT_TRACED[model_type]):
            trace(run)
        return
    assert trace(run).flops > 0
