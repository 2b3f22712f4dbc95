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
from sartm.files import remove_leftovers, replacing_folder, write_atomic

log = logging.getLogger("sartm")


@dataclass(frozen=True)
class Checkpoint:
    """All state of a run after `step` optimizer steps."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Turn an OSError of writing `what`, such as a full disk, into an InputError with a remedy."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {what}: {error.strerror}. The last good checkpoint is kept; make room "
            f"and continue with --resume"
        ) from None


def write_checkpoint(run: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write checkpoints/step-N of a run and drop all but the newest `keep`.

    The folder gets its name only when everything in it is on disk.
    """
    folder = run / "checkpoints"
    target = folder / f"step-{checkpoint.step:08d}"
    data = save({name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()})
    state = checkpoint.state | {
        "format": 1,
        "step": checkpoint.step,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    with writing(f"checkpoint {target}"), replacing_folder(target) as unfinished:
        write_atomic(unfinished / "training.safetensors", data)
        write_atomic(unfinished / "state.json", json.dumps(state, indent=1).encode())
    for old in sorted(folder.glob("step-*"))[:-keep]:
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
