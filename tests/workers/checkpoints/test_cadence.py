"""When a checkpoint is due, and what a notice leaves time for: arithmetic."""

import re
from pathlib import Path

import pytest

from orchestrator.display.plan_table import needs_lines
from sweeps.declaration.expand import read_sweep
from sweeps.spec import Optimizer
from workers.checkpoints.cadence import (
    MARGIN,
    Cadence,
    checkpoint_bytes,
    notice_in_words,
    notice_needs_in_words,
    seconds_for_notice,
)

GB = 10**9


@pytest.mark.parametrize(("part", "cost", "share"), [(10, 1, 0.05), (3, 90, 0.05), (7, 2, 0.2)])
def test_checkpoints_take_no_more_than_their_share_of_a_long_run(part, cost, share):
    cadence, made, now = Cadence(share), 0, 0.0
    while now < 100_000:
        now += part
        if cadence.due(now):
            cadence.took(now, now + cost)
            made += 1
    assert share * 0.6 <= made * cost / now <= share * 1.01


def test_the_first_may_begin_and_shares_of_nothing_and_all_are_never_and_always():
    assert Cadence(0.05).due(0.0)
    assert not Cadence(0.0).due(0.0)
    always = Cadence(1.0)
    always.took(0.0, 1000.0)
    assert always.due(1000.1)


def test_a_notice_must_leave_time_for_what_was_measured_and_a_margin():
    assert checkpoint_bytes(6_857_302_016) == pytest.approx(82.3 * GB, rel=1e-3)
    assert seconds_for_notice(82 * GB, GB) == MARGIN * 82


def test_a_checkpoint_is_as_large_as_what_the_optimizer_keeps():
    sizes = {
        rule: checkpoint_bytes(1000, Optimizer(rule=rule, learning_rate=1.0).kept)
        for rule in ("adamw", "sgd", "lion")
    }
    assert sizes == {"adamw": 12000, "sgd": 8000, "lion": 8000}
    assert checkpoint_bytes(7, Optimizer(rule="sgd", learning_rate=1.0, momentum=0.0).kept) == 28


@pytest.mark.parametrize(
    ("parameters", "share", "said"),
    [
        (100_000_000, 0.05, "takes 1 s at 1000 MB/s: a notice of 30 s suffices"),
        (6_857_302_016, 0.05, "takes 82 s at 1000 MB/s: a notice of 30 s does not suffice"),
        (6_857_302_016, 0.05, "are lost, 27 min of them at most"),
        (6_857_302_016, 1.0, "are lost, a part of them at most"),
        (6_857_302_016, 0.0, "there is no other one"),
    ],
)
def test_what_a_notice_leaves_time_for_is_said(parameters, share, said):
    assert said in notice_in_words(checkpoint_bytes(parameters), GB, share, 30)


def test_the_seconds_of_the_readme_follow_from_the_rate_beside_them():
    text = " ".join(Path("workers/README.md").read_text().split())
    said = re.search(
        r"that is ([\d.]+) GB: at (\d+) MB/s, .*? (\d+) s in the background,"
        r" and one in (\d+) minutes.*? of 30 s would need ([\d.]+) GB/s",
        text,
    )
    size, rate, seconds, minutes, needed = map(float, said.groups())
    whole = checkpoint_bytes(6_857_302_016) / GB
    assert size == round(whole, 1)
    assert seconds == pytest.approx(1000 * whole / rate, abs=1)
    assert minutes == pytest.approx(seconds / Cadence(0.05).share / 60, rel=0.01)
    assert needed == round(whole / 30, 1)


def test_a_plan_says_from_which_rate_on_a_notice_suffices():
    assert notice_needs_in_words(checkpoint_bytes(100_000_000)) == []
    size = checkpoint_bytes(6_857_302_016)
    (words,) = notice_needs_in_words(size)
    rate = 1e6 * float(re.search(r"([\d.]+) MB/s on$", words).group(1))
    assert "76.6 GiB" in words
    assert "suffices" in notice_in_words(size, rate * 1.001, 0.05, 30)
    assert "does not suffice" in notice_in_words(size, rate * 0.98, 0.05, 30)
    sweep = read_sweep("sweeps/library/paper.yaml")
    assert f"  checkpoint {words}" in needs_lines(sweep)
