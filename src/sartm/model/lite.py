"""EfficientNet-Lite as a trunk: inverted bottlenecks that know ImageNet, for small machines.

Adapters lie beside every 1x1 convolution, one set per modality, as they lie beside q and v in
SAM 2's trunk. A modality's rows go through the trunk by themselves, with the adapters added to the
weights: that costs a product of two small matrices per layer, not one more map. Batch norms are
folded into the convolutions, which then have biases. Why: docs/decisions/0008.

Sources: EfficientNet, arXiv:1905.11946; inverted bottlenecks, arXiv:1801.04381; the Lite variants
(no squeeze-and-excitation, ReLU6, fixed stem) after Google's tensorflow/tpu (Apache-2.0).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartm.config import RGB_MEAN, RGB_STD, LoRAConfig
from sartm.errors import InputError
from sartm.model.hiera import RunBlock


@dataclass(frozen=True)
class LiteStage:
    """Inverted bottlenecks of one width; the first has the stride."""

    blocks: int
    kernel: int
    stride: int
    expand: int
    width: int


STEM = 32
STAGES = (
    LiteStage(1, 3, 1, 1, 16),
    LiteStage(2, 3, 2, 6, 24),
    LiteStage(2, 5, 2, 6, 40),
    LiteStage(3, 3, 2, 6, 80),
    LiteStage(3, 5, 1, 6, 112),
    LiteStage(4, 5, 2, 6, 192),
    LiteStage(1, 3, 1, 6, 320),
)
"""Of Lite0, as published."""
STAGES2 = (
    LiteStage(1, 3, 1, 1, 16),
    LiteStage(3, 3, 2, 6, 24),
    LiteStage(3, 5, 2, 6, 48),
    LiteStage(4, 3, 2, 6, 88),
    LiteStage(4, 5, 1, 6, 120),
    LiteStage(5, 5, 2, 6, 208),
    LiteStage(1, 3, 1, 6, 352),
)
"""Of Lite2: Lite0 a tenth wider and a fifth deeper."""
LITES = {"lite": STAGES, "lite2": STAGES2}
"""By `ModelConfig.size`."""
TAPS = (1, 2, 4, 6)
"""Stages whose ends are the maps at strides 4, 8, 16 and 32."""
NORM_EPSILON = 1e-3
"""Of the published batch norms."""


class Conv(nn.Module):
    """A convolution with bias; at stride 2 padded as TensorFlow does, less above and left.

    A kernel with a row and a column of zeros more there, padded evenly, is the same and does not
    copy its input.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> None:
        super().__init__()
        self.stride, self.groups = stride, groups
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.kaiming_normal_(self.weight, mode="fan_in" if groups > 1 else "fan_out")

    def forward(self, x: Tensor) -> Tensor:
        """(B, i, h, w), sides multiples of the stride, to (B, o, h / stride, w / stride)."""
        # where a CPU has bf16, its gradient of such a convolution takes five times that of fp32
        dear = x.device.type == "cpu" and torch.is_grad_enabled()
        if dear and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return self._convolve(x.float())
        return self._convolve(x)

    def _convolve(self, x: Tensor) -> Tensor:
        around = self.weight.shape[-1] // 2
        return F.conv2d(x, self._even(), self.bias, self.stride, around, groups=self.groups)

    def _even(self) -> Tensor:
        return F.pad(self.weight, (1, 0, 1, 0)) if self.stride == 2 else self.weight

    @torch.no_grad()
    def merged(self) -> nn.Conv2d:
        """The same with the zeros written down: a graph that is exported needs fixed kernels."""
        weight, around = self._even(), self.weight.shape[-1] // 2
        outputs, each, side, _ = weight.shape
        layer = nn.Conv2d(
            each * self.groups,
            outputs,
            side,
            self.stride,
            around,
            groups=self.groups,
            device="meta",
        )
        layer.weight = nn.Parameter(weight.detach(), requires_grad=False)
        layer.bias = nn.Parameter(self.bias.detach(), requires_grad=False)
        return layer


class AdaptedConv(nn.Module):
    """A 1x1 convolution of tokens with adapters: weight + (alpha / r) up_m down_m, modality m."""

    def __init__(self, inputs: int, outputs: int, config: LoRAConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.kaiming_normal_(self.weight, mode="fan_out")
        self.scale = config.alpha / config.rank
        self.sets = {"per_modality": 2, "shared": 1, "none": 0}[config.sets]
        if self.sets:
            self.lora_down = nn.Parameter(torch.empty(self.sets, config.rank, inputs))
            self.lora_up = nn.Parameter(torch.zeros(self.sets, outputs, config.rank))
            for down in self.lora_down.data:
                nn.init.kaiming_uniform_(down, a=5**0.5)

    def weight_of(self, modality: int) -> Tensor:
        """(o, i) with the adapters of RGB (0) or thermal (1)."""
        if not self.sets:
            return self.weight
        index = min(modality, self.sets - 1)
        return self.weight + self.scale * self.lora_up[index] @ self.lora_down[index]

    def forward(self, x: Tensor, modality: int) -> Tensor:
        """(B, h, w, i) of one modality to (B, h, w, o)."""
        return F.linear(x, self.weight_of(modality), self.bias)

    @torch.no_grad()
    def merged(self) -> "MergedConv":
        """The same with the adapters folded into one matrix per set."""
        weight = torch.stack([self.weight_of(index) for index in range(max(1, self.sets))])
        return MergedConv(weight.detach(), self.bias.detach())


class MergedConv(nn.Module):
    """An adapted 1x1 convolution with the adapters folded in."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor, modality: int) -> Tensor:
        """(B, h, w, i) of one modality to (B, h, w, o)."""
        return F.linear(x, self.weight[min(modality, len(self.weight) - 1)], self.bias)


class _Clip(torch.autograd.Function):
    """ReLU6 that keeps its output alone, which the next layer keeps anyhow.

    In place on a view, as layers of tokens give it, autograd copies maps back and forth for nearly
    half of a trunk's time; otherwise PyTorch's own keeps input and output.
    """

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        out = F.relu6(x)
        context.save_for_backward(out)
        return out

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        (out,) = context.saved_tensors
        # 0 where the output is at an end, as where the input is at or beyond it
        passed: Tensor = torch.ops.aten.hardtanh_backward(gradients[0], out, 0.0, 6.0)
        return passed


def clip(x: Tensor) -> Tensor:
    """ReLU6; `x` is not to be used again."""
    if torch.is_grad_enabled():
        clipped: Tensor = _Clip.apply(x)  # type: ignore[no-untyped-call]
        return clipped
    return F.relu6(x, inplace=True)


class Bottleneck(nn.Module):
    """Widen by a 1x1 convolution, filter each channel, narrow again; the input is added."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expand: int, lora: LoRAConfig
    ) -> None:
        super().__init__()
        inner = inputs * expand
        self.expand = AdaptedConv(inputs, inner, lora) if expand > 1 else None
        self.depthwise = Conv(inner, inner, kernel, stride, inner)
        self.project = AdaptedConv(inner, outputs, lora)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor, modality: int) -> Tensor:
        """(B, h, w, i) of one modality to (B, h / stride, w / stride, o)."""
        wide = x
        if self.expand is not None:
            wide = clip(self.expand(x, modality))
        seen = self.depthwise(wide.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out: Tensor = self.project(clip(seen), modality)
        return x + out if self.adds else out


class LiteTrunk(nn.Module):
    """EfficientNet-Lite without its classifier."""

    def __init__(self, lora: LoRAConfig, stages: Sequence[LiteStage] = STAGES) -> None:
        super().__init__()
        self.run_block: RunBlock | None = None  # None: a block is simply called
        self.widths = tuple(stages[stage].width for stage in TAPS)
        self.stem = Conv(3, STEM, 3, 2, 1)
        self.blocks = nn.ModuleList()
        self.taps: list[int] = []
        width = STEM
        for index, stage in enumerate(stages):
            for place in range(stage.blocks):
                stride = stage.stride if place == 0 else 1
                self.blocks.append(
                    Bottleneck(width, stage.width, stage.kernel, stride, stage.expand, lora)
                )
                width = stage.width
            if index in TAPS:
                self.taps.append(len(self.blocks) - 1)

    def forward(self, images: Tensor, rgb_rows: int) -> list[Tensor]:
        """(B, 3, H, W), RGB rows first, to the tokens (B, h, w, C) at strides 4, 8, 16, 32."""
        if rgb_rows == images.shape[0]:
            return self._stages(images, 0)
        if rgb_rows == 0:
            return self._stages(images, 1)
        both = zip(
            self._stages(images[:rgb_rows], 0), self._stages(images[rgb_rows:], 1), strict=True
        )
        return [torch.cat(pair) for pair in both]

    def _stages(self, images: Tensor, modality: int) -> list[Tensor]:
        x = clip(self.stem(images)).permute(0, 2, 3, 1)
        stages = []
        for index, block in enumerate(self.blocks):
            run = self.run_block
            x = block(x, modality) if run is None else run(block, x, modality)
            if index in self.taps:
                stages.append(x)
        return stages


def recognise_lite(tensors: Mapping[str, Tensor], where: str) -> str:
    """Which of `LITES` these weights, as PyTorch ports name them, belong to, by widths."""
    widths: list[int] = []
    while (weight := tensors.get(f"_blocks.{len(widths)}._project_conv.weight")) is not None:
        widths.append(len(weight))
    for name, stages in LITES.items():
        if widths == [stage.width for stage in stages for _ in range(stage.blocks)]:
            return name
    raise InputError(
        f"{where} is an EfficientNet of {len(widths)} blocks; of that family Lite0 and Lite2 can "
        f"be trunks. Nothing was loaded"
    )


def from_efficientnet(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Weights of Lite0 or Lite2 as PyTorch ports name them, batch norms folded in, our names.

    The published network takes (value - 127) / 128 of 8-bit RGB; the stem is turned so that it
    takes what SAM 2 takes, ImageNet's mean and deviation per channel. Raises InputError where one
    is missing: `where` is the file.
    """

    def get(name: str) -> Tensor:
        if name not in tensors:
            raise InputError(f"{where} is no EfficientNet-Lite: it lacks {name}")
        return tensors[name].float()

    def folded(conv: str, norm: str) -> tuple[Tensor, Tensor]:
        gain, shift, mean, variance = (
            get(f"{norm}.{part}") for part in ("weight", "bias", "running_mean", "running_var")
        )
        weight = get(f"{conv}.weight")
        shapes = {x.shape for x in (gain, shift, mean, variance)}
        if weight.ndim != 4 or shapes != {weight.shape[:1]}:  # else they would spread each other
            raise InputError(f"{where}: {conv} and {norm} do not fit each other; it is damaged")
        factor = gain / (variance + NORM_EPSILON).sqrt()
        return weight * factor.view(-1, 1, 1, 1), shift - mean * factor

    weight, bias = folded("_conv_stem", "_bn0")
    std, mean = (torch.tensor(x).view(1, 3, 1, 1) for x in (RGB_STD, RGB_MEAN))
    turned = {
        "stem.weight": weight * std * 255 / 128,
        # exact but for the outermost pixels, where the padding is 0 in either scale
        "stem.bias": bias + (weight * (mean * 255 - 127) / 128).sum((1, 2, 3)),
    }
    blocks = sum(stage.blocks for stage in LITES[recognise_lite(tensors, where)])
    for index in range(blocks):
        theirs = f"_blocks.{index}"
        names = {"depthwise": ("_depthwise_conv", "_bn1"), "project": ("_project_conv", "_bn2")}
        if index > 0:
            names["expand"] = ("_expand_conv", "_bn0")
        for ours, (conv, norm) in names.items():
            weight, bias = folded(f"{theirs}.{conv}", f"{theirs}.{norm}")
            flat = weight if ours == "depthwise" else weight[..., 0, 0]
            turned |= {f"blocks.{index}.{ours}.weight": flat, f"blocks.{index}.{ours}.bias": bias}
    return turned
