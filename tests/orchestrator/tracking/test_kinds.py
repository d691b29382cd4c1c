"""Which trackers a sweep has, and what is refused before anything is started."""

import importlib

import pytest
from planted_store import run_spec, save_sweep

from orchestrator.tracking.kinds import arguments, chosen, make_trackers
from sweeps.declaration.entries.track import TRACKERS, Track
from sweeps.errors import UserError
from sweeps.store.store import Store


def track(**kinds):
    return Track.model_validate(kinds)


@pytest.fixture
def sweep(tmp_path):
    store = Store.at(str(tmp_path))
    return save_sweep(store, "one", [run_spec()]), store


def test_the_command_line_adds_to_the_sweep_file_and_keeps_its_options():
    both = chosen(track(mlflow={"uri": "http://there"}), ["tensorboard", "mlflow"])
    assert both.kinds == ("mlflow", "tensorboard")
    assert both.mlflow.uri == "http://there"


def test_none_turns_off_what_the_sweep_file_asks_for_and_stands_alone():
    assert chosen(track(wandb={}), ["none"]).kinds == ()
    with pytest.raises(UserError, match="stands alone"):
        chosen(Track(), ["none", "mlflow"])


def test_a_driver_elsewhere_is_told_each_kind_once(sweep):
    told = arguments(sweep[0], ["mlflow", "wandb", "mlflow"])
    assert told == ["--track", "mlflow", "--track", "wandb"]


@pytest.mark.parametrize("kind", TRACKERS)
def test_a_missing_package_is_named_with_what_installs_it(kind, sweep, monkeypatch):
    found = importlib.import_module

    def missing(name, *rest):
        if name == kind:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return found(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UserError, match=rf"pip install 'depthsweep\[{kind}\]'"):
        make_trackers(Track().only([kind]), *sweep)


def test_mlflow_without_a_server_is_refused(sweep, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match="set MLFLOW_TRACKING_URI"):
        make_trackers(track(mlflow={}), *sweep)


@pytest.mark.parametrize("folder", ["runs", "sweeps/mine", "../beside", "."])
def test_a_folder_that_is_not_its_own_is_refused(folder, sweep):
    with pytest.raises(UserError, match="give another name"):
        make_trackers(track(tensorboard={"folder": folder}), *sweep)


def test_an_object_store_asks_for_a_folder(s3_url, sweep, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for kind in ("tensorboard", "wandb"):
        with pytest.raises(UserError, match="say where its files go"):
            make_trackers(track(**{kind: {}}), sweep[0], Store.at(s3_url))
        assert make_trackers(track(**{kind: {"folder": str(tmp_path)}}), sweep[0], Store.at(s3_url))


def test_wandb_turned_off_in_the_environment_is_said(sweep, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with pytest.raises(UserError, match="WANDB_MODE is disabled"):
        make_trackers(track(wandb={}), *sweep)
