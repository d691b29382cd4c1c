"""A trained model as a folder that transformers reads, or peft where it is an adapter.

What the objective put on top of the language model, such as a classifier, is no part of a class of
transformers: it lies beside it, and ``depthsweep.json`` says what it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig

from sweeps.errors import UserError
from sweeps.files.whole_files import whole_folder, write_json
from sweeps.spec import HubModel, Lora, StandinModel
from workers.loading import folder_of
from workers.models.saving import save_model
from workers.weights.kept import Trained

RECORD, HEAD, ADAPTER = "depthsweep.json", "head.safetensors", "adapter_model.safetensors"
# What peft puts before the names of a model's modules.
PEFT_PREFIX = "base_model.model."


def write_model_folder(trained: Trained, cache: Path, folder: Path, *, merge: bool) -> list[str]:
    """Write a trained model and its tokenizer to a folder that is not there yet; return its files.

    ``merge`` adds an adapter to the weights it stands beside; without it the adapter alone is
    written, in peft's layout. What is written is read again and compared before it is put in place.
    Raises UserError where there is nothing to merge, or the folder is there.
    """
    run = trained.run
    adapted = isinstance(run.adapter, Lora)
    if merge and not adapted:
        raise UserError(f"--merge: run {run.run_id} trained its own weights, there is no adapter")
    if folder.exists():
        raise UserError(f"-o {folder}: is there already; give a folder that is not")
    base = folder_of(run.model.name, run.model.source, cache)
    head = _head(trained)
    with whole_folder(folder) as aside:
        if adapted and not merge:
            _write_adapter(trained, base, aside)
        else:
            _write_whole(trained, base, aside, merge)
        trained.pretrained.tokenizer.save_pretrained(aside)
        if head:
            save_file(head, aside / HEAD)
        write_json(aside / RECORD, _record(trained, merge, sorted(head)))
    return sorted(path.name for path in folder.iterdir())


def _head(trained: Trained) -> dict[str, torch.Tensor]:
    """Return the weights that the objective put on top of the language model."""
    own = {id(p) for p in trained.pretrained.language_model.parameters()}
    named = trained.model.named_parameters()
    return {name: p.detach().contiguous() for name, p in named if id(p) not in own}


def _write_whole(trained: Trained, base: Path, aside: Path, merge: bool) -> None:
    model: Any = trained.pretrained.language_model
    trusted = _trusted(trained)
    if merge:
        from workers.adapters.lora import merge as merged

        merged(model)
    config = AutoConfig.from_pretrained(base, trust_remote_code=trusted)
    if hasattr(config, "rescale_every"):  # it rewrites weights in place
        config.rescale_every = model.config.rescale_every
    model.config = config
    save_model(model, aside)
    if trusted:
        for code in base.glob("*.py"):
            (aside / code.name).write_bytes(code.read_bytes())
    again = type(model).from_pretrained(aside, dtype=torch.float32)
    _require_same(model, again)


def _require_same(model: nn.Module, again: nn.Module) -> None:
    """Raise RuntimeError unless a folder gave back every tensor of the model."""
    wanted, found = model.state_dict(), again.state_dict()
    lost = [name for name in wanted if name not in found]
    lost += [
        name for name in wanted if name in found and not torch.equal(wanted[name], found[name])
    ]
    if lost:
        raise RuntimeError(f"transformers does not give back {lost[0]} as it was saved")


def _write_adapter(trained: Trained, base: Path, aside: Path) -> None:
    from peft import get_peft_model_state_dict

    model: Any = trained.pretrained.language_model
    source = trained.run.model.source
    (config,) = model.peft_config.values()
    named = source.hub if isinstance(source, HubModel) else str(base.absolute())
    config.base_model_name_or_path = named
    config.revision = source.revision if isinstance(source, HubModel) else None
    config.inference_mode = True
    config.save_pretrained(aside)
    state = get_peft_model_state_dict(model)
    state = {f"{PEFT_PREFIX}{name}": t.detach().contiguous() for name, t in state.items()}
    save_file(state, aside / ADAPTER, metadata={"format": "pt"})


def _trusted(trained: Trained) -> bool:
    source = trained.run.model.source
    return not isinstance(source, StandinModel) and source.trust_remote_code


def _record(trained: Trained, merge: bool, head: list[str]) -> dict[str, Any]:
    """Return what the folder says of itself: which run, and what its head is."""
    run = trained.run
    objective = json.loads(run.objective.model_dump_json(exclude={"data"}, exclude_none=True))
    return {
        "run_id": run.run_id,
        "step": trained.step,
        "model": run.model.name,
        "objective": objective,
        "adapter": run.adapter.model_dump(mode="json"),
        "merged": merge,
        **({"head": {"file": HEAD, "tensors": head}} if head else {}),
    }
