"""How far weights are from where they began, of all that is trained and of adapters."""

import math

import polars as pl
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from small_run import make_run

from sweeps.sources.corpora import standin_digest
from sweeps.spec import Execution, Lora, ModelSpec, Objective, StandinModel
from sweeps.store.store import Store
from workers.controls.layer_groups import LayerGroup
from workers.loading import folder_of
from workers.models.first_weights import FirstWeights
from workers.probes.displacement import Back, Displacement, Moved, displaced
from workers.progress import PULSE
from workers.ranks.process_group import ALONE, Ranks
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
    share_cache, tmp_path, adapter, family
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
    store = Store(share_cache(tmp_path))
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


def back(*matrices):
    found = Back()
    for before, after, other in matrices:
        found.add(*(None if one is None else torch.tensor(one) for one in (before, after, other)))
    return found.reversion


def test_reversion_is_the_cosine_of_the_way_gone_with_the_way_back():
    assert back(([1.0, 1.0], [1.0, 3.0], [4.0, 5.0])) == pytest.approx(4 / 5)
    assert back(([1.0, 1.0], [0.0, 1.0], [5.0, 1.0])) == -1.0
    # All matrices of a layer are one vector.
    both = (([0.0], [1.0], [3.0]), ([[0.0]], [[2.0]], [[4.0]]))
    assert back(*both) == pytest.approx((1 * 3 + 2 * 4) / math.sqrt(5 * 25))


def test_a_layer_has_no_reversion_where_a_matrix_is_unknown_or_either_side_did_not_move():
    known = ([1.0, 1.0], [1.0, 3.0], [4.0, 5.0])
    assert back(known, ([1.0], [2.0], None)) is None
    assert back(([1.0], [2.0], None)) is None
    assert back(([1.0], [1.0], [3.0])) is None
    assert back(([1.0], [3.0], [1.0])) is None


class Weighed:
    """Stands for an engine of layer groups, and says to which rank their weights went."""

    def __init__(self, groups):
        self.groups, self.asked = groups, []

    def layer(self, i, name, device, wanted=None, to=None):
        self.asked.append((i, name, device, wanted, to))
        return {k: p.detach().clone() for k, p in enumerate(self.groups[i].parameters)}


def weighed(tmp_path, ranks=ALONE, other=None):
    """Return two layers of a matrix of ones each, of which the second has then become 3, by an
    engine; and what their displacement is taken by."""
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    for parameter in model.parameters():
        torch.nn.init.ones_(parameter)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    folder = None
    if other is not None:
        folder = tmp_path / "other"
        folder.mkdir()
        save_file({name: torch.full_like(t, other) for name, t in model.state_dict().items()},
                  folder / "model.safetensors")  # fmt: skip
    engine = Weighed(
        [
            LayerGroup(k, "block", tuple(f"{name}.{n}" for n, _ in part.named_parameters()),
                       tuple(part.parameters()))
            for k, (name, part) in enumerate(model.items(), 1)
        ]
    )  # fmt: skip
    found = Displacement(tmp_path, model, engine.groups, ranks, folder)
    torch.nn.init.constant_(model["b"].weight, 3.0)
    return found, engine


def test_each_layer_is_compared_with_itself_by_the_first_rank_alone(tmp_path):
    displacement, engine = weighed(tmp_path)
    still, moved = displacement.measure(engine)
    assert (still.displacement, still.displacement_cosine, still.reversion) == (0.0, 1.0, None)
    assert moved.displacement == pytest.approx(math.sqrt(4 * 4 / 6))
    assert moved.displacement_cosine == pytest.approx((4 * 3 + 2) / math.sqrt(6 * (4 * 9 + 2)))
    assert engine.asked == [(0, "weights", CPU, None, 0), (1, "weights", CPU, None, 0)]


@pytest.mark.parametrize(("other", "cosine"), [(5.0, 1.0), (0.0, -1.0)])
def test_with_another_checkpoint_layers_may_have_gone_back(tmp_path, other, cosine):
    displacement, engine = weighed(tmp_path, other=other)
    still, moved = displacement.measure(engine)
    assert still.reversion is None
    # The weights moved, of which there are 4 of 6 numbers.
    assert moved.reversion == pytest.approx(cosine * math.sqrt(4 / 6))


def test_other_ranks_take_part_and_read_nothing(tmp_path):
    displacement, engine = weighed(tmp_path, Ranks(rank=1, size=2), other=5.0)
    for file in tmp_path.rglob("*.safetensors"):
        file.unlink()
    assert displacement.measure(engine) == [Moved(), Moved()]
    assert [to for *_, to in engine.asked] == [0, 0]


def test_another_checkpoint_is_opened_by_the_first_rank_alone(tmp_path):
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"no header")
    model = torch.nn.Linear(2, 2)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    Displacement(tmp_path, model, [], Ranks(rank=1, size=2), tmp_path / "damaged")
    with pytest.raises(SafetensorError):
        Displacement(tmp_path, model, [], ALONE, tmp_path / "damaged")


def test_every_layer_shows_that_the_work_gets_on(tmp_path, monkeypatch):
    displacement, engine = weighed(tmp_path)
    beats = []
    monkeypatch.setattr(PULSE, "beat", lambda: beats.append(1))
    displacement.measure(engine)
    assert len(beats) == 2
