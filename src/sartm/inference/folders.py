"""Folders of pairs to label maps, overlays and summary.json."""

import hashlib
import json
import logging
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from sartm.config import Modality, to_dict
from sartm.data.finding import find_pairs
from sartm.data.layouts import Pair
from sartm.data.pairs import RawImages, Sample, read_pair
from sartm.errors import InputError
from sartm.files import write_atomic
from sartm.inference.ahead import write_behind
from sartm.inference.pipeline import label_ahead
from sartm.inference.prediction import Prediction, draw_grey, encode_overlay
from sartm.inference.predictor import Predictor
from sartm.io.cameras import Camera
from sartm.io.decode import FourChannel
from sartm.io.labels import write_label
from sartm.model.exported import ExportedModel
from sartm.model.sartm import SARTM
from sartm.progress import Meter
from sartm.registration.estimate import AlignedThermal, align_thermal

Homography = tuple[tuple[float, ...], ...]

log = logging.getLogger("sartm")


@dataclass(frozen=True)
class PredictOptions:
    """What `label_folder` does beside labelling; part of what makes two runs the same."""

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


def label_folder(
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
    record = _Record(out, model, options, settings, overwrite)
    for path in unpaired:
        record.failures[str(path)] = "no partner: the other folder has no file of this name"
    todo = [pair for pair in pairs if not record.has(pair.name)]
    read = partial(_read, options, record)
    label = partial(predictor.predict_batch, modality=options.modality)
    with record, Meter("predict", len(todo)) as meter, write_behind(record.write) as write:
        for pair, labelled in label_ahead(predictor, todo, read, label):
            try:
                sample, prediction, seconds = labelled()
            except InputError as error:
                if len(pairs) == 1:  # nothing else is labelled: the caller must put it right
                    raise
                record.failures[pair.name] = str(error)
            else:
                write(pair, sample, prediction, seconds)
            meter.advance()
    return Outcome(len(record.pairs), len(pairs) - len(todo), record.failures)


def _read(options: PredictOptions, record: "_Record", pair: Pair) -> Sample:
    return read_pair(
        pair,
        resize_thermal=options.resize_thermal,
        four_channel=options.four_channel,
        camera=options.camera,
        align=None if options.align is None else partial(record.align, pair, options.align),
    )


class _Record:
    """The output folder of one `label_folder` and its summary.json."""

    def __init__(
        self,
        out: Path,
        model: str,
        options: PredictOptions,
        settings: dict[str, Any],
        overwrite: bool,
    ) -> None:
        self.out, self.options = out, options
        self.head = {"model": model, "settings": settings}
        self.pairs: dict[str, Any] = {}
        self.failures: dict[str, str] = {}
        self.alignments: dict[str, dict[str, Any]] = {}
        self.earlier: dict[str, Any] | None = None if overwrite else self._find_earlier(settings)
        """Entries of an equal run that this one resumes."""
        try:
            (out / "labels").mkdir(parents=True, exist_ok=True)
            self._write_summary()
        except OSError as error:
            raise InputError(
                f"cannot write to {out}: {error.strerror}; choose another --out"
            ) from None

    def _find_earlier(self, settings: dict[str, Any]) -> dict[str, Any] | None:
        try:
            summary = json.loads((self.out / "summary.json").read_text())
        except (OSError, ValueError):
            summary = None
        entries = summary.get("pairs", {}) if isinstance(summary, dict) else {}
        if not entries and not any((self.out / "labels").glob("**/*.png")):
            return None
        if not isinstance(summary, dict) or summary.get("settings") != settings:
            raise InputError(
                f"{self.out} holds label maps of another model or of other settings; choose "
                f"another folder with --out, or pass --overwrite"
            )
        return entries

    def has(self, name: str) -> bool:
        """Whether a pair's outputs are there from an earlier, equal run."""
        files = [self._label(name), *([self._overlay(name)] if self.options.overlay else [])]
        return self.earlier is not None and all(file.exists() for file in files)

    def _label(self, name: str) -> Path:
        return self.out / "labels" / f"{name}.png"

    def _overlay(self, name: str) -> Path:
        return self.out / "overlays" / f"{name}.jpg"

    def align(
        self, pair: Pair, align: Homography | Literal["auto"], images: RawImages
    ) -> AlignedThermal:
        """Thermal on the pixels of RGB; how it came there is kept for the pair's entry."""
        homography = None if align == "auto" else np.array(align, np.float64)
        assert images.rgb is not None
        assert images.thermal is not None
        found = align_thermal(
            images.rgb, images.thermal, homography, f"pair {pair.name!r}", images.unseen
        )
        self.alignments[pair.name] = {
            "homography": found.homography.tolist(),
            "quality": None if found.quality is None else round(found.quality, 4),
            "seen": round(found.seen, 4),
        }
        return found

    def write(self, pair: Pair, sample: Sample, prediction: Prediction, seconds: float) -> None:
        """Write the files of one pair, and every few seconds the summary."""
        label = self._label(pair.name)
        try:
            if self.options.overlay:
                write_atomic(self._overlay(pair.name), self._draw_overlay(sample, prediction))
            write_label(label, prediction.labels)
        except OSError as error:
            raise InputError(
                f"cannot write {label}: {error.strerror}; what was finished is kept"
            ) from None
        self.pairs[pair.name] = self._describe(pair, sample, prediction, seconds)
        if time.monotonic() - self.written > 5:
            self._write_summary()

    def _draw_overlay(self, sample: Sample, prediction: Prediction) -> bytes:
        if self.options.clahe and (sample.rgb is None or self.options.modality == "thermal"):
            grey = np.ascontiguousarray(prediction.image[..., 0])
            prediction = replace(prediction, image=draw_grey(grey, clahe=True))
        return encode_overlay(prediction, self.options.opacity)

    def _describe(
        self, pair: Pair, sample: Sample, prediction: Prediction, seconds: float
    ) -> dict[str, Any]:
        """A pair's entry in summary.json."""
        rgb = pair.four_channel or pair.rgb
        thermal = pair.thermal or rgb  # where it is the fourth channel
        entry = {
            "inputs": {
                "rgb": str(rgb) if sample.rgb is not None else None,
                "thermal": str(thermal) if sample.thermal is not None else None,
            },
            "seconds": round(seconds, 4),
            **prediction.summary(),
        }
        if pair.name in self.alignments:
            entry["alignment"] = self.alignments.pop(pair.name)
        if sample.note:
            log.warning("%s: %s", pair.name, sample.note)
            entry["note"] = sample.note
        return entry

    def _write_summary(self) -> None:
        self.written = time.monotonic()
        entries = (self.earlier or {}) | self.pairs
        content = self.head | {"pairs": entries, "failures": self.failures}
        write_atomic(self.out / "summary.json", json.dumps(content, indent=1).encode())

    def __enter__(self) -> "_Record":
        return self

    def __exit__(self, *error: object) -> None:
        self._write_summary()
