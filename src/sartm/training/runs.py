"""A run's folder: atomic checkpoints that survive a kill at any moment, and metrics.jsonl."""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from sartm.errors import InputError
from sartm.files import recover_folder, remove_leftovers, replacing_folder, write_atomic

log = logging.getLogger("sartm")


@dataclass(frozen=True)
class Checkpoint:
    """All state of a run after `step` optimizer steps."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


@contextmanager
def writing(what: str, begins: bool = False) -> Iterator[None]:
    """Turn an OSError of writing `what`, such as a full disk, into an InputError with a remedy.

    `begins`: nothing of the run is there yet.
    """
    try:
        yield
    except OSError as error:
        remedy = (
            "Make room, or choose another --out"
            if begins
            else "The last good checkpoint is kept; make room and continue with --resume"
        )
        raise InputError(f"cannot write {what}: {error.strerror}. {remedy}") from None


def write_checkpoint(run: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write checkpoints/step-N of a run and drop all but the newest `keep`.

    The folder gets its name only when everything in it is on disk.
    """
    folder = run / "checkpoints"
    target = folder / _name(checkpoint.step)
    data = save({name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()})
    state = checkpoint.state | {
        "format": 1,
        "step": checkpoint.step,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    with (
        writing(f"checkpoint {target}", not checkpoint.step),
        replacing_folder(target) as unfinished,
    ):
        write_atomic(unfinished / "training.safetensors", data)
        write_atomic(unfinished / "state.json", json.dumps(state, indent=1).encode())
    older = [path for path in sorted(folder.glob("step-*")) if path.name < target.name]
    passed = [path for path in folder.glob("damaged-*") if path.name[8:] <= target.name[5:]]
    for old in (*older[: max(0, len(older) - (keep - 1))], *passed):
        shutil.rmtree(old, ignore_errors=True)
    remove_leftovers(folder)  # of killed processes: only this one writes here
    return target


def latest_checkpoint(run: Path) -> Checkpoint | None:
    """The newest checkpoint that reads back whole; a damaged one is passed over, with a warning."""
    for folder in sorted((run / "checkpoints").glob("step-*"), reverse=True):
        try:
            state = json.loads((folder / "state.json").read_bytes())
            data = (folder / "training.safetensors").read_bytes()
            if hashlib.sha256(data).hexdigest() != state["sha256"]:
                raise ValueError("its checksum differs")
            return Checkpoint(int(state["step"]), load(data), state)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("checkpoint %s is damaged (%s); trying the one before", folder, error)
    return None


def recover_run(run: Path) -> None:
    """Clean a run's folder of what a killed process left; a model that it had hidden comes back.

    Call it while holding the folder's lock.
    """
    recover_folder(run / "best")
    remove_leftovers(run)
    remove_leftovers(run / "checkpoints")


def set_aside_damaged(run: Path, step: int) -> None:
    """Rename checkpoints beyond `step`, the newest that could be read: they must not count as kept.

    They go when the run has come past them.
    """
    folder = run / "checkpoints"
    for path in folder.glob("step-*"):
        if path.name > _name(step):
            aside = path.with_name(path.name.replace("step-", "damaged-"))
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)


def require_new(run: Path) -> None:
    """Refuse to begin a run where another one has got anywhere; a start that failed is no run."""
    checkpoints = {path.name for path in (run / "checkpoints").glob("*-*")} - {_name(0)}
    left = [*_results(run), *(f"checkpoints/{name}" for name in sorted(checkpoints))]
    if not left:
        return
    if (run / "config.json").exists():
        raise InputError(
            f"{run} already holds a run. Continue it with --resume, or choose another folder "
            f"with --out"
        )
    raise InputError(
        f"{run} holds {left[0]} of a run whose config.json is gone; choose another folder with "
        f"--out"
    )


def require_nothing_to_lose(run: Path) -> None:
    """Refuse to resume without a checkpoint where that would replace what the run has found."""
    left = _results(run)
    left += ["damaged checkpoints"] * any((run / "checkpoints").glob("*-*"))
    if left:
        start = f" from the model it kept: --init {run / 'best'}" if "best" in left else ""
        raise InputError(
            f"{run} has no checkpoint that can be read, but {' and '.join(left)}: resuming would "
            f"begin at step 0 and replace them. Begin a new run in another --out{start}"
        )


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _results(run: Path) -> list[str]:
    return [name for name in ("best", "metrics.jsonl") if (run / name).exists()]


def trim_metrics(path: Path, step: int) -> None:
    """Cut metrics.jsonl back to the lines up to `step`; a half-written last line goes too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    write_atomic(path, "".join(f"{line}\n" for line in kept).encode(), durable=True)
