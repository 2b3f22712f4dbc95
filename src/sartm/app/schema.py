"""What the REST API answers, as types: the OpenAPI description is made from them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sartm import colours
from sartm.classes import Classes
from sartm.inference.clicks import MOST_POINTS


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


class Health(BaseModel):
    """That the service lives, and how busy it is."""

    status: str
    version: str
    present: int = Field(description="Requests that are computed or wait.")


class ClassInfo(BaseModel):
    """One line of a class table."""

    id: int
    name: str
    colour: tuple[int, int, int] = Field(description="RGB, 0-255, in the palette of label PNGs.")
    display: tuple[int, int, int] = Field(description="RGB, 0-255, in overlays: of the name.")
    rest: bool = Field(description="The leftover of the others; overlays leave it clear.")


class ModelInfo(BaseModel):
    """A model that the service holds."""

    name: str
    size: str
    classes: list[ClassInfo]
    ignore: int = Field(description="Label id that means nothing.")
    thermal_rule: str = Field(description="How raw thermal values become [0, 1].")
    thermal_range: str = Field(description="Of requests that say none: auto, LOW:HIGH or model.")
    trained_on: list[str]
    words: bool = Field(description="Whether `classes` may name any word of the vocabulary.")
    clicks: bool = Field(description="Whether it answers clicks, by /v1/scenes.")


class Words(BaseModel):
    """The words that classes can be named by without a text encoder."""

    words: list[str] = Field(description="The usual one of every thing first.")


class Limits(BaseModel):
    """What a request may take."""

    upload_bytes: int
    pixels: int = Field(description="Height x width of an image, a side counting 32 at least.")
    side: int = Field(description="The longer of height and width.")
    waiting: int
    seconds: float
    scenes: int = Field(description="Encoded pairs that are kept for clicks.")
    scene_bytes: int = Field(description="Memory of all of them.")


class Models(BaseModel):
    """Every model, the default one first."""

    models: list[ModelInfo]
    limits: Limits
    annotation: bool = Field(description="Whether a folder to annotate was named at the start.")


class Mask(BaseModel):
    """COCO's compressed run-length code of one class."""

    size: tuple[int, int] = Field(description="Height, width.")
    counts: str


class Segment(BaseModel):
    """One class that occurs in a label map."""

    id: int
    name: str
    colour: tuple[int, int, int]
    display: tuple[int, int, int]
    pixels: int
    share: float = Field(description="Of all pixels, 0-1.")
    segmentation: Mask


class UsedRange(BaseModel):
    """The raw thermal values that became black and white."""

    low: float
    high: float
    unit: str = Field(description="display (8 bits), counts (16 bits) or values (floats).")
    by: str = Field(description="rule (the model's), image (its percentiles) or option.")


class Trust(BaseModel):
    """Which camera the labels rest on: from -1, RGB alone, to 1, thermal alone."""

    mean: float
    objects: float | None = Field(description="Over pixels labelled as objects; null without.")


How = Literal["grid", "ground", "camera"]
"""What places an object: coordinates of a GeoTIFF, a camera over flat ground, the camera alone."""


class Object(BaseModel):
    """One connected part of a class; what is not known is missing."""

    model_config = ConfigDict(serialize_by_alias=True)

    id: int = Field(description="In `objects_png`, from 1.")
    name: str = Field(alias="class")
    area: int = Field(description="Pixels.")
    left: int
    top: int
    width: int
    height: int
    x: float = Field(description="Of the centre; the first pixel's is at 0.")
    y: float
    confidence: float = Field(description="Mean over its pixels.")
    lowest_confidence: float
    celsius_min: float | None = None
    celsius_p5: float | None = None
    celsius_median: float | None = None
    celsius_mean: float | None = None
    celsius_p95: float | None = None
    celsius_max: float | None = None
    hottest_x: int | None = None
    hottest_y: int | None = None
    contrast: float | None = Field(default=None, description="To what is 2 to 6 pixels around it.")
    celsius_error: float | None = Field(
        default=None, description="Of the mean: by the camera's accuracy and the mask's edge."
    )
    latitude: float | None = Field(default=None, description="WGS84, degrees.")
    longitude: float | None = None
    located: How | None = Field(default=None, description="By what; camera: only where that was.")
    taken: str | None = Field(default=None, description="ISO 8601.")
    geometry: dict[str, Any] | None = Field(
        default=None, description="GeoJSON: the outline, or the camera's position."
    )


class CameraPlace(BaseModel):
    """Where a camera was and how it looked; what its file does not say is missing."""

    latitude: float
    longitude: float
    altitude: float | None = Field(default=None, description="Metres above the sea.")
    height: float | None = Field(default=None, description="Metres above ground.")
    heading: float | None = Field(default=None, description="Degrees from north to east.")
    pitch: float | None = Field(default=None, description="Degrees; -90: straight down.")
    roll: float = 0.0
    focal: float | None = Field(default=None, description="Pixels.")


class Coordinates(BaseModel):
    """The grid of a GeoTIFF: x = a column + b row + c, y = d column + e row + f."""

    transform: tuple[float, float, float, float, float, float] = Field(
        description="a to f, of the centres of pixels."
    )
    epsg: int | None = None


class Place(BaseModel):
    """Where and when, as the files say it."""

    taken: str | None = Field(default=None, description="ISO 8601.")
    camera: CameraPlace | None = None
    grid: Coordinates | None = None
    located: How | None = Field(default=None, description="What places the objects.")
    note: str | None = Field(default=None, description="Why it is not known better.")


class Segmentation(BaseModel):
    """A label map as masks, with what is needed to judge it."""

    model: str
    modalities: list[str] = Field(description="What the model saw: rgb, thermal or both.")
    size: tuple[int, int] = Field(description="Height, width.")
    confidence: float = Field(
        description="Mean probability that a label is right, as far as calibrated."
    )
    seconds: float
    note: str = Field(description="How the input was understood, where that is not plain.")
    thermal_range: UsedRange | None = Field(
        default=None, description="How thermal was scaled; missing where it was not looked at."
    )
    classes: list[ClassInfo] = Field(description="The class table of the label map.")
    segments: list[Segment]
    label_png: str | None = Field(default=None, description="With `maps`: the label PNG in base64.")
    confidence_png: str | None = Field(
        default=None, description="With `maps`: 8-bit PNG in base64, 255 means probability 1."
    )
    objects: list[Object] | None = Field(default=None, description="With `objects`.")
    place: Place | None = Field(
        default=None, description="With `objects`, where the files say anything of it."
    )
    objects_png: str | None = Field(
        default=None,
        description="With `objects` and `maps`: RGB PNG in base64, R + 256 G + 65536 B is an id.",
    )
    alarms: list[str] = Field(description="What looks wrong with the cameras, in words.")
    trust: Trust | None = Field(default=None, description="With `trust`, where both were seen.")
    trust_png: str | None = Field(
        default=None,
        description="With `trust` and `maps`: 8-bit PNG in base64, 0 for -1 and 255 for 1.",
    )


class Example(BaseModel):
    """A drawn scene that comes with the service."""

    name: str
    title: str


class Scene(BaseModel):
    """An encoded pair, to be clicked on."""

    id: str = Field(description="For /v1/scenes/{id}/mask, until it is dropped.")
    model: str
    modality: str = Field(description="What the model saw: rgb, thermal or both.")
    size: tuple[int, int] = Field(description="Height, width.")
    note: str = Field(description="How the input was understood, where that is not plain.")
    seconds: float


Pixel = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A coordinate: 0 is the middle of the first pixel."""


class Prompt(BaseModel):
    """What somebody points at, in pixels of the images as sent."""

    model_config = ConfigDict(extra="forbid")

    points: list[tuple[Pixel, Pixel]] = Field(
        default=[], max_length=MOST_POINTS, description="x and y of every click so far."
    )
    labels: list[Annotated[int, Field(strict=True, ge=-1, le=1)]] | None = Field(
        default=None,
        max_length=MOST_POINTS,
        description="Of each point: 1 adds, 0 takes away, -1 does not count. All add without it.",
    )
    box: tuple[Pixel, Pixel, Pixel, Pixel] | None = Field(
        default=None, description="x0, y0, x1, y1 around the object."
    )
    mask: Mask | None = Field(default=None, description="One to go on from, of the scene's size.")
    after: Annotated[int, Field(strict=True, ge=1, le=2**53)] | None = Field(
        default=None,
        description="In the place of `mask`: the `answer` that the newest click is to improve. "
        "The last 8 of a scene are kept.",
    )


class FoundMask(BaseModel):
    """The mask of an object."""

    answer: int = Field(description="Its number, for `after` of the next click.")
    score: float = Field(description="IoU with what is meant, as the model expects it: 0-1.")
    pixels: int
    segmentation: Mask
    seconds: float


class AnnotationPair(BaseModel):
    """One pair of the folder to annotate."""

    index: int
    name: str
    saved: bool = Field(description="The file its label is saved to exists.")
    labelled: bool = Field(description="It has a label to begin with, saved or of the data set.")
    rgb: bool
    thermal: bool


class AnnotationInfo(BaseModel):
    """The folder to annotate."""

    name: str
    classes: list[ClassInfo]
    ignore: int
    pairs: list[AnnotationPair]


class SavedLabel(BaseModel):
    """A label as masks."""

    size: tuple[int, int]
    segments: list[Segment]


class Saved(BaseModel):
    """The pair whose label is on disk now."""

    name: str


def describe_classes(classes: Classes) -> list[ClassInfo]:
    """A class table for answers."""
    return [
        ClassInfo(**row, rest=index == 0 and not classes.prompts[0])
        for index, row in enumerate(colours.describe_classes(classes))
    ]


PROBLEM: dict[str, Any] = {
    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
}
