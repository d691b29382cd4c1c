"""Which tokens are measured: from many sequences, without those that dominate."""

import numpy as np
import pytest
import torch

from sweeps.declaration.entries.sweep_spec import DataEntry
from sweeps.declaration.sources import resolve_data
from sweeps.errors import UserError
from sweeps.sources.corpora import corpus_digest
from sweeps.spec import BuiltinData, Probe
from workers.probes.rows import choose_rows, largest_share, undominated

PROBE = Probe(
    data=BuiltinData(builtin="python-docs", digest=corpus_digest("python-docs")),
    rows=64,
    sequence_length=16,
)


@pytest.fixture
def rows(tokenizers, tmp_path):
    return choose_rows(PROBE, 32, tokenizers["mlm"], tmp_path)


def test_rows_are_fixed_and_leave_out_the_first_position_and_special_tokens(
    tokenizers, tmp_path, rows
):
    again = choose_rows(PROBE, 32, tokenizers["mlm"], tmp_path)
    assert (again.sequence == rows.sequence).all()
    assert (again.position == rows.position).all()
    assert len(rows.sequence) == 64
    tokens = rows.input_ids[rows.sequence, rows.position].numpy()
    assert not np.isin(tokens, tokenizers["mlm"].all_special_ids).any()
    assert (rows.position > 0).all()
    assert len({(int(s), int(p)) for s, p in zip(rows.sequence, rows.position, strict=True)}) == 64


def test_another_seed_chooses_other_rows(tokenizers, tmp_path, rows):
    other = choose_rows(PROBE.model_copy(update={"seed": 1}), 32, tokenizers["mlm"], tmp_path)
    assert not torch.equal(other.input_ids, rows.input_ids)


def test_too_many_rows_are_refused(tokenizers, tmp_path):
    probe = PROBE.model_copy(update={"rows": 10_000_000})
    with pytest.raises(UserError, match="or `rows`"):
        choose_rows(probe, 32, tokenizers["mlm"], tmp_path)


@pytest.mark.parametrize(("asked", "most"), [(20, 1), (64, 1), (200, 3), (640, 10)])
def test_rows_come_from_64_sequences_or_more_and_a_64th_of_them_from_each(
    tokenizers, tmp_path, asked, most
):
    rows = choose_rows(PROBE.model_copy(update={"rows": asked}), 32, tokenizers["clm"], tmp_path)
    assert len(rows.sequence) == asked
    assert rows.sequences >= min(64, asked)
    assert int(torch.bincount(rows.sequence).max()) <= most


def test_the_default_is_twice_the_width_for_every_model(tokenizers, tmp_path):
    probe = PROBE.model_copy(update={"rows": None})
    for width in (32, 48, 96):
        rows = choose_rows(probe, width, tokenizers["clm"], tmp_path)
        assert len(rows.sequence) == 2 * width


def test_a_text_of_few_sequences_is_refused_with_the_numbers(tokenizers, tmp_path):
    probe = PROBE.model_copy(update={"rows": 640, "sequence_length": 250})
    few = probe.model_copy(update={"sequence_length": 20_000})
    with pytest.raises(UserError, match="where 640 are needed for a width of 32"):
        choose_rows(few, 32, tokenizers["clm"], tmp_path)
    assert len(choose_rows(probe, 32, tokenizers["clm"], tmp_path).sequence) == 640


def test_a_text_of_not_one_sequence_is_refused_by_its_name(tokenizers, tmp_path):
    (tmp_path / "few.txt").write_text("a few words\n")
    few = resolve_data(DataEntry(file="few.txt"), ("text",), tmp_path)
    with pytest.raises(UserError, match=r"^probe few\.txt: .*one sequence of 16"):
        choose_rows(PROBE.model_copy(update={"data": few}), 32, tokenizers["clm"], tmp_path)


def test_rows_that_dominate_any_layer_are_left_out():
    generator = torch.Generator().manual_seed(3)
    states = [torch.randn(100, 8, generator=generator) + 5 for _ in range(3)]
    assert undominated(states).all()
    states[1][17] = 400.0  # an attention sink in one layer only
    kept = undominated(states)
    assert torch.nonzero(~kept).flatten().tolist() == [17]
    assert largest_share(states[1]) > 0.9
    assert largest_share(states[0]) < 0.1


def test_a_collapsed_layer_leaves_no_row_out():
    states = [torch.ones(10, 4), torch.arange(40.0).view(10, 4)]
    assert undominated(states).all()
    assert np.isnan(largest_share(states[0]))


def test_sequences_are_framed_as_the_model_was_pretrained(tokenizers, tmp_path, rows):
    mlm = tokenizers["mlm"]
    assert set(rows.input_ids[:, 0].tolist()) == {mlm.cls_token_id}
    assert set(rows.input_ids[:, -1].tolist()) == {mlm.sep_token_id}
    decoder = choose_rows(PROBE, 32, tokenizers["clm"], tmp_path)
    assert len(set(decoder.input_ids[:, 0].tolist())) > 1


def test_of_what_is_left_out_there_is_a_count_that_adds_up(rows):
    assert rows.left_out == 0
    fewer = rows.only(torch.arange(64) % 4 != 0)
    assert (len(fewer.sequence), len(fewer.position), fewer.left_out) == (48, 48, 16)
    again = fewer.only(torch.arange(48) > 0)
    assert (len(again.sequence), again.left_out) == (47, 17)
    assert torch.equal(fewer.sequence, rows.sequence[torch.arange(64) % 4 != 0])
    assert torch.equal(fewer.position, rows.position[torch.arange(64) % 4 != 0])


def test_energies_are_squared_distances_from_the_mean_row():
    state = torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 4.0], [2.0, 0.0]])
    energies = [1 + 1, 1 + 1, 9, 1]
    assert largest_share(state) == pytest.approx(9 / sum(energies))


def test_dominant_is_above_twenty_times_the_median_of_its_layer():
    """A row at the limit stays: of the energies 1, 1, 1 and x the median is 1."""
    row = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 4.4, -4.4])[:, None]
    assert undominated([row]).all()
    row[-2:] *= 4.5 / 4.4
    assert undominated([row]).tolist() == [True] * 6 + [False] * 2
