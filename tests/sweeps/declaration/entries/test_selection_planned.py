"""What a selection cannot choose from is refused while a sweep is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.declaration.expand import read_sweep
from sweeps.errors import UserError
from sweeps.spec import SELECTIONS, All

SWEEP = """
name: chosen
models:
  a: {{standin: gpt2, layers: 2, width: 32, vocabulary: 400, pretrain_steps: 5}}
objectives:
  mine: {{kind: {kind}, data: {{file: ./rows.jsonl}}}}
probe: {{data: {{builtin: python-docs}}, rows: 32, sequence_length: 16}}
measurements: []
{more}
defaults: {{steps: 4, batch_size: 4, sequence_length: 16, learning_rate: 1e-3}}
blocks:
  - name: arms
    grid:
      model: [a]
      objective: [mine]
      control: [standard]
      selection: {selections}
      seed: [0, 1]
"""
ARMS = "[all, random, length_matched, low, moderate, {high: {share: 0.5}}]"


def sweep(folder: Path, selections: str = ARMS, kind: str = "sft", rows: int = 40, more: str = ""):
    row = '{"prompt": "what is a ", "completion": "word", "text": "some", "label": 1}\n'
    (folder / "rows.jsonl").write_text(row * (rows - 1) + row.replace("1", "0"))
    path = folder / "chosen.yaml"
    path.write_text(SWEEP.format(selections=selections, kind=kind, more=more))
    return read_sweep(path)


def test_arms_differ_in_the_selection_alone(tmp_path: Path) -> None:
    runs = sweep(tmp_path).runs
    assert {run.selection.kind for run in runs} == set(SELECTIONS)
    assert {run.candidates for run in runs} == {4, 20, 8}
    assert len({run.run_id for run in runs}) == 12
    plain = {run.model_copy(update={"selection": All()}).run_id for run in runs}
    assert plain == {run.run_id for run in runs if run.selection == All()}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"rows": 19}, "selection random chooses from 20 candidates, and there are 19 rows"),
        (
            {"rows": 24, "more": "evaluation: {fraction: 0.25}", "selections": "[high]"},
            "selection high chooses from 20 candidates, and there are 18 rows",
        ),
        (
            {"kind": "classification", "rows": 8, "selections": "[low]"},
            "selection low chooses from 20 candidates, and there are 8 rows",
        ),
        ({"selections": "[hihg]"}, "unknown selection 'hihg'; did you mean 'high'"),
        ({"selections": "[{high: {share: 0.3}}]"}, "4 are no share 0.3 of a whole number"),
        ({"selections": "[{high: {shares: 0.5}}]"}, "shares"),
    ],
)
def test_a_mistake_is_said_with_its_place(tmp_path: Path, said: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        sweep(tmp_path, **said)
    assert message in str(caught.value)
    assert "chosen.yaml:" in str(caught.value)
