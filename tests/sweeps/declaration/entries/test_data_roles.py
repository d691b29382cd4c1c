"""Which columns an objective reads, and what each of their cells has to be, told by the plan."""

import json

import pytest

from sweeps.declaration.expand import read_sweep
from sweeps.errors import UserError

SWEEP = """
name: s
models: {{tiny: {{standin: {standin}}}}}
objectives:
  mine: {{{options}, data: {{file: {file}{columns}}}}}
probe: {{data: {{builtin: python-docs}}, sequence_length: 16}}
defaults: {{steps: 4, batch_size: 4, sequence_length: 16, learning_rate: 1.0e-3}}
blocks: [{{name: all, grid: {{model: [tiny], objective: [mine], control: [standard], seed: [0]}}}}]
"""
GOOD = {
    "classification": {"text": "a", "label": 1},
    "regression": {"text": "a", "label": 0.5},
    "multi_label": {"text": "a", "labels": [0, 1]},
    "token_classification": {"tokens": ["a", "b"], "labels": [0, 1]},
    "contrastive": {"anchor": "a", "positive": "b"},
    "sft": {"prompt": "a", "completion": "b"},
    "preference": {"prompt": "a", "chosen": "b", "rejected": "c"},
}
ASKED, ANSWERED = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}


def run_of(tmp_path, kind, rows, columns="", options="", standin="gpt2", file="rows.jsonl"):
    path = tmp_path / file
    if file.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text(rows)
    said = f"kind: {kind}" + (f", {options}" if options else "")
    columns = f", columns: {{{columns}}}" if columns else ""
    sweep = tmp_path / "s.yaml"
    sweep.write_text(SWEEP.format(standin=standin, options=said, file=file, columns=columns))
    (run,) = read_sweep(sweep).runs
    return run


def rows_of(kind, **change):
    """Return rows of which the fifth is changed; there are labels of each number."""
    row = GOOD[kind]
    others = {"label": 0, "labels": [0] * len(row.get("tokens", "a"))}
    other = {**row, **{name: value for name, value in others.items() if name in row}}
    return [dict(row), dict(other), dict(row), dict(other), {**row, **change}, dict(row)]


@pytest.mark.parametrize("kind", GOOD)
def test_rows_of_the_usual_form_need_no_word_and_leave_no_trace_in_the_identity(kind, tmp_path):
    run = run_of(tmp_path, kind, rows_of(kind))
    assert run.objective.roles == tuple(GOOD[kind])
    assert "read_roles" not in run.objective.identity()
    assert "columns" not in run.objective.identity()["data"]


OPTIONAL = {"classification": "text_pair", "regression": "text_pair", "contrastive": "negative"}


@pytest.mark.parametrize(("kind", "role"), OPTIONAL.items())
def test_an_optional_role_is_read_where_it_is_named_or_there(kind, role, tmp_path):
    plain = run_of(tmp_path, kind, rows_of(kind))
    rows = [{**row, role: "more", "other": "other"} for row in rows_of(kind)]
    there = run_of(tmp_path, kind, rows)
    named = run_of(tmp_path, kind, rows, f"{role}: other")
    assert there.objective.roles == named.objective.roles
    assert set(there.objective.roles) == {*GOOD[kind], role}
    assert there.objective.data.columns[role] == role
    assert named.objective.data.columns[role] == "other"
    # One that is there may be left alone, and a usual one may not.
    left = run_of(tmp_path, kind, rows, f"{role}: null")
    assert left.objective.roles == plain.objective.roles
    with pytest.raises(UserError, match="cannot be left out"):
        run_of(tmp_path, kind, rows, f"{next(iter(GOOD[kind]))}: null")
    # The same file read as pairs and as texts is two runs.
    texts = there.objective.model_copy(update={"read_roles": ()})
    assert len({run.run_id for run in (plain, there, named)}) == 3
    assert there.model_copy(update={"objective": texts}).run_id != there.run_id


@pytest.mark.parametrize(("kind", "role"), OPTIONAL.items())
def test_an_optional_role_that_some_rows_lack_is_not_dropped(kind, role, tmp_path):
    rows = rows_of(kind)
    for having in (slice(1, None), slice(3, 4)):
        some = [dict(row) for row in rows]
        for row in some[having]:
            row[role] = "more"
        with pytest.raises(UserError, match=rf"rows\.jsonl:1: has no '{role}'"):
            run_of(tmp_path, kind, some)
        left = run_of(tmp_path, kind, some, f"{role}: null")
        assert set(left.objective.roles) == set(GOOD[kind])
    # Nor one that a file lacks, of several.
    lines = ["\t".join(row) for row in (GOOD[kind], map(str, GOOD[kind].values()))]
    folder = tmp_path / "parts.tsv"
    folder.mkdir()
    (folder / "1.tsv").write_text("\n".join(lines))
    (folder / "2.tsv").write_text("\n".join([f"{lines[0]}\t{role}", f"{lines[1]}\tmore"]))
    (tmp_path / "s.yaml").write_text(
        SWEEP.format(standin="gpt2", options=f"kind: {kind}", file="parts.tsv", columns="")
    )
    with pytest.raises(UserError, match=rf"1\.tsv has no column '{role}'"):
        read_sweep(tmp_path / "s.yaml")


def test_of_a_large_file_the_first_rows_say_which_columns_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr("sweeps.declaration.sources.READ_BYTES", 10)
    monkeypatch.setattr("sweeps.declaration.sources.ROWS_LOOKED_AT", 2)
    rows = rows_of("contrastive")
    rows[1]["negative"] = "c"
    assert "negative" in run_of(tmp_path, "contrastive", rows).objective.roles
    rows[2]["negative"] = rows[1].pop("negative")
    assert "negative" not in run_of(tmp_path, "contrastive", rows).objective.roles


def test_conversations_are_another_form_of_the_same_objective(tmp_path):
    rows = [{"messages": [ASKED, ANSWERED]}] * 3
    with pytest.raises(UserError, match="tiny: its tokenizer has no chat template"):
        run_of(tmp_path, "sft", rows)
    both = [{**row, **GOOD["sft"]} for row in rows]
    with pytest.raises(UserError, match=r"prompt with completion and messages; say which"):
        run_of(tmp_path, "sft", both)
    assert run_of(tmp_path, "sft", both, "prompt: prompt").objective.roles == (
        "prompt",
        "completion",
    )
    with pytest.raises(UserError, match="prompt, messages are not of one form"):
        run_of(tmp_path, "sft", both, "prompt: prompt, messages: messages")
    with pytest.raises(UserError, match=r"unknown role 'message'.*messages"):
        run_of(tmp_path, "sft", both, "message: messages")
    # Also where they are in the cells of a prompt.
    talked = [{"prompt": [ASKED], "completion": [ANSWERED]}] * 3
    with pytest.raises(UserError, match="tiny: its tokenizer has no chat template"):
        run_of(tmp_path, "sft", talked)


BAD = [
    *[("classification", "label", cell) for cell in (2, -1, 0.5, None, [0], "x", float("nan"))],
    *[("classification", "text", cell) for cell in ("", "  \n", None, 3, ["a"])],
    *[("regression", "label", cell) for cell in ("x", None, True, float("inf"), [1.0], "")],
    *[("multi_label", "labels", cell) for cell in ([2], 0, None, [0, 0], ["x"], [[0]], "a,b")],
    *[("token_classification", "labels", cell) for cell in ([0, 2], 0, [0, None], None)],
    *[("token_classification", "tokens", cell) for cell in ("a b", [], ["a", ""], ["a", 3], None)],
    *[("contrastive", "positive", cell) for cell in ("", ["b"], None)],
    *[("sft", "completion", cell) for cell in ("", None, 3, [], ["b"], [{"role": "user"}])],
    *[("sft", "prompt", cell) for cell in (None, 3, [{"role": "user", "content": None}])],
    *[("preference", "rejected", cell) for cell in (" ", None, {"role": "assistant"})],
]


@pytest.mark.parametrize(("kind", "role", "cell"), BAD, ids=str)
def test_each_bad_cell_is_named_with_file_row_and_column(kind, role, cell, tmp_path):
    with pytest.raises(UserError) as refused:
        run_of(tmp_path, kind, rows_of(kind, **{role: cell}))
    said = str(refused.value)
    assert f"rows.jsonl:5: column '{role}' (the {role}) must be" in said
    assert len(said.replace(str(tmp_path), "")) < 300


def test_other_bad_rows_are_named_too(tmp_path):
    rows = rows_of("token_classification", labels=[0])
    with pytest.raises(UserError, match=r"rows\.jsonl:5: has 2 words in column 'tokens' and 1 lab"):
        run_of(tmp_path, "token_classification", rows)
    talks = [{"messages": [ASKED, ANSWERED]}, {"messages": [ASKED]}]
    with pytest.raises(UserError, match=r"rows\.jsonl:2: .*messages with an answer"):
        run_of(tmp_path, "sft", talks)
    with pytest.raises(UserError, match=r"t\.csv:3: column 'text' .*not empty"):
        run_of(tmp_path, "classification", "text,label\na,0\n,1\nb,1\n", file="t.csv")
    with pytest.raises(UserError, match=r"t\.csv:2: column 'labels' .*must be a list of labels"):
        run_of(tmp_path, "multi_label", "text,labels\na,0\n", file="t.csv")


def test_names_of_several_labels_and_of_words_are_found_in_the_data(tmp_path):
    rows = [{"text": "a", "labels": one} for one in (["x", "y"], [], ["b"])]
    objective = run_of(tmp_path, "multi_label", rows).objective
    assert (objective.labels, objective.label_names) == (3, ("b", "x", "y"))
    rows = [{"tokens": ["a", "b"], "labels": ["B-PER", "O"]}, {"tokens": ["c"], "labels": ["O"]}]
    objective = run_of(tmp_path, "token_classification", rows).objective
    assert (objective.labels, objective.label_names) == (2, ("B-PER", "O"))
    with pytest.raises(UserError, match=r"rows\.jsonl:1: .*one of O, B-ORG; found str 'B-PER'"):
        run_of(tmp_path, "token_classification", rows, options="labels: [O, B-ORG]")


def test_names_that_a_saved_dataset_has_for_the_labels_of_words_are_kept(tmp_path):
    datasets = pytest.importorskip("datasets")
    tags = datasets.List(datasets.ClassLabel(names=["O", "B-X", "I-X"]))
    features = datasets.Features(
        {"tokens": datasets.List(datasets.Value("string")), "labels": tags}
    )
    rows = {"tokens": [["a", "b"], ["c"]], "labels": [[1, 2], [0]]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "rows.parquet")
    sweep = tmp_path / "s.yaml"
    options = {"options": "kind: token_classification", "file": "rows.parquet", "columns": ""}
    sweep.write_text(SWEEP.format(standin="bert", **options))
    (run,) = read_sweep(sweep).runs
    assert run.objective.label_names == ("O", "B-X", "I-X")


@pytest.mark.parametrize("kind", ["sft", "preference"])
def test_answers_are_for_decoders(kind, tmp_path):
    with pytest.raises(UserError, match=f"objective {kind} is for decoders.*pretrained with mlm"):
        run_of(tmp_path, kind, rows_of(kind), standin="bert")


@pytest.mark.parametrize(
    ("kind", "option"),
    [("regression", "labels: 2"), ("sft", "beta: 0.2"), ("preference", "packing: none")],
)
def test_an_option_of_another_kind_is_refused(kind, option, tmp_path):
    with pytest.raises(
        UserError, match=f"{option.split(':')[0]} does nothing with objective {kind}"
    ):
        run_of(tmp_path, kind, rows_of(kind), options=option)


def test_too_few_labels_of_a_corpus_are_refused_by_the_plan(tmp_path):
    sweep = tmp_path / "s.yaml"
    text = SWEEP.format(
        standin="bert", options="kind: classification, labels: 4", file="x", columns=""
    )
    sweep.write_text(text.replace("file: x", "builtin: python-packages"))
    with pytest.raises(UserError, match=r"builtin python-packages, row .*0\.\.3"):
        read_sweep(sweep)
