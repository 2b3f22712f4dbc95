"""The film a video run writes: inputs beside the overlay, encoded as WebM or MP4."""

import contextlib
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sartm.errors import InputError
from sartm.inference.prediction import Prediction
from sartm.inference.streams import import_av
from sartm.io.labels import write_label

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


class Film:
    """The result being written: a temporary file that becomes the video when it is left."""

    def __init__(
        self,
        video: Path,
        encoder: str,
        rate: Fraction,
        *,
        opacity: float,
        width: int,
        labels: Path | None,
    ) -> None:
        self.video, self.encoder, self.rate = video, encoder, rate
        self.opacity, self.width, self.labels = opacity, width, labels
        self.format, encoders = _FORMATS[video.suffix.lower()]
        self.settings = encoders[encoder]
        self.unfinished = video.with_name(f".{video.stem}.{os.getpid()}.tmp{video.suffix}")
        self.container: Any = None
        self.stream: Any = None
        self.last = -1

    def __enter__(self) -> "Film":
        return self

    def write(
        self,
        name: str,
        moment: float,
        rgb: Array | None,
        thermal: Array | None,
        prediction: Prediction,
    ) -> None:
        """Add one moment: RGB and thermal (H, W, 3) as far as there are, and the overlay."""
        inputs = [image for image in (rgb, thermal) if image is not None]
        panels = [*inputs, prediction.overlay(self.opacity)]
        try:
            self._encode(_place_side_by_side(panels, self.width), moment)
            if self.labels is not None:
                write_label(self.labels / f"{name}.png", prediction.labels)
        except OSError as error:
            raise InputError(
                f"cannot write {self.video}: {error.strerror or error}; what was finished is kept"
            ) from None

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
        if self.container is None:
            return
        try:
            with contextlib.closing(self.container):
                self.container.mux(self.stream.encode(None))
            self.unfinished.replace(self.video)
        finally:
            self.unfinished.unlink(missing_ok=True)


def _place_side_by_side(panels: list[Array], width: int) -> Array:
    """Pictures (H, W, 3) of one size in a row of at most `width` pixels, with even sides."""
    height, panel_width = panels[0].shape[:2]
    scale = min(1.0, width / (panel_width * len(panels)))
    size = (max(2, int(panel_width * scale) // 2 * 2), max(2, int(height * scale) // 2 * 2))
    if size != (panel_width, height):
        panels = [cv2.resize(panel, size, interpolation=cv2.INTER_AREA) for panel in panels]
    return np.concatenate(panels, axis=1)
