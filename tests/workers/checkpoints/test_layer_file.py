"""The file of a layer: what safetensors reads, and what is not taken for it."""

import hashlib

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from workers.checkpoints import layer_file
from workers.checkpoints.layer_file import file_name, read_layer, shares, write_layer
from workers.controls.layer_groups import LayerGroup

TENSORS = {
    "weights/a.é": torch.randn(3, 5),
    "weights/empty": torch.zeros(0, 4),
    "exp_avg/scalar": torch.tensor(2.5),
    "exp_avg_sq/cut": torch.randn(6, 4).T,
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(layer_file, "CHUNK", 13)


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "layers" / "layer-0001.safetensors"
    return path, write_layer(path, TENSORS)


def same(found):
    return found.keys() == TENSORS.keys() and all(found[k].equal(TENSORS[k]) for k in TENSORS)


def test_it_is_a_safetensors_file_whose_account_was_taken_on_the_way(written):
    path, account = written
    content = path.read_bytes()
    assert same(load_file(path))
    assert account == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert same(read_layer(path, account))


def test_one_that_safetensors_wrote_is_read(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in TENSORS.items()}, path)
    content = path.read_bytes()
    account = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert same(read_layer(path, account))


@pytest.mark.parametrize("at", [0, 40, -1])
def test_a_flipped_bit_or_a_cut_is_seen(written, at):
    path, account = written
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    assert read_layer(path, account) is None
    path.write_bytes(path.read_bytes()[:-3])
    assert read_layer(path, account) is None
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read_layer(path, account)


def test_what_is_given_up_leaves_nothing(tmp_path):
    class GivenUp(Exception):
        pass

    def give_up():
        raise GivenUp

    path = tmp_path / "layers" / "layer-0002.safetensors"
    for how in ({"beat": give_up}, {"guard": give_up}):
        with pytest.raises(GivenUp):
            write_layer(path, TENSORS, **how)
    assert list(path.parent.iterdir()) == []


def test_layers_of_two_stacks_have_files_of_their_own():
    parameter = (nn.Parameter(torch.zeros(1)),)
    groups = [LayerGroup(2, "block", ("p",), parameter, stack=s) for s in (None, "encoder", "text")]
    assert [file_name(group) for group in groups] == [
        "layer-0002.safetensors",
        "encoder-layer-0002.safetensors",
        "text-layer-0002.safetensors",
    ]


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_every_layer_has_one_writer_and_none_has_much_more_than_its_share(ranks):
    sizes = [206, *[201] * 32, 207]
    writers = shares(sizes, ranks)
    loads = [sum(s for s, w in zip(sizes, writers, strict=True) if w == r) for r in range(ranks)]
    assert sum(loads) == sum(sizes)
    assert max(loads) - min(loads) <= max(sizes)
    assert shares([5], ranks) == [0]
