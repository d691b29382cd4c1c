"""What is wrong with a checkpoint: each file it lists, its own and the rows', is as it was."""

import pytest

from sweeps.attempts.compaction import account
from sweeps.attempts.manifest import damage
from sweeps.files.whole_files import read_json, write_json, write_text
from sweeps.store.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path):
    """Return a run's folder with one checkpoint: a layer, a file of rows, and a part beside it."""
    folder = RunFolder(tmp_path / "run")
    checkpoint = folder.checkpoint_path(3, "a1-0")
    part = folder.part_path("steps", 0, 3, "a1-0")
    for path in (checkpoint / "layer.safetensors", checkpoint / "rows-steps.parquet", part):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, f"content of {path.name}")
    files = {
        name: account(checkpoint / name) for name in ("layer.safetensors", "rows-steps.parquet")
    }
    parts = {f"steps/{part.name}": {**account(part), "rows": 3}}
    write_json(checkpoint / "manifest.json", {"files": files, "parts": parts})
    return folder


@pytest.fixture
def checkpoint(folder):
    return folder.checkpoints()[0]


@pytest.fixture(params=["layer", "rows", "part"])
def file(request, folder, checkpoint):
    return {
        "layer": checkpoint / "layer.safetensors",
        "rows": checkpoint / "rows-steps.parquet",
        "part": folder.parts("steps")[0],
    }[request.param]


def test_nothing_is_wrong_with_what_is_whole(folder, checkpoint):
    assert damage(folder, checkpoint) is None
    assert damage(folder, checkpoint, unread=".safetensors") is None


def test_a_file_that_is_missing_is_named(folder, checkpoint, file):
    file.unlink()
    for unread in (None, ".safetensors"):
        assert damage(folder, checkpoint, unread) == f"{file} is missing"


def test_a_file_of_another_size_is_named_with_both(folder, checkpoint, file):
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-1])
    for unread in (None, ".safetensors"):
        assert damage(folder, checkpoint, unread) == f"{file} has {size - 1} bytes of {size}"


def test_a_flipped_bit_is_seen_by_whoever_does_not_read_the_file_himself(folder, checkpoint, file):
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)
    assert damage(folder, checkpoint) == f"{file} does not match its checksum"
    left = file.suffix == ".safetensors"
    said = damage(folder, checkpoint, unread=".safetensors")
    assert said == (None if left else f"{file} does not match its checksum")


def test_only_the_checkpoints_own_files_may_be_left_unread(folder, checkpoint):
    part = folder.parts("steps")[0]
    part.write_bytes(part.read_bytes()[::-1])
    assert damage(folder, checkpoint, unread=".parquet") == f"{part} does not match its checksum"


@pytest.mark.parametrize(
    "harm",
    [
        lambda manifest: manifest.pop("files"),
        lambda manifest: manifest.pop("parts"),
        lambda manifest: manifest.update(files=[]),
        lambda manifest: next(iter(manifest["files"].values())).pop("bytes"),
        lambda manifest: next(iter(manifest["files"].values())).pop("sha256"),
        lambda manifest: next(iter(manifest["parts"].values())).pop("rows"),
        lambda manifest: next(iter(manifest["parts"].values())).update(rows="3"),
    ],
)
def test_a_manifest_that_does_not_say_all_cannot_be_read(folder, checkpoint, harm):
    manifest = read_json(checkpoint / "manifest.json")
    harm(manifest)
    write_json(checkpoint / "manifest.json", manifest)
    assert damage(folder, checkpoint) == f"{checkpoint}/manifest.json cannot be read"


def test_without_a_manifest_there_is_no_checkpoint(folder, checkpoint):
    (checkpoint / "manifest.json").unlink()
    assert damage(folder, checkpoint) == f"{checkpoint}/manifest.json cannot be read"
