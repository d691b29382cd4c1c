"""Whether a loaded model can do what a run asks of it: asked before the first step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sweeps.errors import UserError
from sweeps.sources.model_folder import no_mask_token, positions_of, require_length
from sweeps.sources.tokenizer_files import no_first_token
from sweeps.spec import RunSpec
from workers.models.pretrained import PretrainedModel, input_rows


def require_fit(run: RunSpec, pretrained: PretrainedModel) -> None:
    """Raise UserError where a run's sequences are longer than the model's positions, or masked or
    first tokens are asked of a tokenizer that has none."""
    limit = longest_sequence(pretrained.language_model)
    require_length("sequence_length", run.model.name, run.sequence_length, limit)
    require_length("probe.sequence_length", run.model.name, run.probe.sequence_length, limit)
    if run.objective.kind == "mlm" and pretrained.tokenizer.mask_token_id is None:
        raise no_mask_token(run.model.name)
    if run.objective.bos is not None and pretrained.tokenizer.bos_token_id is None:
        raise no_first_token(run.model.name)


def longest_sequence(model: nn.Module) -> int | None:
    """Return how many tokens a sequence of a model may have, or None where all are free.

    Of position embeddings with a row for padding only those behind it are positions.
    """
    limits = [positions_of(model.config.to_dict())]  # type: ignore[operator, union-attr]
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and "position" in name.rpartition(".")[2]:
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            # Another first row than that of padding is the model's own affair (OPT's is 2).
            limits += [module.num_embeddings - first] if first else []
    return min((limit for limit in limits if limit is not None), default=None)


def require_known_tokens(
    name: str, pretrained: PretrainedModel, highest: int, *, needs_head: bool
) -> None:
    """Raise UserError where ``highest``, of all token ids in use, has no row in the embedding."""
    model: Any = pretrained.language_model
    rows = input_rows(model)
    head = model.get_output_embeddings()
    # Some call so what stands before the head, of the model's width (DeBERTa without `legacy`).
    inner = isinstance(head, nn.Linear) and head.in_features == head.out_features
    if needs_head and isinstance(head, nn.Linear) and not inner:
        rows = min(rows, head.out_features)
    if highest >= rows:
        token = pretrained.tokenizer.convert_ids_to_tokens(highest)
        raise UserError(
            f"model {name}: token {token!r} has id {highest}, and the embedding {rows} rows; its"
            " tokenizer was given tokens that the model was not resized for: resize it"
            " (resize_token_embeddings) and save both, or take the model's own tokenizer"
        )


def require_finite_weights(name: str, path: str, model: nn.Module) -> None:
    """Raise UserError where a pretrained weight is not a number."""
    for parameter_name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            count = int((~torch.isfinite(parameter)).sum())
            raise UserError(
                f"model {name}: {path}: {count} of {parameter.numel()} values of {parameter_name}"
                " are not finite; the checkpoint is damaged or of a run that diverged"
            )
