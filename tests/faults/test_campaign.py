"""A sweep under faults ends with the bytes of one without."""

import json
import subprocess
import sys

import pytest

from tests.faults.schedule import (
    COMMAND_KINDS,
    NETWORK_KINDS,
    OBJECT_KINDS,
    WORKER_KINDS,
    needs_mending,
    schedule,
)
from tests.servers.hosts import missing
from tests.servers.object_servers import SeaweedFS

pytest.importorskip("deepspeed")
networks = pytest.mark.skipif(missing() is not None, reason=str(missing()))
seaweedfs = pytest.mark.skipif(SeaweedFS.missing() is not None, reason=str(SeaweedFS.missing()))


def campaign(*arguments):
    command = [sys.executable, "-m", "tests.faults", "--json", *arguments]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.stdout, shown.stderr
    return shown.returncode, json.loads(shown.stdout), shown.stderr


def assert_nothing_was_lost(code, summary, said):
    assert code == 0, f"{summary}\n{said}"
    assert summary["rows_compared"] > 0
    assert summary["wrong"] == []
    counts = ("rows_lost", "rows_duplicated", "tables_different", "runs_not_finished", "findings")
    for count in counts:
        assert summary[count] == 0, f"{summary}\n{said}"


def test_4_faults_lose_and_double_nothing():
    code, summary, said = campaign("--seed", "1", "--faults", "4", "--only", "workers")
    assert_nothing_was_lost(code, summary, said)
    assert summary["faults"] == 4
    assert len(summary["faults_of_workers"]) >= 3


@pytest.mark.slow
def test_3_faults_on_an_object_store_lose_and_double_nothing():
    code, summary, said = campaign("--seed", "3", "--faults", "3", "--store", "s3")
    assert_nothing_was_lost(code, summary, said)
    assert summary["faults"] == len(summary["faults_of_workers"]) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("protocol", "store", "kinds"),
    [
        ("unchecked", "folder", ("flip_checkpoint",)),
        ("closed-first", "folder", ("kill_at_operation",)),
        ("unconditional", "folder", ("late_put",)),
        ("unconditional", "s3", ("late_writer",)),
    ],
)
def test_a_broken_protocol_is_found(protocol, store, kinds):
    code, summary, _ = campaign(
        "--faults", "12", "--store", store, "--broken", protocol, "--kinds", *kinds
    )
    assert code == 1
    # By when a frozen process wakes other tables count, or the record of some that are gone.
    assert summary["tables_different"] + summary["findings"] > 0


@pytest.mark.slow
def test_200_faults_also_of_the_command_lose_and_double_nothing():
    code, summary, said = campaign("--seed", "2", "--faults", "200")
    assert_nothing_was_lost(code, summary, said)
    assert summary["faults"] == 200
    assert set(summary["faults_of_command"]) == set(COMMAND_KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("store", ["s3", pytest.param("seaweedfs", marks=seaweedfs)])
def test_60_faults_on_an_object_store_lose_and_double_nothing(store):
    code, summary, said = campaign("--seed", "4", "--faults", "60", "--store", store)
    assert_nothing_was_lost(code, summary, said)
    assert summary["faults"] == 60
    assert set(summary["faults_of_workers"]) == set(OBJECT_KINDS)


@pytest.mark.slow
@networks
def test_45_faults_of_hosts_in_a_network_lose_and_double_nothing():
    code, summary, said = campaign("--seed", "5", "--faults", "45", "--store", "network")
    assert_nothing_was_lost(code, summary, said)
    assert summary["faults"] == 45
    assert set(summary["faults_of_workers"]) == set(NETWORK_KINDS)


def test_the_seed_decides_the_schedule_and_every_kind_occurs():
    assert schedule(7, 300) == schedule(7, 300)
    assert schedule(7, 300) != schedule(8, 300)
    of_workers, of_command = schedule(7, 300)
    assert {fault.kind for fault in of_workers} == set(WORKER_KINDS)
    assert {fault.kind for fault in of_command} == set(COMMAND_KINDS)
    assert len(of_workers) + len(of_command) == 300
    assert {f.kind for f in schedule(7, 300, store="s3")[0]} == set(OBJECT_KINDS)
    assert schedule(7, 300, store="s3")[1] == []
    assert {f.kind for f in schedule(7, 300, store="network")[0]} == set(NETWORK_KINDS)
    assert schedule(7, 30, "workers")[1] == schedule(7, 30, "command")[0] == []


def test_only_harm_to_what_was_written_may_need_doctor():
    kinds = {kind for kind in (*WORKER_KINDS, *OBJECT_KINDS) if needs_mending(kind)}
    assert kinds == {kind for kind in WORKER_KINDS if kind.startswith(("flip_", "truncate_"))}
