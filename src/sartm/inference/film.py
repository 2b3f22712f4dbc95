"""The film a video run writes, and where: inputs beside the overlay, as WebM or MP4."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import numpy.typing as npt

from sartm.data.listing import FILM_LABELS, RECORD, SUMMARY
from sartm.errors import InputError
from sartm.files import read_json, temporary_beside, write_atomic
from sartm.inference.bags import split_bag
from sartm.inference.live import camera_index, network_scheme
from sartm.inference.overlays import draw_legend, place_beside
from sartm.inference.playback import import_av
from sartm.inference.prediction import Prediction
from sartm.io.labels import write_label
from sartm.objects.measurement import Row
from sartm.objects.table import TableFiles, complete_rows, table_files
from sartm.outputs import check_targets

Array = npt.NDArray[Any]

# Suffix -> container, and the encoders that serve it with their settings, best first.
_FORMATS: dict[str, tuple[str, dict[str, dict[str, str]]]] = {
    ".webm": (
        "webm",
        {"libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "32", "b": "0",
                        "row-mt": "1"}},
    ),
    ".mp4": (
        "mp4",
        {"libx264": {"preset": "veryfast", "crf": "21"}, "libopenh264": {"b": "8000000"}},
    ),
}  # fmt: skip
_CLOCK = Fraction(1, 90_000)  # of time stamps in the result


def choose_encoder(video: Path) -> str:
    """The encoder for a result by its suffix, as far as the installed PyAV has it.

    Raises:
        InputError: another suffix than .webm and .mp4, or no encoder for it.
    """
    av = import_av()
    if video.suffix.lower() not in _FORMATS:
        raise InputError(f"{video}: a result is written as .webm (VP9) or .mp4 (H.264); name it so")
    available = {
        suffix: [name for name in known if _has_encoder(av, name)]
        for suffix, (_, known) in _FORMATS.items()
    }
    encoders = available[video.suffix.lower()]
    if not encoders:
        others = ", ".join(suffix for suffix, names in available.items() if names)
        raise InputError(
            f"{video}: this PyAV has no encoder for {video.suffix} "
            f"({' or '.join(_FORMATS[video.suffix.lower()][1])}); it can write: "
            f"{others or 'none of the two'}"
        )
    return encoders[0]


def _has_encoder(av: Any, encoder: str) -> bool:
    try:
        av.codec.Codec(encoder, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


@dataclass(frozen=True)
class Places:
    """Where the results go."""

    video: Path
    summary: Path
    labels: Path
    objects: Path
    """Of the files of the table, without their endings."""
    in_folder: bool
    """A folder was named for them, not the film."""


def find_places(out: Path, source: str | Path | None) -> Places:
    """Where the film of a source goes: `out` is a file, or a folder for all of it."""
    name = _name_result(source)
    if out.suffix and not out.is_dir():
        beside = out.with_suffix("")
        labels = beside.with_name(beside.name + FILM_LABELS)
        objects = beside.with_name(f"{beside.name}-objects")
        return Places(out, out.with_suffix(".json"), labels, objects, in_folder=False)
    objects = out / "objects"
    return Places(out / f"{name}.webm", out / SUMMARY, out / "labels", objects, in_folder=True)


def check_places(
    places: Places,
    sources: tuple[str | Path | None, ...],
    labels: bool,
    overwrite: bool,
    objects: bool = False,
) -> list[Path]:
    """What of an earlier film is replaced: label maps and tables; refused is what is not to go."""
    if places.video.exists() and not overwrite:
        raise InputError(f"{places.video} exists; choose another --out, or pass --overwrite")
    tables = table_files(places.objects)
    targets = [places.video, places.summary, places.labels, *tables]
    check_targets(places.video.parent, targets, sources)
    written = os.path.realpath(places.labels)
    for source in sources:
        if source and Path(os.path.realpath(source)).is_relative_to(written):
            raise InputError(f"{source} lies in {written}, which is replaced; choose another --out")
    # Left by a run that was killed: the film gets its name last.
    before = _settings_of(places.summary, places.video.name)
    replaced = [places.labels] if before.get("labels") is True else []
    replaced += tables if before.get("objects") else []
    for there, wanted, what in (
        ([places.labels], labels, "label maps"), (tables, objects, "objects"),
    ):  # fmt: skip
        others = [path for path in there if wanted and path.exists() and path not in replaced]
        if others and (not overwrite or (places.video.parent / RECORD).exists()):
            raise InputError(f"{others[0]} holds other {what}; choose another --out")
        replaced += others
    return replaced


def _settings_of(summary: Path, film: str) -> dict[str, Any]:
    """Of the summary of this film; nothing where it is of something else."""
    try:
        content = read_json(summary)
        settings = content["settings"]
        return settings if content["video"] == film and isinstance(settings, dict) else {}
    except (InputError, KeyError, TypeError):
        return {}


def _name_result(source: str | Path | None) -> str:
    """What the result is called after its source."""
    if source is None:
        raise InputError("no input; give --rgb, --thermal or both")
    number = camera_index(str(source))
    if number is not None:
        return f"camera-{number}"
    if network_scheme(str(source)):
        return re.sub(r"[^\w.-]+", "-", urlsplit(str(source)).hostname or "stream")
    bag = split_bag(source)
    if bag is not None:
        return f"{bag[0].stem}{bag[1].replace('/', '-')}"
    stem = Path(source).stem
    return "video" if not stem or set(stem) & set("*?[]") else stem


def _remove(path: Path) -> None:
    """A file, or a folder, which is gone in one moment."""
    if path.is_dir():
        old = temporary_beside(path)
        path.rename(old)
        shutil.rmtree(old)
    else:
        path.unlink(missing_ok=True)


class Film:
    """The result being written, under temporary names until `publish`; use as a context manager."""

    def __init__(
        self,
        video: Path,
        encoder: str,
        rate: Fraction,
        *,
        opacity: float,
        width: int,
        labels: Path | None,
        legend: bool = False,
        objects: Path | None = None,
    ) -> None:
        self.video, self.encoder, self.rate = video, encoder, rate
        self.opacity, self.width, self.labels, self.legend = opacity, width, labels, legend
        self.format, encoders = _FORMATS[video.suffix.lower()]
        self.settings = encoders[encoder]
        self.unfinished = temporary_beside(video)
        self.maps = None if labels is None else temporary_beside(labels)
        self.container: Any = None
        self.stream: Any = None
        self.last = -1
        with self._words_for_errors():
            self.table = None if objects is None else TableFiles(objects)

    def __enter__(self) -> "Film":
        return self

    def write(
        self,
        name: str,
        moment: float,
        rgb: Array | None,
        thermal: Array | None,
        prediction: Prediction,
        rows: list[Row],
    ) -> None:
        """Add one moment: RGB and thermal (H, W, 3) as far as there are, overlay and objects."""
        inputs = [image for image in (rgb, thermal) if image is not None]
        panels = [*inputs, prediction.overlay(self.opacity)]
        picture = place_beside(panels, self.width)
        if self.legend:
            names = range(1 - bool(prediction.classes.prompts[0]), len(prediction.classes))
            band = draw_legend(picture.shape[1], prediction.classes, names)
            picture = np.concatenate([picture, band])
        with self._words_for_errors():
            self._encode(picture, moment)
            if self.maps is not None:
                palette = prediction.classes.palette
                write_label(self.maps / f"{name}.png", prediction.labels, palette)
            if self.table is not None:
                self.table.add(complete_rows(name, rows, moment))

    def _encode(self, picture: Array, moment: float) -> None:
        av = import_av()
        if self.container is None:
            self._open(av, picture.shape[0], picture.shape[1])
        size = (self.stream.width, self.stream.height)
        if picture.shape[1::-1] != size:  # a camera that changed its resolution
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts = max(round(moment / _CLOCK), self.last + 1)
        frame.time_base = _CLOCK
        frame.duration = round(1 / self.rate / _CLOCK)
        self.last = frame.pts
        self.container.mux(self.stream.encode(frame))

    def _open(self, av: Any, height: int, width: int) -> None:
        self.unfinished.parent.mkdir(parents=True, exist_ok=True)
        self.container = av.open(str(self.unfinished), "w", format=self.format)
        self.stream = self.container.add_stream(
            self.encoder, rate=self.rate.limit_denominator(1001), options=dict(self.settings)
        )
        self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, "yuv420p"
        self.stream.codec_context.time_base = _CLOCK

    def __exit__(self, *error: object) -> None:
        """Finish the file; if that fails it is gone, for it would not play."""
        if self.container is None:
            return
        try:
            with self._words_for_errors(), contextlib.closing(self.container):
                self.container.mux(self.stream.encode(None))
        except InputError:
            self.unfinished.unlink(missing_ok=True)
            if error[0] is None:
                raise

    def publish(self, summary: Path, content: bytes, replaced: list[Path]) -> None:
        """Give everything its name, the film last: where it is, the rest is whole too.

        `replaced` are folders and files of the film before, which are to be gone by then.
        """
        if not self.unfinished.exists():
            return
        with self._words_for_errors():
            self.video.unlink(missing_ok=True)
            for path in replaced:
                _remove(path)
            if self.maps is not None and self.labels is not None and self.maps.exists():
                self.maps.rename(self.labels)
            if self.table is not None:
                self.table.publish()
            try:
                write_atomic(summary, content)
            finally:
                self.unfinished.replace(self.video)

    def discard(self) -> None:
        """Remove what has not been published."""
        self.unfinished.unlink(missing_ok=True)
        if self.table is not None:
            self.table.discard()
        if self.maps is not None:
            shutil.rmtree(self.maps, ignore_errors=True)

    @contextlib.contextmanager
    def _words_for_errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, import_av().error.FFmpegError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"cannot write {self.video}: {reason}; make room, or choose another --out"
            ) from None
