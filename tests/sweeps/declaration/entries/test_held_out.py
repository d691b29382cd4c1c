"""What a sweep file says of its evaluation."""

import json

import pytest

from sweeps.declaration.expand import read_sweep
from sweeps.errors import UserError
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
