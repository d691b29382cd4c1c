"""``python -m workers`` and the store that it is to work in."""

import pytest
from small_run import make_run

from sweeps.store.store import Store
from workers import __main__ as worker

RUN = make_run(steps=4)


@pytest.fixture
def carry_out(tmp_path, monkeypatch, capsys):
    """Return ``carry_out(store, *options) -> (exit code, what was said to stderr)``."""
    spec = tmp_path / "spec.json"
    spec.write_text(RUN.model_dump_json())

    def carry_out(store, *options):
        words = ["workers", str(spec), "--store", str(store), *options]
        monkeypatch.setattr("sys.argv", words)
        return worker.main(), capsys.readouterr().err

    return carry_out


def test_a_node_without_the_mount_is_refused_and_gets_no_file(carry_out, tmp_path):
    known = Store(tmp_path / "shared").identify()
    place = tmp_path / "mount"
    place.mkdir()
    code, said = carry_out(place, "--store-id", known)
    assert code == 2
    assert said.startswith(f"workers: --store {place} is not the store")
    assert said.count("\n") == 1
    assert list(place.iterdir()) == []


def test_a_folder_that_is_not_there_is_refused_and_not_made(carry_out, tmp_path):
    code, said = carry_out(tmp_path / "mount" / "lab", "--store-id", "0" * 16)
    assert code == 2, said
    assert not (tmp_path / "mount").exists()


def test_another_store_is_refused_and_left_alone(carry_out, tmp_path):
    other = Store(tmp_path / "other")
    other.identify()
    before = sorted(tmp_path.rglob("*"))
    code, said = carry_out(other.root, "--store-id", "0" * 16)
    assert code == 2, said
    assert sorted(tmp_path.rglob("*")) == before


def test_the_store_of_the_id_is_worked_in(carry_out, share_cache, tmp_path):
    store = Store(share_cache(tmp_path / "shared"))
    code, said = carry_out(store.root, "--store-id", store.identify())
    assert code == 0, said
    assert store.run(RUN.run_id).done()["status"] == "finished"


def test_without_an_id_a_store_is_begun(carry_out, tmp_path):
    code, said = carry_out(tmp_path / "new")
    assert code == 0, said
    assert (tmp_path / "new" / "store.json").is_file()


@pytest.mark.parametrize("text", ["[1]", "not JSON", '{"model": 3, "seed": "x"}'])
def test_a_file_that_is_no_run_is_refused_in_one_short_line(carry_out, tmp_path, text):
    (tmp_path / "spec.json").write_text(text)
    code, said = carry_out(tmp_path / "store")
    assert code == 2
    assert "not a run specification" in said
    assert said.count("\n") == 1
    assert len(said) < 300 + len(str(tmp_path))
