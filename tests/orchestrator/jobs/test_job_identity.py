"""Which job a submit means: one that is under way, or the next attempt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.jobs.job_identity import JobState, attempts, job_name, submission
from sweeps.errors import UserError

NAME = job_name("paper", "s3://b/x")
ENDED = st.sampled_from(["succeeded", "failed", "stopped"])


def jobs(states, version="v"):
    return [
        JobState(f"{NAME}-{number}", state, {"version": version, "sweep": "paper"})
        for number, state in enumerate(states, 1)
    ]


@given(st.lists(ENDED, max_size=5), st.integers(0, 9))
def test_after_the_end_a_submit_is_a_new_attempt_whatever_the_cluster_remembers(states, recorded):
    chosen = submission(jobs(states), NAME, "v", recorded)
    assert not chosen.attaches
    assert chosen.attempt == max(len(states), recorded) + 1
    assert chosen.submission_id == f"{NAME}-{chosen.attempt}"


@given(st.lists(ENDED, max_size=5), st.sampled_from(["pending", "running"]), st.integers(0, 9))
def test_a_job_under_way_is_attached_to(states, state, recorded):
    chosen = submission(jobs([*states, state]), NAME, "v", recorded)
    assert chosen.attaches
    assert chosen.attempt == len(states) + 1


def test_another_version_under_way_is_not_taken_for_this_one():
    with pytest.raises(UserError, match=r"another version.*depthsweep cancel paper"):
        submission(jobs(["running"], version="old"), NAME, "new")
    assert submission(jobs(["failed"], version="old"), NAME, "new").attempt == 2


def test_sweep_and_store_make_the_name_and_nothing_else_is_mistaken_for_it():
    assert job_name("paper", "a") != job_name("paper", "b")
    assert job_name("Paper_2 with a very long name indeed", "a").startswith("depthsweep-paper-2-")
    assert len(f"{job_name('x' * 80, 'a')}-99") <= 47
    others = [
        JobState(f"{job_name('paper', 'a')}-1", "running"),
        JobState("raysubmit_x", "running"),
    ]
    assert attempts(others, NAME) == {}
