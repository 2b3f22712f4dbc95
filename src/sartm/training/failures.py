"""What ended a training step, in words: memory, a data worker, a number that is none."""

import sys

import torch

from sartm.training.recipes import TrainConfig


def explain_failure(error: RuntimeError, step: int, config: TrainConfig) -> str:
    """What ended a step, and what to do; other errors are bugs and are raised again."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text:
        where = "GPU memory" if isinstance(error, torch.OutOfMemoryError) else "memory"
        return (
            f"out of {where} at step {step + 1}, batch size {config.optim.batch_size}: continue "
            f"with --resume --set activation_checkpointing=true, or begin anew with a lower "
            f"--set optim.batch_size (and higher optim.accumulate), a smaller --set "
            f"augmentation.crop=[H,W] or --set precision=bf16"
        )
    if "DataLoader worker" in text:
        return (
            f"a data worker died at step {step + 1} (killed, or out of memory). Continue from "
            f"the last checkpoint with --resume, with --set workers=0 if it happens again"
        )
    raise error


def peak_memory(device: torch.device) -> int:
    """Bytes: the most this process had, on a GPU that of its tensors there; 0 where unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
