"""How far weights are from where they began, of all that is trained and of adapters."""

import math

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from small_run import make_run

from sweeps.sources.corpora import standin_digest
from sweeps.spec import Execution, Lora, ModelSpec, Objective, StandinModel
from sweeps.store.store import Store
from workers.loading import folder_of
from workers.models.first_weights import FirstWeights
from workers.probes.displacement import displaced
from workers.train import train
from workers.weights.kept import kept_model

CPU = torch.device("cpu")


def test_it_is_the_distance_over_the_first_norm_and_the_angle():
    before = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]
    after = [torch.tensor([3.0, 5.0]), torch.tensor([[0.0]])]
    distance, cosine = displaced(zip(before, after, strict=True))
    assert distance == pytest.approx(math.sqrt(25 + 16) / 5)
    assert cosine == pytest.approx(9 / (5 * math.sqrt(34)))
    zero = torch.zeros(3)
    assert displaced([(zero, zero + 1)]) == (None, None)
    assert displaced([(zero + 1, zero)]) == (1.0, None)


@pytest.mark.parametrize(
    ("family", "adapter"),
    [
        ("bert", None),
        ("gpt2", Lora(rank=2, alpha=5.0)),
        pytest.param("gpt2", None, marks=pytest.mark.slow),
        pytest.param("bert", Lora(rank=2, alpha=5.0), marks=pytest.mark.slow),
    ],
)
def test_rows_at_probe_steps_say_what_the_folder_and_the_kept_weights_say(
    tmp_path, adapter, family
):
    masked = family == "bert"
    source = StandinModel(
        standin=family,
        layers=2,
        width=32,
        vocabulary=400,
        pretrain_steps=3,
        pretraining="mlm" if masked else "clm",
        digest=standin_digest(),
    )
    base = make_run()
    objective = Objective(
        kind=source.pretraining,
        data=base.objective.data,
        mask_probability=0.3 if masked else None,
    )
    run = make_run(
        model=ModelSpec(name="m", source=source),
        objective=objective,
        execution=Execution(keep="final"),
        **({"adapter": adapter} if adapter else {}),
    )
    store = Store(tmp_path)
    list(train(run, store, CPU))
    parts = store.run(run.run_id).parts("layers")
    rows = pl.concat([pl.read_parquet(str(path)) for path in parts])
    told = rows.filter(pl.col("displacement").is_not_null())
    assert set(told["step"]) == {3, 6, 7}
    assert told["displacement_cosine"].is_between(0.5, 1.0).all()
    block = told.filter((pl.col("layer") == 2) & (pl.col("step") == 7))
    # By the folder it began as, and what transformers would merge.
    before = load_file(folder_of("m", source, store.cache) / "model.safetensors")
    trained = kept_model(run, store)
    if adapter:
        from workers.adapters.lora import adapted, merge

        matrices = {f"{name}.weight" for name in adapted(trained.pretrained.language_model)}
        merge(trained.pretrained.language_model)
    after = trained.pretrained.language_model.state_dict()
    inner = {"bert": "encoder.layer.1.", "gpt2": "h.1."}[family]
    names = [name for name in after if inner in name and (not adapter or name in matrices)]
    assert names
    pairs = [(before[name], after[name]) for name in names]
    moved = math.sqrt(sum(float((b - a).double().square().sum()) for a, b in pairs))
    first = math.sqrt(sum(float(a.double().square().sum()) for a, _ in pairs))
    assert block["displacement"].item() == pytest.approx(moved / first, rel=1e-4)


def test_a_renamed_parameter_is_found_by_its_content_and_a_new_one_is_kept(tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    stored = {"old.gamma": torch.randn(4), "old.beta": torch.randn(4), "w": torch.randn(2, 3)}
    save_file({name: tensor.half() for name, tensor in stored.items()}, tmp_path / "m.safetensors")
    half = {name: tensor.half().float() for name, tensor in stored.items()}
    named = {
        "model.norm.weight": half["old.gamma"],
        "model.w": half["w"],
        "head.weight": torch.randn(2, 3),
    }
    parameters = {name: torch.nn.Parameter(value.clone()) for name, value in named.items()}
    first = FirstWeights(tmp_path, parameters.items())
    assert first.kept == ["head.weight"]
    for parameter in parameters.values():
        parameter.data.add_(1)
    assert all(torch.equal(first.read(name), value) for name, value in named.items())
