"""Folders of pairs to label maps, overlays and summary.json; nothing is made twice or lost."""

import errno
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sartm.colours import describe_classes
from sartm.config import to_dict
from sartm.data.finding import search_pairs
from sartm.data.listing import RECORD, SUMMARY, WRITTEN
from sartm.data.pairs import Sample
from sartm.data.sets import Pair
from sartm.errors import InputError
from sartm.files import hash_file, remove_leftovers, write_atomic
from sartm.inference.ahead import write_behind
from sartm.inference.alarm import PairCheck, count_alarms, word_alarms
from sartm.inference.objects import ObjectFolder, count_objects, describe_place
from sartm.inference.options import PredictOptions, as_described
from sartm.inference.pipeline import READERS, label_ahead
from sartm.inference.prediction import Prediction
from sartm.inference.predictor import Predictor
from sartm.inference.products import Images, Workshop
from sartm.inference.record import Made, Record
from sartm.io.labels import encode_geotiff
from sartm.io.places import Place, find_place
from sartm.objects.places import locate
from sartm.outputs import check_targets, find_clash, ignores_case, lock_folder
from sartm.progress import Meter


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
    the same model made of the same images with the same settings is kept; what is asked for beside
    it, overlay, trust or objects, is added.

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
    found = search_pairs(rgb, thermal, options.pair_regex, options.allow_single, out)
    _require_alignable(options, found.pairs)
    if found.layout is not None:
        options = as_described(options, found.layout, found.pairs[0], options.align is None)
    workshop = Workshop(predictor, options, model)
    with lock_folder(out):
        run = _Run(out, workshop)
        for path in found.unpaired:
            run.failures[str(path)] = "no partner: the other folder has no file of this name"
        run.failures |= found.unreadable
        todo = run.begin(found.pairs, overwrite)

        def read(pair: Pair) -> Sample:
            sources = (pair.four_channel or pair.rgb, pair.thermal)
            run.places[pair.name] = find_place(sources, moved=options.align is not None)
            return workshop.read(images_of(pair))

        if not todo:
            with run:  # writes the summary
                pass
            return Outcome(0, len(found.pairs), run.failures, objects=run.objects.count)
        with run, Meter("predict", len(todo)) as meter, write_behind(run.write) as write:
            for pair, labelled in label_ahead(predictor, todo, read, workshop.label):
                try:
                    sample, prediction, seconds = labelled()
                except InputError as error:
                    if len(found.pairs) == 1:  # nothing else is labelled: the caller must mend it
                        raise
                    run.failures[pair.name] = str(error)
                    workshop.forget(pair.name)
                else:
                    write(pair, sample, prediction, seconds)
                meter.advance()
    alarms = word_alarms(count_alarms(check.alarms for check in run.checks), len(run.checks))
    return Outcome(run.done, len(found.pairs) - len(todo), run.failures, alarms, run.objects.count)


def _require_alignable(options: PredictOptions, pairs: list[Pair]) -> None:
    if options.align is None:
        return
    if options.resize_thermal:
        raise InputError("--align and --resize-thermal exclude each other; leave one out")
    if not any(pair.four_channel or (pair.rgb and pair.thermal) for pair in pairs):
        raise InputError("--align moves thermal onto RGB; give both --rgb and --thermal")


def _lies(path: Path) -> bool:
    """Whether a file is there, or a link; False too where no name can be so long."""
    try:
        return not stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def _add_to(old: Made, made: Made) -> Made:
    """What there is of a label map once a run has made more of it."""
    kept = ["trust"] * ("trust" not in made.entry)
    if made.objects is None:
        kept += ["objects", "place"]  # the place says how objects were located
    entry = made.entry | {name: old.entry[name] for name in kept if name in old.entry}
    return replace(
        made, entry=entry, overlay=made.overlay or old.overlay, objects=made.objects or old.objects
    )


def images_of(pair: Pair) -> Images:
    """The files of a pair, to be labelled."""
    return Images(pair.name, pair.rgb, pair.thermal, pair.four_channel)


class _Run:
    """One `label_folder` at work in its output folder: what is there, what is written."""

    def __init__(self, out: Path, workshop: Workshop) -> None:
        self.out, self.workshop = out, workshop
        self.maker, self.options = workshop.maker, workshop.options
        camera = self.options.camera
        self.objects = ObjectFolder(out, self.options.objects, camera.radiometric)
        self.places: dict[str, tuple[Place, str]] = {}
        """Of pairs that are not written yet."""
        self.failures: dict[str, str] = {}
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
                    self._take_away(*self._files(pair.name))
            except OSError as error:
                raise self._cannot_write(self.out, error) from None
        return todo

    def _compare(self, pair: Pair) -> str | None:
        """Of a pair's label map: "" where it is what this run would make, None where there is none.

        Else why it is another one. Where its overlay, trust or list of objects is missing or was
        made otherwise, it counts as none.
        """
        label, made = self._label(pair.name), self.record.made.get(pair.name)
        if not _lies(label):
            return None
        if made is None:
            return "is there, and no record says what made it"
        inputs = images_of(pair).hashes()
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
        drawn = _lies(self._overlay(pair.name)) and made.overlay == self.workshop.drawn
        listed = _lies(self.objects.file(pair.name)) and made.objects == self.objects.made
        complete = (drawn or not self.options.overlay) and (listed or not self.options.objects)
        complete = complete and ("trust" in made.entry or not self.options.trust)
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

    def _files(self, name: str) -> list[Path]:
        """All that there may be of a pair."""
        places = (self._label, self._overlay, self.objects.file, self._geotiff)
        return [place(name) for place in places]

    def _take_away(self, *files: Path) -> None:
        """So that a run that ends here leaves nothing old that would pass for new."""
        for file in files:
            if _lies(file):
                file.unlink()

    def _find_same(self, name: str, made: Made) -> Made | None:
        """How the label map that is there was made, if it is the one that `made` is about."""
        old = self.record.made.get(name)
        if old is None or (old.inputs, old.label) != (made.inputs, made.label):
            return None
        same = not old.maker.differences(made.maker) and _lies(self._label(name))
        return old if same else None

    def write(self, pair: Pair, sample: Sample, prediction: Prediction, seconds: float) -> None:
        """Write the line and the files of one pair, in the order that `Record` says."""
        label, overlay = self._label(pair.name), self._overlay(pair.name)
        place, odd = self.places.pop(pair.name)
        located = locate(place, prediction.labels.shape, self.objects.height)
        rows = self.objects.measure(pair.name, sample, prediction, place, located)
        product = self.workshop.make(images_of(pair), sample, prediction, seconds)
        self.checks.append(product.check)
        described = describe_place(place, located, odd)
        entry = product.made.entry | ({"place": described} if described else {})
        if rows is not None:
            entry["objects"] = count_objects(rows)
        if self.options.trust:
            entry.setdefault("trust", None)  # of tiles, say; a later run need not look again
        made = replace(product.made, entry=entry, objects=self.objects.made)
        old, gone = self._find_same(pair.name, made), self._files(pair.name)
        if old is not None:  # what was made of this label map stays
            made = _add_to(old, made)
            anew = ((overlay, product.overlay), (self.objects.file(pair.name), rows))
            gone = [file for file, content in anew if content is not None]
        try:
            self._take_away(*gone)
            self.record.append(pair.name, made)
            if product.overlay is not None:
                write_atomic(overlay, product.overlay)
            self.objects.write(pair.name, rows)
            if place.grid is not None and place.size == prediction.labels.shape:
                palette = prediction.classes.palette
                geotiff = encode_geotiff(prediction.labels, place.grid.tags, palette)
                write_atomic(self._geotiff(pair.name), geotiff)
            if old is None:
                write_atomic(label, product.label)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise self._cannot_write(label, error) from None
            self.failures[pair.name] = f"cannot write {label}: {error.strerror}"
        else:
            self.done += 1

    def _cannot_write(self, path: Path, error: OSError) -> InputError:
        kept = "what was finished is kept" if self.done else "choose another --out"
        return InputError(f"cannot write {path}: {error.strerror}; {kept}")

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
            "classes": describe_classes(self.workshop.predictor.classes),
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
