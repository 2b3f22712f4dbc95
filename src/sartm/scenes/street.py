"""What a synthetic street is made of: sky, ground, lines, kerbs and bumps.

Two of the classes lie in the ground: `curve` (the kerb stone along a road) and `bump` (a raised or
paved band across it). Everything else drawn here is unlabeled in MFNet: the setting, and the
distractors.
"""

import math
from itertools import pairwise

import numpy as np

from sartm.classes import MFNET
from sartm.scenes.canvas import Array, Colour, Shape, Stage, ellipse  # fmt: skip

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
    stage.canvas.begin("sky")
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
    canvas.begin("grass" if green else "ground")
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
            canvas.begin("pavement")
            paved = stage.chance(0.6)
            tone = STONES[rng.integers(len(STONES))]
            walk = canvas.part(
                tone, climate.road + stage.uniform(-1.2, 1.0), 0.0, fine=0.12, coarse=0.15,
                paving=stage.uniform(0.08, 0.25) if paved else 0.0, mottle=0.5,
            )  # fmt: skip
            left, right = sorted((side * half, side * (half + stage.sidewalk)))
            canvas.fill(strip(stage, left, right, 1.0, FARTHEST), walk, REST)
    canvas.begin("road")
    grey = stage.uniform(70, 150)
    warm = stage.uniform(-8, 8)
    road = canvas.part(
        (grey + warm, grey, grey - warm + 4), climate.road, 0.0, fine=stage.uniform(0.08, 0.3),
        coarse=stage.uniform(0.03, 0.14), mottle=stage.uniform(0.15, 0.6),
        paving=stage.uniform(0.05, 0.25) if stage.chance(0.15) else 0.0,
    )  # fmt: skip
    canvas.fill(strip(stage, -half, half, 1.0, FARTHEST), road, REST)
    _draw_patches(stage, grey)
    canvas.begin("lane_marking")
    _draw_lines(stage)
    if stage.chance(0.35):
        canvas.begin("crosswalk")
        _draw_crossing(stage, stage.uniform(5, 30))
    if stage.chance(0.3):
        canvas.begin("lane_marking")
        _draw_sign_on_road(stage, stage.uniform(5, 15))
    canvas.begin("manhole")
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
    stage.canvas.begin("pavement")
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
