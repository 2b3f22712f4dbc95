"""Every setting of a model and of a run, as frozen dataclasses with strict loading and `--set`."""

import dataclasses
import difflib
import json
import math
import sys
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from sartm.classes import MFNET, Classes
from sartm.errors import InputError
from sartm.files import nests_too_deeply

Config = TypeVar("Config")
Modality = Literal["both", "rgb", "thermal"]

RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, as SAM 2 was trained with: pixels that hold the mean are 0 after normalisation."""


@dataclass(frozen=True)
class Range:
    """What a number may be, both ends included; stands in a field's `Annotated` type.

    `check_ranges` holds a dataclass to it, however it was made: by `--set`, a file or Python.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    """Whether `low` itself is left out."""

    def __contains__(self, value: float) -> bool:
        lowest = value > self.low if self.above else value >= self.low
        finite = isinstance(value, int) or math.isfinite(value)
        return finite and lowest and value <= self.high

    def __str__(self) -> str:
        if math.isinf(self.high):
            if math.isinf(self.low):
                return "finite"
            return f"above {self.low:g}" if self.above else f"{self.low:g} or more"
        return f"{'above ' * self.above}{self.low:g} to {self.high:g}"


Side = Annotated[int, Range(1, 65500)]
"""Of an image or a crop, in pixels; no image format holds more."""
Count = Annotated[int, Range(1)]
Share = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(0, above=True)]
NotNegative = Annotated[float, Range(0)]
Finite = Annotated[float, Range()]


def check_ranges(config: object) -> None:
    """Refuse a dataclass with a number that its field's `Range` excludes."""
    for name, kind in typing.get_type_hints(type(config), include_extras=True).items():
        _parse(kind, getattr(config, name), f"{type(config).__name__}.{name}")


def to_dict(config: object) -> dict[str, Any]:
    """A dataclass as JSON-ready dicts and lists."""
    return typing.cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(config))))  # type: ignore[call-overload]


def from_dict(kind: type[Config], values: object, where: str = "config") -> Config:
    """Build a dataclass from what `to_dict` gave; an unknown key or a wrong type is refused."""
    return typing.cast(Config, _parse(kind, values, where))


def override(config: Config, assignments: typing.Sequence[str]) -> Config:
    """A copy of `config` with each `a.b=value` applied; values are JSON or plain words."""
    values = to_dict(config)
    for assignment in assignments:
        path, found, text = assignment.partition("=")
        if not found:
            raise InputError(f"--set {assignment!r} has no '='; write --set name=value")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        if nests_too_deeply(value):
            raise InputError(f"--set {path} nests lists or tables too deeply; nothing is so deep")
        node, keys = values, path.split(".")
        for depth, key in enumerate(keys):
            if not isinstance(node, dict) or key not in node:
                known = node if isinstance(node, dict) else {}
                raise _unknown(".".join(keys[: depth + 1]), key, known)
            if depth < len(keys) - 1:
                node = node[key]
        node[keys[-1]] = value
    return from_dict(type(config), values)


def _unknown(where: str, key: str, known: typing.Iterable[str]) -> InputError:
    names = list(known)
    near = difflib.get_close_matches(key, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(names) or 'none'}"
    return InputError(f"unknown config key {where!r}; {hint}")


def _parse(kind: Any, value: Any, where: str) -> Any:  # noqa: C901 - one branch per type
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _parse_number(arguments, value, where)
    if dataclasses.is_dataclass(kind):
        if isinstance(value, typing.cast(type, kind)):
            return value
        if not isinstance(value, dict):
            raise InputError(f"{where} must be a table of settings, found {value!r}")
        hints = typing.get_type_hints(kind, include_extras=True)
        for key in value:
            if key not in hints:
                raise _unknown(f"{where}.{key}", key, hints)
        parsed = {key: _parse(hints[key], value[key], f"{where}.{key}") for key in value}
        try:
            return kind(**parsed)  # type: ignore[operator]
        except TypeError as error:
            raise InputError(f"{where} is incomplete: {error}") from None
    if origin is Literal:
        alike = [known for known in arguments if known == value and type(known) is type(value)]
        if not alike:
            raise InputError(
                f"{where} is {value!r}; choose one of {', '.join(map(str, arguments))}"
            )
        return value
    if origin is types.UnionType or origin is typing.Union:
        if value is None and type(None) in arguments:
            return None
        inner = [argument for argument in arguments if argument is not type(None)]
        return _parse(inner[0], value, where)
    if origin is tuple:
        return _parse_tuple(arguments, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise InputError(f"{where} must be a table, found {value!r}")
        return {k: _parse(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > sys.float_info.max:
            raise InputError(f"{where} is {str(value)[:40]}..., too large for a number")
        return float(value)
    if kind is Any or (isinstance(value, kind) and (kind is not int or type(value) is int)):
        return value
    raise InputError(f"{where} must be {kind.__name__}, found {value!r:.100}")


def _parse_number(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    number = _parse(arguments[0], value, where)
    if number == 0:
        number += 0  # -0.0 is no other number, but numpy.random takes it for one below 0
    for allowed in arguments[1:]:
        if isinstance(allowed, Range) and number not in allowed:
            raise InputError(f"{where} is {str(number)[:40]}; it must be {allowed}")
    return number


def _parse_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise InputError(f"{where} must be a list, found {value!r}")
    if arguments[-1:] == (Ellipsis,):
        return tuple(_parse(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if len(value) != len(arguments):
        raise InputError(f"{where} needs {len(arguments)} entries, found {len(value)}")
    pairs = zip(arguments, value, strict=True)
    return tuple(_parse(kind, v, f"{where}[{i}]") for i, (kind, v) in enumerate(pairs))


@dataclass(frozen=True)
class ThermalRule:
    """How raw thermal values become [0, 1], and how those are standardised."""

    rule: Literal["uint8", "range", "percentile"] = "uint8"
    """`uint8`: value / 255, refuses more bits. `range`: [low, high] to [0, 1], clipped.
    `percentile`: the low-th and high-th percentile of each image to [0, 1], clipped."""
    low: Finite = 0.0
    """Counts or Celsius for `range`, percent for `percentile`; unused for `uint8`."""
    high: Finite = 255.0
    mean: Finite = 0.45
    """Of the [0, 1] values on the training split."""
    std: Positive = 0.225

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.rule == "percentile" and not 0 <= self.low < self.high <= 100:
            raise InputError(
                f"thermal rule percentile needs 0 <= low < high <= 100, found "
                f"{self.low:g} and {self.high:g}; 1 and 99 are usual"
            )
        if self.high <= self.low:
            raise InputError(f"thermal rule needs low < high, found {self.low:g} and {self.high:g}")


@dataclass(frozen=True)
class EncoderConfig:
    """Hiera trunk and neck of SAM 2 (arXiv:2408.00714, arXiv:2306.00989)."""

    embed_dim: int
    heads: int
    stages: tuple[int, int, int, int]
    """Blocks per stage; stages work at strides 4, 8, 16, 32 and double the width."""
    windows: tuple[int, int, int, int]
    """Window side in tokens per stage; a stage's first block still uses the one before."""
    global_blocks: tuple[int, ...]
    """Indices of blocks that attend over the whole map."""
    background: tuple[int, int]
    """Grid of the coarse position embedding, resized to the map."""
    mlp_ratio: int = 4


@dataclass(frozen=True)
class DecoderConfig:
    """SAM 2's two-way mask decoder with one mask token per class."""

    depth: Annotated[int, Range(1, 16)] = 2
    heads: Annotated[int, Range(1, 64)] = 8
    mlp_dim: Annotated[int, Range(1, 65536)] = 2048

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class LoRAConfig:
    """Low-rank adapters on q and v of every encoder block, or every 1x1 convolution of `lite`."""

    sets: Literal["per_modality", "shared", "none"] = "per_modality"
    rank: Annotated[int, Range(1, 1024)] = 16
    alpha: Positive = 16.0
    """The update is scaled by alpha / rank."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class FusionConfig:
    """FRM and FFM at the three levels."""

    kind: Literal["frm_ffm", "mean", "rgb", "thermal"] = "frm_ffm"
    """`mean` averages the modalities; `rgb` and `thermal` use one alone (for ablations)."""
    norm: Literal["layer", "batch"] = "layer"
    crop: tuple[Side, Side] | None = None
    """Height and width of the training crop in pixels: fixes n0 of the context's scale. A training
    fills in `augmentation.crop`; None: n0 is the number of tokens, whatever it is."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class WordsConfig:
    """How classes follow from their words, where `ModelConfig.classes_from` is `text`."""

    encoder: str = ""
    """What made the words' vectors, as in `language.TextTable`; filled in by training."""
    size: Annotated[int, Range(1, 8192)] = 384
    """E: numbers of a word's vector; filled in by training."""
    map: Literal["linear", "mlp"] = "mlp"
    """From a word's vector to its mask token and to its filter of the auxiliary head."""
    centre: bool = True
    """Subtract the vocabulary's mean from every vector."""
    adapted: bool = False
    """Tokens and filters of the trained words learn a difference of their own from the words'."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Scaling:
    """From the log-odds of a label to those that hold: divided, then moved."""

    temperature: Positive = 1.0
    bias: Finite = 0.0

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class Calibration:
    """How sure a model is of its labels, set right; fitted by `sartm weights calibrate`."""

    objects: Scaling = Scaling()
    background: Scaling = Scaling()
    """Of pixels labelled as the leftover of all other classes, where the model has one."""


@dataclass(frozen=True)
class Calibrations:
    """One calibration for what a model may see; the default leaves probabilities as they are."""

    both: Calibration = Calibration()
    rgb: Calibration = Calibration()
    thermal: Calibration = Calibration()


@dataclass(frozen=True)
class ModelConfig:
    """Everything needed to build a SARTM, apart from its weights."""

    classes: Classes = MFNET
    size: Literal["mini", "lite", "lite2", "tiny", "small", "base_plus", "large", "test"] = "mini"
    width: Annotated[int, Range(8, 4096)] = 256
    """D: channels of the stride-16 map and of the decoder."""
    thermal: ThermalRule = ThermalRule()
    thermal_view: Literal["grey", "contrast"] = "grey"
    """What the three channels of the trunk show of thermal: `grey`, three times the values by the
    rule; `contrast`, the values, and how far they stand out from what is around them, near and
    far, which gain and offset of a camera or of an enhanced picture do not change. A run that
    starts from a model has that model's."""
    lora: LoRAConfig = LoRAConfig()
    fusion: FusionConfig = FusionConfig()
    decoder: DecoderConfig = DecoderConfig()
    frozen_encoder: bool = True
    """Trunk and neck stay as they are; only adapters, fusion and heads learn."""
    no_mem_embed: Literal["decoder", "fusion"] = "decoder"
    """Where SAM 2's embedding for "no memory" is added: to the decoder's input, or before the
    fusion, as models of format 1 were trained."""
    decode: Literal["fused", "per_modality"] = "fused"
    """Decoder on the fused maps, or on each modality's with the logits averaged (ablation)."""
    classes_from: Literal["fixed", "text"] = "fixed"
    """`fixed`: every class has weights of its own. `text`: a class is its word, by weights that all
    share, so that others can be named later (docs/words.md)."""
    words: WordsConfig = WordsConfig()
    rest: Literal["words", "alone"] = "words"
    """Whether the rest of a label space takes in the classes that it does not know."""
    output: Literal["decoder", "auxiliary", "blend"] = "blend"
    """Which logits make the label map; `blend` is the mean of both heads'."""
    scale: Annotated[float, Range(0.5, 1)] = 1.0
    """Size the network works at, as a share of the images': 0.6 sees 288x384 of 480x640. Images are
    shrunk before it and logits enlarged after it; label maps keep the images' size."""
    calibration: Calibrations = Calibrations()
    """Of the confidence; changes no label."""
    clicks: bool = False
    """Whether a decoder for clicks lies beside the heads for classes (docs/clicks.md)."""

    def __post_init__(self) -> None:
        check_ranges(self)
        heads = self.decoder.heads
        if self.width % 8 or self.width // 2 % heads:  # tokens attend to maps at half of the width
            raise InputError(
                f"model.width {self.width} cannot be split over {heads} heads; choose a width that "
                f"8 divides, and model.decoder.heads among the divisors of half of it"
            )
