"""The hub as a real server: one download a node, patience with refusals, then no network at all."""

import contextlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from sweeps.errors import UserError
from sweeps.spec import HubModel
from workers.models import hub

COMMIT = "a" * 40
SOURCE = 'HubModel(hub="owner/tiny", revision="a" * 40, pretraining="clm")'
FETCH = f"""
from sweeps.files.whole_files import file_checksum
from sweeps.spec import HubModel
from workers.models import hub
hub.FIRST_WAIT_SECONDS = 0.1
folder = hub.model_folder({SOURCE})
print(sorted((path.name, file_checksum(path)) for path in folder.iterdir()))
"""
LOAD = f"""
from pathlib import Path
from sweeps.spec import HubModel, ModelSpec
from workers.loading import load_model
spec = ModelSpec(name="tiny", source={SOURCE})
print(load_model(spec, Path("."), needs_head=True).facts)
"""


@pytest.fixture
def repository(tmp_path, make_language_model):
    folder = tmp_path / "repository"
    model, tokenizer = make_language_model("gpt2")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(b"never asked for")
    return folder


def ask(script, port, home, count):
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "HF_HOME": str(home),
        "PYTHONPATH": os.getcwd(),
    }
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN"):
        environment.pop(name, None)
    command = [sys.executable, "-c", script]
    running = [
        subprocess.Popen(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(count)
    ]
    ended = [(process.communicate(timeout=200), process.returncode) for process in running]
    assert [code for _, code in ended] == [0] * count, ended
    return {said.splitlines()[-1] for (said, _), _ in ended}


def test_processes_of_a_node_download_each_file_once_and_then_need_no_hub(repository, tmp_path):
    counts = tmp_path / "counts"
    server = subprocess.Popen(
        [sys.executable, "tests/workers/models/hub_server.py", str(repository), str(counts)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        port = int(server.stdout.readline())
        fetched = ask(FETCH, port, tmp_path / "home", 3)
    finally:
        server.kill()
        server.wait()
    assert len(fetched) == 1
    asked = [line.split() for line in counts.read_text().splitlines()]
    statuses = Counter(status for _, _, status in asked)
    assert (statuses["429"], statuses["503"]) == (1, 3)
    files = Counter(
        Path(path).name
        for method, path, status in asked
        if method == "GET" and status == "200" and "/resolve/" in path
    )
    expected = {path.name for path in repository.iterdir()} - {"pytorch_model.bin"}
    assert files == dict.fromkeys(expected, 1)
    before = counts.read_text()
    # Nothing listens there any more.
    (facts,) = ask(LOAD, port, tmp_path / "home", 1)
    assert "layers=3" in facts
    assert counts.read_text() == before


LEFT = """
from huggingface_hub import snapshot_download
print(snapshot_download("owner/tiny", revision="a" * 40, allow_patterns={patterns}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "left",
    [
        ["config.json", "tokenizer*"],
        ["config.json", "*.safetensors"],
        ["*.json", "model-00001-of-00002.safetensors"],
    ],
)
def test_a_snapshot_that_another_client_left_in_part_is_completed(repository, tmp_path, left):
    weights = repository / "model.safetensors"
    tensors = sorted(load_file(weights).items())
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for name, some in zip(names, (tensors[:3], tensors[3:]), strict=True):
        save_file(dict(some), repository / name, metadata={"format": "pt"})
    weights.unlink()
    where = {key: names[i >= 3] for i, (key, _) in enumerate(tensors)}
    index = {"metadata": {}, "weight_map": where}
    (repository / "model.safetensors.index.json").write_text(json.dumps(index))
    counts, home = tmp_path / "counts", tmp_path / "home"
    command = [sys.executable, "tests/workers/models/hub_server.py", str(repository), str(counts)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            port = int(server.stdout.readline())
            for _ in range(4):  # until it refuses no more
                with contextlib.suppress(urllib.error.HTTPError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/api")
            ask(LEFT.format(patterns=left), port, home, 1)
            (found,) = ask(FETCH, port, home, 1)
        finally:
            server.kill()
    assert all(path.name in found for path in repository.iterdir() if path.suffix != ".bin")
    (facts,) = ask(LOAD, port, home, 1)
    assert "layers=3" in facts


class Refused(Exception):
    def __init__(self, status, headers):
        self.response = type("Response", (), {"status_code": status, "headers": headers})()
        super().__init__(f"status {status}")


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (Refused(429, {"Retry-After": "7"}), 7),
        (Refused(503, {}), 0),
        (ConnectionError("unreachable"), 0),
        (Refused(404, {}), None),
        (Refused(401, {}), None),
        (ValueError("no such config"), None),
    ],
)
def test_only_what_passes_is_waited_for(error, pause):
    assert hub.pause_after(error) == pause
    wrapped = OSError("cannot be located")
    wrapped.__cause__ = error
    assert hub.pause_after(wrapped) == pause


def test_pauses_grow_keep_to_what_the_hub_asks_and_come_to_an_end(monkeypatch):
    pauses = []
    monkeypatch.setattr(hub.time, "sleep", pauses.append)
    monkeypatch.setattr(hub.random, "random", lambda: 0.0)
    refusals = [Refused(429, {"Retry-After": "60"}), Refused(503, {}), Refused(503, {})]

    def fetch():
        if refusals:
            raise refusals.pop(0)
        return "here"

    assert hub.patiently(fetch, "model x") == "here"
    assert pauses == [60, 4, 8]

    def refuse():
        raise Refused(503, {})

    with pytest.raises(hub.HubUnavailable, match=r"model x: the hub did not give it in 3\d min"):
        hub.patiently(refuse, "model x")
    assert max(pauses) == hub.LONGEST_WAIT_SECONDS


def test_a_node_without_network_and_copy_says_so(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    source = HubModel(hub="owner/none", revision=COMMIT, pretraining="clm")
    with pytest.raises(FileNotFoundError) as caught:
        hub.model_folder(source)
    told = hub.refusal(caught.value, "model none")
    assert isinstance(told, UserError)
    assert "HF_HUB_OFFLINE is set" in str(told)
