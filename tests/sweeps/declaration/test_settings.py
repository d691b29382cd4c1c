"""The names of settings, and what a line about a run says of them."""

from __future__ import annotations

import pytest
from planted_store import run_spec
from small_run import make_run

from sweeps.declaration.entries.sweep_spec import Settings
from sweeps.declaration.expand import read_sweep
from sweeps.declaration.settings import run_labels, settings_of, text_of, varied
from sweeps.errors import UserError
from sweeps.spec import LayerClip, Lora, Optimizer

SWEEP = """
name: schedules
models: {tiny: {standin: gpt2}}
objectives:
  sentiment: {kind: classification, data: {file: texts.jsonl, columns: {label: feeling}}}
  topic: {kind: classification, labels: 4, data: {file: texts.jsonl}}
  clm: {data: {builtin: python-docs}}
probe: {data: {builtin: python-docs}}
defaults: {steps: 9, batch_size: 4, sequence_length: 8, learning_rate: 1e-3, betas: [0.8, 0.99]}
blocks:
  - name: all
    grid:
      model: [tiny]
      objective: [sentiment, topic, clm]
      control: [standard, {layer_clip: {max_norm: 0.5}}]
      schedule: [linear, constant]
      warmup_steps: [0, 2]
      seed: [0, 1]
"""


TEXTS = "".join(f'{{"text": "fine", "label": {n}, "feeling": {n % 2}}}\n' for n in range(4))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "texts.jsonl").write_text(TEXTS)
    (folder / "schedules.yaml").write_text(SWEEP)
    return read_sweep(folder / "schedules.yaml").runs


def test_every_flat_key_of_a_sweep_file_is_a_setting_of_that_name() -> None:
    assert set(Settings.model_fields) <= {one.name for one in settings_of()}


def test_an_objective_goes_by_the_name_that_the_sweep_gives_it(runs) -> None:
    by_name = {one.name: one for one in settings_of()}
    assert {by_name["objective"].value(run) for run in runs} == {"sentiment", "topic", "clm"}
    kinds = {by_name["objective"].value(run): by_name["objective_kind"].value(run) for run in runs}
    assert kinds == {"sentiment": "classification", "topic": "classification", "clm": "clm"}
    first = runs[0]
    unnamed = first.objective.model_copy(update={"name": None})
    assert first.model_copy(update={"objective": unnamed}).run_id == first.run_id


def test_lists_and_mappings_are_text_in_full(runs) -> None:
    by_name = {one.name: one for one in settings_of()}
    assert by_name["betas"].value(runs[0]) == "0.8,0.99"
    assert by_name["objective_columns"].value(runs[0]) == "label=feeling,text=text"
    assert by_name["target"].value(runs[0]) is None


def test_a_line_names_what_tells_a_run_from_the_others(runs) -> None:
    assert [one.name for one in varied(runs)] == ["warmup_steps", "schedule"]
    labels = run_labels(runs)
    assert len(set(labels.values())) == len(runs) == 48
    assert "tiny sentiment standard warmup_steps 0 schedule linear seed 0" in labels.values()


def test_what_does_not_vary_is_not_said() -> None:
    runs = [run_spec(seed=seed, control=LayerClip(max_norm=0.5)) for seed in (0, 1)]
    assert list(run_labels(runs).values()) == [run.describe() for run in runs]
    assert varied(runs) == varied([]) == []


def test_a_setting_of_one_model_that_another_has_not_is_found_where_it_varies() -> None:
    runs = [run_spec("a"), run_spec("a", learning_rate=1e-4), run_spec("b", learning_rate=1e-5)]
    assert [one.name for one in varied(runs)] == ["learning_rate"]
    assert [one.name for one in varied(runs[1:])] == []


def test_values_are_written_for_a_person() -> None:
    assert text_of(None) == "–"
    assert text_of(1e-5) == "1e-05"
    assert text_of("a" * 64) == "a" * 12
    assert text_of("constant") == "constant"


def test_two_names_for_one_objective_are_one_run_and_refused(tmp_path) -> None:
    (tmp_path / "texts.jsonl").write_text(TEXTS.replace("2", "0").replace("3", "1"))
    same = SWEEP.replace(
        "topic: {kind: classification, labels: 4,", "topic: {kind: classification,"
    )
    same = same.replace(", columns: {label: feeling}", "")
    (tmp_path / "twice.yaml").write_text(same)
    with pytest.raises(UserError, match=r"tiny topic .* is tiny sentiment .* under another name"):
        read_sweep(tmp_path / "twice.yaml")


def test_a_line_of_a_run_leaves_out_what_means_nothing_of_it():
    plain = make_run(optimizer=Optimizer(learning_rate=1e-3, weight_decay=0.1, decay_all=False))
    lion = make_run(optimizer=Optimizer(rule="lion", learning_rate=1e-3))
    sgd = make_run(optimizer=Optimizer(rule="sgd", learning_rate=1e-3, schedule="wsd"))
    lora = make_run(adapter=Lora(rank=3, layers=("blocks 1",)))
    said = run_labels([plain, lion, sgd, lora])
    assert "betas 0.9,0.99 " in said[lion.run_id]
    assert "decay_all false" in said[plain.run_id].lower()
    assert "decay_share 0.2" in said[sgd.run_id]
    assert "rank 3 alpha 16" in said[lora.run_id]
    for run, absent in (
        (sgd, ("betas", "decay_all", "rank", "alpha")),
        (lion, ("momentum", "decay_all", "rank", "decay_share")),
        (plain, ("momentum", "rank", "alpha", "decay_share")),
        (lora, ("decay_all", "momentum")),
    ):
        assert not [name for name in absent if name in said[run.run_id]], said[run.run_id]
    assert len(set(said.values())) == 4
