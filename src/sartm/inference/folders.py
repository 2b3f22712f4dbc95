"""Folders of pairs to label maps, overlays and summary.json."""

import hashlib
import json
import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import torch

from sartm.classes import Classes
from sartm.config import Modality, to_dict
from sartm.data.finding import find_pairs
from sartm.data.layouts import Pair
from sartm.data.pairs import Sample, read_pair
from sartm.errors import InputError
from sartm.files import write_atomic
from sartm.inference.pipeline import label_ahead
from sartm.inference.prediction import ROWS, Prediction
from sartm.inference.predictor import Predictor
from sartm.io.cameras import Camera, enhance_display
from sartm.io.decode import FourChannel
from sartm.io.labels import write_label
from sartm.model.exported import ExportedModel
from sartm.model.sartm import SARTM
from sartm.progress import Meter
from sartm.registration.estimate import align_thermal

Homography = tuple[tuple[float, ...], ...]

Array = npt.NDArray[Any]
log = logging.getLogger("sartm")


@dataclass(frozen=True)
class PredictOptions:
    """What `predict_folder` does beside labelling; part of what makes two runs the same."""

    modality: Modality = "both"
    overlay: bool = True
    opacity: float = 0.5
    resize_thermal: bool = False
    four_channel: FourChannel = "auto"
    pair_regex: str | None = None
    allow_single: bool = False
    camera: Camera = field(default_factory=Camera)
    """How thermal files are read."""
    clahe: bool = False
    """Local contrast of the thermal picture under an overlay; labels are the same."""
    align: Homography | Literal["auto"] | None = None
    """Thermal pixel to RGB pixel, as rows; `auto` estimates one per pair, or fails the pair."""


@dataclass(frozen=True)
class Outcome:
    """What a folder run did; summary.json holds the same."""

    done: int
    skipped: int
    failures: dict[str, str]
    """Message per input that could not be labelled, unpaired files included."""


def fingerprint(model: SARTM | ExportedModel) -> str:
    """SHA-256 over configuration and weights: the same model or not."""
    if isinstance(model, ExportedModel):
        return model.fingerprint()
    digest = hashlib.sha256(json.dumps(to_dict(model.config), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def predict_folder(
    predictor: Predictor,
    rgb: str | Path | None,
    thermal: str | Path | None,
    out: Path,
    *,
    model: str,
    options: PredictOptions = PredictOptions(),
    overwrite: bool = False,
) -> Outcome:
    """Label files, folders or globs of pairs into `out`; a bad pair costs that pair only.

    Writes labels/<name>.png, overlays/<name>.jpg and summary.json. What exists with the same model
    and settings is kept and skipped.

    Args:
        predictor: the model.
        rgb: file, folder or glob, or None.
        thermal: likewise.
        out: folder to write to.
        model: name of the model, for summary.json.
        options: settings.
        overwrite: label again what is there.

    Raises:
        InputError: no input, two inputs with one name, outputs of another model or settings
            without `overwrite`, or a folder that cannot be written.
    """
    if options.align is not None and (rgb is None or thermal is None):
        raise InputError("--align moves thermal onto RGB; give both --rgb and --thermal")
    if options.align is not None and options.resize_thermal:
        raise InputError("--align and --resize-thermal exclude each other; leave one out")
    pairs, unpaired = find_pairs(rgb, thermal, options.pair_regex, options.allow_single)
    settings = to_dict(options) | {
        "rgb": None if rgb is None else str(rgb),
        "thermal": None if thermal is None else str(thermal),
        "precision": predictor.precision,
        "fingerprint": fingerprint(predictor.model),
    }
    record = _Record(out, model, settings, overwrite, predictor.classes)
    for path in unpaired:
        record.failures[str(path)] = "no partner: the other folder has no file of this name"
    todo = [pair for pair in pairs if not record.has(pair.name, options.overlay)]
    skipped = len(pairs) - len(todo)

    def read(pair: Pair) -> Sample:
        return read_pair(
            pair,
            resize_thermal=options.resize_thermal,
            four_channel=options.four_channel,
            camera=options.camera,
            align=None if options.align is None else partial(record.align, pair, options.align),
        )

    with (
        record,
        Meter("predict", len(todo)) as meter,
        ThreadPoolExecutor(1) as writer,
    ):
        label = partial(predictor.predict_batch, modality=options.modality)
        writing: Future[None] | None = None
        for pair, labelled in label_ahead(predictor, todo, read, label):
            try:
                sample, prediction, seconds = labelled()
            except InputError as error:
                if len(pairs) == 1:  # the one input there is: the caller's to put right
                    raise
                record.failures[pair.name] = str(error)
                meter.advance()
                continue
            if writing is not None:
                writing.result()
            writing = writer.submit(record.write, pair, sample, prediction, options, seconds)
            meter.advance()
        if writing is not None:
            writing.result()
    return Outcome(len(record.pairs), skipped, record.failures)


class _Record:
    """The output folder of one `predict_folder` and its summary.json."""

    def __init__(
        self, out: Path, model: str, settings: dict[str, Any], overwrite: bool, classes: Classes
    ) -> None:
        self.out, self.classes = out, classes
        self.head = {"model": model, "settings": settings}
        self.pairs: dict[str, Any] = {}
        self.failures: dict[str, str] = {}
        self.kept: dict[str, Any] = {}
        self.aligned: dict[str, dict[str, Any]] = {}
        self.resumes = False
        self.spoken = time.monotonic()
        summary = out / "summary.json"
        try:
            before = json.loads(summary.read_text())
        except (OSError, ValueError):
            before = None
        finished = isinstance(before, dict) and bool(before.get("pairs"))
        occupied = finished or any((out / "labels").glob("**/*.png"))
        if occupied and not overwrite:
            if not isinstance(before, dict) or before.get("settings") != settings:
                raise InputError(
                    f"{out} holds label maps of another model or of other settings; choose "
                    f"another folder with --out, or pass --overwrite"
                )
            self.resumes, self.kept = True, before.get("pairs", {})
        try:
            (out / "labels").mkdir(parents=True, exist_ok=True)
            self._write_summary()
        except OSError as error:
            raise InputError(
                f"cannot write to {out}: {error.strerror}; choose another --out"
            ) from None

    def has(self, name: str, overlay: bool) -> bool:
        """Whether a pair's outputs are there from an earlier, equal run."""
        label = (self.out / "labels" / f"{name}.png").exists()
        return self.resumes and label and (not overlay or self._overlay(name).exists())

    def _overlay(self, name: str) -> Path:
        return self.out / "overlays" / f"{name}.jpg"

    def align(
        self, pair: Pair, how: Homography | Literal["auto"], rgb: Array, thermal: Array
    ) -> Array:
        """Thermal on the pixels of RGB; how it came there is kept for the pair's entry."""
        given = None if how == "auto" else np.array(how, np.float64)
        found = align_thermal(rgb, thermal, given, f"pair {pair.name!r}")
        self.aligned[pair.name] = {
            "homography": found.homography.tolist(),
            "quality": None if found.quality is None else round(found.quality, 4),
            "seen": round(found.seen, 4),
        }
        return found.image

    def write(
        self,
        pair: Pair,
        sample: Sample,
        prediction: Prediction,
        options: PredictOptions,
        seconds: float,
    ) -> None:
        """Write the files of one pair."""
        target = self.out / "labels" / f"{pair.name}.png"
        try:
            if options.overlay:
                path = self._overlay(pair.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                if options.clahe and (sample.rgb is None or options.modality == "thermal"):
                    grey = enhance_display(np.ascontiguousarray(prediction.image[..., 0]))
                    prediction = replace(prediction, image=np.repeat(grey[..., None], 3, axis=2))
                image = prediction.image
                last = prediction.coarse is not None and image.flags.writeable
                drawn = prediction.overlay(options.opacity, image if last else None)
                for top in range(0, len(drawn), ROWS):  # of all in place OpenCV makes a copy
                    rows = drawn[top : top + ROWS]
                    cv2.cvtColor(rows, cv2.COLOR_RGB2BGR, dst=rows)
                _, data = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, 90])
                write_atomic(path, data.tobytes())
            target.parent.mkdir(parents=True, exist_ok=True)
            write_label(target, prediction.labels)
        except OSError as error:
            raise InputError(
                f"cannot write {target}: {error.strerror}; what was finished is kept"
            ) from None
        one = pair.four_channel or pair.rgb  # a fourth channel of RGB is thermal from one file
        used = {
            "rgb": one if sample.rgb is not None else None,
            "thermal": (pair.thermal or one) if sample.thermal is not None else None,
        }
        entry = {
            "inputs": {key: None if path is None else str(path) for key, path in used.items()},
            "seconds": round(seconds, 4),
            **prediction.summary(),
        }
        if pair.name in self.aligned:
            entry["alignment"] = self.aligned.pop(pair.name)
        if sample.note:
            log.warning("%s: %s", pair.name, sample.note)
            entry["note"] = sample.note
        self.pairs[pair.name] = entry
        if time.monotonic() - self.spoken > 5:
            self._write_summary()

    def _write_summary(self) -> None:
        self.spoken = time.monotonic()
        content = self.head | {"pairs": self.kept | self.pairs, "failures": self.failures}
        write_atomic(self.out / "summary.json", json.dumps(content, indent=1).encode())

    def __enter__(self) -> "_Record":
        return self

    def __exit__(self, *error: object) -> None:
        self._write_summary()
