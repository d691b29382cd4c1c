import pytest

from orchestrator.sizing.choice import Host
from orchestrator.sizing.gpu_pool import GpuPool, gpu_pool
from sweeps.errors import UserError


@pytest.mark.parametrize(
    ("text", "pool", "sizes"),
    [
        ("8x80", GpuPool(8, 80.0, 8), [8]),
        ("1x23.5", GpuPool(1, 23.5, 1), [1]),
        ("12x80", GpuPool(12, 80.0, 8), [8, 4]),
        ("64x80/4", GpuPool(64, 80.0, 4), [4] * 16),
        ("16x80@1024", GpuPool(16, 80.0, 8, 1024.0), [8, 8]),
        ("4x40/2@64", GpuPool(4, 40.0, 2, 64.0), [2, 2]),
    ],
)
def test_gpus_are_a_count_a_size_and_how_many_a_node_has(text, pool, sizes):
    assert gpu_pool(text) == pool
    assert [size for _, size in pool.nodes] == sizes
    assert len({name for name, _ in pool.nodes}) == len(sizes)


@pytest.mark.parametrize(
    "text", ["8", "x80", "8x", "0x80", "8x0", "8x80/0", "8x80/9", "8x-1", "8x80@"]
)
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(UserError, match=f"--gpus {text}: .*GPU"):
        gpu_pool(text)


def test_a_node_is_shared_by_the_runs_on_its_gpus_where_its_memory_is_said():
    assert gpu_pool("16x80@1024").host == Host(1024 * 2**30, 8)
    assert gpu_pool("4x40/2@64").host == Host(64 * 2**30, 2)
    assert gpu_pool("16x80").host is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("8x80", "8 GPUs of 80 GiB"),
        ("16x80@1024", "16 GPUs of 80 GiB, 8 a node, nodes of 1024 GiB"),
        ("4x23.5/2", "4 GPUs of 23.5 GiB, 2 a node"),
    ],
)
def test_a_pool_is_said_in_words(text, said):
    assert str(gpu_pool(text)) == said
