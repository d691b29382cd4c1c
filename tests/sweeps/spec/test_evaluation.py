"""When a run that gets no better ends."""

import pytest

from sweeps.spec import REFUSAL_SCORES, SCORES, NoImprovement, every_score, score_column, scores_of


@pytest.mark.parametrize(
    ("losses", "over", "ends"),
    [
        ([], 1, False),
        ([2.0], 1, False),
        ([2.0, 2.0], 1, True),
        ([2.0, 1.9], 1, False),
        ([2.0, 1.0, 1.5, 1.2], 2, True),
        ([2.0, 1.0, 1.5, 0.9], 2, False),
        ([2.0, 1.0, 1.5, 0.9, 0.95], 2, False),
        ([2.0, 2.5, 2.4, 2.3], 3, True),
        ([2.0, 2.5, 2.4], 3, False),
    ],
)
def test_it_ends_once_the_lowest_loss_is_so_many_evaluations_old(losses, over, ends):
    assert NoImprovement(over=over).holds(losses) is ends


def test_every_score_is_a_column_and_none_is_called_as_a_setting_is():
    from sweeps.declaration.settings import settings_of

    columns = {score_column(score) for score in every_score()}
    assert "evaluation_loss" in columns
    assert columns & {one.name for one in settings_of()} == set()
    of_objectives = {score for kind in SCORES for score in scores_of(kind)}
    assert of_objectives | set(REFUSAL_SCORES) == set(every_score())
