"""TensorBoard's files as a kill leaves them."""

import pytest
from planted_store import run_spec, save_sweep, write_run
from shown_runs import in_tensorboard

from orchestrator.tracking.feed import export
from orchestrator.tracking.run_cards import run_cards
from orchestrator.tracking.tensorboard_files import TensorboardFiles, folder_name
from sweeps.files.whole_files import write_json
from sweeps.store.store import Store


@pytest.mark.parametrize("lost", [1, 7, 40, 400])
def test_a_torn_event_is_written_again_and_the_ones_before_are_not(lost, tmp_path):
    store = Store.at(str(tmp_path / "store"))
    run = run_spec("pythia", seed=2, steps=20, probe_every=5, part_steps=10)
    sweep = save_sweep(store, "torn", [run])
    folder = write_run(store, run, [0.4, 0.2], status=None, stop=10)
    write_json(folder.checkpoint_path(10) / "manifest.json", {"files": {}, "parts": {}})
    shown = tmp_path / "events"
    export(TensorboardFiles(shown), sweep, store)
    (file,) = shown.rglob("events.out.tfevents.*")
    file.write_bytes(file.read_bytes()[:-lost])
    write_run(store, run, [0.4, 0.2])
    export(TensorboardFiles(shown), sweep, store)
    (found,) = in_tensorboard(shown)
    assert [step for step, _ in found.losses] == list(range(1, 21))
    assert found.status == "finished"


def test_files_begun_within_a_second_are_read_in_the_order_they_were_begun(tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1764187200.0)
    store = Store.at(str(tmp_path / "store"))
    run = run_spec("pythia", seed=2, steps=24, probe_every=12, part_steps=2)
    sweep = save_sweep(store, "often", [run])
    shown = tmp_path / "events"
    for step in range(2, 24, 2):
        folder = write_run(store, run, [0.4, 0.2], status=None, stop=step)
        write_json(folder.checkpoint_path(step) / "manifest.json", {"files": {}, "parts": {}})
        export(TensorboardFiles(shown), sweep, store)
    assert len(list(shown.rglob("events.out.tfevents.*"))) == 11
    (found,) = in_tensorboard(shown)
    assert [step for step, _ in found.losses] == list(range(1, 23))


def test_a_folder_is_named_for_people_within_what_a_file_system_takes(tmp_path):
    run = run_spec("org/" + "long-name" * 40, "clm", seed=9)
    cards = run_cards(save_sweep(Store.at(str(tmp_path)), "x", [run]), Store.at(str(tmp_path)))
    name = folder_name(cards[run.run_id])
    assert name.startswith(f"{cards[run.run_id].key} org long-name")
    assert "/" not in name
    assert len(name.encode()) <= 255
