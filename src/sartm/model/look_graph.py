"""Clicks on windows as a graph: `looking.look` in operators that ONNX has, with its windows as
tensors (3,) of x, y and side.

Shapes as in `model.click_graphs`; V is the side of a window's grid.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sartm.model.click_graphs import Size, draw_mask, is_ambiguous, keep_asked
from sartm.model.clicks import GRID, MASKS, ClickDecoder, ClickMaps
from sartm.model.looking import ASIDE, MARGIN, OUTSIDE, ROOM, SIMILAR, SMALLEST, whole_window
from sartm.model.prompts import ADDS, BOTTOM_RIGHT, TOP_LEFT

_GONE = -1e4
"""A logit so low that nothing is left of a mask."""
_FAR = 1e9
"""Pixels from everything."""


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
        span = torch.ones(4)
        read = _Read(size, seen, padded)
        self.read = follow(read, points, labels, torch.ones(seen), yes)
        everything = (maps.features, *maps.pixels, whole, points, labels, before, box)
        self.once = follow(_Once(decoder), *everything)
        self.paste = follow(_Paste(padded), four, whole)
        self.paste_one = follow(_Paste(padded), four[:1], whole)
        self.best = follow(_Best(), four, scores, yes)
        self.begin = follow(_Begin(seen), before, points, labels)
        self.spread = follow(_Spread(max(seen)), mask, mask)
        self.span = follow(_Span(), mask, torch.zeros(2))
        self.around = follow(_Around(seen), span, points, labels, box, yes)
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
            before = self.paste_one(logits[:1], self.whole)[0]
        window = self.window_around(before, places, labels, box, boxed)
        logits, scores = self.once(
            features, pixels_1, pixels_2, pixels_4, pixels_8, window, places, labels, before, box
        )
        before = self.paste_one(self.best(logits, scores, several), window)[0]
        better = self.window_around(before, places, labels, box, boxed)
        if not bool(self.similar(window, better)):
            window = better
            logits, scores = self.once(
                features, pixels_1, pixels_2, pixels_4, pixels_8,
                window, places, labels, before, box,
            )  # fmt: skip
        found = self.paste(logits, window)
        mask, logits, scores = self.finish(found, scores, several)
        return mask, logits, scores

    def window_around(
        self, logits: Tensor, places: Tensor, labels: Tensor, box: Tensor, boxed: Tensor
    ) -> Tensor:
        """`looking.window_around`: the parts of the mask (h, w) that were clicked are filled from
        the clicks, until nothing is added."""
        mask, found, start = self.begin(logits, places, labels)
        pixels = found.float().sum()
        grows = bool(pixels > 0)
        if not grows:
            found = mask
        while grows:
            found = self.spread(found, mask)
            more = found.float().sum()
            grows = bool(more > pixels)
            pixels = more
        window: Tensor = self.around(self.span(found, start), places, labels, box, boxed)
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
        return places, box, boxed, before, is_ambiguous(labels, has_mask)


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
        """(M, V, V) to (M, h, w)."""
        weights, inside = [], []
        for start, extent in ((window[1], self.height), (window[0], self.width)):
            pixels, side = torch.arange(extent, dtype=torch.float32), window[2]
            cells = ((pixels + 0.5 - start) / side * GRID - 0.5).clamp(0, GRID - 1)
            off = cells[:, None] - torch.arange(GRID, dtype=torch.float32)
            weights.append((1 - off.abs()).clamp(min=0))
            inside.append((pixels >= start.floor()) & (pixels < (start + side).ceil()))
        full = weights[0] @ logits @ weights[1].T  # bilinear, faster than looking pixels up
        return torch.where(inside[0][:, None] & inside[1], full, OUTSIDE)


class _Best(nn.Module):
    """Of four masks the likeliest that is asked for."""

    def forward(self, logits: Tensor, scores: Tensor, several: Tensor) -> Tensor:
        """(1, V, V)"""
        best = keep_asked(scores, several).argmax(0, keepdim=True)
        return logits.index_select(0, best)


class _Begin(nn.Module):
    """The part of the image that holds a mask, and what of the mask was clicked to add."""

    def __init__(self, seen: Size) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, logits: Tensor, places: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Both (h', w') bool, and (2,) x and y of the part's upper left pixel."""
        height, width = self.seen
        mask = logits[:height, :width] > 0
        there = mask.float()
        left, right = _ends(there.amax(0))
        top, bottom = _ends(there.amax(1))
        adds = (labels == ADDS)[:, None]
        x, y = places.floor().unbind(1)
        column = torch.arange(width) == x.clamp(0, width - 1)[:, None]
        row = (torch.arange(height) == y.clamp(0, height - 1)[:, None]) & adds
        mask = mask[top:bottom, left:right]
        clicked = row[:, top:bottom].float().T @ column[:, left:right].float()
        return mask, (clicked > 0) & mask, torch.stack([left, top]).float()


def _ends(line: Tensor) -> tuple[Tensor, Tensor]:
    """Of a line of 0 and 1 the first place that is 1, and the one behind the last; all if none."""
    return line.argmax(0), line.shape[0] - line.flip(0).argmax(0)


class _Spread(nn.Module):
    """What was found of a mask, a step to all sides and to the ends of its rows and columns."""

    def __init__(self, longest: int) -> None:
        super().__init__()
        self.longest = longest

    def forward(self, found: Tensor, mask: Tensor) -> Tensor:
        """(h', w') bool."""
        near = F.max_pool2d(found[None, None].float(), 3, 1, 1)[0, 0] > 0
        found = near & mask
        for row in (True, False):
            for back in (False, True):
                reach, step = mask, 1
                while step < self.longest:  # twice as far each time
                    found = found | (reach & _shift(found, step, row, back))
                    reach = reach & _shift(reach, step, row, back)
                    step *= 2
        return found


def _shift(mask: Tensor, step: int, row: bool, back: bool) -> Tensor:
    ends = (0, step) if back else (step, 0)
    longer = F.pad(mask, ends if row else (0, 0, *ends))
    kept = slice(step, None) if back else slice(0, -step)
    return longer[:, kept] if row else longer[kept]


class _Span(nn.Module):
    """The box around what was found."""

    def forward(self, found: Tensor, start: Tensor) -> Tensor:
        """(4,) x0, y0, x1, y1; far off where there is nothing."""
        there, ends = found.float(), []
        for axis in (0, 1):
            first, last = _ends(there.amax(axis))
            ends.append(torch.stack([first, last]) + start[axis])
        nothing = torch.tensor([_FAR, _FAR, -_FAR, -_FAR])
        return torch.where(there.amax() > 0, torch.stack(ends, 1).flatten(), nothing)


class _Around(nn.Module):
    """`looking.window_around` and `looking.place_window`, of the span of what was found."""

    def __init__(self, seen: Size) -> None:
        super().__init__()
        self.seen = seen

    def forward(
        self, span: Tensor, places: Tensor, labels: Tensor, box: Tensor, boxed: Tensor
    ) -> Tensor:
        """(3,)"""
        adds, longest = (labels == ADDS)[:, None], float(max(self.seen))
        near, far = torch.full((1, 2), _FAR), torch.full((1, 2), -_FAR)
        ends = torch.where(adds, places, near), torch.where(boxed, box[:2], near), span[None, :2]
        low = torch.cat(ends).amin(0)
        ends = torch.where(adds, places, far), torch.where(boxed, box[2:], far), span[None, 2:]
        high = torch.cat(ends).amax(0)
        longer = (high - low).amax()
        side = (ROOM * longer + MARGIN).clamp(SMALLEST, longest)
        room = torch.tensor([float(self.seen[1]), float(self.seen[0])]) - side
        moved = torch.minimum(((low + high) / 2 - side / 2).clamp(min=0), room)
        corner = torch.where(room <= 0, room / 2, moved)
        whole = torch.tensor(whole_window(self.seen))
        return torch.where(longer >= 0, torch.cat([corner, side[None]]), whole)


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
        logits, scores = logits[:, : self.seen[0], : self.seen[1]], keep_asked(scores, several)
        return draw_mask(logits, scores, self.size), logits, scores
