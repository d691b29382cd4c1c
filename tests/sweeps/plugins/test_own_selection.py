"""A selection of a user's own, from a sweep file to its run."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_sweep import EXAMPLES, read, the_run

from sweeps.errors import UserError
from sweeps.spec import PluginSelection, RunSpec

LARGEST = EXAMPLES / "largest_loss.py"
COMPARING = """from sweeps.plugins import objective
from workers.objectives.contrastive import Contrastive

@objective("mine")
class Mine(Contrastive):
    roles = ("anchor", "positive")
"""


def run_with(folder: Path, said: str) -> RunSpec:
    return the_run(folder, LARGEST, more=f"selection: {said}")


def test_its_options_and_the_share_of_every_selection_are_its_settings(tmp_path: Path) -> None:
    run = run_with(tmp_path, "{largest_loss: {spared: 0.1, share: 0.5}}")
    assert isinstance(run.selection, PluginSelection)
    assert (run.selection.share, run.selection.options) == (0.5, {"spared": 0.1})
    assert run.candidates == 8
    plain = run_with(tmp_path, "largest_loss")
    assert (plain.selection.setting, run.selection.setting) == ("spared=0", "0.5,spared=0.1")
    assert plain.run_id != run.run_id
    assert RunSpec.model_validate_json(run.model_dump_json()) == run


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("largest_los", "unknown selection 'largest_los'; did you mean 'largest_loss'"),
        ("{largest_loss: {spare: 1}}", "unknown option 'spare'; did you mean 'spared'"),
        ("{largest_loss: {share: 2.0}}", "less than 1"),
        ("{largest_loss: {share: 0.3}}", "4 are no share 0.3 of a whole number"),
    ],
)
def test_what_is_wrong_with_one_is_said_when_it_is_read(
    tmp_path: Path, said: str, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        run_with(tmp_path, said)
    assert message in str(caught.value)


def test_an_option_that_every_selection_has_is_refused_at_its_line(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        LARGEST.read_text().replace("spared", "share").replace('"largest_loss"', '"mine"')
    )
    with pytest.raises(UserError, match=r"mine\.py:9: selection 'mine' has an option share"):
        the_run(tmp_path, mine)


def test_an_own_objective_that_compares_examples_has_nothing_to_select_by(tmp_path: Path) -> None:
    mine, rows = tmp_path / "mine.py", tmp_path / "pairs.jsonl"
    mine.write_text(COMPARING)
    rows.write_text('{"anchor": "a word", "positive": "another"}\n' * 50)
    objective = "mine: {data: {file: ./pairs.jsonl}}"
    assert len(read(tmp_path, mine, objective=objective).runs) == 1

    with pytest.raises(UserError, match="selection random needs a loss of each example, and mine"):
        read(tmp_path, mine, objective=objective, more="selection: random")
