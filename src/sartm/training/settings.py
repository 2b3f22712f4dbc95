"""Every setting of a training, as frozen dataclasses; `recipes` has complete ones."""

from dataclasses import dataclass
from typing import Annotated, Literal

from sartm.config import Count, ModelConfig, NotNegative, Positive, Range, Share, Side, check_ranges
from sartm.errors import InputError

Factor = Annotated[float, Range(0.01, 100)]
"""On an image's size."""
Epochs = Annotated[float, Range(0, 1e6)]


@dataclass(frozen=True)
class AugmentationConfig:
    """What may happen to a sample in training; probabilities and strengths of 0 switch it off."""

    crop: tuple[Side, Side] = (480, 640)
    """Height and width of the training crop in pixels."""
    scale: tuple[Factor, Factor] = (0.5, 2.0)
    """Smallest and largest factor on the size that the model works at, drawn uniformly in its
    logarithm."""
    flip: Share = 0.5
    """Probability of a horizontal flip."""
    rotate: Annotated[float, Range(0, 180)] = 0.0
    """Largest rotation in degrees, either way."""
    rare_crop: Share = 0.25
    """Probability that the crop must hold a pixel of a class drawn evenly among those present."""
    colour: Share = 0.8
    """Probability of changing brightness, contrast, saturation, hue and gamma of RGB."""
    brightness: Share = 0.4
    contrast: Share = 0.4
    saturation: Share = 0.4
    """Of these three the factor is drawn from 1 - x to 1 + x."""
    hue: Share = 0.05
    """Largest turn of the colour circle, 1 being the whole of it."""
    gamma: Annotated[float, Range(0, 10)] = 0.3
    """The exponent is drawn from exp(-x) to exp(x), for RGB and for thermal."""
    darken: Share = 0.15
    """Probability of an underexposed RGB image: a tenth to 0.6 of its light."""
    blur: Share = 0.1
    """Probability of a Gaussian blur of 0.3 to 1.5 pixels, for each modality apart."""
    noise: Share = 0.2
    """Probability of Gaussian noise, for each modality apart."""
    noise_level: Share = 0.04
    """Largest standard deviation of that noise, of full scale 1."""
    thermal: Share = 0.8
    """Probability of changing gain, offset and gamma of thermal."""
    gain: Share = 0.3
    """The contrast of thermal about its mean is multiplied by 1 - x to 1 + x."""
    offset: Share = 0.1
    """Largest shift of thermal values, of full scale 1."""
    invert: Share = 0.02
    """Probability of black-hot thermal."""
    dead_columns: Share = 0.05
    """Probability that one to four columns of thermal hold one value."""
    weather: Share = 0.0
    """Probability of one bad condition of RGB and, apart, of thermal, of those that
    `evaluation.conditions` draws, of any severity; two of them never meet in one image."""
    misregister: Annotated[float, Range(0, 65500)] = 0.0
    """Largest displacement of thermal against RGB in pixels of the crop; labels follow RGB."""
    fit_crop: bool = False
    """Make the crop no larger than the images are at the size the model works at."""
    mix: Share = 0.0
    """Probability of pasting what stands in another sample over this one, where it stood there."""
    drop_rgb: Share = 0.15
    drop_thermal: Share = 0.15
    """Probability of leaving out this modality (never both), where a sample has both."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.scale[0] > self.scale[1]:
            raise InputError(f"augmentation scale needs low <= high, found {self.scale}")
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

    auxiliary: NotNegative = 1.0
    """Weight of the auxiliary head's cross-entropy."""
    prototype: NotNegative = 0.1
    """w_p"""
    language: NotNegative = 0.5
    """w_c, the weight of CMKD."""
    tau: Annotated[float, Range(1e-3, 1e3)] = 1.0
    """CMKD's temperature, on both sides; 0.1 costs ten points (docs/decisions/0009)."""
    diagonal: bool = False
    """Compare a class with itself too, as the released code does."""
    centre: bool = True
    """Subtract what all classes share, in names and in prototypes."""
    language_start: NotNegative = 0.0
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
    ohem: Share = 0.0
    """Above 0: the mean is over this share of the pixels, those with the largest loss."""
    lovasz: NotNegative = 0.0
    """Weight of the Lovasz-softmax loss, a surrogate of the IoU of the classes in the batch."""
    distil: NotNegative = 1.0
    """Weight of the divergence from a teacher's class shares, where there is a teacher."""
    every: Literal[1, 2, 4] = 1
    """Cross-entropy and Lovasz-softmax count every so manieth row and column of pixels. Logits lie
    at stride 4, so 2 loses little and costs a quarter."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up from a tenth and polynomial decay."""

    lr: Positive = 1e-4
    weight_decay: NotNegative = 0.01
    """Of weights and adapters; norms and biases have none."""
    epochs: Annotated[int, Range(0, 1_000_000)] = 500
    """0, and no `steps`: as many as the number of pairs suggests and --max-time leaves."""
    steps: Annotated[int, Range(0, 1_000_000_000)] = 0
    """Optimizer steps of the run, in the place of `epochs`; 0: these say it."""
    warmup_epochs: Epochs = 10
    """Of a run that `epochs` measures, at most half of it; others warm up over a tenth of their
    steps, 30 at most."""
    power: NotNegative = 0.9
    batch_size: Annotated[int, Range(1, 65536)] = 8
    """Pairs per process and forward pass."""
    accumulate: Annotated[int, Range(1, 65536)] = 1
    """Forward passes per optimizer step."""
    encoder: NotNegative = 1.0
    """Factor on the rate of the trunk, its adapters aside."""
    clip: NotNegative = 0.0
    """Largest gradient norm; 0 does not clip."""
    ema: Share = 0.0
    """Decay of the running mean of the weights, which is what is validated and kept; 0: none."""

    def __post_init__(self) -> None:
        check_ranges(self)


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
    pooled: tuple[str, ...] = ()
    """Further data sets to train on at the same time, which may have other classes."""
    data_weights: tuple[Positive, ...] = ()
    """How much of every batch is of `data` and of each of `pooled`, relative to one another and
    whatever their sizes; empty: as much of each."""
    init: str = ""
    """Model to start from; empty starts at random, or from `encoder`."""
    encoder: str = ""
    """SAM 2 weights for trunk, neck and decoder, or EfficientNet-Lite0 for the trunk of `lite`: a
    file, folder or hub id. Not read where `init` names a model."""
    teacher: tuple[str, ...] = ()
    """Models of the same classes, larger as a rule, whose class shares, their mean, are learned
    beside the labels, as `loss.distil` weighs them."""
    unlabelled: tuple[str, ...] = ()
    """Data sets that only the teacher speaks about: their train splits, labels unused. One modality
    is enough."""
    unlabelled_share: Share = 0.5
    """Of every batch, where there are unlabelled pairs; pairs of both kinds must be in it."""
    text_encoder: str = ""
    """For class names that no bundled table holds."""
    thermal: Literal["auto", "fixed"] = "auto"
    """`auto` measures mean and deviation of thermal on the training split, and takes the
    percentile rule for data of more than 8 bits; `fixed` keeps what `model.thermal` says."""
    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    workers: Annotated[int, Range(0, 256)] = 2
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    activation_checkpointing: bool = False
    shard: bool = False
    """Cut the model over the processes of the run, which hold a part each (FSDP), where it is too
    large to be whole on every GPU; the numbers stay the same."""
    validate_every: Annotated[int, Range(0)] | None = 1
    """Epochs between validations; null: about twelve over the run, fewer where the split is large;
    0: none, and the model of the last step is kept."""
    val_share: Annotated[float, Range(0, 1, above=True)] = 0.1
    """Share of the training pairs held out for validation where a data set has no val split."""
    checkpoint_every: Count = 200
    """Optimizer steps between checkpoints."""
    keep: Count = 2
    """Checkpoints kept, the newest."""
    pictures: Annotated[int, Range(0, 100)] = 4
    """Validation pairs drawn at every validation, always the same ones."""
    tensorboard: bool = False
    """Also write TensorBoard events, to the run's folder `tensorboard`."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.data_weights and len(self.data_weights) != 1 + len(self.pooled):
            raise InputError(
                f"{len(self.data_weights)} data_weights for {1 + len(self.pooled)} data sets; give "
                f"one for each, as --data A:1 --data B:0.5 does"
            )
