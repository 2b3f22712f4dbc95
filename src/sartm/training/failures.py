"""What ended a training step, in words: memory, a data worker, a number that is none."""

import math
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from sartm.errors import InputError
from sartm.training.batches import pairs_of_step
from sartm.training.settings import TrainConfig
from sartm.training.splits import Splits

CUT_OFF = ConnectionError, EOFError
"""What a run comes upon that fetches a batch from a data worker while that is killed."""


@contextmanager
def explained_failures(step: int, config: TrainConfig) -> Iterator[None]:
    """What usually ends a step becomes a message that says what to do."""
    try:
        yield
    except InputError as error:  # of a data worker, which puts its traceback in front
        message = str(error).split("sartm.errors.InputError: ")[-1].strip()
        raise InputError(f"{message} (at step {step + 1})") from None
    except (RuntimeError, MemoryError, *CUT_OFF) as error:
        message = explain_failure(error, step, config)
        # lets go of the batches, and of the loader: it would report its dead worker once more
        traceback.clear_frames(error.__traceback__)
        raise InputError(message) from None


@contextmanager
def explained_deaths(step: Callable[[], int], config: TrainConfig) -> Iterator[None]:
    """A data worker that dies becomes a message, wherever PyTorch's signal comes upon the run."""
    try:
        yield
    except (RuntimeError, *CUT_OFF) as error:
        if not _is_of_worker(error, config):
            raise
        raise InputError(explain_failure(error, step(), config)) from None


def require_finite(
    terms: dict[str, float],
    step: int,
    scaled: bool,
    splits: Splits,
    config: TrainConfig,
    ranks: int,
) -> None:
    """Refuse a loss or a gradient that is no number, naming the pairs of the step.

    `scaled`: with fp16 a gradient that overflows is expected now and then; the step is skipped.
    """
    wrong = [name for name in ("total", "norm") if not math.isfinite(terms[name])]
    if not wrong or (scaled and wrong == ["norm"]):
        return
    what = "loss" if "total" in wrong else "norm of the gradient"
    names = pairs_of_step(splits, config, ranks, step)
    raise InputError(
        f"the {what} is {terms[wrong[0]]} at step {step + 1}, in the batch of {', '.join(names)}. "
        f"Look at these files (sartm data check), or lower --set optim.lr; the last checkpoint is "
        f"kept"
    )


def _is_of_worker(error: Exception, config: TrainConfig) -> bool:
    """Whether an error is how a data worker's death shows."""
    return "DataLoader worker" in str(error) or (config.workers > 0 and isinstance(error, CUT_OFF))


def explain_failure(error: Exception, step: int, config: TrainConfig) -> str:
    """What ended a step, and what to do; other errors are bugs and are raised again."""
    text = str(error)
    full = isinstance(error, torch.OutOfMemoryError | MemoryError)
    if full or "can't allocate memory" in text:
        where = "GPU memory" if isinstance(error, torch.OutOfMemoryError) else "memory"
        return (
            f"out of {where} at step {step + 1}, batch size {config.optim.batch_size}: continue "
            f"with --resume --set activation_checkpointing=true, or begin anew with a lower "
            f"--set optim.batch_size (and higher optim.accumulate), a smaller --set "
            f"augmentation.crop=[H,W] or --set precision=bf16"
        )
    if _is_of_worker(error, config):
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
