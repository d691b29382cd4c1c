"""DeepSpeed: ZeRO 0 to 3, CPU offload, bf16 with float32 weights, under the same layer controls.

DeepSpeed moves gradients, weights and optimizer state between ranks and devices; the step itself is
``LayerOptimizer``'s, so the controls are those of the plain engine. Clipping has one owner, the
client optimizer: DeepSpeed's own is switched off.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sweeps import spec
from sweeps.errors import UserError
from workers.controls.layer_control import LayerControl
from workers.controls.layer_groups import LayerGroup
from workers.engines.bf16_weights import compute_as_under_autocast
from workers.engines.deepspeed_weights import cut, place, share_untrained
from workers.engines.deepspeed_zero import ownership, restore_float_buffers
from workers.engines.engine import Engine
from workers.engines.float32_twin import float32_twin
from workers.engines.layer_optimizer import LayerOptimizer
from workers.engines.layer_step import LayerStep, no_step
from workers.ranks.process_group import Ranks, connect

# Elements that DeepSpeed moves in one message; its buffers are as large.
BUCKET = 50_000_000


class DeepSpeedEngine(Engine):
    """One rank of a run under DeepSpeed.

    ``model`` is taken over: with ZeRO-3 its parameters are cut, with bf16 they are cast, and the
    float32 weights live in the optimizer, though it computes as the plain engine's. Its content is
    the first rank's; that of the others may be on the meta device. A process holds one such engine
    in its life, since ZeRO-3 keeps every model alive.
    """

    def __init__(
        self,
        model: nn.Module,
        backbone: nn.Module,
        groups: Sequence[LayerGroup],
        control: LayerControl,
        optimizer: spec.Optimizer,
        precision: str,
        execution: spec.Execution,
        ranks: Ranks,
        device: torch.device,
    ) -> None:
        deepspeed = _deepspeed(device)
        connect(ranks, device)
        os.environ.setdefault("LOCAL_RANK", str(ranks.local))  # asked for even when one is alone
        self.rank, self.ranks = ranks.rank, ranks.size
        self._device = device
        groups, dtype = tuple(groups), torch.bfloat16 if precision == "bf16" else torch.float32
        # Views of the float32 values; casting and cutting replace the parameters' data.
        weights: list[Any] = [[p.detach() for p in group.parameters] for group in groups]
        if dtype == torch.float32 or not ranks.leads:
            weights = [None for _ in groups]
        share_untrained(model, ranks, device)
        buffers = {name: b.detach() for name, b in model.named_buffers() if b.is_floating_point()}
        self._backbone = backbone
        self._twin = float32_twin(
            backbone, groups, lambda i, wanted: self.layer(i, "weights", device, wanted), device
        )
        client = LayerOptimizer(groups, control, optimizer)
        super().__init__(model, groups, client, precision)
        model.train()
        if precision == "bf16":
            compute_as_under_autocast(model, device)
        config = configuration(execution, precision, device)
        if execution.zero_stage == 3:
            cut(model, dtype, config, ranks, device)
        else:
            place(model, dtype, ranks, device)
        self._engine, *_ = deepspeed.initialize(
            model=model, optimizer=client, config=config, dist_init_required=False
        )
        self.model = self._engine
        restore_float_buffers(self._engine.module, buffers)
        owned = ownership(self._engine, groups, ranks.rank, ranks.size)
        self._publish_all = owned.publish_all
        client.bind(
            owned.layers,
            rank=ranks.rank,
            calls=owned.calls,
            total=self._sum if owned.shared else None,
            publish=owned.publish,
        )
        if precision == "bf16":
            for i in range(len(groups)):
                self.set_layer(i, "weights", weights[i], source=0)
                weights[i] = None
            self.publish()

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def measured_model(self) -> nn.Module:
        # Around it DeepSpeed takes every backward pass for one of its own.
        module: nn.Module = self._engine.module
        return module

    def backward(self, loss: Tensor) -> None:
        # DeepSpeed divides the sum over ranks by their number; a share of a mean is summed.
        self._engine.backward(loss * self.ranks, scale_wrt_gas=False)

    def step(self, learning_rate: float, record: bool = True) -> LayerStep | None:
        """See ``Engine.step``; DeepSpeed skips a step of infinite gradients: norms are NaN."""
        for group in self.optimizer.settings:
            group["lr"] = learning_rate
        self.optimizer.records = record
        self.optimizer.record = no_step(len(self.groups))
        self._engine.step()
        return self.optimizer.record

    def all_gather(self, tensor: Tensor) -> Tensor:
        if self.ranks == 1:
            return tensor[None]
        mine = tensor.to(self._device).contiguous()
        out = mine.new_empty((self.ranks, *mine.shape))
        dist.all_gather(list(out.unbind()), mine)
        return out.to(tensor.device)

    def gather_to(self, rank: int, tensor: Tensor) -> Tensor | None:
        mine = tensor.to(self._device).contiguous()
        out = mine.new_empty((self.ranks, *mine.shape)) if rank == self.rank else None
        dist.gather(mine, None if out is None else list(out.unbind()), dst=rank)
        return out

    def spread(self, tensor: Tensor, source: int) -> Tensor:
        if self.ranks == 1:
            return tensor
        shared = tensor.to(self._device, torch.float32).contiguous()
        dist.broadcast(shared, source)
        return shared

    @torch.no_grad()
    def publish(self) -> None:
        self._publish_all()

    def in_float32(self, backbone: nn.Module) -> nn.Module:
        assert backbone is self._backbone
        return self._twin

    def _sum(self, squares: Tensor) -> Tensor:
        # The norms of offloaded layers are on the CPU, which NCCL does not reach.
        moved = squares.to(self._device).contiguous()
        dist.all_reduce(moved)
        return moved.to(squares.device)


def configuration(
    execution: spec.Execution, precision: str, device: torch.device
) -> dict[str, Any]:
    """Return DeepSpeed's configuration of a run."""
    zero: dict[str, Any] = {
        "stage": execution.zero_stage,
        "overlap_comm": False,
        "reduce_bucket_size": BUCKET,
        "allgather_bucket_size": BUCKET,
        # It would replace torch.nn.functional.linear for the whole process.
        "memory_efficient_linear": False,
    }
    host = {"device": "cpu", "pin_memory": device.type == "cuda"}
    if execution.offload != "none":
        zero["offload_optimizer"] = host
    if execution.offload == "parameters":
        zero["offload_param"] = host
    bf16 = precision == "bf16"
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        # The engine's caller says where a step ends, by stepping.
        "managed_gradient_accumulation": False,
        "gradient_clipping": 0.0,
        "bf16": {"enabled": bf16},
        # Below stage 2 DeepSpeed cannot accumulate apart from the bf16 parameters.
        **({"data_types": {"grad_accum_dtype": "fp32"}} if bf16 and zero["stage"] >= 2 else {}),
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1 << 31,
    }


def _deepspeed(device: torch.device) -> Any:
    """Import DeepSpeed, quiet and for this device; raise UserError where it is not installed."""
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")
    try:
        import deepspeed
        import deepspeed.ops
    except ImportError as error:
        raise UserError(
            f"engine deepspeed: DeepSpeed cannot be imported ({error}); install the extra:"
            " pip install -e '.[deepspeed]' where depthsweep was cloned"
        ) from error
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # It calls collectives under names that torch is about to drop.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    if device.type == "cpu":
        # Its shared-memory collectives are compiled at first use, for 20 seconds.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
