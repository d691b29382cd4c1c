"""What a sweep file says of its evaluation."""

import json

import pytest

from sweeps.declaration.expand import read_sweep
from sweeps.declaration.sources import check_local
from sweeps.errors import UserError
from sweeps.rows.cells import Labels
from sweeps.spec import Evaluation, NoImprovement

SWEEP = """
name: scored
models: {{tiny: {{standin: gpt2}}}}
objectives:
  clm: {{data: {{builtin: python-docs}}}}
  topic:
    kind: classification
    data: {{file: train.csv, columns: {{label: topic}}, limit: 30}}
{topic}
{top}
probe: {{data: {{builtin: python-source}}, every: 4}}
defaults:
  steps: 8
  batch_size: 4
  sequence_length: 8
  learning_rate: 1e-3
{defaults}
blocks:
  - name: all
    grid: {{model: [tiny], objective: [clm, topic], control: [standard], seed: [3]}}
"""


@pytest.fixture
def runs(tmp_path):
    """Return ``runs(top, topic, defaults)``: the runs of clm and topic; files lie beside it."""
    for name, count in (("train", 40), ("test", 12)):
        rows = [f"text {k},{k % 2}" for k in range(count)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,topic", *rows]))
    (tmp_path / "other.jsonl").write_text(json.dumps({"text": "a", "label": 0}))

    def read(top="", topic="", defaults=""):
        topic = f"    {topic}" if topic else ""
        defaults = f"  {defaults}" if defaults else ""
        text = SWEEP.format(top=top, topic=topic, defaults=defaults)
        (tmp_path / "scored.yaml").write_text(text)
        return read_sweep(tmp_path / "scored.yaml").runs

    return read


TEST = "{data: {file: test.csv, columns: {label: topic}}"


def test_an_objective_may_have_its_own(runs):
    clm, topic = runs("evaluation: {fraction: 0.1, every: 3}", f"evaluation: {TEST}, batches: 2}}")
    assert clm.evaluation == Evaluation(fraction=0.1, every=3)
    assert clm.evaluation_steps == (0, 3, 4, 6, 8)
    assert (topic.evaluation.data.label, topic.evaluation.batches) == ("test.csv", 2)
    assert topic.evaluation_steps == (0, 4, 8)
    assert topic.datasets["evaluation"] is topic.evaluation.data


def test_an_objective_may_go_without_the_one_of_the_sweep(runs):
    plain, scored = runs(), runs("evaluation: {fraction: 0.1}", "evaluation: null")
    assert scored[0].evaluation == Evaluation(fraction=0.1)
    assert scored[1].evaluation is None
    assert scored[1].run_id == plain[1].run_id


def test_without_it_nothing_is_evaluated_and_runs_are_what_they_were(runs):
    plain, scored = runs(), runs("evaluation: {fraction: 0.1}")
    assert [run.evaluation for run in plain] == [None, None]
    assert plain[0].evaluation_steps == ()
    assert "evaluation" not in plain[0].identity()
    assert {run.run_id for run in plain} & {run.run_id for run in scored} == set()


def test_an_interval_that_adds_no_step_is_none(runs):
    (often, _), (seldom, _) = (
        runs(f"evaluation: {{fraction: 0.1{every}}}") for every in ("", ", every: 8")
    )
    assert often.run_id == seldom.run_id
    assert runs("evaluation: {fraction: 0.1, every: 2}")[0].run_id != often.run_id


def test_what_ends_a_run_early_is_a_setting(runs):
    top = "evaluation: {fraction: 0.1, every: 1}"
    stopped = runs(top, defaults="stop: {no_improvement: {over: 2}}")[0]
    assert stopped.stop == NoImprovement(over=2)
    assert runs(top, defaults="stop: no_improvement")[0].stop == NoImprovement(over=3)
    plain = runs(top, defaults="stop: diverged")[0]
    assert plain.stop is None
    assert plain.run_id == runs(top)[0].run_id != stopped.run_id


@pytest.mark.parametrize(
    ("top", "topic", "defaults", "said"),
    [
        ("evaluation: {every: 2}", "", "", "exactly one of data, split, fraction"),
        ("evaluation: {fraction: 1.5}", "", "", "evaluation.fraction"),
        ("evaluation: {fraction: 0.1, every: 9}", "", "", "evaluation.every 9 is beyond steps 8"),
        ("evaluation: {split: test}", "", "", "split does nothing with builtin"),
        ("", "evaluation: {split: test}", "", "train.csv"),
        ("", "evaluation: {fraction: 0.001}", "", "of 30 rows leaves none held out"),
        ("", "evaluation: {data: {file: other.jsonl, columns: {label: topic}}}", "", "topic"),
        (
            "",
            "evaluation: {data: {file: train.csv, columns: {label: topic}, limit: 30}}",
            "",
            "the very data that is trained on",
        ),
        ("", "", "stop: no_improvement", "add one, `evaluation:`"),
        ("evaluation: {fraction: 0.1}", "", "stop: no_improvement", "2 times after step 0"),
        ("evaluation: {fraction: 0.1}", "", "stop: patience", "'patience' ends no run"),
        ("evaluation: {fraction: 0.1}", "", "stop: {no_improvement: {over: 0}}", "over"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(top, topic, defaults, said, runs):
    with pytest.raises(UserError) as refused:
        runs(top, topic, defaults)
    assert said in str(refused.value)
    assert "scored.yaml:" in str(refused.value)
    assert len(str(refused.value)) < 300 + len("/tmp/pytest" * 20)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("trained", "held_out"),
    [
        ("{file: train.csv, columns: {label: topic}, limit: 30}", "{file: ./train.csv"),
        ("{file: train.csv, columns: {label: topic}}", "{file: train.csv, limit: 5"),
        ("{file: train.csv, columns: {label: topic}}", "{file: train.csv, shuffle_seed: 1"),
        ("{file: train.csv, columns: {label: topic}}", "{file: copy.csv"),
        ("{file: train.csv, columns: {label: topic}}", "{file: [test.csv, train.csv]"),
        ("{file: '*.csv', columns: {label: topic}}", "{file: test.csv"),
        ("{file: folder, columns: {label: topic}}", "{file: [train.csv]"),
    ],
)
def test_no_file_that_is_trained_on_is_held_out(trained, held_out, runs, tmp_path):
    runs()
    (tmp_path / "folder").mkdir()
    for copy in ("copy.csv", "folder/part.csv"):
        (tmp_path / copy).write_bytes((tmp_path / "train.csv").read_bytes())
    own = f"evaluation: {{data: {held_out}, columns: {{label: topic}}}}}}"
    text = SWEEP.format(top="", topic="    " + own, defaults="")
    text = text.replace("{file: train.csv, columns: {label: topic}, limit: 30}", trained)
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(UserError, match="the very data that is trained on"):
        read_sweep(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    ("trained", "held_out", "refused"),
    [
        ("{hub: a/b, revision: REV, limit: 9}", "{hub: a/b, revision: REV, shuffle_seed: 2}", True),
        ("{hub: a/b, revision: REV}", "{hub: a/b, revision: REV, split: test}", False),
        ("{hub: a/b, revision: REV}", "{hub: a/b, revision: REV, split: 'train[:9%]'}", True),
        (
            "{hub: a/b, revision: REV, split: test+train}",
            "{hub: a/b, revision: REV, split: test}",
            True,
        ),
        (
            "{hub: a/b, revision: REV, split: 'train[9%:]'}",
            "{hub: a/b, revision: REV, split: 'train[:9%]'}",
            False,
        ),
        ("{hub: a/b, revision: REV}", "{hub: a/b, revision: REV, config: large}", False),
        ("{builtin: python-docs}", "{builtin: python-docs}", True),
        ("{builtin: python-docs}", "{builtin: python-source}", False),
    ],
)
def test_nor_is_a_split_or_a_corpus(trained, held_out, refused, tmp_path):
    text = SWEEP.format(top=f"evaluation: {{data: {held_out}}}", topic="", defaults="")
    text = text.replace("data: {builtin: python-docs}", f"data: {trained}", 1)
    topic = text[text.index("  topic:") : text.index("evaluation:")]
    text = text.replace(topic, "").replace("[clm, topic]", "[clm]").replace("REV", "abcdef0123" * 4)
    (tmp_path / "s.yaml").write_text(text)
    if refused:
        with pytest.raises(UserError, match="the very data that is trained on"):
            read_sweep(tmp_path / "s.yaml")
    else:
        assert len(read_sweep(tmp_path / "s.yaml").runs) == 1


def test_a_fraction_that_takes_all_rows_of_a_label_says_so(runs, tmp_path):
    runs()
    rows = [f"text {k},{k % 2}" for k in range(40)]
    said = []
    for alone in range(20):
        # One row of a third label: with some of these it is held out.
        here = [f"text {alone},2" if k == alone else row for k, row in enumerate(rows)]
        (tmp_path / "train.csv").write_text("\n".join(["text,topic", *here]))
        try:
            runs(topic="labels: 3\n    evaluation: {fraction: 0.25}")
        except UserError as error:
            said.append(str(error))
    assert len(said) == 5
    assert all("fraction 0.25 leaves no row with label 2 to train on" in one for one in said)


PAIRS = """
name: pairs
models: {{tiny: {{standin: gpt2}}}}
objectives:
  contrastive:
    data: {{file: train.csv, columns: {{anchor: text, positive: topic}}}}
    {own}
{top}
probe: {{data: {{builtin: python-source}}, every: 4}}
defaults: {{steps: 8, batch_size: {size}, sequence_length: 8, learning_rate: 1e-3}}
blocks: [{{name: all, grid: {{model: [tiny], objective: [contrastive], control: [standard],
  seed: [3]}}}}]
"""


@pytest.mark.parametrize(
    ("evaluation", "rows"),
    [
        ("{data: {file: test.csv, columns: {anchor: text, positive: topic}}}", 12),
        ("{data: {file: test.csv, columns: {anchor: text, positive: topic}, limit: 7}}", 7),
        ("{fraction: 0.25}", 10),
    ],
)
def test_what_is_compared_within_a_batch_is_held_out_by_whole_ones(
    evaluation, rows, runs, tmp_path
):
    runs()

    def read(size, own="", top=""):
        (tmp_path / "s.yaml").write_text(PAIRS.format(size=size, own=own, top=top))
        return read_sweep(tmp_path / "s.yaml").runs

    assert len(read(rows, f"evaluation: {evaluation}")) == 1
    for place, line in (("own", 7), ("top", 8)):
        with pytest.raises(UserError, match=rf"{rows} rows .* one batch of {rows + 1}") as refused:
            read(rows + 1, **{place: f"evaluation: {evaluation}"})
        assert f"s.yaml:{line}: " in str(refused.value)


# ---------------------------------------------------------------------------- what labels stand for
CLASSES = """
name: named
models: {{tiny: {{standin: gpt2}}}}
objectives:
  topic:
    kind: classification
    data: {{file: {trained}}}
    evaluation: {{data: {{file: {held_out}}}}}
probe: {{data: {{builtin: python-source}}, every: 4}}
defaults: {{steps: 8, batch_size: 2, sequence_length: 8, learning_rate: 1e-3}}
blocks: [{{name: all, grid: {{model: [tiny], objective: [topic], control: [standard], seed: [3]}}}}]
"""


def saved(path, names, labels):
    """Write rows as ``datasets`` does: numbers, and what they stand for."""
    datasets = pytest.importorskip("datasets")
    label = datasets.ClassLabel(names=names) if names else datasets.Value("int64")
    features = datasets.Features({"text": datasets.Value("string"), "label": label})
    numbers = [names.index(one) if names else one for one in labels]
    rows = {"text": [f"{path.stem} {k}" for k in range(len(labels))], "label": numbers}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)


def written(path, labels):
    rows = [{"text": f"{path.stem} {k}", "label": one} for k, one in enumerate(labels)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def classes(tmp_path):
    """Return ``classes(trained, held_out)``: the one run; files of labels lie beside it."""
    saved(tmp_path / "cold_warm.parquet", ["cold", "warm"], ["cold", "warm"] * 4)
    saved(tmp_path / "warm_cold.parquet", ["warm", "cold"], ["cold", "cold", "warm"])
    saved(tmp_path / "cool_warm.parquet", ["cool", "warm"], ["cool", "warm"])
    saved(tmp_path / "plain.parquet", [], [0, 1, 0])
    saved(tmp_path / "counted.parquet", ["0", "1"], ["1", "0", "0"])
    written(tmp_path / "numbers.jsonl", [1, 0, 1])
    written(tmp_path / "words.jsonl", ["warm", "cold", "warm"])

    def read(trained, held_out):
        (tmp_path / "s.yaml").write_text(CLASSES.format(trained=trained, held_out=held_out))
        (run,) = read_sweep(tmp_path / "s.yaml").runs
        return run

    return read


def read_labels(run, data):
    objective = run.objective
    rows = check_local(data, objective.cells, Labels(objective.labels, objective.label_names))
    return [objective.label_names[number] for number in rows["label"]]


def test_numbers_of_labels_stand_for_what_their_own_file_says(classes):
    run = classes("cold_warm.parquet", "warm_cold.parquet")
    assert read_labels(run, run.evaluation.data) == ["cold", "cold", "warm"]
    run = classes("[cold_warm.parquet, warm_cold.parquet]", "words.jsonl")
    assert read_labels(run, run.objective.data) == ["cold", "warm"] * 4 + ["cold", "cold", "warm"]
    run = classes("words.jsonl", "warm_cold.parquet")
    assert read_labels(run, run.evaluation.data) == ["cold", "cold", "warm"]


@pytest.mark.parametrize(
    ("trained", "held_out"),
    [
        ("cold_warm.parquet", "numbers.jsonl"),
        ("numbers.jsonl", "plain.parquet"),
        ("plain.parquet", "counted.parquet"),
    ],
)
def test_numbers_without_names_are_those_that_are_trained_on(trained, held_out, classes):
    assert classes(trained, held_out).evaluation.data.label == held_out


@pytest.mark.parametrize(
    ("trained", "held_out", "said"),
    [
        ("cold_warm.parquet", "cool_warm.parquet", "cool_warm.parquet, row 1"),
        ("[cold_warm.parquet, cool_warm.parquet]", "words.jsonl", "cool_warm.parquet, row 1"),
        ("words.jsonl", "numbers.jsonl", "numbers.jsonl:1: column 'label' .* one of cold, warm"),
        ("numbers.jsonl", "cold_warm.parquet", "cold_warm.parquet: .* by cold, warm, and"),
        ("[plain.parquet, cold_warm.parquet]", "numbers.jsonl", "by cold, warm, and plain"),
    ],
)
def test_numbers_that_stand_for_something_else_are_refused(trained, held_out, said, classes):
    with pytest.raises(UserError, match=said) as refused:
        classes(trained, held_out)
    assert "\n" not in str(refused.value)
