"""A model cut over the processes of a run: each has its part of weights, gradients and averages.

PyTorch's `fully_shard` puts a block of the trunk together while it computes and lets it go again.
What leaves the processes, checkpoints and models, is whole and does not tell how many they were
(docs/decisions/0015).
"""

import warnings

from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from sartm.errors import InputError
from sartm.model.filling import build
from sartm.model.hiera import Block
from sartm.model.sartm import SARTM
from sartm.training.processes import precision_of


def require_shardable(accelerator: Accelerator) -> None:
    """Refuse to cut a model where there is nothing to cut it over, or no way to count in."""
    if accelerator.num_processes == 1:
        raise InputError(
            "shard=true cuts the model over several processes, and this is one alone: start them "
            "with `torchrun --nproc-per-node N -m sartm train ...`, or use --set shard=false"
        )
    if precision_of(accelerator) == "fp16":
        raise InputError(
            "shard=true is not made for fp16, whose scaling of the loss is done per process: use "
            "--precision bf16 or fp32"
        )


def shard(model: nn.Module, accelerator: Accelerator) -> None:
    """Cut a model in place; its parts lie on the run's device afterwards."""
    # of views only what changes them in place does harm, and nothing here does
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for block in model.modules():
        if isinstance(block, Block):
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)  # what is left


def whole(tensor: Tensor, keep: bool = True) -> Tensor:
    """A tensor whose parts the processes have, on the CPU; all of them ask for it together.

    Without `keep` this one only gives its part, and gets nothing. Other tensors stay as they are.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    found: Tensor = tensor.full_tensor().detach()
    return found.cpu() if keep else found.new_empty(0)


def cut_like(tensor: Tensor, own: Tensor | None) -> Tensor:
    """This process's part of a whole tensor, as it has it of `own`."""
    if not isinstance(own, DTensor):
        return tensor
    mesh, places = own.device_mesh, own.placements
    # each has all of it: nothing needs to be sent
    return distribute_tensor(tensor.to(own.device), mesh, places, src_data_rank=None)


def whole_model(model: SARTM) -> SARTM:
    """A model with all its weights: itself, or of one that is cut a copy on the CPU.

    All processes ask for it together.
    """
    if not isinstance(model, FSDPModule):
        return model
    found = build(model.config, "this run")
    found.load_state_dict({k: whole(v) for k, v in model.state_dict().items()}, assign=True)
    found.facts, found.encoder_source = model.facts, model.encoder_source
    return found
