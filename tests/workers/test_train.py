"""One run, into a store: what it leaves there, however it ends."""

import json
import math

import polars as pl
import pytest
import torch
from small_run import DOCS, make_run

from sweeps.sources.corpora import corpus_digest
from sweeps.spec import (
    BuiltinData,
    EqualStep,
    Evaluation,
    Execution,
    LayerClip,
    Objective,
    Optimizer,
    Probe,
    Standard,
)
from sweeps.store.run_folder import RunFolder
from sweeps.store.schema import NULL_METRICS, TABLES
from sweeps.store.store import Store
from sweeps.upkeep.audit import audit
from workers import assembly
from workers.passes.passes import GRADIENT, UPDATE, WEIGHT
from workers.passes.torch_passes import TorchPasses
from workers.train import train

CPU = torch.device("cpu")
EVALUATION = Evaluation(fraction=0.3, batches=2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A store whose cache the stores of this module share: stand-ins are made once."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def store(cache, tmp_path):
    (cache / "cache").mkdir(exist_ok=True)
    (tmp_path / "cache").symlink_to(cache / "cache")
    return Store(tmp_path)


@pytest.fixture(scope="module")
def finished(cache, tmp_path_factory):
    """A finished run that tests read, its store and what was said on the way."""
    (cache / "cache").mkdir(exist_ok=True)
    root = tmp_path_factory.mktemp("finished")
    (root / "cache").symlink_to(cache / "cache")
    store, run = Store(root), make_run()
    return store, run, list(train(run, store, CPU))


def rows(store, run, table):
    """Return the rows of a table; none where the run has no part of it."""
    parts = store.run(run.run_id).parts(table)
    return pl.concat([pl.DataFrame(), *map(pl.read_parquet, parts)], how="diagonal")


def test_a_finished_run_has_every_row_once(finished):
    store, run, progress = finished
    assert [p.step for p in progress] == [0, 1, 2, 3, 4, 5, 6, 7, 7]
    assert progress[-1].status == "finished"
    assert rows(store, run, "steps")["step"].to_list() == [1, 2, 3, 4, 5, 6, 7]
    layers = rows(store, run, "layers")
    assert layers.select("step", "layer").n_unique() == len(layers) == 7 * 5
    profiles = rows(store, run, "profiles")
    assert profiles["step"].unique().sort().to_list() == [3, 6, 7]
    assert profiles.filter(step=7)["depth"].to_list() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    (part,) = store.run(run.run_id).parts("steps")
    assert part.name.startswith("part-000000-000007.a1-")


def test_the_closing_record_accounts_for_every_part(finished):
    store, run, _ = finished
    folder = store.run(run.run_id)
    done = folder.done()
    listed = {path: part["rows"] for path, part in done["parts"].items()}
    for table in TABLES:
        for path in folder.parts(table):
            assert listed.pop(str(path.relative_to(folder.path))) == len(pl.read_parquet(path))
    assert listed == {}
    assert folder.record()["spec"] == json.loads(run.model_dump_json())
    assert folder.record()["facts"]["layers"] == 3


def test_fine_tuning_moves_states_and_leaves_the_null_far_away(store):
    run = make_run(steps=20, optimizer=Optimizer(learning_rate=5e-3))
    list(train(run, store, CPU))
    last = rows(store, run, "profiles").filter(step=20)
    assert (last["procrustes"] > 0.01).all()
    assert (last["procrustes"] < last["procrustes_null"]).all()
    steps = rows(store, run, "steps")
    assert steps["loss"][-1] < steps["loss"][0]


def test_a_run_has_one_null_a_layer_at_all_of_its_probes(finished):
    store, run, _ = finished
    profiles = rows(store, run, "profiles")
    assert profiles["step"].n_unique() > 1
    for metric in NULL_METRICS:
        nulls = profiles.group_by("layer").agg(pl.col(f"{metric}_null").n_unique())
        assert nulls[f"{metric}_null"].to_list() == [1] * len(nulls)
        assert profiles[f"{metric}_null"].is_finite().all()


def test_the_rows_are_a_function_of_the_run(store, tmp_path_factory, cache):
    run = make_run(control=EqualStep(), evaluation=EVALUATION)
    again = tmp_path_factory.mktemp("again")
    (again / "cache").symlink_to(cache / "cache")
    list(train(run, store, CPU))
    list(train(make_run(seed=5), store, CPU))
    list(train(run, Store(again), CPU))
    for table in TABLES:
        assert rows(store, run, table).equals(rows(Store(again), run, table))


def test_equal_step_is_recorded_as_equal_and_standard_is_not(store):
    spreads = {}
    for control in (EqualStep(), EqualStep(target=0.001), Standard()):
        run = make_run(control=control)
        list(train(run, store, CPU))
        ratio = pl.col("update_norm") / pl.col("weight_norm")
        blocks = rows(store, run, "layers").filter(group="block")
        spread = blocks.group_by("step").agg((ratio.max() / ratio.min() - 1).alias("spread"))
        spreads[control.setting] = spread["spread"]
    assert (spreads["mean"] < 1e-5).all()
    assert (spreads["0.001"] < 1e-5).all()
    assert (spreads[""] > 1e-3).all()


@pytest.mark.parametrize("every", [1, 50])
def test_a_run_diverges_whether_or_not_a_probe_sees_it_first(store, every):
    probe = Probe(data=DOCS, rows=32, sequence_length=16, every=every)
    run = make_run(optimizer=Optimizer(learning_rate=1e18), steps=50, probe=probe)
    progress = list(train(run, store, CPU))
    done = store.run(run.run_id).done()
    assert progress[-1].status == done["status"] == "diverged"
    losses = rows(store, run, "steps")["loss"].to_list()
    assert len(losses) == done["step"] < 50
    assert store.run(run.run_id).attempts()[-1]["cause"] == "diverged"
    assert store.run(run.run_id).parts("jackknife") == []


def test_states_that_are_not_finite_are_rows_without_numbers_and_end_the_run(store, monkeypatch):
    from workers.probes import measure

    def exploded(*arguments):
        states = capture(*arguments)
        states[2][0, 0] = math.inf
        return states

    capture = measure.capture
    monkeypatch.setattr(measure, "capture", exploded)
    run = make_run()  # probed after step 3 first
    assert list(train(run, store, CPU))[-1].status == "diverged"
    seen = rows(store, run, "profiles").sort("layer")
    assert seen["step"].unique().to_list() == [3]
    assert seen["procrustes"].is_nan().to_list() == [False, False, True, False]
    assert "not finite" in store.run(run.run_id).log_path(1).read_text()


def test_a_collapsed_layer_is_a_row_and_the_run_goes_on(store, monkeypatch):
    from workers.probes import measure

    def collapsed(*arguments):
        states = capture(*arguments)
        states[1] = torch.ones_like(states[1])
        return states

    capture = measure.capture
    monkeypatch.setattr(measure, "capture", collapsed)
    run = make_run()
    assert list(train(run, store, CPU))[-1].status == "finished"
    seen = rows(store, run, "profiles").sort("step", "layer")
    assert seen.filter(layer=1)["cka_distance"].is_nan().all()
    assert seen.filter(pl.col("layer") != 1)["cka_distance"].is_finite().all()
    assert len(seen) == 4 * len(run.probe_steps)

    without = rows(store, run, "jackknife")
    assert without.filter(layer=1)["procrustes"].is_nan().all()
    assert without.filter(pl.col("layer") != 1)["procrustes"].is_finite().all()


def test_the_last_probe_alone_is_taken_without_each_group_of_sequences(store):
    run = make_run(probe=Probe(data=DOCS, rows=80, sequence_length=16, every=2))
    list(train(run, store, CPU))
    without = rows(store, run, "jackknife")
    assert without["step"].unique().to_list() == [7]
    assert without.select("layer", "sequence_group").n_unique() == len(without) == 4 * 16
    last = rows(store, run, "profiles").filter(step=7)
    # Each row is in one group, so each is left out once.
    gone = last["rows"][0] - without.filter(layer=2)["rows"]
    assert gone.sum() == last["rows"][0]
    for layer in range(4):
        whole = last.filter(layer=layer)["procrustes"][0]
        groups = without.filter(layer=layer)["procrustes"]
        assert groups.n_unique() == 16
        assert abs(groups.mean() - whole) < 0.05 * whole


def test_a_diverged_run_is_a_result_with_its_rows(store):
    run = make_run(optimizer=Optimizer(learning_rate=1e18), steps=50)
    progress = list(train(run, store, CPU))
    done = store.run(run.run_id).done()
    assert progress[-1].status == done["status"] == "diverged"
    assert done["step"] < 50
    losses = rows(store, run, "steps")["loss"].to_list()
    assert len(losses) == done["step"]
    assert all(math.isfinite(loss) for loss in losses[:-1])
    assert store.run(run.run_id).attempts()[-1]["cause"] == "diverged"


def test_closing_the_generator_is_a_cancelled_attempt_without_a_result(store):
    run = make_run()
    progress = train(run, store, CPU)
    for _ in range(3):
        next(progress)
    progress.close()
    folder = store.run(run.run_id)
    assert folder.done() is None
    (attempt,) = folder.attempts()
    assert (attempt["cause"], attempt["error"]) == ("cancelled", None)


def test_an_error_is_a_failed_attempt_with_its_traceback(store, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no such layer")

    monkeypatch.setattr(assembly, "group_layers", broken)
    run = make_run()
    with pytest.raises(RuntimeError):
        list(train(run, store, CPU))
    (attempt,) = store.run(run.run_id).attempts()
    assert attempt["cause"] == "failed"
    assert "RuntimeError: no such layer" in attempt["error"]
    monkeypatch.undo()
    list(train(run, store, CPU))
    causes = [attempt["cause"] for attempt in store.run(run.run_id).attempts()]
    assert causes == ["failed", "finished"]


def test_starting_over_leaves_no_row_of_the_attempt_before(store):
    run = make_run(evaluation=EVALUATION)
    list(train(run, store, CPU))
    first = {table: rows(store, run, table) for table in TABLES}
    (store.run(run.run_id).path / "DONE.json").unlink()
    progress = train(run, store, CPU)
    for _ in range(5):
        next(progress)
    progress.close()
    assert store.run(run.run_id).done() is None
    list(train(run, store, CPU))
    assert all(rows(store, run, table).equals(first[table]) for table in TABLES)


def test_a_run_with_a_result_is_not_run_again(store):
    run = make_run()
    list(train(run, store, CPU))
    done = store.run(run.run_id).done()
    assert [p.status for p in train(run, store, CPU)] == ["finished"]
    assert store.run(run.run_id).done() == done
    assert store.run(run.run_id).attempts()[-1]["cause"] == "not needed"


def test_what_an_attempt_left_that_was_lost_after_closing_the_run_the_next_one_puts_away(
    store, monkeypatch
):
    run = make_run()

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "remove_unlisted", killed)
        with pytest.raises(KeyboardInterrupt):
            list(train(run, store, CPU))
    folder = store.run(run.run_id)
    assert folder.done() is not None
    assert folder.unlisted("none")
    list(train(run, store, CPU))
    assert folder.unlisted("none") == []
    assert [finding.what for finding in audit(store)] == []


@pytest.mark.parametrize("kind", ["classification", "contrastive"])
def test_every_objective_runs_from_a_builtin_corpus(store, kind):
    corpus = {"classification": "python-packages", "contrastive": "python-pairs"}[kind]
    data = BuiltinData(builtin=corpus, digest=corpus_digest(corpus))
    options = {"labels": 6} if kind == "classification" else {"temperature": 0.05}
    objective = Objective(kind=kind, data=data, pooling="mean", **options)
    run = make_run(objective=objective, execution=Execution(micro_batch_size=2))
    assert list(train(run, store, CPU))[-1].status == "finished"
    groups = rows(store, run, "layers").filter(step=1)["group"].to_list()
    assert groups == ["embedding", "block", "block", "block", "head"]


def test_bf16_gives_a_result_near_float32(store):
    losses = {}
    for precision in ("fp32", "bf16"):
        run = make_run(precision=precision)
        list(train(run, store, CPU))
        losses[precision] = rows(store, run, "steps")["loss"][-1]
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=2e-2)


def test_a_run_shares_the_reference_of_its_model(store):
    for seed in (0, 1):
        list(train(make_run(seed=seed), store, CPU))
    references = list((store.cache / "reference").glob("*.safetensors"))
    before = {path: path.stat().st_mtime_ns for path in references}
    list(train(make_run(seed=2), store, CPU))
    assert {path: path.stat().st_mtime_ns for path in references} == before


def test_a_step_with_nothing_to_predict_has_no_loss(store, monkeypatch):
    from workers.objectives.language_modelling import CausalLanguageModelling as objective

    monkeypatch.setattr(objective, "targets", lambda *_: 0)
    run = make_run()
    list(train(run, store, CPU))
    assert rows(store, run, "steps")["loss"].null_count() == run.steps
    assert store.run(run.run_id).done()["loss"] is None


def test_recording_some_steps_leaves_their_rows_and_the_same_training(store):
    every = make_run(steps=11, control=EqualStep(), evaluation=EVALUATION)
    some = every.model_copy(update={"record_every": 4})
    assert [p.step for p in train(every, store, CPU)] == [p.step for p in train(some, store, CPU)]
    recorded = [1, 3, 4, 6, 8, 9, 11]  # probed after 3, 6, 9 and 11
    for table in ("steps", "layers"):
        found, expected = rows(store, some, table), rows(store, every, table)
        assert found["step"].unique().sort().to_list() == recorded
        expected = expected.filter(pl.col("step").is_in(recorded))
        apart = ("run_id", "steps_covered")
        assert found.drop(apart, strict=False).equals(expected.drop(apart, strict=False))
    layers = rows(store, some, "layers")
    covered = dict(layers.select("step", "steps_covered").unique().iter_rows())
    assert covered == dict(zip(recorded, [1, 2, 1, 2, 2, 1, 2], strict=True))
    assert rows(store, every, "layers")["steps_covered"].null_count() == 11 * 5
    for table in ("profiles", "jackknife", "evaluations"):
        found, expected = rows(store, some, table), rows(store, every, table)
        assert found.drop("run_id", strict=False).equals(expected.drop("run_id", strict=False))
    assert list(audit(store)) == []
    done = store.run(some.run_id).done()
    assert done["loss"] == store.run(every.run_id).done()["loss"] is not None


def test_between_records_standard_measures_nothing_and_a_control_what_it_needs(store, monkeypatch):
    asked = {}
    update = TorchPasses.update

    def seen(self, rates, factors, waits, columns):
        asked.setdefault(control.kind, []).append(tuple(columns))
        return update(self, rates, factors, waits, columns)

    for control in (Standard(), EqualStep(), LayerClip(max_norm=0.05)):
        run = make_run(steps=4, control=control, record_every=4, probe=Probe(data=DOCS, rows=32))
        with monkeypatch.context() as patch:
            patch.setattr(TorchPasses, "update", seen)
            list(train(run, store, CPU))
    recorded = (GRADIENT, UPDATE, WEIGHT)
    # A stand-in's own pretraining comes first, where there is any.
    assert asked["standard"][-4:] == [recorded, (), (), recorded]
    assert asked["equal_step"][-4:] == [recorded, *[(UPDATE, WEIGHT)] * 2, recorded]
    assert asked["layer_clip"][-4:] == [recorded[1:], (), (), recorded[1:]]


@pytest.mark.parametrize("every", [3, 50])
def test_the_step_with_which_a_run_diverges_is_recorded(store, every):
    run = make_run(
        optimizer=Optimizer(learning_rate=1e18),
        steps=50,
        record_every=every,
        probe=Probe(data=DOCS, rows=32, sequence_length=16),
    )
    assert list(train(run, store, CPU))[-1].status == "diverged"
    done = store.run(run.run_id).done()
    steps = rows(store, run, "steps")["step"].to_list()
    assert steps == sorted({*run.recorded_steps.until(done["step"]), done["step"]})
    assert rows(store, run, "layers")["step"].unique().sort().to_list() == steps
    assert list(audit(store)) == []
