"""What a synthetic street is made of: sky, ground, kerbs, bumps, buildings, trees and clutter.

Two of the classes lie in the ground: `curve` (the kerb stone along a road) and `bump` (a raised or
paved band across it). Everything else drawn here is unlabeled: the setting, and the distractors.
"""

import math
from itertools import pairwise

import numpy as np

from sartm.classes import MFNET
from sartm.scenes.canvas import (
    Array,
    Colour,
    Shape,
    Stage,
    box,
    ellipse,
    foliage,
    limb,
    points,
)  # fmt: skip

REST, CURVE, BUMP = (MFNET.names.index(name) for name in ("unlabeled", "curve", "bump"))
_STEPS = np.linspace(0, 1, 12, dtype=np.float32)
FARTHEST = 160.0
"""Metres; roads end here."""

WALLS: tuple[Colour, ...] = (
    (176, 158, 128), (150, 108, 82), (128, 82, 66), (178, 178, 174), (206, 200, 186),
    (112, 112, 116), (92, 86, 80), (190, 176, 150), (120, 60, 52), (160, 170, 178),
)  # fmt: skip
STONES: tuple[Colour, ...] = (
    (150, 148, 142), (176, 170, 160), (128, 126, 124), (166, 150, 132), (140, 112, 98),
)  # fmt: skip
SIGNS: tuple[Colour, ...] = (
    (200, 40, 40), (40, 70, 170), (235, 235, 235), (230, 190, 40), (30, 120, 70), (240, 120, 40),
)  # fmt: skip


def tint(colour: Colour, factor: float) -> Colour:
    """A brighter or darker shade."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def draw_sky(stage: Stage) -> None:
    """Fill the canvas with the first parts: bands of sky."""
    climate, rng = stage.climate, stage.rng
    if climate.light == "day":
        blue = stage.uniform(0, 1) * (0.4 + 0.6 * climate.sun)
        bright = stage.uniform(225, 330)
        colour = (bright * (1 - 0.45 * blue), bright * (1 - 0.22 * blue), bright)
    elif climate.light == "dusk":
        tone = stage.uniform(0, 1)
        colour = (200 - 120 * tone, 150 - 60 * tone, 150 + 20 * tone)
    else:
        # Town light on clouds; the night's ambient light is not applied to glowing parts.
        colour = (0.0, 0.0, 0.0)
    glow = (0.0, 0.0, 0.0)
    if climate.light == "night":
        level = float(rng.choice([0.0, 0.0006, 0.002, 0.006])) * stage.uniform(0.5, 1.5)
        glow = (level * stage.uniform(0.7, 1.3), level, level * stage.uniform(0.8, 1.8))
    coarse, mottle = stage.uniform(0, 0.12), stage.uniform(0.1, 1.0)
    paler, warmer = stage.uniform(0, 0.3), stage.uniform(0, 6)
    count, end = 24, min(max(stage.camera.horizon, 1.0) * 1.05, stage.camera.height)
    rows = np.linspace(0, end, count + 1).astype(int)
    for band, (top, bottom) in enumerate(pairwise(rows.tolist())):
        # From the zenith to the horizon the sky gets paler, and warmer by the air's own radiation.
        low = band / count
        part = stage.canvas.part(
            tint(colour, 1 - paler * (1 - low)), climate.sky + warmer * (low * low - 0.5), 2000.0,
            glow=tint(glow, 1 + 0.5 * low), fine=0.0, coarse=coarse, mottle=mottle,
        )  # fmt: skip
        stage.canvas.parts[top:bottom] = part
    stage.canvas.parts[rows[-1] :] = count - 1


def strip(
    stage: Stage,
    left: float,
    right: float,
    start: float,
    end: float,
    height: float = 0.0,
    other_height: float | None = None,
) -> Array:
    """Outline in pixels of a band along the road between two lateral offsets and two depths."""
    start = max(start, 1.0)
    depths = np.float32(start) * np.float32(max(end / start, 1.001)) ** _STEPS
    drift = stage.heading * depths + stage.bend * depths**2 - stage.ego
    world = np.zeros((24, 3), np.float32)
    world[:12, 0], world[12:, 0] = left + drift, (right + drift)[::-1]
    world[:12, 1], world[12:, 1] = height, height if other_height is None else other_height
    world[:12, 2], world[12:, 2] = depths, depths[::-1]
    return stage.camera.project(world)


def draw_ground(stage: Stage) -> None:
    """Verge, sidewalks and road, the markings on them, and stains."""
    camera, canvas, climate, rng = stage.camera, stage.canvas, stage.climate, stage.rng
    reach = 3 * (camera.width + camera.height)
    down, up = math.sin(camera.roll), math.cos(camera.roll)
    middle = np.array((camera.width / 2, camera.horizon))
    sideways, below = np.array((up, down)) * reach, np.array((-down, up)) * reach
    land = np.stack([middle - sideways, middle + sideways, middle + sideways + below,
                     middle - sideways + below])  # fmt: skip
    green = stage.chance(0.55)
    if green:
        colour = (stage.uniform(40, 90), stage.uniform(75, 120), stage.uniform(30, 55))
    else:
        colour = tint(STONES[rng.integers(len(STONES))], stage.uniform(0.7, 1.1))
    verge = canvas.part(
        colour,
        climate.verge,
        0.0,
        fine=0.35 if green else 0.1,
        coarse=0.2 if green else 0.1,
        mottle=0.8,
    )
    canvas.fill(land.astype(np.float32), verge, REST)
    half = stage.half_road
    for side in (-1.0, 1.0):
        if stage.sidewalk > 0:
            paved = stage.chance(0.6)
            tone = STONES[rng.integers(len(STONES))]
            walk = canvas.part(
                tone, climate.road + stage.uniform(-1.2, 1.0), 0.0, fine=0.12, coarse=0.15,
                paving=stage.uniform(0.08, 0.25) if paved else 0.0, mottle=0.5,
            )  # fmt: skip
            left, right = sorted((side * half, side * (half + stage.sidewalk)))
            canvas.fill(strip(stage, left, right, 1.0, FARTHEST), walk, REST)
    grey = stage.uniform(70, 150)
    warm = stage.uniform(-8, 8)
    road = canvas.part(
        (grey + warm, grey, grey - warm + 4), climate.road, 0.0, fine=stage.uniform(0.08, 0.3),
        coarse=stage.uniform(0.03, 0.14), mottle=stage.uniform(0.15, 0.6),
        paving=stage.uniform(0.05, 0.25) if stage.chance(0.15) else 0.0,
    )  # fmt: skip
    canvas.fill(strip(stage, -half, half, 1.0, FARTHEST), road, REST)
    _draw_patches(stage, grey)
    _draw_lines(stage)
    if stage.chance(0.35):
        _draw_crossing(stage, stage.uniform(5, 30))
    if stage.chance(0.3):
        _draw_sign_on_road(stage, stage.uniform(5, 15))
    _draw_covers(stage)


def _marking(stage: Stage) -> int:
    worn = stage.uniform(0.65, 1.0)
    yellow = stage.chance(0.25)
    colour = (215 * worn, 160 * worn, 70 * worn) if yellow else (225 * worn,) * 3
    heat = stage.climate.road + stage.uniform(-1.0, 0.3)
    return stage.canvas.part(colour, heat, 0.0, fine=0.15, coarse=0.12)


def _draw_patches(stage: Stage, grey: float) -> None:
    for _ in range(int(stage.rng.integers(0, 4))):
        left = stage.uniform(-stage.half_road, stage.half_road - 0.5)
        start = float(np.exp(stage.uniform(math.log(3), math.log(30))))
        tone = grey * stage.uniform(0.65, 1.25)
        patch = stage.canvas.part(
            (tone, tone, tone), stage.climate.road + stage.uniform(-1, 1), 0.0, fine=0.2
        )
        right = min(left + stage.uniform(0.5, 3), stage.half_road)
        stage.canvas.fill(strip(stage, left, right, start, start * 1.35), patch, REST)


def _draw_lines(stage: Stage) -> None:
    half = stage.half_road
    for offset in (-half + 0.3, half - 0.3, stage.uniform(-0.4, 0.4)):
        if not stage.chance(0.45):
            continue
        part, width = _marking(stage), stage.uniform(0.1, 0.22)
        if stage.chance(0.6):
            line = strip(stage, offset, offset + width, stage.uniform(1, 5), FARTHEST)
            stage.canvas.fill(line, part, REST)
            continue
        gap, start = stage.uniform(3, 7), stage.uniform(1, 6)
        for index in range(7):
            dash = start + index * 2 * gap
            stage.canvas.fill(strip(stage, offset, offset + width, dash, dash + gap), part, REST)


def _draw_crossing(stage: Stage, start: float) -> None:
    part, length, half = _marking(stage), stage.uniform(2, 4), stage.half_road
    width, offset = stage.uniform(0.4, 0.6), -half + 0.2
    while offset < half - 0.3:
        bar = strip(stage, offset, offset + width, start, start + length)
        stage.canvas.fill(bar, part, REST)
        offset += 2 * width
    if stage.chance(0.6):
        line = strip(stage, -half, half * stage.rng.choice([0.0, 1.0]), start - 2, start - 1.6)
        stage.canvas.fill(line, part, REST)


def _draw_sign_on_road(stage: Stage, start: float) -> None:
    """An arrow, or strokes like those of lettering."""
    part, middle = _marking(stage), stage.uniform(-0.6, 0.6) * stage.half_road
    if stage.chance(0.5):
        for left, right, near, far in ((-0.1, 0.1, 0.0, 2.2), (-0.4, 0.4, 2.2, 2.5)):
            bar = strip(stage, middle + left, middle + right, start + near, start + far)
            stage.canvas.fill(bar, part, REST)
        return
    for _ in range(int(stage.rng.integers(4, 10))):
        left, near = middle + stage.uniform(-0.8, 0.6), start + stage.uniform(0, 3)
        wide = stage.chance(0.5)
        size = (stage.uniform(0.4, 1.0), 0.3) if wide else (0.14, stage.uniform(0.8, 2))
        bar = strip(stage, left, left + size[0], near, near + size[1])
        stage.canvas.fill(bar, part, REST)


def _draw_covers(stage: Stage) -> None:
    for _ in range(int(stage.rng.integers(0, 3))):
        depth = stage.uniform(4, 20)
        x = stage.lateral(stage.uniform(-1, 1) * stage.half_road, depth)
        cover = stage.canvas.part(
            (80, 78, 74), stage.climate.road + stage.uniform(-2, 4), 0.0, fine=0.3, paving=0.2
        )
        outline = ellipse(x, depth, 0.35, 0.35, 16)
        world = np.stack([outline[:, 0], np.zeros(16, np.float32), outline[:, 1]], axis=1)
        stage.canvas.fill(stage.camera.project(world), cover, REST)


def draw_kerb(stage: Stage, side: float, start: float, end: float) -> None:
    """A kerb stone along one edge of the road (class curve), its face and its top."""
    rng, climate = stage.rng, stage.climate
    tone = STONES[rng.integers(len(STONES))]
    bright = stage.uniform(0.85, 1.25)
    height, width = stage.uniform(0.06, 0.2), stage.uniform(0.12, 0.35)
    heat = climate.road + stage.uniform(-1.5, 1.0)
    top = stage.canvas.part(tint(tone, bright), heat, 0.0, fine=0.15, coarse=0.15, paving=0.06)
    face = stage.canvas.part(
        tint(tone, bright * 0.6), heat + stage.uniform(-0.5, 1.5), 0.0,
        fine=0.15, coarse=0.15,
    )  # fmt: skip
    edge = side * stage.half_road
    back = edge + side * width
    walk = strip(stage, edge, back, start, end, height)
    front = strip(stage, edge, edge, start, end, 0.0, height)
    joints = stage.canvas.part(tint(tone, bright * 0.5), heat, 0.0, fine=0.1, coarse=0.1)
    stage.canvas.fill(front, face, CURVE)
    stage.canvas.fill(walk, top, CURVE)
    gap = stage.uniform(0.6, 1.5)
    low, high = sorted((edge, back))
    for index in range(12):
        depth = max(start, 2.0) + index * gap
        if depth + 0.03 < end and depth < 12:
            cut = strip(stage, low, high, depth, depth + 0.03, height)
            stage.canvas.fill(cut, joints, CURVE)


def draw_corner(stage: Stage, depth: float) -> None:
    """A kerb across the view (class curve), as where a road ends or turns."""
    tone = STONES[stage.rng.integers(len(STONES))]
    heat = stage.climate.road + stage.uniform(-1.5, 1.0)
    top = stage.canvas.part(tone, heat, 0.0, fine=0.15, coarse=0.15)
    face = stage.canvas.part(tint(tone, 0.65), heat, 0.0, fine=0.15)
    beyond = stage.canvas.part(
        STONES[stage.rng.integers(len(STONES))], stage.climate.verge, 0.0, fine=0.2, coarse=0.2
    )
    half, tilt = stage.uniform(6, 30), stage.uniform(-0.25, 0.25)
    x = stage.lateral(stage.uniform(-3, 3), depth)
    height, width = stage.uniform(0.08, 0.2), stage.uniform(0.2, 0.5)
    for near, low, far, high, part, label in (
        (0.0, height, 8.0, height, beyond, REST),
        (0.0, 0.0, 0.0, height, face, CURVE), (0.0, height, width, height, top, CURVE),
    ):  # fmt: skip
        outline = np.array(
            [(-half, low, near), (half, low, near), (half, high, far), (-half, high, far)],
            np.float32,
        )
        stage.draw([Shape(outline, part, label)], x, depth, tilt)


def draw_bump(stage: Stage, start: float) -> None:
    """A band across the road (class bump): cobbles, coloured asphalt, or yellow and black."""
    canvas, climate, rng = stage.canvas, stage.climate, stage.rng
    kind = rng.choice(["cobbles", "colour", "stripes"], p=[0.55, 0.2, 0.25])
    half = stage.half_road
    left = -half if stage.chance(0.75) else -half * stage.uniform(0, 0.8)
    right = half if stage.chance(0.75) else half * stage.uniform(0.2, 0.8)
    length = stage.uniform(0.35, 0.7) if kind == "stripes" else stage.uniform(0.6, 2.2)
    heat = climate.road + stage.uniform(-1.0, 1.0)
    if kind == "cobbles":
        tone = stage.uniform(70, 130)
        part = canvas.part(
            (tone * 1.04, tone, tone * 0.95), heat, 0.0, fine=0.35, coarse=0.2,
            paving=stage.uniform(0.35, 0.7), mottle=0.6,
        )  # fmt: skip
        canvas.fill(strip(stage, left, right, start, start + length), part, BUMP)
        _edge_lines(stage, left, right, start, length)
        return
    if kind == "colour":
        colour = [(140, 78, 62), (70, 68, 70), (165, 150, 110), (110, 60, 50)][rng.integers(4)]
        part = canvas.part(colour, heat, 0.0, fine=0.2, coarse=0.15)
        canvas.fill(strip(stage, left, right, start, start + length), part, BUMP)
        white = canvas.part((215, 215, 210), heat - 0.5, 0.0, fine=0.15)
        if stage.chance(0.6):
            _stripes(stage, left, right, start, length, white, stage.uniform(0.4, 1.2))
        return
    yellow = canvas.part((220, 175, 40), heat, 0.0, fine=0.12)
    black = canvas.part((42, 42, 44), heat + stage.uniform(0, 1), 0.0, fine=0.12)
    canvas.fill(strip(stage, left, right, start, start + length), yellow, BUMP)
    _stripes(stage, left, right, start, length, black, stage.uniform(0.25, 0.5))


def _edge_lines(stage: Stage, left: float, right: float, start: float, length: float) -> None:
    """Paved bands are often framed by a bright line; it belongs to the bump."""
    if stage.chance(0.4):
        frame = stage.canvas.part((190, 150, 90), stage.climate.road, 0.0, fine=0.15)
        for near in (start, start + length - 0.12):
            stage.canvas.fill(strip(stage, left, right, near, near + 0.12), frame, BUMP)


def _stripes(
    stage: Stage, left: float, right: float, start: float, length: float, part: int, pitch: float
) -> None:
    slant = stage.uniform(-0.5, 0.5) * pitch
    offset = left
    while offset + pitch < right:
        depths = np.array([start, start, start + length, start + length], np.float32)
        sides = np.array(
            [offset, offset + pitch / 2, offset + pitch / 2 + slant, offset + slant], np.float32
        ).clip(left, right)
        x = sides - stage.ego + stage.heading * depths + stage.bend * depths**2
        world = np.stack([x, np.zeros(4, np.float32), depths], axis=1)
        stage.canvas.fill(stage.camera.project(world), part, BUMP)
        offset += pitch


def draw_building(stage: Stage, side: float, offset: float, start: float, end: float) -> None:
    """A house front along the road, with its near end wall, windows and perhaps a shop."""
    canvas, climate, rng = stage.canvas, stage.climate, stage.rng
    storeys = int(rng.integers(1, 9))
    storey = stage.uniform(2.9, 3.9)
    height = storeys * storey + stage.uniform(0.2, 1.2)
    wall = WALLS[rng.integers(len(WALLS))]
    light = 0.75 + 0.35 * climate.sun * (1.0 if side * climate.sun_side < 0 else -0.6)
    heat = climate.wall + stage.uniform(-1.5, 2.0) + (3 * climate.sun if light > 0.75 else 0)
    near_x = stage.lateral(side * offset, start)
    far_x = stage.lateral(side * offset, end)
    middle = (start + end) / 2

    brick = stage.uniform(0.05, 0.2)
    lit = tint(wall, light**0.5)
    front = canvas.part(lit, heat, middle, fine=brick, coarse=0.1, mottle=0.4)
    end_wall = canvas.part(tint(wall, stage.uniform(0.65, 1.0)), heat + stage.uniform(-2, 1), start,
                           fine=brick, coarse=0.1, mottle=0.4)  # fmt: skip
    corners = np.array(
        [(near_x, 0, start), (far_x, 0, end), (far_x, height, end), (near_x, height, start)],
        np.float32,
    )
    canvas.fill(stage.camera.project(corners), front, REST)
    depth = stage.uniform(8, 20)
    gable = np.array(
        [(near_x, 0, start), (near_x + side * depth, 0, start),
         (near_x + side * depth, height, start), (near_x, height, start)], np.float32,
    )  # fmt: skip
    canvas.fill(stage.camera.project(gable), end_wall, REST)
    _draw_windows(stage, corners, storeys, storey, heat, middle)
    if stage.chance(0.7):
        _draw_windows(stage, gable, storeys, storey, heat, start)
    _draw_ledges(stage, corners, tint(wall, 0.6), heat, storeys, storey, middle)


def _draw_ledges(
    stage: Stage,
    corners: Array,
    colour: Colour,
    heat: float,
    storeys: int,
    storey: float,
    depth: float,
) -> None:
    if not stage.chance(0.5):
        return
    ledge = stage.canvas.part(colour, heat - 0.5, depth)
    for level in range(1, storeys + 1):
        line = corners.copy()
        line[:2, 1], line[2:, 1] = level * storey - 0.15, level * storey + 0.05
        stage.canvas.fill(stage.camera.project(line), ledge, REST)


def _draw_windows(
    stage: Stage, corners: Array, storeys: int, storey: float, heat: float, depth: float
) -> None:
    """A grid of windows on an upright wall given by its four corners."""
    rng, climate, canvas = stage.rng, stage.climate, stage.canvas
    length = float(np.hypot(*(corners[1] - corners[0])[[0, 2]]))
    count = int(np.clip(length / stage.uniform(1.6, 3.6), 1, 9))
    if stage.pixels(1.2, depth) < 2:
        return
    share = stage.uniform(0.45, 0.85)
    dark = stage.uniform(25, 80)
    cool = heat + stage.uniform(-5, 3)
    glass = canvas.part((dark, dark * 1.05, dark * 1.15), cool, depth, coarse=0.35, mottle=0.8)
    bright = stage.uniform(90, 190) if climate.light == "day" else dark
    mirror = canvas.part((bright, bright * 1.03, bright * 1.08), cool - 1.5, depth, coarse=0.3)
    lit_share = {"day": 0.0, "dusk": 0.25, "night": stage.uniform(0, 0.3)}[climate.light]
    strength = float(np.exp(stage.uniform(math.log(0.02), math.log(0.9))))
    lamp = canvas.part(
        (200, 190, 160), heat + 1, depth, coarse=0.5,
        glow=(strength, strength * stage.uniform(0.75, 0.95), strength * stage.uniform(0.4, 0.95)),
    )  # fmt: skip
    bottom, top = stage.uniform(0.2, 0.35), stage.uniform(0.7, 0.9)
    fractions = (np.arange(count)[:, None] + 0.5 + np.array([-share / 2, share / 2])) / count
    shop = stage.chance(0.25)
    grid = np.empty((storeys, count, 4, 3), np.float32)
    grid[:] = corners[0] + fractions[:, [0, 1, 1, 0], None] * (corners[1] - corners[0])
    floors = np.arange(storeys)[:, None, None] * storey
    grid[:, :, :2, 1], grid[:, :, 2:, 1] = floors + bottom * storey, floors + top * storey
    kinds = rng.random((storeys, count))
    if shop:
        grid[0, :, :2, 1] = 0.4
        kinds[0] /= 2
    pixels = canvas.subpixels(stage.camera.project(grid.reshape(-1, 3)))
    contours = pixels.reshape(storeys, count, 4, 2)
    lit = kinds < lit_share
    sky = ~lit & (kinds > 0.75)
    for part, chosen in ((lamp, lit), (mirror, sky), (glass, ~lit & ~sky)):
        if chosen.any():
            canvas.fill_all(list(contours[chosen]), part, REST)


def _leaf_parts(stage: Stage, depth: float) -> int:
    """Register the dark, middle and bright leaves of one tree; the first id."""
    climate = stage.climate
    hue = stage.rng.random()
    if hue < 0.7:
        base = (stage.uniform(38, 72), stage.uniform(62, 100), stage.uniform(20, 46))
    elif hue < 0.9:
        base = (stage.uniform(80, 120), stage.uniform(88, 112), stage.uniform(28, 52))
    else:
        base = (stage.uniform(100, 140), stage.uniform(62, 90), stage.uniform(30, 45))
    heat = climate.leaves + stage.uniform(-0.8, 0.8)
    first = -1
    for factor, extra in ((0.45, -0.3), (0.8, 0.0), (1.2 + 0.3 * climate.sun, 0.5 * climate.sun)):
        part = stage.canvas.part(
            tint(base, factor), heat + extra, depth, fine=0.32, coarse=0.18, mottle=0.5
        )
        first = part if first < 0 else first
    return first


def _stamp_leaves(
    stage: Stage, first: int, x: float, y: float, z: float, half_width: float, half_height: float
) -> None:
    column, row = stage.camera.project_point(x, y, z)
    wide, high = stage.pixels(half_width, z), stage.pixels(half_height, z)
    crowns = foliage()
    sprite = crowns[stage.rng.integers(len(crowns))]
    if stage.chance(0.5):
        sprite = sprite[:, ::-1]
    stage.canvas.stamp((column - wide, row - high, column + wide, row + high), sprite, first)


def draw_tree(stage: Stage, x: float, z: float) -> None:
    """A trunk with a few branches and a crown of two to five clumps; sometimes bare."""
    climate = stage.climate
    bark = stage.uniform(38, 88)
    heat = climate.leaves + stage.uniform(-0.5, 2.5)
    trunk = stage.canvas.part((bark * 1.1, bark, bark * 0.85), heat, z, fine=0.4, coarse=0.35,
                              mottle=0.7)  # fmt: skip
    shadow = stage.canvas.part((bark * 0.65, bark * 0.6, bark * 0.5), heat - 0.4, z, fine=0.4)
    radius, fork = stage.uniform(0.1, 0.4), stage.uniform(2.0, 4.5)
    top = fork + stage.uniform(2, 5)
    lean = stage.uniform(-0.4, 0.4)
    shapes = [
        Shape(points((-radius * 1.5, 0), (radius * 1.5, 0), (radius, fork * 0.3),
                     (lean + radius * 0.8, fork), (lean - radius * 0.8, fork),
                     (-radius, fork * 0.3)), trunk, REST),
        Shape(points((radius * 0.4, 0), (radius * 1.5, 0), (radius, fork * 0.3),
                     (lean + radius * 0.8, fork), (lean + radius * 0.2, fork)), shadow, REST),
    ]  # fmt: skip
    for _ in range(int(stage.rng.integers(2, 6))):
        begin = (lean * 0.8, fork * stage.uniform(0.7, 1.0))
        end = (lean + stage.uniform(-2.2, 2.2), top * stage.uniform(0.8, 1.1))
        shapes.append(Shape(limb(begin, end, radius * 0.6, radius * 0.15), trunk, REST))
    stage.draw(shapes, x, z)
    if stage.chance(0.08):
        return
    first, spread = _leaf_parts(stage, z), stage.uniform(1.4, 3.2)
    for _ in range(int(stage.rng.integers(2, 6))):
        _stamp_leaves(
            stage, first, x + lean + stage.uniform(-0.8, 0.8) * spread,
            top + stage.uniform(-0.6, 1.2), z, spread * stage.uniform(0.7, 1.3),
            stage.uniform(1.2, 2.6),
        )  # fmt: skip


def draw_hedge(stage: Stage, x: float, z: float) -> None:
    """A bush, or a piece of hedge."""
    first = _leaf_parts(stage, z)
    height = stage.uniform(0.4, 1.6)
    _stamp_leaves(stage, first, x, height / 2, z, stage.uniform(0.5, 2.2), height / 2)


def draw_backdrop(stage: Stage) -> None:
    """Far houses and a belt of trees along the horizon."""
    canvas, climate, camera = stage.canvas, stage.climate, stage.camera
    span = 0.8 * camera.width / camera.focal
    for _ in range(int(stage.rng.integers(0, 7))):
        depth = stage.uniform(100, 260)
        x, width = stage.uniform(-span, span) * depth, stage.uniform(10, 40)
        height = stage.uniform(8, 60)
        tone = WALLS[stage.rng.integers(len(WALLS))]
        wall = canvas.part(tone, climate.wall + stage.uniform(-3, 1), depth)
        shapes = [Shape(box(-width / 2, 0, width / 2, height), wall, REST)]
        stage.draw(shapes, x, depth)
        if camera.height > 200:
            corners = np.array(
                [(x - width / 2, 0, depth), (x + width / 2, 0, depth),
                 (x + width / 2, height, depth), (x - width / 2, height, depth)], np.float32,
            )  # fmt: skip
            _draw_windows(stage, corners, min(int(height / 3.5), 12), 3.5, climate.wall, depth)
    if stage.chance(0.85):
        count = int(stage.rng.integers(4, 16))
        for x in stage.rng.uniform(-span, span, count):
            depth = stage.uniform(60, 120)
            first = _leaf_parts(stage, depth)
            height = stage.uniform(4, 16)
            _stamp_leaves(stage, first, float(x) * depth, height / 2, depth,
                          stage.uniform(5, 14), height / 2 + 0.5)  # fmt: skip


def draw_lamp(stage: Stage, x: float, z: float) -> tuple[float, float, float]:
    """A street lamp; returns the world position of its head, which shines at dusk and night."""
    height = stage.uniform(3.5, 7.5)
    tone = stage.uniform(50, 150)
    mast = stage.canvas.part((tone, tone, tone), stage.near_ambient(3), z)
    on = stage.climate.light != "day"
    warm = stage.uniform(0.55, 1.0)
    glow = (6.0, 6.0 * (0.6 + 0.4 * warm), 6.0 * warm * warm) if on else (0.0, 0.0, 0.0)
    head = stage.canvas.part((220, 220, 215), stage.near_ambient() + (18 if on else 2), z,
                             glow=glow)  # fmt: skip
    arm = stage.uniform(-1.2, 1.2)
    size = stage.uniform(0.12, 0.3)
    stage.draw(
        [Shape(limb((0, 0), (0, height), 0.08, 0.05), mast, REST),
         Shape(limb((0, height), (arm, height + 0.2), 0.05, 0.04), mast, REST),
         Shape(ellipse(arm, height + 0.15, size, size * 0.7), head, REST)], x, z,
    )  # fmt: skip
    return x + arm, height, z


def draw_post(stage: Stage, x: float, z: float) -> None:
    """A traffic sign on its pole, a bare pole, or a power pole."""
    kind = stage.rng.choice(["round", "board", "pole"], p=[0.4, 0.3, 0.3])
    tone = stage.uniform(80, 190)
    mast = stage.canvas.part((tone, tone, tone), stage.near_ambient(3), z)
    height = stage.uniform(2.2, 3.2) if kind != "pole" else stage.uniform(6, 10)
    thick = 0.04 if kind != "pole" else stage.uniform(0.08, 0.18)
    shapes = [Shape(limb((0, 0), (0, height), thick, thick * 0.9), mast, REST)]
    if kind != "pole":
        bright = stage.uniform(0.7, 1.0)
        face, inner = (
            stage.canvas.part(tint(SIGNS[index], bright), stage.near_ambient(3), z, fine=0.02)
            for index in stage.rng.permutation(len(SIGNS))[:2]
        )
        size = stage.uniform(0.25, 0.4)
        if kind == "round":
            shapes.append(Shape(ellipse(0, height, size, size), face, REST))
            shapes.append(Shape(ellipse(0, height, size * 0.7, size * 0.7), inner, REST))
        else:
            tall = size * stage.uniform(0.6, 2.2)
            shapes.append(Shape(box(-size, height - tall, size, height + tall), face, REST))
            shapes.append(Shape(box(-size * 0.8, height - tall * 0.2, size * 0.8,
                                    height + tall * 0.3), inner, REST))  # fmt: skip
    stage.draw(shapes, x, z)


def draw_box(stage: Stage, x: float, z: float) -> None:
    """Street furniture: a cabinet, bin, advertising board, or a vending machine that shines."""
    rng = stage.rng
    kind = rng.choice(["cabinet", "bin", "board", "machine"])
    width, height = {
        "cabinet": (stage.uniform(0.3, 0.8), stage.uniform(0.8, 1.6)),
        "bin": (stage.uniform(0.2, 0.4), stage.uniform(0.6, 1.0)),
        "board": (stage.uniform(0.25, 0.5), stage.uniform(0.8, 1.5)),
        "machine": (0.5, 1.83),
    }[str(kind)]
    tone = stage.uniform(0.5, 1.0)
    palette = SIGNS if kind in ("board", "machine") else STONES
    body = palette[rng.integers(len(palette))]
    heat = stage.near_ambient(5, 1.0) + (stage.uniform(1, 5) if kind == "machine" else 0.0)
    side = stage.canvas.part((body[0] * tone, body[1] * tone, body[2] * tone), heat, z, coarse=0.1)
    shapes = [Shape(box(-width, 0, width, height), side, REST)]
    shining = kind == "machine" and stage.climate.light != "day"
    level = stage.uniform(0.1, 1.2) if shining else 0.0
    panel = stage.canvas.part(
        (215, 215, 215), heat + stage.uniform(-3, 2), z, fine=0.15, coarse=0.4,
        glow=(level, level, level * 1.1),
    )  # fmt: skip
    if kind in ("machine", "board"):
        shapes.append(Shape(box(-width * 0.8, height * 0.45, width * 0.8, height * 0.93), panel,
                            REST))  # fmt: skip
    stage.draw(shapes, x, z)
