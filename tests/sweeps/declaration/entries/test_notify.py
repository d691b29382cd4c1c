"""The notify section of a sweep file: what it takes, and that it decides nothing."""

import pytest

from sweeps.declaration.entries.notify import Notify
from sweeps.declaration.expand import read_sweep
from sweeps.errors import UserError
from sweeps.store.store import Store

SWEEP = """
name: told
models: {{a: {{standin: opt, layers: 2, width: 32, vocabulary: 300}}}}
objectives: {{clm: {{data: {{builtin: python-docs}}}}}}
probe: {{data: {{builtin: python-docs}}, rows: 40, sequence_length: 20}}
{notify}
blocks:
  - name: all
    set: {{steps: 5, batch_size: 2, sequence_length: 12, learning_rate: 0.01}}
    grid: {{model: [a], objective: [clm], control: [equal_step], seed: [4]}}
"""


@pytest.fixture
def read(tmp_path):
    def read(notify):
        path = tmp_path / "told.yaml"
        path.write_text(SWEEP.format(notify=notify), encoding="utf-8")
        return read_sweep(path)

    return read


def test_a_text_is_a_command_unless_it_is_an_address(read):
    assert read("notify: mail -s done me").notify == Notify(command="mail -s done me")
    assert read("notify: https://a.example/x").notify == Notify(url="https://a.example/x")
    assert read("").notify is read("notify:").notify is None


def test_run_ids_do_not_depend_on_it(read):
    (run,) = read("notify: {variable: HOOK, when: failure}").runs
    assert [run.run_id] == [one.run_id for one in read("").runs]


def test_a_store_keeps_it_for_resume(read, tmp_path):
    store = Store.at(str(tmp_path / "store"))
    for said in ("notify: {variable: HOOK, when: failure}", ""):
        sweep = read(said)
        store.save_sweep(sweep)
        assert store.load_sweep("told").notify == sweep.notify


@pytest.mark.parametrize(
    ("notify", "said"),
    [
        ("notify: ftp://a.example/x", "http:// or https:// URL"),
        ("notify: 'https://me:pw@a.example'", "does not belong in a sweep file"),
        ("notify: {comand: x}", "did you mean 'command'"),
        ("notify: {command: x, variable: Y}", "give one of command, url, variable"),
        ("notify: {when: end}", "give one of command, url, variable"),
        ("notify: {command: x, when: ever}", "unknown value 'ever'"),
        ("notify: {variable: 'not one'}", "notify.variable"),
        ("notify: [x]", "notify"),
    ],
)
def test_what_it_cannot_mean_is_refused_with_its_line(read, notify, said):
    with pytest.raises(UserError) as refused:
        read(notify)
    assert said in str(refused.value)
    assert "told.yaml:6" in str(refused.value)
