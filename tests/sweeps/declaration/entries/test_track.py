"""The track section of a sweep file: what it takes, and that it decides nothing."""

import pytest

from sweeps.declaration.entries.track import TRACKERS, Track
from sweeps.declaration.expand import read_sweep
from sweeps.errors import UserError
from sweeps.store.store import Store

SWEEP = """
name: shown
models: {{a: {{standin: opt, layers: 2, width: 32, vocabulary: 300}}}}
objectives: {{clm: {{data: {{builtin: python-docs}}}}}}
probe: {{data: {{builtin: python-docs}}, rows: 40, sequence_length: 20}}
{track}
blocks:
  - name: all
    set: {{steps: 5, batch_size: 2, sequence_length: 12, learning_rate: 0.01}}
    grid: {{model: [a], objective: [clm], control: [equal_step], seed: [4]}}
"""


@pytest.fixture
def read(tmp_path):
    def read(track):
        path = tmp_path / "shown.yaml"
        path.write_text(SWEEP.format(track=track), encoding="utf-8")
        return read_sweep(path)

    return read


def test_a_tracker_that_is_only_named_has_its_defaults(read):
    assert read("track: {tensorboard: }").track == Track().only(["tensorboard"])
    assert read("track:").track == read("").track == Track()


def test_run_ids_do_not_depend_on_it(read):
    plain = read("").runs[0].run_id
    for kind in TRACKERS:
        assert read(f"track: {{{kind}: }}").runs[0].run_id == plain


def test_a_store_keeps_it_for_resume_and_export(read, tmp_path):
    sweep = read("track: {wandb: {project: depth, tags: [x], mode: offline}, tensorboard: }")
    store = Store.at(str(tmp_path / "store"))
    store.save_sweep(sweep)
    assert store.load_sweep("shown").track == sweep.track


@pytest.mark.parametrize(
    ("track", "said"),
    [
        ("track: {wanbd: }", "did you mean 'wandb'"),
        ("track: {mlflow: {url: x}}", "unknown key 'url' in track.mlflow"),
        ("track: {wandb: {mode: live}}", "unknown value 'live'"),
        ("track: {mlflow: {uri: 'https://me:pw@there'}}", "does not belong in a sweep file"),
        ("track: [mlflow]", "should be an object"),
    ],
)
def test_a_mistake_is_named_with_its_line(track, said, read):
    with pytest.raises(UserError, match=said) as raised:
        read(track)
    assert "shown.yaml:6: " in str(raised.value)
