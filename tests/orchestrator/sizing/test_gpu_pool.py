import pytest

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
