"""Clicks as two graphs for `sartm export --clicks`: a pair to its maps, maps and a prompt to masks.

What `inference.clicks` and `model.looking` do around the networks, resizing, finding a window and
looking again, is written here in operators that ONNX has, so that whoever runs the graphs needs no
code of their own. All sizes are fixed but N, the number of points.

Shapes: H and W the images' sides, h and w those of the logits, N points, V the side of a window's
grid. Windows and points as in `model.looking`, a window being a tensor (3,) of x, y and side.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartm.config import Modality
from sartm.model.clicks import GRID, MASKS, ClickDecoder, ClickMaps
from sartm.model.encoder import Levels
from sartm.model.looking import (
    ASIDE,
    MARGIN,
    OUTSIDE,
    ROOM,
    SIMILAR,
    SMALLEST,
    click_maps,
    whole_window,
)
from sartm.model.prompts import (
    ADDS,
    BOTTOM_RIGHT,
    NO_POINT,
    TOP_LEFT,
    PromptDecoder,
    choose_stable,
    prompt_levels,
)
from sartm.model.sartm import SARTM

Size = tuple[int, int]
"""Height and width."""

MAPS = ("features", "pixels_1", "pixels_2", "pixels_4", "pixels_8")
"""Of a pair, for a decoder that looks at windows."""
_GONE = -1e4
"""A logit so low that nothing is left of a mask."""
_FAR = 1e9
"""Pixels from everything."""


class EncoderGraph(nn.Module):
    """A pair to the maps that every click on it is answered on."""

    def __init__(
        self,
        model: SARTM,
        decoder: ClickDecoder | PromptDecoder,
        modality: Modality,
        size: Size,
        seen: Size,
    ) -> None:
        """Set up the graph.

        Args:
            model: whose maps they are, `merged`.
            decoder: for clicks.
            modality: what images come in.
            size: of the images.
            seen: the size that they are looked at in.
        """
        super().__init__()
        self.model, self.decoder, self.modality = model, decoder, modality
        self.names = MAPS if isinstance(decoder, ClickDecoder) else Levels._fields
        self.resize = _Resize(size, seen) if size != seen else nn.Identity()

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        """Images as `modality` says, rgb (1, H, W, 3) uint8 first, then thermal (1, H, W); what
        comes out is called `names`."""
        rgb = thermal = None
        if self.modality != "thermal":
            rgb = self.resize(images[0].permute(0, 3, 1, 2).float() / 255)
        if self.modality != "rgb":
            thermal = self.resize(images[-1][:, None])
        if isinstance(self.decoder, ClickDecoder):
            maps = click_maps(self.model, self.decoder, rgb, thermal)
            return maps.features, *maps.pixels
        return tuple(prompt_levels(self.model, rgb, thermal))


class _Resize(nn.Module):
    """Bilinear with antialiasing, which this opset has not, as two products."""

    down: Tensor
    across: Tensor

    def __init__(self, size: Size, wanted: Size) -> None:
        super().__init__()
        for name, side, new in zip(("down", "across"), size, wanted, strict=True):
            pixels = torch.eye(side)[None, None]
            shares = F.interpolate(pixels, (new, side), mode="bilinear", antialias=True)
            self.register_buffer(name, shares[0, 0])

    def forward(self, images: Tensor) -> Tensor:
        return self.down @ images @ self.across.T


class PromptGraph(nn.Module):
    """Prompts on one of SAM 2's sizes."""

    scale: Tensor

    def __init__(self, decoder: PromptDecoder, size: Size, canvas: int) -> None:
        """`size` is of the images, `canvas` the side of the square that they became."""
        super().__init__()
        self.decoder, self.size = decoder, size
        self.register_buffer("scale", torch.tensor([canvas / size[1], canvas / size[0]]))

    def forward(
        self,
        ffp: Tensor,
        ifp: Tensor,
        sfm: Tensor,
        points: Tensor,
        labels: Tensor,
        mask_input: Tensor,
        has_mask: Tensor,
    ) -> tuple[Tensor, ...]:
        """As `LookGraph.forward`, and the logit of there being an object at all (1,)."""
        encoder = self.decoder.sam_prompt_encoder
        dense = torch.where(has_mask, encoder.masks(mask_input[None, None]), encoder.dense())
        levels = Levels(ffp, ifp, sfm)
        four = self.decoder.answer(levels, (points * self.scale)[None], labels[None], dense)
        one = choose_stable(four)
        logits = torch.cat([one.logits, four.logits[:, 1:]], 1)[0]
        scores = torch.cat([one.scores, four.scores[:, 1:]], 1)[0]
        scores = _keep_asked(scores, _is_ambiguous(labels, has_mask))
        return draw_mask(logits, scores, self.size), logits, scores, four.present


class LookGraph(nn.Module):
    """Prompts on a decoder that looks at windows: `looking.look` with its windows as tensors.

    To be scripted: what branches and repeats is here, all else in modules that are followed.
    """

    whole: Tensor

    def __init__(self, decoder: ClickDecoder, size: Size, seen: Size, maps: ClickMaps) -> None:
        """Set up the graph.

        Args:
            decoder: in float32.
            size: of the images.
            seen: the size that they were looked at in.
            maps: of any images of this size.
        """
        super().__init__()
        padded = maps.pixels[0].shape[2:]
        whole = torch.tensor(whole_window(seen))
        points, labels = torch.ones(2, 2), torch.ones(2, dtype=torch.int32)
        yes, mask = torch.ones(1, dtype=torch.bool), torch.ones(seen, dtype=torch.bool)
        before, box = torch.ones(tuple(padded)), torch.ones(4)
        four, scores = torch.zeros(MASKS, GRID, GRID), torch.zeros(MASKS)
        read = _Read(size, seen, padded)
        self.read = follow(read, points, labels, torch.ones(seen), yes)
        everything = (maps.features, *maps.pixels, whole, points, labels, before, box)
        self.once = follow(_Once(decoder), *everything)
        self.paste = follow(_Paste(padded), four, whole)
        self.best = follow(_Best(), torch.ones(MASKS, *padded), scores, yes)
        self.begin = follow(_Begin(seen), before, points, labels)
        self.spread = follow(_Spread(), mask, mask)
        self.around = follow(_Around(seen), mask, points, labels, box, yes)
        self.similar = follow(_Similar(), whole, whole)
        self.finish = follow(_Finish(size, seen), torch.ones(MASKS, *padded), scores, yes)
        self.register_buffer("whole", whole)

    def forward(
        self,
        features: Tensor,
        pixels_1: Tensor,
        pixels_2: Tensor,
        pixels_4: Tensor,
        pixels_8: Tensor,
        points: Tensor,
        labels: Tensor,
        mask_input: Tensor,
        has_mask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What a prompt stands for.

        Args:
            features: of the pair, like the four after it.
            points: (N, 2) x and y in pixels of the images, the first one's centre being (0, 0).
            labels: (N,) int32: 1 adds, 0 takes away, -1 does not count, 2 and 3 a box's corners.
            mask_input: (h, w) logits of the mask before.
            has_mask: (1,) bool, whether there is one.

        Returns:
            The mask (H, W) of the highest score; (4, h, w) logits and (4,) scores: the first is the
            answer to a clear prompt, the others to a single click, which may mean any of them; the
            scores are -1 where it is not asked for.
        """
        places, box, boxed, before, several = self.read(points, labels, mask_input, has_mask)
        if not bool(torch.logical_or(has_mask, boxed)):
            logits, scores = self.once(
                features, pixels_1, pixels_2, pixels_4, pixels_8,
                self.whole, places, labels, before, box,
            )  # fmt: skip
            before = self.paste(logits, self.whole)[0]
        window = self.window_around(before, places, labels, box, boxed)
        logits, scores = self.once(
            features, pixels_1, pixels_2, pixels_4, pixels_8, window, places, labels, before, box
        )
        found = self.paste(logits, window)
        before = self.best(found, scores, several)
        better = self.window_around(before, places, labels, box, boxed)
        if not bool(self.similar(window, better)):
            logits, scores = self.once(
                features, pixels_1, pixels_2, pixels_4, pixels_8,
                better, places, labels, before, box,
            )  # fmt: skip
            found = self.paste(logits, better)
        mask, logits, scores = self.finish(found, scores, several)
        return mask, logits, scores

    def window_around(
        self, logits: Tensor, places: Tensor, labels: Tensor, box: Tensor, boxed: Tensor
    ) -> Tensor:
        """`looking.window_around`: the parts of the mask (h, w) that were clicked are filled from
        the clicks, until nothing is added."""
        mask, found = self.begin(logits, places, labels)
        if bool(found.any()):
            pixels = found.sum()
            grows = True
            while grows:
                found = self.spread(found, mask)
                more = found.sum()
                grows = bool(more > pixels)
                pixels = more
        else:
            found = mask
        window: Tensor = self.around(found, places, labels, box, boxed)
        return window


def follow(module: nn.Module, *inputs: Tensor) -> torch.jit.ScriptModule:
    """A module without branches as it computes these inputs, and others of their sizes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of branches on sizes, which are fixed
        followed: torch.jit.ScriptModule = torch.jit.trace(module.eval(), inputs, check_trace=False)
    return followed


def script(graph: LookGraph) -> torch.jit.ScriptModule:
    """The graph with its branches."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is something newer, which has no loops
        scripted: torch.jit.ScriptModule = torch.jit.script(graph)
    return scripted


class _Read(nn.Module):
    """What comes in, as the looks take it."""

    scale: Tensor

    def __init__(self, size: Size, seen: Size, padded: torch.Size) -> None:
        super().__init__()
        self.beyond = (0, int(padded[1]) - seen[1], 0, int(padded[0]) - seen[0])
        self.register_buffer("scale", torch.tensor([seen[1] / size[1], seen[0] / size[0]]))

    def forward(
        self, points: Tensor, labels: Tensor, mask: Tensor, has_mask: Tensor
    ) -> tuple[Tensor, ...]:
        """Places (N, 2), a box (4,) and whether there is one, a mask, whether three are asked."""
        places = (points + 0.5) * self.scale
        corners = [(labels == kind)[:, None].float() for kind in (TOP_LEFT, BOTTOM_RIGHT)]
        box = torch.cat([(places * corner).sum(0) for corner in corners])
        boxed = corners[0].sum(0) > 0
        before = torch.where(has_mask, F.pad(mask, self.beyond, value=OUTSIDE), _GONE)
        return places, box, boxed, before, _is_ambiguous(labels, has_mask)


class _Once(nn.Module):
    """One look at a window."""

    def __init__(self, decoder: ClickDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, features: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        """(4, V, V) logits and (4,) scores."""
        pixels, (window, places, labels, before, box) = rest[:-5], rest[-5:]
        looks = self.decoder(
            ClickMaps(features, pixels), window[None], places[None], labels[None],
            before[None, None], box[None],
        )  # fmt: skip
        return looks.logits[0], looks.scores[0]


class _Paste(nn.Module):
    """`looking.paste`, of a window wherever it lies."""

    def __init__(self, size: torch.Size) -> None:
        super().__init__()
        self.height, self.width = map(int, size)

    def forward(self, logits: Tensor, window: Tensor) -> Tensor:
        """(4, V, V) to (4, h, w)."""
        side = window[2]
        parts, inside = [], []
        for start, extent in ((window[0], self.width), (window[1], self.height)):
            pixels = torch.arange(extent, dtype=torch.float32)
            parts.append(2 * (pixels + 0.5 - start) / side - 1)
            inside.append((pixels >= start.floor()) & (pixels < (start + side).ceil()))
        across = parts[0][None].expand(self.height, -1)
        down = parts[1][:, None].expand(-1, self.width)
        grid = torch.stack([across, down], -1)[None]
        full = F.grid_sample(logits[None], grid, padding_mode="border", align_corners=False)[0]
        return torch.where(inside[1][:, None] & inside[0], full, OUTSIDE)


class _Best(nn.Module):
    """Of four masks the likeliest that is asked for."""

    def forward(self, logits: Tensor, scores: Tensor, several: Tensor) -> Tensor:
        """(h, w)"""
        best = _keep_asked(scores, several).argmax(0, keepdim=True)
        return logits.index_select(0, best)[0]


class _Begin(nn.Module):
    """A mask, and those of its pixels that were clicked to add."""

    def __init__(self, seen: Size) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, logits: Tensor, places: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Both (h, w) bool."""
        height, width = self.seen
        mask = logits[:height, :width] > 0
        adds = (labels == ADDS)[:, None]
        x, y = places.floor().unbind(1)
        column = torch.arange(width) == x.clamp(0, width - 1)[:, None]
        row = torch.arange(height) == y.clamp(0, height - 1)[:, None]
        clicked = (row & adds).float().T @ column.float()
        return mask, (clicked > 0) & mask


class _Spread(nn.Module):
    """What was found of a mask, a step to all sides and to the ends of its rows and columns."""

    def forward(self, found: Tensor, mask: Tensor) -> Tensor:
        """(h, w) bool."""
        near = F.max_pool2d(found[None, None].float(), 3, 1, 1)[0, 0] > 0
        found = near & mask
        for dim in (0, 1):
            for back in (False, True):
                reach, step = mask, 1
                while step < mask.shape[dim]:  # twice as far each time
                    found = found | (reach & _shift(found, step, dim, back))
                    reach = reach & _shift(reach, step, dim, back)
                    step *= 2
        return found


def _shift(mask: Tensor, step: int, dim: int, back: bool) -> Tensor:
    length = int(mask.shape[dim])
    kept = mask.narrow(dim, step if back else 0, length - step)
    blank = torch.zeros_like(mask.narrow(dim, 0, step))
    return torch.cat([kept, blank] if back else [blank, kept], dim)


class _Around(nn.Module):
    """`looking.window_around` and `looking.place_window`, of what was found already."""

    def __init__(self, seen: Size) -> None:
        super().__init__()
        self.seen = seen

    def forward(
        self, found: Tensor, places: Tensor, labels: Tensor, box: Tensor, boxed: Tensor
    ) -> Tensor:
        """(3,)"""
        adds, longest = labels == ADDS, float(max(self.seen))
        spans = []
        for axis, extent in enumerate(reversed(self.seen)):
            there, pixels = found.any(axis), torch.arange(extent, dtype=torch.float32)
            at, corners = places[:, axis], box[axis::2]
            ends = (torch.where(there, pixels, _FAR), torch.where(adds, at, _FAR),
                    torch.where(boxed, corners[:1], _FAR))  # fmt: skip
            low = torch.cat(ends).amin()
            ends = (torch.where(there, pixels + 1, -_FAR), torch.where(adds, at, -_FAR),
                    torch.where(boxed, corners[1:], -_FAR))  # fmt: skip
            spans.append((low, torch.cat(ends).amax()))
        longer = torch.maximum(*(high - low for low, high in spans))
        side = (ROOM * longer + MARGIN).clamp(SMALLEST, longest)
        window = []
        for (low, high), extent in zip(spans, reversed(self.seen), strict=True):
            room = extent - side
            moved = torch.minimum(((low + high) / 2 - side / 2).clamp(min=0), room)
            window.append(torch.where(room <= 0, room / 2, moved))
        whole = torch.tensor(whole_window(self.seen))
        return torch.where(longer >= 0, torch.stack([*window, side]), whole)


class _Similar(nn.Module):
    """`looking.similar`"""

    def forward(self, window: Tensor, other: Tensor) -> Tensor:
        """A bool."""
        sides = torch.stack([window[2], other[2]])
        large, small = sides.amax(), sides.amin()
        middles = window[:2] + window[2] / 2 - other[:2] - other[2] / 2
        return (large <= SIMILAR * small) & (middles.abs().amax() < ASIDE * large)


class _Finish(nn.Module):
    """What goes out."""

    def __init__(self, size: Size, seen: Size) -> None:
        super().__init__()
        self.size, self.seen = size, seen

    def forward(self, logits: Tensor, scores: Tensor, several: Tensor) -> tuple[Tensor, ...]:
        """The best mask, logits without padding, scores."""
        logits, scores = logits[:, : self.seen[0], : self.seen[1]], _keep_asked(scores, several)
        return draw_mask(logits, scores, self.size), logits, scores


def draw_mask(logits: Tensor, scores: Tensor, size: Size) -> Tensor:
    """(H, W) bool of logits (4, h, w): the one of the highest score."""
    best = logits.index_select(0, scores.argmax(0, keepdim=True))
    if tuple(map(int, logits.shape[1:])) != size:
        best = F.interpolate(best[None], size, mode="bilinear")[0]
    return best[0] > 0


def _is_ambiguous(labels: Tensor, has_mask: Tensor) -> Tensor:
    """(1,): one click and nothing else, as `Prompt.is_ambiguous`."""
    return ((labels != NO_POINT).sum(0, keepdim=True) == 1) & ~has_mask


def _keep_asked(scores: Tensor, several: Tensor) -> Tensor:
    """(4,) with -1 for masks that are not asked for."""
    others = torch.tensor([False, True, True, True])
    return torch.where(others == several, scores, -1.0)
