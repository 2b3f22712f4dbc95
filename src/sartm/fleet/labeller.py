"""`sartm.PairLabeller`: one callable for every engine, which loads its model on arrival."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from sartm.classes import Classes
from sartm.data.manifest import Row, fetch
from sartm.data.pairs import Sample
from sartm.errors import InputError
from sartm.inference.ahead import read_ahead
from sartm.inference.devices import Precision
from sartm.inference.options import PredictOptions
from sartm.inference.pipeline import label_ahead
from sartm.inference.predictor import Predictor
from sartm.inference.products import Images, Product, Workshop
from sartm.io.remote import is_remote, local_path
from sartm.io.sources import File, Upload
from sartm.io.thermal import ThermalRange
from sartm.model.exported import ExportedModel
from sartm.model.loading import load
from sartm.model.sartm import SARTM

_FETCHED = 16
"""Pairs of a bucket that are on their way at a time."""
_MAKING = Lock()
"""Held while a model is loaded: threads that need it wait for the one. Of no labeller, as those
travel and a lock cannot."""


@dataclass(frozen=True)
class Answer:
    """What became of one row of a manifest."""

    row: Row
    product: Product | None
    """None where it failed."""
    error: str = ""


class PairLabeller:
    """Labels pairs: a dict with bytes in, a dict with bytes out.

    It can be pickled, for Ray, Spark, Daft, Beam or processes of one's own; the model is loaded, or
    made ready, where it is first called. Safe to call from several threads.
    """

    def __init__(
        self,
        model: str | SARTM | ExportedModel = "mini",
        *,
        options: PredictOptions = PredictOptions(overlay=False),
        device: str = "auto",
        precision: Precision = "auto",
        batch_size: int = 1,
        workers: int | None = None,
        compiled: bool = False,
        thermal_range: ThermalRange | str = "auto",
        name: str = "",
    ) -> None:
        """Nothing is loaded yet.

        Args:
            model: as `sartm.load` takes it, each place where it is called having it; or a loaded
                one, which travels along.
            options: what is done beside labelling.
            device: as `Predictor` takes it; so are all up to `thermal_range`.
            precision: likewise.
            batch_size: likewise.
            workers: likewise.
            compiled: likewise.
            thermal_range: likewise.
            name: of the model, for records; empty: what `model` says.
        """
        self.name = name or (model if isinstance(model, str) else type(model).__name__)
        # what an export runs in cannot travel: its folder or file is looked up there
        self.model = str(model.path) if isinstance(model, ExportedModel) else model
        self.options, self.device, self.precision = options, device, precision
        self.batch_size, self.workers, self.compiled = batch_size, workers, compiled
        self.thermal_range = thermal_range
        self._workshop: Workshop | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_workshop": None}

    def workshop(self) -> Workshop:
        """What labels, made on first use; InputError as `load` and `Predictor`."""
        with _MAKING:
            if self._workshop is None:
                model = load(self.model) if isinstance(self.model, str) else self.model
                predictor = Predictor(
                    model, device=self.device, precision=self.precision,
                    batch_size=self.batch_size, workers=self.workers, compiled=self.compiled,
                    thermal_range=self.thermal_range,
                )  # fmt: skip
                self._workshop = Workshop(predictor, self.options, self.name)
            return self._workshop

    def classes(self) -> Classes:
        """Of a loaded model without making it ready."""
        return (
            self.workshop().predictor.classes
            if isinstance(self.model, str)
            else (self.model.config.classes)
        )

    def selected_on(self) -> str | None:
        """The split that a loaded model's weights were chosen on, where that is known."""
        facts = None if isinstance(self.model, str) else self.model.facts
        return None if facts is None else facts.selected_on

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Label one pair; a bad one is told in `error`, and costs nothing else.

        Args:
            row: `name`, `rgb` and `thermal`, the bytes of image files or None for what there is
                not; whatever else it holds is handed on.

        Returns:
            The row without its images, and with `label`, a PNG of class ids (empty after an
            error); `overlay`, a JPEG, empty where the options want none; `entry`, JSON as in
            summary.json; `error`, "" or what is wrong with the pair.
        """
        workshop = self.workshop().apart()  # rows of other threads may have the same name, or none
        others = {key: value for key, value in row.items() if key not in ("rgb", "thermal")}
        found = {"label": b"", "overlay": b"", "entry": "{}", "error": ""}
        name = str(row.get("name", "pair"))
        sides = [_upload(row.get(side), f"{name} {side}") for side in ("rgb", "thermal")]
        images = Images(name, *sides)
        try:
            sample = workshop.read(images)
            (prediction,) = workshop.label([sample])
            product = workshop.make(images, sample, prediction, 0.0)
        except InputError as error:
            return others | found | {"error": str(error)}
        entry = {key: value for key, value in product.made.entry.items() if key != "seconds"}
        found |= {"label": product.label, "overlay": product.overlay or b""}
        return others | found | {"entry": json.dumps(entry)}

    def answer(self, rows: Iterable[Row]) -> Iterator[Answer]:
        """Label rows of a manifest, in order, several under way at a time."""
        workshop = self.workshop().apart()
        fetched = read_ahead(rows, _fetch_images, _FETCHED)

        def read(item: "tuple[Row, Any]") -> Sample:
            images: Images = item[1]()
            return workshop.read(images)

        for (row, _), labelled in label_ahead(workshop.predictor, fetched, read, workshop.label):
            try:
                sample, prediction, seconds = labelled()
            except InputError as error:
                workshop.forget(row.name)
                yield Answer(row, None, str(error))
                continue
            images = Images(row.name, _named(row.rgb), _named(row.thermal))
            yield Answer(row, workshop.make(images, sample, prediction, seconds))


def _upload(data: Any, name: str) -> Upload | None:
    return None if data is None or len(data) == 0 else Upload(name, bytes(data))


def _fetch_images(row: Row) -> Images:
    rgb, thermal = (fetch(place) if place else None for place in (row.rgb, row.thermal))
    return Images(row.name, rgb, thermal)


def _named(place: str) -> File | None:
    """What an entry calls a file; of its bytes nothing is needed any more."""
    if not place:
        return None
    return Upload(place, b"") if is_remote(place) else Path(local_path(place))
