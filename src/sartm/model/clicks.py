"""Clicks on a small network: a mask decoder that looks at a square window of an encoded pair.

SAM's decoder answers at stride 4 of what its encoder saw. `mini` sees half the pixels, so that one
cell there would be 8 pixels of the image, more than many a person is wide. Here the prompt is
answered in a window on the object instead: the fused maps say what lies there, the pixels of both
cameras where it ends. A first look takes in the whole image and finds the window.

Shapes: B windows, V the side of their grid, h and w the sides of the padded image in pixels, N
points. Windows are (x, y, side) in pixels, x and y of the upper left corner; points are in pixels
from the image's upper left edge, so that the first pixel's centre is (0.5, 0.5).

Sources: three masks with expected IoU, SAM, arXiv:2304.02643; the mask before as an input and discs
for clicks, RITM, arXiv:2102.06583; windows, FocalClick, arXiv:2204.02574.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartm.model.decoder import LayerNorm2d
from sartm.model.encoder import Levels

GRID = 96
"""V: the side of a window's grid."""
MASKS = 4
"""Of a window: the first answers a clear prompt, the other three an ambiguous one."""
FEATURES = 48
WIDTHS = (16, 40, 64, 96)
"""Of the window's maps at V, V/2, V/4 and V/8."""
PYRAMID = 4
"""Halvings of the pixels that a window may be drawn from, the first being the image itself."""
PIXELS = 5
"""Channels of them: RGB, thermal, and whether there is an image at all."""
_INPUTS = PIXELS + 9
_DISCS = (2.0, 8.0)
"""Standard deviations of a click's discs, in cells of the grid."""


class ClickMaps(NamedTuple):
    """What is kept of a pair to answer prompts on."""

    features: Tensor
    """(1, FEATURES, h', w') over the padded image."""
    pixels: tuple[Tensor, ...]
    """(1, PIXELS, h / 2^i, w / 2^i), standardised."""


class Looks(NamedTuple):
    """Masks of B windows."""

    logits: Tensor
    """(B, MASKS, V, V)"""
    scores: Tensor
    """(B, MASKS): the IoU that is expected of each."""


class _Conv(nn.Module):
    """A 3x3 convolution, normed."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm = nn.GroupNorm(8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.conv(x))
        return normed


class _Residual(nn.Module):
    """Two of them, and the input added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _Conv(width, width), _Conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class ClickDecoder(nn.Module):
    """Maps of a pair and prompts to masks in windows."""

    def __init__(self, width: int) -> None:
        """Set up the decoder of a model of width D."""
        super().__init__()
        self.lift_ffp = nn.Conv2d(width // 8, FEATURES, 1)
        self.lift_drawn = nn.Conv2d(width // 8, FEATURES, 1)
        self.lift_ifp = nn.Conv2d(width // 4, FEATURES, 1)
        self.lift_sfm = nn.Conv2d(width, FEATURES, 1)
        self.norm = LayerNorm2d(FEATURES)
        fine, half, quarter, eighth = WIDTHS
        self.enter = _Conv(_INPUTS, fine)
        self.down_half = _Conv(fine, half, 2)
        self.join = nn.Conv2d(FEATURES + 2, half, 1)
        self.refine_half = _Residual(half)
        self.down_quarter = _Conv(half, quarter, 2)
        self.refine_quarter = _Residual(quarter)
        self.down_eighth = _Conv(quarter, eighth, 2)
        self.refine_eighth = _Residual(eighth)
        self.context = nn.Linear(eighth, eighth)
        self.up_quarter, self.leave_quarter = nn.Conv2d(eighth, quarter, 1), _Conv(quarter, quarter)
        self.up_half, self.leave_half = nn.Conv2d(quarter, half, 1), _Conv(half, half)
        self.up_fine, self.leave_fine = nn.Conv2d(half, fine, 1), _Conv(fine, fine)
        self.draw = nn.Conv2d(fine, MASKS, 1)
        self.expect = nn.Sequential(
            nn.Linear(eighth + 3 * MASKS, 64), nn.ReLU(), nn.Linear(64, MASKS)
        )

    def features(self, levels: Levels, drawn: Tensor) -> Tensor:
        """(B, FEATURES, h', w') from the fused maps and what the semantic decoder draws from."""
        size = levels.ffp.shape[2:]
        x = self.lift_ffp(levels.ffp) + self.lift_drawn(drawn)
        for lift, level in ((self.lift_ifp, levels.ifp), (self.lift_sfm, levels.sfm)):
            x = x + F.interpolate(lift(level), size, mode="bilinear")
        normed: Tensor = self.norm(x)
        return normed

    def forward(
        self,
        maps: ClickMaps,
        windows: Tensor,
        points: Tensor,
        labels: Tensor,
        before: Tensor | None = None,
        boxes: Tensor | None = None,
    ) -> Looks:
        """Masks in windows of one image.

        Args:
            maps: of the image.
            windows: (B, 3) x, y and side in pixels.
            points: (B, N, 2) x and y in pixels.
            labels: (B, N): 1 adds, 0 takes away, -1 does not count.
            before: (B, 1, h, w) logits of the masks before; None: there are none.
            boxes: (B, 4) x0, y0, x1, y1 around the object, all 0 where there is none.
        """
        pixels = sample_pyramid(maps.pixels, windows)
        half = sample(maps.features, windows, GRID // 2, maps.pixels[0].shape[2:])
        adds, takes = labels == 1, labels == 0
        discs = self._discs(windows, points, (adds, takes))
        unlike = self._unlike(maps, pixels, points, adds)
        previous = torch.zeros_like(pixels[:, :1])
        if before is not None:
            previous = sample(before.sigmoid(), windows, GRID)
        extent = torch.log2(windows[:, 2] / GRID).view(-1, 1, 1, 1).expand_as(previous)
        inside = _fill_boxes(windows, boxes) if boxes is not None else torch.zeros_like(previous)
        x = torch.cat([pixels, discs, unlike, previous, inside, extent], 1)
        alike = self._alike(maps, half, points, (adds, takes))
        return self._look(x.contiguous(memory_format=torch.channels_last), half, alike)

    def _look(self, x: Tensor, half: Tensor, alike: Tensor) -> Looks:
        fine = F.relu(self.enter(x))
        seen = self.join(torch.cat([half, alike], 1))
        middle = self.refine_half(F.relu(self.down_half(fine) + seen))
        quarter = self.refine_quarter(F.relu(self.down_quarter(middle)))
        eighth = self.refine_eighth(F.relu(self.down_eighth(quarter)))
        pooled = eighth.mean((2, 3))
        eighth = F.relu(eighth + self.context(pooled)[..., None, None])
        up = _twice(self.up_quarter(eighth))
        up = _twice(self.up_half(F.relu(self.leave_quarter(F.relu(quarter + up)))))
        up = _twice(self.up_fine(F.relu(self.leave_half(F.relu(middle + up)))))
        logits = self.draw(F.relu(self.leave_fine(F.relu(fine + up))))
        return Looks(logits, self._expect(pooled, logits.detach()))

    def _expect(self, pooled: Tensor, logits: Tensor) -> Tensor:
        """(B, MASKS) expected IoU, from what was seen and how sure the masks are."""
        share = logits.sigmoid().flatten(2)
        inside = (share > 0.5).to(share.dtype)
        both, either = (share * inside).sum(2), torch.maximum(share, inside).sum(2)
        area = share.mean(2)
        sure = both / either.clamp(min=1e-3)
        doubt = (share * (1 - share)).mean(2) / area.clamp(min=1e-3)
        found: Tensor = self.expect(torch.cat([pooled, sure, area, doubt], 1))
        return found.sigmoid()

    def _discs(self, windows: Tensor, points: Tensor, kinds: tuple[Tensor, ...]) -> Tensor:
        """(B, 2 * kinds, V, V): near a click of a kind, in two widths."""
        corner, side = windows[:, None, :2], windows[:, None, 2:]
        places = (points - corner) / side * GRID  # (B, N, 2) in cells
        cells = torch.arange(GRID, device=points.device, dtype=points.dtype) + 0.5
        off_x = (places[..., :1] - cells).square()  # (B, N, V)
        off_y = (places[..., 1:] - cells).square()
        parts = []
        for counts in kinds:
            away = torch.where(counts[..., None], 0.0, 1e6)
            distance = (off_y + away)[..., None] + off_x[..., None, :]
            nearest = distance.amin(1, keepdim=True)
            parts += [torch.exp(-nearest / (2 * width**2)) for width in _DISCS]
        return torch.cat(parts, 1)

    def _unlike(self, maps: ClickMaps, pixels: Tensor, points: Tensor, adds: Tensor) -> Tensor:
        """(B, 2, V, V): how far RGB and thermal are from those of the likest adding click."""
        level = maps.pixels[1] if len(maps.pixels) > 1 else maps.pixels[0]
        clicked = sample_points(level, points, maps.pixels[0].shape[2:])  # (B, N, PIXELS)
        none = torch.where(adds, 0.0, 1e3)[..., None, None]
        parts = []
        for channels in (slice(0, 3), slice(3, 4)):
            off = pixels[:, None, channels] - clicked[..., channels, None, None]
            away = off.abs().mean(2) + none
            parts.append(away.amin(1, keepdim=True).clamp(max=2.0))
        return torch.cat(parts, 1)

    def _alike(
        self, maps: ClickMaps, half: Tensor, points: Tensor, kinds: tuple[Tensor, ...]
    ) -> Tensor:
        """(B, kinds, V/2, V/2): the largest cosine with the features of a click of a kind."""
        clicked = sample_points(maps.features, points, maps.pixels[0].shape[2:])
        clicked = F.normalize(clicked, dim=2)
        cosines = clicked @ F.normalize(half, dim=1).flatten(2)  # (B, N, cells)
        parts = [
            torch.where(counts[..., None], cosines, -1.0).amax(1, keepdim=True) for counts in kinds
        ]
        return torch.cat(parts, 1).view(len(points), len(kinds), *half.shape[2:])


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear")


def sample(
    maps: Tensor, windows: Tensor, grid: int, size: tuple[int, ...] | torch.Size | None = None
) -> Tensor:
    """(B, C, grid, grid) of maps (1 or B, C, h', w') that cover an image of `size`, their own if
    None; 0 outside of it."""
    height, width = maps.shape[2:] if size is None else size
    cells = (torch.arange(grid, device=windows.device, dtype=windows.dtype) + 0.5) / grid
    across = windows[:, :1] + cells * windows[:, 2:]  # (B, grid)
    down = windows[:, 1:2] + cells * windows[:, 2:]
    x = (2 * across / width - 1)[:, None, :].expand(-1, grid, -1)
    y = (2 * down / height - 1)[:, :, None].expand(-1, -1, grid)
    maps = maps.expand(len(windows), -1, -1, -1)
    return F.grid_sample(maps, torch.stack([x, y], -1), mode="bilinear", align_corners=False)


def sample_pyramid(levels: tuple[Tensor, ...], windows: Tensor) -> Tensor:
    """(B, C, V, V) of an image, from the halvings that are about as coarse as the grid."""
    size = levels[0].shape[2:]
    depth = torch.log2(windows[:, 2] / GRID).clamp(0, len(levels) - 1)
    found = torch.zeros(())
    for index, level in enumerate(levels):
        weight = (1 - (depth - index).abs()).clamp(min=0).view(-1, 1, 1, 1)
        found = found + weight * sample(level, windows, GRID, size)
    return found


def sample_points(maps: Tensor, points: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    """(B, N, C) of maps (1, C, h', w') at points (B, N, 2) of an image of `size`."""
    extent = points.new_tensor([size[1], size[0]]) if isinstance(size[0], int) else torch.stack(
        [torch.as_tensor(size[1]), torch.as_tensor(size[0])]
    ).to(points)  # fmt: skip
    places = (2 * points / extent - 1)[:, :, None]
    maps = maps.expand(len(points), -1, -1, -1)
    found = F.grid_sample(maps, places, padding_mode="border", align_corners=False)
    return found[..., 0].transpose(1, 2)


def _fill_boxes(windows: Tensor, boxes: Tensor) -> Tensor:
    """(B, 1, V, V): 1 in a box."""
    cells = (torch.arange(GRID, device=windows.device, dtype=windows.dtype) + 0.5) / GRID
    across, down = (windows[:, k : k + 1] + cells * windows[:, 2:] for k in (0, 1))
    in_x = (across > boxes[:, :1]) & (across < boxes[:, 2:3])
    in_y = (down > boxes[:, 1:2]) & (down < boxes[:, 3:])
    return (in_y[:, :, None] & in_x[:, None, :])[:, None].to(windows.dtype)


def halve(pixels: Tensor) -> tuple[Tensor, ...]:
    """A map (B, C, h, w) and its halvings."""
    levels = [pixels]
    while len(levels) < PYRAMID and min(levels[-1].shape[2:]) >= 2:
        levels.append(F.avg_pool2d(levels[-1], 2))
    return tuple(levels)
