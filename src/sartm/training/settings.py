"""Every setting of a training, as frozen dataclasses; `recipes` has complete ones."""

from dataclasses import dataclass
from typing import Literal

from sartm.config import ModelConfig
from sartm.errors import InputError


@dataclass(frozen=True)
class AugmentationConfig:
    """What may happen to a sample in training; probabilities and strengths of 0 switch it off."""

    crop: tuple[int, int] = (480, 640)
    """Height and width of the training crop in pixels."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest factor on the size that the model works at, drawn uniformly in its
    logarithm."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    rotate: float = 0.0
    """Largest rotation in degrees, either way."""
    rare_crop: float = 0.25
    """Probability that the crop must hold a pixel of a class drawn evenly among those present."""
    colour: float = 0.8
    """Probability of changing brightness, contrast, saturation, hue and gamma of RGB."""
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    """Of these three the factor is drawn from 1 - x to 1 + x."""
    hue: float = 0.05
    """Largest turn of the colour circle, 1 being the whole of it."""
    gamma: float = 0.3
    """The exponent is drawn from exp(-x) to exp(x), for RGB and for thermal."""
    darken: float = 0.15
    """Probability of an underexposed RGB image: a tenth to 0.6 of its light."""
    blur: float = 0.1
    """Probability of a Gaussian blur of 0.3 to 1.5 pixels, for each modality apart."""
    noise: float = 0.2
    """Probability of Gaussian noise, for each modality apart."""
    noise_level: float = 0.04
    """Largest standard deviation of that noise, of full scale 1."""
    thermal: float = 0.8
    """Probability of changing gain, offset and gamma of thermal."""
    gain: float = 0.3
    """The contrast of thermal about its mean is multiplied by 1 - x to 1 + x."""
    offset: float = 0.1
    """Largest shift of thermal values, of full scale 1."""
    invert: float = 0.02
    """Probability of black-hot thermal."""
    dead_columns: float = 0.05
    """Probability that one to four columns of thermal hold one value."""
    misregister: float = 0.0
    """Largest displacement of thermal against RGB in pixels of the crop; labels follow RGB."""
    mix: float = 0.0
    """Probability of pasting what stands in another sample over this one, where it stood there."""
    drop_rgb: float = 0.15
    drop_thermal: float = 0.15
    """Probability of leaving out this modality (never both), where a sample has both."""

    def __post_init__(self) -> None:
        if min(self.crop) < 1:
            raise InputError(f"augmentation crop must be positive, found {self.crop}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise InputError(f"augmentation scale needs 0 < low <= high, found {self.scale}")
        for name in (
            "flip", "rare_crop", "colour", "darken", "blur", "noise", "thermal", "invert",
            "dead_columns", "brightness", "contrast", "saturation", "gain", "mix", "drop_rgb",
            "drop_thermal",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(
                    f"augmentation {name} must be 0 to 1, found {getattr(self, name):g}"
                )
        for name in ("rotate", "hue", "gamma", "noise_level", "offset", "misregister"):
            if getattr(self, name) < 0:
                raise InputError(
                    f"augmentation {name} must not be negative, found {getattr(self, name):g}"
                )
        if self.drop_rgb + self.drop_thermal > 1:
            raise InputError(
                f"drop_rgb and drop_thermal exclude each other and may be 1 together, found "
                f"{self.drop_rgb:g} and {self.drop_thermal:g}"
            )

    @classmethod
    def none(cls, crop: tuple[int, int]) -> "AugmentationConfig":
        """Crops at the original scale and nothing else: for overfitting and for comparisons."""
        return cls(
            crop, (1.0, 1.0), flip=0, rare_crop=0, colour=0, darken=0, blur=0, noise=0, thermal=0,
            invert=0, dead_columns=0, drop_rgb=0, drop_thermal=0,
        )  # fmt: skip


@dataclass(frozen=True)
class LossConfig:
    """Weights and options of the loss."""

    auxiliary: float = 1.0
    """Weight of the auxiliary head's cross-entropy."""
    prototype: float = 0.1
    """w_p"""
    language: float = 0.5
    """w_c, the weight of CMKD."""
    tau: float = 0.1
    """CMKD's temperature, on both sides."""
    diagonal: bool = False
    """Compare a class with itself too, as the released code does."""
    centre: bool = True
    """Subtract what all classes share, in names and in prototypes."""
    language_start: float = 0.0
    """Epochs before prototypes and CMKD act; they then grow linearly to their weights over as
    many again. For networks from scratch, whose features tell nothing apart at first."""
    per_modality: bool = False
    """CMKD also on each modality's own prototypes."""
    target: Literal["names", "random"] = "names"
    """`random` puts random vectors in the names' place: the control of an ablation."""
    memory: bool = True
    """Keep a running mean per class; without it there is no prototype term."""
    class_weights: Literal["none", "sqrt", "log"] = "none"
    """Weight pixels of a class with share p by 1/sqrt(p) or 1/ln(1.02 + p), mean 1 over pixels."""
    ohem: float = 0.0
    """Above 0: the mean is over this share of the pixels, those with the largest loss."""
    lovasz: float = 0.0
    """Weight of the Lovasz-softmax loss, a surrogate of the IoU of the classes in the batch."""
    distil: float = 1.0
    """Weight of the divergence from a teacher's class shares, where there is a teacher."""
    every: Literal[1, 2, 4] = 1
    """Cross-entropy and Lovasz-softmax count every so manieth row and column of pixels. Logits lie
    at stride 4, so 2 loses little and costs a quarter."""

    def __post_init__(self) -> None:
        if not 0 <= self.ohem <= 1:
            raise InputError(f"loss.ohem is a share of the pixels, 0 to 1, found {self.ohem:g}")
        for name in ("auxiliary", "prototype", "language", "language_start", "lovasz", "distil"):
            if getattr(self, name) < 0:
                raise InputError(f"loss.{name} must not be negative, found {getattr(self, name):g}")


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up from a tenth and polynomial decay."""

    lr: float = 1e-4
    weight_decay: float = 0.01
    """Not on tensors of one dimension."""
    epochs: int = 500
    warmup_epochs: float = 10
    power: float = 0.9
    batch_size: int = 8
    """Pairs per process and forward pass."""
    accumulate: int = 1
    """Forward passes per optimizer step."""
    encoder: float = 1.0
    """Factor on the rate of the trunk, its adapters aside."""
    clip: float = 0.0
    """Largest gradient norm; 0 does not clip."""
    ema: float = 0.0
    """Decay of the running mean of the weights, which is what is validated and kept; 0: none."""


@dataclass(frozen=True)
class TrainConfig:
    """A run, complete: the same file and seed give the same numbers."""

    recipe: str
    model: ModelConfig
    optim: OptimConfig
    loss: LossConfig
    augmentation: AugmentationConfig
    data: str = ""
    """Folder or dataset.toml; given with --data."""
    init: str = ""
    """Model to start from; empty starts at random, or from `encoder`."""
    encoder: str = ""
    """SAM 2 weights for trunk, neck and decoder, or EfficientNet-Lite0 for the trunk of `lite`: a
    file, folder or hub id. Not read where `init` names a model."""
    teacher: str = ""
    """Model of the same classes, larger as a rule, whose class shares are learned beside the
    labels, as `loss.distil` weighs them."""
    unlabelled: tuple[str, ...] = ()
    """Data sets that only the teacher speaks about: their train splits, labels unused. One modality
    is enough."""
    unlabelled_share: float = 0.5
    """Of every batch, where there are unlabelled pairs."""
    text_encoder: str = ""
    """For class names that no bundled table holds."""
    thermal: Literal["auto", "fixed"] = "auto"
    """`auto` measures mean and deviation of thermal on the training split, and takes the
    percentile rule for data of more than 8 bits; `fixed` keeps what `model.thermal` says."""
    seed: int = 0
    workers: int = 2
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    activation_checkpointing: bool = False
    validate_every: int = 1
    """Epochs between validations."""
    val_share: float = 0.1
    """Share of the training pairs held out for validation where a data set has no val split."""
    checkpoint_every: int = 200
    """Optimizer steps between checkpoints."""
    keep: int = 2
    """Checkpoints kept, the newest."""
    pictures: int = 4
    """Validation pairs drawn at every validation, always the same ones."""
    tensorboard: bool = False
    """Also write TensorBoard events, to the run's folder `tensorboard`."""

    def __post_init__(self) -> None:
        if not 0 < self.unlabelled_share < 1:
            raise InputError(
                f"unlabelled_share is a share of the batch between 0 and 1, found "
                f"{self.unlabelled_share:g}"
            )
