"""What `folders` and `video` do beside labelling, and what of it changes label maps."""

import logging
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from sartm.config import Modality, to_dict
from sartm.data.sets import Layout, Pair
from sartm.errors import InputError
from sartm.inference.alarm import OnMisaligned
from sartm.inference.frames import Match
from sartm.inference.pictures import Arrangement
from sartm.inference.predictor import Predictor
from sartm.inference.watch import require_fitting
from sartm.io.cameras import Camera
from sartm.io.decode import FourChannel
from sartm.io.thermal import format_range
from sartm.objects.measurement import Measuring

log = logging.getLogger("sartm")

Homography = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class PredictOptions:
    """What `label_folder` does beside labelling."""

    modality: Modality = "both"
    overlay: bool = True
    opacity: float = 0.5
    legend: bool = False
    """Colours and names of the classes that occur, below the overlay."""
    beside: bool = False
    """RGB, thermal and overlay in one picture, in the overlay's file."""
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
    trust: bool = False
    """Which camera the labels rest on, as a mean per pair in the summary."""
    on_misaligned: OnMisaligned = "warn"
    """What to do with a pair whose thermal does not lie on RGB; `alarm.handle_misaligned`."""
    objects: Measuring | None = None
    """List the objects of every pair, measured so."""


DRAWN = ("opacity", "legend", "beside", "clahe")
"""Options that change an overlay and no label map."""
_WITHOUT_EFFECT = (*DRAWN, "overlay", "pair_regex", "allow_single", "trust", "objects")
"""Options that change no label map: which images are paired is seen from the images."""


def label_settings(predictor: Predictor, options: PredictOptions) -> dict[str, Any]:
    """What changes label maps, beside the model."""
    settings = to_dict(options) | {"precision": predictor.precision}
    settings |= {"tiling": to_dict(predictor.tiling)}
    settings |= {"thermal_range": format_range(predictor.thermal_range)}
    for name in _WITHOUT_EFFECT:
        del settings[name]
    if options.on_misaligned == "warn":  # nothing is changed
        del settings["on_misaligned"]
    return settings


@dataclass(frozen=True)
class VideoOptions:
    """What `predict_video` does beside labelling."""

    modality: Modality = "both"
    opacity: float = 0.5
    every: int = 1
    """Label only each N-th frame of the leading source."""
    match: Match = "auto"
    """Partners by `time` or `index`; `auto`: two folders by file name, everything else by time."""
    tolerance: float | None = None
    """Seconds between partners at most; half the longer frame interval if None."""
    offset: float = 0.0
    """Seconds to add to thermal times."""
    smooth: float | None = None
    """Share of the class probabilities that is kept from the frames before, in [0, 1), where they
    agree; None: 0.5 of films, 0 of folders and of fewer than 5 frames per second."""
    one_file: Arrangement | None = None
    """How one video holds both RGB and thermal."""
    rate: float | None = None
    """Frames per second of folders of frames."""
    limit: int | None = None
    """Stop after this many labelled frames."""
    labels: bool = False
    """Write label maps too."""
    width: int = 1920
    """Of the result, in pixels at most."""
    resize_thermal: bool = False
    allow_single: bool = False
    """Label frames without a partner alone."""
    camera: Camera = field(default_factory=Camera)
    legend: bool = False
    """The names of all classes below the pictures."""
    clahe: bool = False
    """Local contrast of the thermal picture that is shown."""
    on_misaligned: OnMisaligned = "warn"
    """What to do while thermal does not lie on RGB; see `watch`."""
    objects: Measuring | None = None
    """List the objects of every frame, measured so."""

    def __post_init__(self) -> None:
        if self.smooth is not None and not 0 <= self.smooth < 1:
            raise InputError(f"--smooth is {self.smooth:g}; give 0 (none) up to below 1")
        if self.every < 1 or (self.limit is not None and self.limit < 1):
            raise InputError("--every and --limit count frames; give 1 or more")
        if self.tolerance is not None and self.tolerance < 0:
            raise InputError(f"--tolerance is {self.tolerance:g} seconds; give 0 or more")
        if self.rate is not None and not 0.01 <= self.rate <= 1000:
            raise InputError(f"--fps is {self.rate:g}; give 0.01 to 1000 frames per second")
        if self.width < 64:
            raise InputError(f"--width is {self.width}; give at least 64 pixels")
        require_fitting(self.on_misaligned, self.modality)


Options = TypeVar("Options", PredictOptions, VideoOptions)


def as_described(options: Options, layout: Layout, pair: Pair, resizes: bool = True) -> Options:
    """The options with what a data set says of its thermal images, where nobody says otherwise.

    Args:
        options: what was asked for.
        layout: the data set.
        pair: one of its pairs, which stands for all.
        resizes: thermal of another size may be resized; it is not where it is aligned instead.
    """
    told, asked = layout.camera_of(pair), options.camera
    camera = Camera(
        radiometric=asked.radiometric or told.radiometric,
        black_hot=asked.black_hot or told.black_hot,
        repair=asked.repair or told.repair,
        holes=told.holes if asked.holes is None else asked.holes,
    )
    resize = options.resize_thermal or (layout.resize_thermal and resizes)
    log.info(
        "%s: pairs as dataset.toml says; thermal in %s%s",
        layout.root, layout.thermal_unit, ", resized to RGB" * resize,
    )  # fmt: skip
    return replace(options, camera=camera, resize_thermal=resize)
