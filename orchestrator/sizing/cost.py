"""What a run costs before it has run: parameters, floating-point operations, bytes of state."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sweeps.declaration.catalog import by_hub
from sweeps.spec import FolderModel, HubModel, ModelSource, RunSpec, StandinModel

# Float32 weights, gradients and two AdamW moments.
STATE_BYTES_PER_PARAMETER = 16


@dataclass(frozen=True)
class Cost:
    """An estimate: parameters, tokens trained on, FLOPs, and bytes of weights and optimizer.

    FLOPs are 6 a parameter and token of training and 2 of probing (Kaplan et al. 2020, arXiv
    2001.08361, with the embedding counted in); attention's own products are left out.
    """

    parameters: int | None
    tokens: int
    flops: float
    state_bytes: int | None


def estimate(run: RunSpec) -> Cost:
    """Return the cost of one run; parameters are None for a hub model outside the catalogue."""
    parameters = parameter_count(run.model.source)
    sequences = 2 if run.objective.kind == "contrastive" else 1
    tokens = run.steps * run.batch_size * run.sequence_length * sequences
    # Probes measure half of the tokens they read; one more is the reference.
    probed = 2 * run.probe.rows * (len(run.probe_steps) + 1)
    assumed = parameters if parameters is not None else 100_000_000
    return Cost(
        parameters=parameters,
        tokens=tokens,
        flops=float(assumed) * (6 * tokens + 2 * probed),
        state_bytes=None if parameters is None else STATE_BYTES_PER_PARAMETER * parameters,
    )


def parameter_count(source: ModelSource) -> int | None:
    """Return how many parameters a model has: known, from its shape, or from its files' size."""
    if isinstance(source, HubModel):
        known = by_hub(source.hub)
        return known.parameters if known else None
    if isinstance(source, StandinModel):
        return 12 * source.layers * source.width**2 + source.vocabulary * source.width
    assert isinstance(source, FolderModel)
    files = Path(source.folder).glob("*.safetensors")
    return sum(path.stat().st_size for path in files) // 4 or None
