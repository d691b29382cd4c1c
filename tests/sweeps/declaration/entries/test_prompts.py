"""What a sweep file says of prompts that are to be refused."""

import pytest

from sweeps.declaration.expand import read_sweep
from sweeps.errors import UserError

SWEEP = """
name: asked
models:
  base: {{standin: gpt2, language: made_up}}
  tiny: {model}
objectives:
  tasks: {{kind: sft, data: {{builtin: made-up-tasks}}}}
  clm: {{data: {{builtin: made-up-text}}}}
  topic: {{kind: classification, data: {{file: topics.csv}}}}
evaluation: {{fraction: 0.1, refusal: {refusal}}}
probe: {{data: {{builtin: made-up-text}}}}
defaults: {{steps: 8, batch_size: 4, sequence_length: 8, learning_rate: 1e-3}}
blocks:
  - name: all
    grid: {{model: [tiny], objective: [{objective}], control: [standard], seed: [3]}}
"""
MADE_UP = "{prompts: {made-up: {data: {builtin: made-up-prompts}}}}"
ALIGNED = "{standin: gpt2, language: made_up, stage: aligned, compare_to: base, freeze: [blocks 1]}"


@pytest.fixture
def read(tmp_path):
    (tmp_path / "topics.csv").write_text("text,label\n" + "a text,0\nanother,1\n" * 20)
    (tmp_path / "prompts.csv").write_text("prompt,kind\nOpen it.,harmful\nList it.,odd\n")
    (tmp_path / "plain.txt").write_text("Open it.\nList it.\n")

    def run(refusal=MADE_UP, model=ALIGNED, objective="tasks"):
        text = SWEEP.format(refusal=refusal, model=model, objective=objective)
        (tmp_path / "asked.yaml").write_text(text)
        (only,) = read_sweep(tmp_path / "asked.yaml").runs
        return only

    return run


def test_prompts_are_datasets_of_the_run_and_part_of_its_id(read):
    one = read()
    refusal = one.evaluation.refusal
    assert [str(each) for each in refusal.prompts] == ["made-up"]
    assert (refusal.max_new_tokens, refusal.phrases) == (64, "2")
    assert one.datasets["prompts made-up"].builtin == "made-up-prompts"
    assert one.run_id != read("null").run_id
    assert one.run_id != read(MADE_UP[:-1] + ", max_new_tokens: 5}").run_id


def test_runs_that_are_told_by_the_first_list_keep_the_ids_of_when_there_was_no_other(read):
    by_first, by_second = (
        read(f"{MADE_UP[:-1]}, phrases: '{name}'}}").evaluation.refusal for name in "12"
    )
    assert "phrases" not in by_first.identity()
    assert by_second.identity() == {**by_first.identity(), "phrases": "2"}
    assert read().evaluation.refusal == by_second


def test_a_set_may_say_what_all_of_its_prompts_are(read):
    plain = "{prompts: {p: {kind: harmful, data: {file: plain.txt, columns: {prompt: text}}}}}"
    (one,) = read(plain).evaluation.refusal.prompts
    assert (one.kind, one.roles) == ("harmful", ("prompt",))


def test_what_a_model_is_compared_with_decides_and_is_whole(read):
    one = read()
    assert one.model.compared.name == "base"
    assert one.model.compared.source.freeze == ()
    assert one.model.source.freeze == ("blocks 1",)
    assert one.run_id != read(model=ALIGNED.replace("compare_to: base, ", "")).run_id


PLAIN = "{kind: %s, data: {file: plain.txt, columns: {prompt: text}}}"
BOTH_KINDS = f"{{prompts: {{a: {PLAIN % 'harmful'}, b: {PLAIN % 'benign'}}}}}"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"refusal": "{prompts: {p: {data: {file: prompts.csv}}}}"}, "row 2 is of kind 'odd'"),
        (
            {"refusal": MADE_UP.replace("data:", "kind: benign, data:")},
            "no prompt is harmful",
        ),
        (
            {"refusal": BOTH_KINDS},
            "prompt of b, row 1 is benign, and harmful in a, row 1; one answer cannot be right",
        ),
        ({"refusal": "{prompts: {p: {data: {file: none.csv}}}}"}, "prompts p: .*none.csv"),
        ({"refusal": MADE_UP[:-1] + ", phrases: '7'}"}, "no list '7'"),
        ({"objective": "topic"}, "has the model write answers, which objective classification"),
        ({"model": "{standin: gpt2}"}, "chat template"),
        ({"model": "{standin: gpt2, stage: aligned}"}, "stage aligned is of stand-ins with"),
        ({"model": ALIGNED.replace("compare_to: base", "compare_to: tiny")}, "names itself"),
        ({"model": ALIGNED.replace("compare_to: base", "compare_to: bose")}, "base"),
        (
            {"model": ALIGNED.replace("gpt2,", "gpt2, width: 32,")},
            "compare_to base is of another architecture, width 64 and not 32",
        ),
        (
            {"model": ALIGNED.replace("gpt2,", "gpt2, layers: 3,")},
            "compare_to base is of another architecture, layers 6 and not 3",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(read, how, said):
    with pytest.raises(UserError, match=rf"asked\.yaml.*{said}"):
        read(**how)


JUDGED = MADE_UP[:-1] + ", judge: {standin: gpt2, language: made_up, stage: instructed}"


def test_a_judge_is_part_of_the_id_where_it_is_named(read):
    (judge,) = read(JUDGED + "}").evaluation.refusal.judge
    assert (str(judge), judge.source.stage, judge.question) == ("gpt2", "instructed", "1")
    plain = read()
    assert "judge" not in plain.identity()["evaluation"]["refusal"]
    assert read(JUDGED + "}").run_id != plain.run_id
    assert read(JUDGED + "}").run_id == read(JUDGED + ", judge_question: '1'}").run_id


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (JUDGED + ", judge_question: '9'}", "question: none is called '9'"),
        (MADE_UP[:-1] + ", judge_question: '1'}", "judge_question does nothing without judge"),
        (
            MADE_UP[:-1] + ", judge: {standin: gpt2, freeze: [embedding]}}",
            "judge: is not trained; leave out freeze and compare_to",
        ),
        (MADE_UP[:-1] + ", judge: {standin: bert}}", "judge: was pretrained with mlm"),
        (MADE_UP[:-1] + ", judge: {standin: gpt2}}", "judge: .*chat template"),
    ],
)
def test_a_judge_that_cannot_judge_is_refused_while_the_sweep_is_read(read, refusal, said):
    with pytest.raises(UserError, match=said):
        read(refusal)
