"""`export -o` and `measure`, on stores whose runs were carried out in this process."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from click.testing import CliRunner
from polars.testing import assert_frame_equal
from small_run import DOCS, make_run

from orchestrator.cli import cli
from sweeps.declaration.expand import Sweep
from sweeps.errors import UserError
from sweeps.reading.tables import open_store
from sweeps.sources.corpora import corpus_rows
from sweeps.spec import Evaluation, Execution, Lora, Objective, Probe
from sweeps.store.schema import TABLES
from sweeps.store.store import Store
from workers.train import train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a store of four runs, of which three kept their weights, and another text."""
    folder = tmp_path_factory.mktemp("study")
    texts = [row["text"] for row in corpus_rows("python-docs")]
    (folder / "other.txt").write_text(
        "\n".join(" ".join(text.split()) for text in texts[40:160]), encoding="utf-8"
    )
    store = Store(folder / "store")
    store.identify()
    kept = Execution(keep="final", part_steps=3, checkpoint_share=1)
    runs = (
        make_run(execution=kept),
        make_run(execution=kept, adapter=Lora(rank=2)),
        make_run(seed=3),
        make_run(execution=kept, evaluation=Evaluation(fraction=0.2, every=2, batches=2)),
    )
    store.save_sweep(Sweep("mine", "", "name: mine\n", runs, measurements=()))
    for run in runs:
        list(train(run, store, CPU))
    return folder


def called(place, *arguments):
    result = CliRunner().invoke(cli, [*arguments, "--store", str(place / "store")])
    if isinstance(result.exception, UserError):
        raise result.exception
    assert result.exception is None or result.exit_code == 0, repr(result.exception)
    return result.output


def tables(place, name):
    return open_store(place / "store", sweep=name)


def test_what_is_measured_of_kept_weights_is_what_the_run_would_have_measured(place, tmp_path):
    from orchestrator.measuring import probe_on
    from workers.weights.another_probe import on_another_probe

    file = str(place / "other.txt")
    said = called(place, "measure", "mine", "--probe", file)
    assert "3 measured" in said
    assert "kept no weights" in said
    there = tables(place, "mine-on-other").by_name()
    (tmp_path / "s").mkdir()
    again = Store(tmp_path / "s")
    runs = [run for run in Store(place / "store").load_sweep("mine").runs if run.seed != 3]
    assert len(runs) == 3
    for run in runs:
        other = on_another_probe(run, probe_on(file))
        assert other.run_id != run.run_id
        list(train(other, again, CPU))
        own = open_store(again.root).by_name()
        scores = ("evaluations",) if run.evaluation else ()
        for table in ("steps", "layers", "profiles", "jackknife", *scores):
            mine = there[table].filter(pl.col("run_id") == other.run_id).collect()
            wanted = own[table].filter(pl.col("run_id") == other.run_id).collect()
            assert len(mine) == len(wanted) > 0
            columns = [name for name in TABLES[table].names if name != "run_id"]
            # A join promises no order of rows.
            mine, wanted = (rows.select(columns).sort(columns) for rows in (mine, wanted))
            assert_frame_equal(mine, wanted, rel_tol=1e-9)


def test_a_measurement_that_fails_leaves_no_run_that_no_sweep_names(place, monkeypatch):
    from workers.weights import another_probe, two_checkpoints

    def fails(*_, **__):
        raise RuntimeError("the device is full")

    store = Store(place / "store")
    run = store.load_sweep("mine").runs[0]
    (place / "third.txt").write_text("a text of its own, read by nobody\n" * 200)
    before = [folder.run_id for folder in store.runs()]
    for module in (another_probe, two_checkpoints):
        monkeypatch.setattr(module, "reference_states", fails)
    with pytest.raises(AssertionError, match="device is full"):
        called(place, "measure", run.run_id, "--probe", str(place / "third.txt"))
    assert [folder.run_id for folder in store.runs()] == before


def test_a_run_that_kept_nothing_is_refused_by_its_id_and_what_was_measured_stays(place):
    file = str(place / "other.txt")
    runs = Store(place / "store").load_sweep("mine").runs
    with pytest.raises(UserError, match="kept no weights"):
        called(place, "measure", runs[2].run_id, "--probe", file)
    first = called(place, "measure", runs[0].run_id, "--probe", file, "--name", "one")
    assert called(place, "measure", runs[0].run_id, "--probe", file, "--name", "one") == first
    called(place, "measure", runs[1].run_id, "--probe", file, "--name", "one")
    assert len(Store(place / "store").load_sweep("one").runs) == 2


def test_two_checkpoints_are_compared_as_the_runs_own_end_was(place, tmp_path):
    """A run's folder, measured against the base it was trained from, has the run's own profile."""
    from workers.loading import folder_of

    store = Store(place / "store")
    run = store.load_sweep("mine").runs[0]
    called(place, "export", run.run_id, "-o", str(tmp_path / "tuned"))
    base = folder_of("tiny", run.model.source, store.cache)
    file = str(place / "other.txt")
    said = called(
        place,
        "measure",
        "--base",
        str(base),
        "--tuned",
        str(tmp_path / "tuned"),
        "--probe",
        file,
        "--name",
        "two",
    )
    assert "1 measured" in said
    (two,) = store.load_sweep("two").runs
    assert two.objective.label == "tuned"
    found = tables(place, "two")
    layers = found.by_name()["layers"].collect().sort("layer")
    assert layers["group"].to_list() == ["embedding", "block", "block", "block", "head"]
    assert (layers["update_norm"] > 0).all()
    assert layers["grad_norm"].null_count() == len(layers)
    profile = found.by_name()["profiles"].collect().sort("layer")
    assert profile["step"].to_list() == [1] * 4
    changes = profile["procrustes"].to_list()
    assert all(change > 1e-4 for change in changes[1:])
    # A second model of the same content is the same checkpoint.
    called(
        place,
        "measure",
        "--base",
        str(base),
        "--tuned",
        str(base),
        "--probe",
        file,
        "--name",
        "none",
    )
    same = tables(place, "none").by_name()["profiles"].collect()
    assert same["procrustes"].to_list() == pytest.approx([0.0] * 4, abs=1e-7)


def test_checkpoints_of_two_shapes_and_wrong_questions_are_refused(place, tmp_path):
    from workers.loading import folder_of

    store = Store(place / "store")
    run = store.load_sweep("mine").runs[0]
    base = str(folder_of("tiny", run.model.source, store.cache))
    wide = run.model.source.model_copy(update={"layers": 2})
    other = str(folder_of("wide", wide, store.cache))
    file = str(place / "other.txt")
    with pytest.raises(UserError, match=r"3 blocks of width 32, and .* 2 blocks of width 32"):
        called(place, "measure", "--base", base, "--tuned", other, "--probe", file)
    with pytest.raises(UserError, match="both --base and --tuned"):
        called(place, "measure", "--base", base, "--probe", file)
    with pytest.raises(UserError, match="takes sweeps or ids"):
        called(place, "measure", "mine", "--base", base, "--tuned", other, "--probe", file)
    with pytest.raises(UserError, match="--probe"):
        called(place, "measure", "mine", "--probe", str(tmp_path / "no.txt"))
    with pytest.raises(UserError, match="--tuned"):
        called(place, "measure", "--base", base, "--tuned", "nowhere", "--probe", file)
    assert len(store.sweep_names()) >= 1


def test_checkpoints_of_two_makings_are_refused_by_what_differs(place, tmp_path):
    from workers.loading import folder_of

    store = Store(place / "store")
    source = store.load_sweep("mine").runs[0].model.source
    base = folder_of("tiny", source, store.cache)

    def refusal(name, tuned):
        runs = [folder.run_id for folder in store.runs()]
        with pytest.raises(UserError) as caught:
            called(
                place,
                "measure",
                *("--base", str(base), "--tuned", str(tuned)),
                *("--probe", str(place / "other.txt"), "--name", name),
            )
        assert [folder.run_id for folder in store.runs()] == runs
        assert name not in store.sweep_names()
        return str(caught.value)

    other = folder_of("neox", source.model_copy(update={"standin": "gpt_neox"}), store.cache)
    assert "the architecture gpt2 (GPT2Model), and" in (said := refusal("made", other))
    assert "the architecture gpt_neox (GPTNeoXModel)" in said
    fewer = folder_of("few", source.model_copy(update={"vocabulary": 390}), store.cache)
    assert "wte.weight of shape (400, 32), and" in refusal("fewer", fewer)
    shuffled = tmp_path / "shuffled"
    shutil.copytree(base, shuffled)
    written = json.loads((shuffled / "tokenizer.json").read_text())
    words = written["model"]["vocab"]
    one, two = list(words)[50:52]
    words[one], words[two] = words[two], words[one]
    (shuffled / "tokenizer.json").write_text(json.dumps(written))
    assert f"the token {min(one, two, key=words.get)!r} as" in refusal("words", shuffled)


@pytest.mark.parametrize("said", ["nowhere", "./nowhere", "/no/where", "no/where", "~/no/where"])
def test_a_folder_that_is_not_there_is_called_that_and_makes_no_store(tmp_path, monkeypatch, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("a text\n" * 99)
    for words, told in (
        (["--base", said, "--tuned", said], f"--base {said}: no such folder"),
        (["demo"], "no such folder; give the store that a run wrote to"),
    ):
        with pytest.raises(UserError, match=told):
            called(tmp_path, "measure", *words, "--probe", "p.txt")
    with pytest.raises(UserError, match=r"^--probe nofile\.txt: no such file; give one of texts"):
        called(tmp_path, "measure", "demo", "--probe", "nofile.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["p.txt"]


def test_a_sweep_is_no_run_to_export(place, tmp_path):
    with pytest.raises(UserError, match="-o takes the id of a run, and mine is a sweep"):
        called(place, "export", "mine", "-o", str(tmp_path / "m"))


def test_what_was_not_trained_here_is_not_trained(place):
    from orchestrator.measuring import probe_on
    from sweeps.spec import Tuned

    run = make_run(
        tuned=Tuned(digest="0" * 64, place="m"),
        probe=Probe(data=probe_on(str(place / "other.txt")).data),
        objective=Objective(kind="clm", data=DOCS, name="released"),
    )
    with pytest.raises(UserError, match="was not trained here"):
        next(train(run, Store(place / "store"), CPU))


def test_export_takes_one_of_its_two_uses(place):
    for arguments in (("mine",), ("mine", "--to", "wandb", "-o", "m"), ("x", "--merge")):
        with pytest.raises(UserError, match="--to and a sweep, or -o and the id of a run"):
            called(place, "export", *arguments)
    with pytest.raises(UserError, match="goes with -o"):
        called(place, "export", "mine", "--to", "wandb", "--merge")
    with pytest.raises(UserError, match="no run 'nope'"):
        called(place, "export", "nope", "-o", str(Path("m")))
