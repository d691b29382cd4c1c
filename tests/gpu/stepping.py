"""The optimizer's two ways on a GPU: by Triton's kernels and in torch's operations."""

from __future__ import annotations

from collections.abc import Iterator

from tests.gpu.checks import Place, Seen, broken, skipped
from workers.passes import choosing
from workers.passes.torch_passes import TorchPasses

# Of a norm over some million numbers, summed in another order, and of weights after some steps.
TOLERANCE = 1e-5
STEPS = 3
CONTROLS = ("standard", "layer_clip", "mean", "matrix")


def stepping(place: Place) -> Iterator[Seen]:
    """Say how far the two ways are apart under each control, how long each takes, and which is
    chosen."""
    if place.small:
        yield skipped("needs a GPU; under Triton's interpreter the suite compares them")
        return
    from tests.rank_scripts import triton_interpreted as steps
    from workers.passes.triton_passes import TritonPasses

    for control in CONTROLS:
        try:
            found = []
            for way in (TritonPasses, TorchPasses):
                engine = steps.engine_of(control, way, device=place.device, weight_decay=0.1)
                found.append((steps.stepped(engine, STEPS), steps.state(engine)))
            (mine, kept), (other, expected) = found
            records = max(
                float((steps.numbers(a) / steps.numbers(b) - 1).abs().max())
                for a, b in zip(mine, other, strict=True)
            )
            states = max(
                float((kept[name] - one).norm() / one.norm()) for name, one in expected.items()
            )
            worst = max(records, states)
            figures = {"records": records, "states": states}
            yield Seen(f"{control}: apart by {worst:.1e}", worst <= TOLERANCE, figures)
        except Exception as error:
            yield broken(control, error)
    kernels, torchs = (choosing.seconds(way, place.device) for way in (TritonPasses, TorchPasses))
    taken = "Triton's kernels" if choosing.wins(place.device) else "torch's operations"
    count = choosing.TRIED_LAYERS * choosing.TRIED_SIZE
    rate = 28 * count / kernels
    yield Seen(
        f"{count / 1e6:.0f} M parameters: Triton {kernels * 1e3:.2f} ms ({rate / 1e12:.2f} TB/s),"
        f" torch {torchs * 1e3:.2f} ms; chosen: {taken}",
        None,
        {"triton": kernels, "torch": torchs},
    )
