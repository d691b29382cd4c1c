"""A model of which the first rank alone has read the weights, on every rank.

The other ranks have its modules without their content, on the meta device. Parameters go over one
by one: no rank but the first ever holds the model whole in its machine's memory, and where ranks
share the weights (ZeRO-3) no GPU does, the first rank's included.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from workers.ranks.process_group import Ranks


def share_untrained(model: nn.Module, ranks: Ranks, device: torch.device) -> None:
    """Give every rank the first one's buffers, and its parameters that are not trained, in the
    machine's memory. A collective."""
    if ranks.size == 1:
        return
    for parameter in model.parameters():
        if not parameter.requires_grad:
            received = _received(parameter.data, ranks, device)
            _fill(parameter, received.to("cpu", parameter.dtype))
    for holder, name in _tensors(model):
        holder[name] = _received(holder[name], ranks, device).to("cpu")


def _tensors(model: nn.Module) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield where modules keep tensors that are no parameters: buffers, and plain attributes."""
    for module in model.modules():
        for holder in (module._buffers, vars(module)):
            for name, value in list(holder.items()):
                if isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
                    yield holder, name


def _received(tensor: Tensor, ranks: Ranks, device: torch.device) -> Tensor:
    """Return the first rank's ``tensor`` on ``device``."""
    if ranks.leads:
        shared = tensor.to(device).contiguous()
    else:
        shared = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    if shared.numel():
        dist.broadcast(shared.view(-1).view(torch.uint8), 0)
    return shared


def _fill(parameter: nn.Parameter, content: Tensor) -> None:
    """Give a parameter its content; whoever holds it holds it still."""
    if parameter.is_meta:
        filled = nn.Parameter(content, requires_grad=parameter.requires_grad)
        swap: Any = torch.utils.swap_tensors
        swap(parameter, filled)
    else:
        parameter.data = content


def place(model: nn.Module, dtype: torch.dtype, ranks: Ranks, device: torch.device) -> None:
    """Have room for every parameter where a rank lacks it, on ``device``; who asks DeepSpeed for an
    engine has the first rank's content in it then."""
    if ranks.leads:
        return
    for parameter in model.parameters():
        if parameter.is_meta:
            _fill(parameter, torch.empty(parameter.shape, dtype=dtype, device=device))


def cut(
    model: nn.Module,
    dtype: torch.dtype,
    configuration: dict[str, Any],
    ranks: Ranks,
    device: torch.device,
) -> None:
    """Cut every parameter over the ranks as ZeRO-3 does, from the first rank's content.

    One is whole on a device at a time; where its part stays then, the configuration says. Buffers
    go to the device whole: DeepSpeed moves those of a model only that is not cut yet.
    """
    import deepspeed

    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
            module._buffers[name] = buffer.to(device)

    first: Any = None
    for parameter in model.parameters():
        if ranks.leads or not parameter.is_meta:
            _fill(parameter, parameter.data.to(device, dtype))
        else:
            _fill(parameter, torch.empty(parameter.shape, dtype=dtype, device=device))
        if first is None:
            first = parameter
            alone = nn.ParameterList([parameter])
            deepspeed.zero.Init(alone, config_dict_or_path=configuration, dtype=dtype)
        else:
            first.convert_to_zero_parameters(param_list=[parameter])
