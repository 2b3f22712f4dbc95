"""From the images of a pair to what is written of it: label map, overlay, entry of the summary."""

import hashlib
import json
import logging
from collections.abc import Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from sartm.config import to_dict
from sartm.data.pairs import RESIZE_OR_REGISTER, RawImages, Sample, read_sources
from sartm.errors import InputError
from sartm.files import hash_bytes, hash_file
from sartm.inference.alarm import PairCheck, check_pair, handle_misaligned
from sartm.inference.options import DRAWN, Homography, PredictOptions, label_settings
from sartm.inference.overlays import draw_grey, draw_legend, encode_picture, place_beside
from sartm.inference.prediction import Prediction
from sartm.inference.predictor import Predictor
from sartm.inference.record import Made, Maker
from sartm.io.labels import encode_label
from sartm.io.sources import File, Upload
from sartm.io.thermal import choose_levels, describe_levels, explain_auto, scale_thermal
from sartm.model.exported import ExportedModel
from sartm.model.sartm import SARTM
from sartm.registration.estimate import AlignedThermal, align_thermal

log = logging.getLogger("sartm")


@dataclass(frozen=True)
class Images:
    """The images of a pair, files or bytes, under the name that its label map will have."""

    name: str
    rgb: File | None
    thermal: File | None
    both: File | None = None
    """RGB and thermal in one file; then the others are None."""

    def hashes(self) -> dict[str, str | None]:
        """What RGB and thermal hold; empty where that cannot be read."""
        files = {"rgb": self.both or self.rgb, "thermal": self.thermal}
        try:
            return {name: None if file is None else _hash(file) for name, file in files.items()}
        except (OSError, InputError):  # reading the pair will say why
            return {}


def _hash(file: File) -> str:
    return hash_bytes(file.data) if isinstance(file, Upload) else hash_file(file)


@dataclass(frozen=True)
class Product:
    """All that is written of one pair."""

    label: bytes
    """PNG."""
    overlay: bytes | None
    """JPEG, where one was asked for."""
    made: Made
    check: PairCheck


def fingerprint(model: SARTM | ExportedModel) -> str:
    """SHA-256 over configuration and weights: the same model or not."""
    if isinstance(model, ExportedModel):
        return model.fingerprint()
    digest = hashlib.sha256(json.dumps(to_dict(model.config), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Workshop:
    """Reads pairs, labels them and makes their products; the pieces run in several threads."""

    def __init__(self, predictor: Predictor, options: PredictOptions, model: str) -> None:
        settings = label_settings(predictor, options)
        self.maker = Maker(model, fingerprint(predictor.model), settings)
        self.predictor, self.options = predictor, options
        self.drawn = {name: getattr(options, name) for name in DRAWN} | {"outlined": True}
        self._told: set[str] = set()
        """What was said once."""
        # Of pairs under way, by name.
        self._inputs: dict[str, dict[str, str | None]] = {}
        self._alignments: dict[str, dict[str, Any]] = {}
        self._checked: dict[str, PairCheck] = {}

    def apart(self) -> "Workshop":
        """The same, for a pair of whose name there may be others under way."""
        other = copy(self)
        other._inputs, other._alignments, other._checked = {}, {}, {}
        return other

    def read(self, images: Images) -> Sample:
        """The sample to label; InputError as `read_pair`, and where --on-misaligned says so."""
        options, name = self.options, images.name
        self._inputs[name] = images.hashes()
        sample = read_sources(
            name, images.rgb, images.thermal, images.both,
            resize_thermal=options.resize_thermal,
            four_channel=options.four_channel,
            camera=options.camera,
            align=None if options.align is None else partial(self._align, name, options.align),
            remedy=f"{RESIZE_OR_REGISTER}, or predict with --align auto",
        )  # fmt: skip
        check = check_pair(sample)
        self._checked[name] = check
        return handle_misaligned(sample, check, options.on_misaligned)

    def label(self, samples: Sequence[Sample]) -> list[Prediction]:
        """As `Predictor.predict_batch`, with what the options say."""
        return self.predictor.predict_batch(samples, self.options.modality, self.options.trust)

    def make(
        self, images: Images, sample: Sample, prediction: Prediction, seconds: float
    ) -> Product:
        """What is to be written of a pair that `read` and `label` were given."""
        label = encode_label(prediction.labels, images.name, prediction.classes.palette)
        overlay = self._draw_overlay(sample, prediction) if self.options.overlay else None
        made = Made(
            self.maker,
            self._inputs.pop(images.name),
            hash_bytes(label),
            None if overlay is None else self.drawn,
            self._describe(images, sample, prediction, seconds),
        )
        return Product(label, overlay, made, self._checked.pop(images.name))

    def forget(self, name: str) -> None:
        """Nothing will be made of this pair."""
        for known in (self._inputs, self._alignments, self._checked):
            known.pop(name, None)

    def _align(
        self, name: str, align: Homography | Literal["auto"], images: RawImages
    ) -> AlignedThermal:
        """Thermal on the pixels of RGB; how it came there is kept for the pair's entry."""
        homography = None if align == "auto" else np.array(align, np.float64)
        assert images.rgb is not None
        assert images.thermal is not None
        found = align_thermal(
            images.rgb, images.thermal, homography, f"pair {name!r}", images.unseen
        )
        self._alignments[name] = {
            "homography": found.homography.tolist(),
            "quality": None if found.quality is None else round(found.quality, 4),
            "seen": round(found.seen, 4),
        }
        return found

    def _draw_overlay(self, sample: Sample, prediction: Prediction) -> bytes:
        options = self.options
        if options.clahe and (sample.rgb is None or options.modality == "thermal"):
            grey = np.ascontiguousarray(prediction.image[..., 0])
            prediction = replace(prediction, image=draw_grey(grey, clahe=True))
        image = prediction.image
        # Of a large image it is drawn over the image, to save its memory.
        own = prediction.coarse is None or options.beside or not image.flags.writeable
        picture = prediction.overlay(options.opacity, None if own else image)
        if options.beside:
            picture = place_beside([*self._pictures(sample, prediction), picture])
        if options.legend:
            names = [
                prediction.classes.names.index(name) for name in prediction.summary()["shares"]
            ]
            shown = [index for index in names if index or prediction.classes.prompts[0]]
            band = draw_legend(picture.shape[1], prediction.classes, shown)
            picture = np.concatenate([picture, band])
        return encode_picture(picture)

    def _pictures(self, sample: Sample, prediction: Prediction) -> list[Any]:
        """Pictures (H, W, 3) of what the cameras saw, thermal as the model saw or would see it."""
        pictures = [] if sample.rgb is None else [sample.rgb]
        if sample.thermal is not None:
            how = self.predictor.thermal_range
            levels = prediction.levels or choose_levels(
                sample.thermal, self.predictor.config.thermal, "auto" if how == "model" else how,
                sample.name, sample.unseen, sample.black_hot,
            )  # fmt: skip
            grey = (scale_thermal(sample.thermal, levels) * 255).astype(np.uint8)
            pictures.append(draw_grey(grey, self.options.clahe))
        return pictures

    def _describe(
        self, images: Images, sample: Sample, prediction: Prediction, seconds: float
    ) -> dict[str, Any]:
        """A pair's entry in summary.json."""
        rgb = images.both or images.rgb
        thermal = images.thermal or rgb  # where it is the fourth channel
        entry = {
            "inputs": {
                "rgb": str(rgb) if sample.rgb is not None else None,
                "thermal": str(thermal) if sample.thermal is not None else None,
            },
            "seconds": round(seconds, 4),
            **prediction.summary(),
            **self._checked[images.name].describe(),
        }
        if used := self._describe_range(sample, prediction):
            entry["thermal_range"] = used
        if images.name in self._alignments:
            entry["alignment"] = self._alignments.pop(images.name)
        if sample.note:
            log.warning("%s: %s", images.name, sample.note)
            entry["note"] = sample.note
        return entry

    def _describe_range(self, sample: Sample, prediction: Prediction) -> dict[str, Any] | None:
        """By which range thermal was scaled; said once where it is not the model's."""
        if prediction.levels is None or sample.thermal is None:
            return None
        rule, how = self.predictor.config.thermal, self.predictor.thermal_range
        used = describe_levels(
            prediction.levels, sample.thermal, rule, how, sample.black_hot,
            self.options.camera.radiometric,
        )  # fmt: skip
        if used.by == "image" and "range" not in self._told:
            log.info("%s", explain_auto(used))
            self._told.add("range")
        return asdict(used)
