"""Folders of pairs to label maps, overlays and summary.json; nothing is made twice or lost."""

import errno
import hashlib
import json
import logging
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from sartm.colours import describe_classes
from sartm.config import to_dict
from sartm.data.finding import search_pairs
from sartm.data.layouts import Pair
from sartm.data.listing import RECORD, SUMMARY, WRITTEN
from sartm.data.pairs import RESIZE_OR_REGISTER, RawImages, Sample, read_pair
from sartm.errors import InputError
from sartm.files import hash_bytes, hash_file, remove_leftovers, write_atomic
from sartm.inference.ahead import write_behind
from sartm.inference.alarm import (
    PairCheck,
    check_pair,
    count_alarms,
    handle_misaligned,
    word_alarms,
)
from sartm.inference.objects import ObjectFolder, count_objects, describe_place, find_place
from sartm.inference.options import DRAWN, Homography, PredictOptions, label_settings
from sartm.inference.overlays import draw_grey, draw_legend, encode_picture, place_beside
from sartm.inference.pipeline import READERS, label_ahead
from sartm.inference.prediction import Prediction
from sartm.inference.predictor import Predictor
from sartm.inference.record import Made, Maker, Record
from sartm.io.labels import encode_geotiff, encode_label
from sartm.io.places import Place
from sartm.io.thermal import choose_levels, describe_levels, explain_auto, scale_thermal
from sartm.model.exported import ExportedModel
from sartm.model.sartm import SARTM
from sartm.objects.places import locate
from sartm.outputs import check_targets, find_clash, ignores_case, lock_folder
from sartm.progress import Meter
from sartm.registration.estimate import AlignedThermal, align_thermal

log = logging.getLogger("sartm")


@dataclass(frozen=True)
class Outcome:
    """What a folder run did; summary.json holds the same."""

    done: int
    skipped: int
    failures: dict[str, str]
    """Message per input that could not be labelled, unpaired files included."""
    alarms: str = ""
    """What the images say about the cameras, in a line."""
    objects: int = 0
    """In the table of all pairs of the folder."""


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

    Writes labels/<name>.png, overlays/<name>.jpg, record.jsonl and, at the end, summary.json. What
    the same model made of the same images with the same settings is kept and skipped.

    Args:
        predictor: the model.
        rgb: file, folder or glob, or None.
        thermal: likewise.
        out: folder to write to.
        model: name of the model, for the summary and messages.
        options: settings.
        overwrite: label again what is there; the old label maps go first.

    Raises:
        InputError: no input, two inputs with one name, label maps that would be replaced without
            `overwrite`, a folder that is an input, is in use, or cannot be written.
    """
    if options.align is not None and (rgb is None or thermal is None):
        raise InputError("--align moves thermal onto RGB; give both --rgb and --thermal")
    if options.align is not None and options.resize_thermal:
        raise InputError("--align and --resize-thermal exclude each other; leave one out")
    found = search_pairs(rgb, thermal, options.pair_regex, options.allow_single, out)
    maker = Maker(model, fingerprint(predictor.model), label_settings(predictor, options))
    with lock_folder(out):
        run = _Run(out, maker, options, predictor)
        for path in found.unpaired:
            run.failures[str(path)] = "no partner: the other folder has no file of this name"
        run.failures |= found.unreadable
        todo = run.begin(found.pairs, overwrite)
        read = partial(_read, options, run)
        label = partial(predictor.predict_batch, modality=options.modality, trust=options.trust)
        if not todo:
            with run:  # writes the summary
                pass
            return Outcome(0, len(found.pairs), run.failures, objects=run.objects.count)
        with run, Meter("predict", len(todo)) as meter, write_behind(run.write) as write:
            for pair, labelled in label_ahead(predictor, todo, read, label):
                try:
                    sample, prediction, seconds = labelled()
                except InputError as error:
                    if len(found.pairs) == 1:  # nothing else is labelled: the caller must mend it
                        raise
                    run.failures[pair.name] = str(error)
                else:
                    write(pair, sample, prediction, seconds)
                meter.advance()
    alarms = word_alarms(count_alarms(check.alarms for check in run.checks), len(run.checks))
    return Outcome(run.done, len(found.pairs) - len(todo), run.failures, alarms, run.objects.count)


def _read(options: PredictOptions, run: "_Run", pair: Pair) -> Sample:
    run.inputs[pair.name] = _hash_inputs(pair)
    run.places[pair.name] = find_place(pair, moved=options.align is not None)
    sample = read_pair(
        pair,
        resize_thermal=options.resize_thermal,
        four_channel=options.four_channel,
        camera=options.camera,
        align=None if options.align is None else partial(run.align, pair, options.align),
        remedy=f"{RESIZE_OR_REGISTER}, or predict with --align auto",
    )
    check = check_pair(sample)
    run.checked[pair.name] = check
    return handle_misaligned(sample, check, options.on_misaligned)


def _hash_inputs(pair: Pair) -> dict[str, str | None]:
    files = {"rgb": pair.four_channel or pair.rgb, "thermal": pair.thermal}
    try:
        return {name: None if file is None else hash_file(file) for name, file in files.items()}
    except (OSError, InputError):  # reading the pair will say why
        return {}


def _lies(path: Path) -> bool:
    """Whether a file is there, or a link; False too where no name can be so long."""
    try:
        return not stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


class _Run:
    """One `label_folder` at work in its output folder: what is there, what is written."""

    def __init__(
        self, out: Path, maker: Maker, options: PredictOptions, predictor: Predictor
    ) -> None:
        self.out, self.maker, self.options = out, maker, options
        self.predictor = predictor
        self.told_of_range = False
        self.objects = ObjectFolder(out, options.objects, options.camera.radiometric)
        self.drawn = {name: getattr(options, name) for name in DRAWN} | {"outlined": True}
        self.failures: dict[str, str] = {}
        self.inputs: dict[str, dict[str, str | None]] = {}
        self.alignments: dict[str, dict[str, Any]] = {}
        self.places: dict[str, tuple[Place, str]] = {}
        self.checked: dict[str, PairCheck] = {}
        """Of pairs that are not written yet."""
        self.checks: list[PairCheck] = []
        self.done = 0
        try:
            remove_leftovers(out)
            for name in WRITTEN:
                remove_leftovers(out / name, below=True)
            self.record = Record(out)
        except OSError as error:
            raise self._cannot_write(out, error) from None

    def begin(self, pairs: list[Pair], overwrite: bool) -> list[Pair]:
        """The pairs that are still to be labelled; nothing is changed if this is refused."""
        names = [pair.name for pair in pairs]
        clash = find_clash(names)
        if clash and ignores_case(self.out):
            raise InputError(
                f"{clash[0]!r} and {clash[1]!r} would be one file in {self.out}, which takes small "
                f"and capital letters as the same; rename one of them or run them apart"
            )
        targets = [self._label(name) for name in names] + [self._overlay(name) for name in names]
        targets += [self.out / RECORD, self.out / SUMMARY, *self.objects.targets(names)]
        images = [file for pair in pairs for file in (pair.rgb, pair.thermal, pair.four_channel)]
        check_targets(self.out, targets, images)
        if overwrite:
            todo = pairs
        else:
            with ThreadPoolExecutor(READERS) as pool:
                states = dict(zip(names, pool.map(self._compare, pairs), strict=True))
            self._refuse_to_replace({name: state for name, state in states.items() if state})
            todo = [pair for pair in pairs if states[pair.name] is None]
        if todo:
            try:
                (self.out / "labels").mkdir(exist_ok=True)
                (self.out / SUMMARY).unlink(missing_ok=True)  # of what was; the record goes on
                for pair in todo if overwrite else ():
                    self._take_away(pair.name)
            except OSError as error:
                raise self._cannot_write(self.out, error) from None
        return todo

    def _compare(self, pair: Pair) -> str | None:
        """Of a pair's label map: "" where it is what this run would make, None where there is none.

        Else why it is another one. An overlay or a list of objects that is missing or was made
        otherwise counts as none.
        """
        label, made = self._label(pair.name), self.record.made.get(pair.name)
        if not _lies(label):
            return None
        if made is None:
            return "is there, and no record says what made it"
        if self.options.trust and "trust" not in made.entry and pair.rgb and pair.thermal:
            return None
        inputs = _hash_inputs(pair)
        if not inputs:
            return None
        try:
            unchanged = hash_file(label) == made.label
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        if not unchanged:
            return "was changed after it was written"
        if differences := made.maker.differences(self.maker):
            return f"was made with {', '.join(differences)}"
        if inputs != made.inputs:
            other = [name for name in inputs if inputs[name] != made.inputs.get(name)]
            return f"was made of another image (--{' and --'.join(other)})"
        drawn = _lies(self._overlay(pair.name)) and made.overlay == self.drawn
        listed = _lies(self.objects.file(pair.name)) and made.objects == self.objects.made
        complete = (drawn or not self.options.overlay) and (listed or not self.options.objects)
        return "" if complete else None

    def _refuse_to_replace(self, reasons: dict[str, str]) -> None:
        if not reasons:
            return
        name, reason = next(iter(reasons.items()))
        others = f", and {len(reasons) - 1} more would be replaced" if len(reasons) > 1 else ""
        raise InputError(
            f"{self._label(name)} {reason}{others}; choose another folder with --out, or pass "
            f"--overwrite"
        )

    def _label(self, name: str) -> Path:
        return self.out / "labels" / f"{name}.png"

    def _overlay(self, name: str) -> Path:
        return self.out / "overlays" / f"{name}.jpg"

    def _geotiff(self, name: str) -> Path:
        """The label map once more, where its input lies on a grid of coordinates."""
        return self.out / "geotiff" / f"{name}.tif"

    def _take_away(self, name: str) -> None:
        """So that a run that ends here leaves nothing old that would pass for new."""
        for place in (self._label, self._overlay, self.objects.file, self._geotiff):
            if _lies(file := place(name)):
                file.unlink()

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
        """Write the line and the files of one pair, in the order that `Record` says."""
        label, overlay = self._label(pair.name), self._overlay(pair.name)
        data = encode_label(prediction.labels, str(label), prediction.classes.palette)
        place, odd = self.places.pop(pair.name)
        located = locate(place, prediction.labels.shape, self.objects.height)
        rows = self.objects.measure(pair.name, sample, prediction, place, located)
        picture = self._draw_overlay(sample, prediction) if self.options.overlay else None
        entry = self._describe(pair, sample, prediction, seconds)
        entry |= describe_place(place, located, odd)
        if rows is not None:
            entry["objects"] = count_objects(rows)
        made = Made(
            self.maker,
            self.inputs.pop(pair.name),
            hash_bytes(data),
            None if picture is None else self.drawn,
            entry,
            self.objects.made,
        )
        try:
            self._take_away(pair.name)
            self.record.append(pair.name, made)
            if picture is not None:
                write_atomic(overlay, picture)
            self.objects.write(pair.name, rows)
            if place.grid is not None and place.size == prediction.labels.shape:
                palette = prediction.classes.palette
                geotiff = encode_geotiff(prediction.labels, place.grid.tags, palette)
                write_atomic(self._geotiff(pair.name), geotiff)
            write_atomic(label, data)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise self._cannot_write(label, error) from None
            self.failures[pair.name] = f"cannot write {label}: {error.strerror}"
        else:
            self.done += 1

    def _cannot_write(self, path: Path, error: OSError) -> InputError:
        kept = "what was finished is kept" if self.done else "choose another --out"
        return InputError(f"cannot write {path}: {error.strerror}; {kept}")

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
            picture = place_beside([*self._inputs(sample, prediction), picture])
        if options.legend:
            names = [
                prediction.classes.names.index(name) for name in prediction.summary()["shares"]
            ]
            shown = [index for index in names if index or prediction.classes.prompts[0]]
            band = draw_legend(picture.shape[1], prediction.classes, shown)
            picture = np.concatenate([picture, band])
        return encode_picture(picture)

    def _inputs(self, sample: Sample, prediction: Prediction) -> list[Any]:
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
        if pair.name in self.checked:
            self.checks.append(self.checked.pop(pair.name))
            entry |= self.checks[-1].describe()
        if used := self._describe_range(sample, prediction):
            entry["thermal_range"] = used
        if pair.name in self.alignments:
            entry["alignment"] = self.alignments.pop(pair.name)
        if sample.note:
            log.warning("%s: %s", pair.name, sample.note)
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
        if used.by == "image" and not self.told_of_range:
            log.info("%s", explain_auto(used))
            self.told_of_range = True
        return asdict(used)

    def _write_summary(self) -> None:
        """The record as one document; a pair that was made otherwise says so."""
        entries = {}
        for name, made in sorted(self.record.made.items()):
            if name in self.failures or not _lies(self._label(name)):
                continue
            entries[name] = made.entry
            if made.maker.differences(self.maker):
                entries[name] = made.entry | {"made": asdict(made.maker)}
        settings = to_dict(self.options) | self.maker.settings
        content = {
            "model": self.maker.model,
            "settings": settings | {"fingerprint": self.maker.fingerprint},
            "classes": describe_classes(self.predictor.classes),
            "pairs": entries,
            "alarms": count_alarms(entry.get("alarms", ()) for entry in entries.values()),
            "failures": self.failures,
        }
        self.objects.write_tables(entries)
        write_atomic(self.out / SUMMARY, json.dumps(content, indent=1).encode())

    def __enter__(self) -> "_Run":
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.record.close()
            self._write_summary()
        except OSError as failed:
            if error[0] is None:
                raise self._cannot_write(self.out / SUMMARY, failed) from None
