"""What stands beside a drawn street: buildings, trees, hedges, lamps, posts, boxes."""

import math

import numpy as np

from sartm.scenes.canvas import Array, Colour, Shape, Stage, box, ellipse, foliage, limb, points
from sartm.scenes.street import REST, SIGNS, STONES, WALLS, tint
from sartm.scenes.things import Thing

BOXES: dict[str, Thing] = {
    "cabinet": "utility_cabinet", "bin": "litter_bin", "board": "billboard",
    "machine": "vending_machine",
}  # fmt: skip


def draw_building(stage: Stage, side: float, offset: float, start: float, end: float) -> None:
    """A house front along the road, with its near end wall, windows and perhaps a shop."""
    canvas, climate, rng = stage.canvas, stage.climate, stage.rng
    canvas.begin("building")
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
    stage.canvas.begin("tree")
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
    stage.canvas.begin("bush")
    first = _leaf_parts(stage, z)
    height = stage.uniform(0.4, 1.6)
    _stamp_leaves(stage, first, x, height / 2, z, stage.uniform(0.5, 2.2), height / 2)


def draw_backdrop(stage: Stage) -> None:
    """Far houses and a belt of trees along the horizon."""
    canvas, climate, camera = stage.canvas, stage.climate, stage.camera
    span = 0.8 * camera.width / camera.focal
    canvas.begin("building")
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
        canvas.begin("tree")
        count = int(stage.rng.integers(4, 16))
        for x in stage.rng.uniform(-span, span, count):
            depth = stage.uniform(60, 120)
            first = _leaf_parts(stage, depth)
            height = stage.uniform(4, 16)
            _stamp_leaves(stage, first, float(x) * depth, height / 2, depth,
                          stage.uniform(5, 14), height / 2 + 0.5)  # fmt: skip


def draw_lamp(stage: Stage, x: float, z: float) -> tuple[float, float, float]:
    """A street lamp; returns the world position of its head, which shines at dusk and night."""
    stage.canvas.begin("street_lamp")
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
    stage.canvas.begin("pole")
    tone = stage.uniform(80, 190)
    mast = stage.canvas.part((tone, tone, tone), stage.near_ambient(3), z)
    height = stage.uniform(2.2, 3.2) if kind != "pole" else stage.uniform(6, 10)
    thick = 0.04 if kind != "pole" else stage.uniform(0.08, 0.18)
    shapes = [Shape(limb((0, 0), (0, height), thick, thick * 0.9), mast, REST)]
    if kind != "pole":
        stage.canvas.begin("traffic_sign" if kind == "round" else "sign")
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
    stage.canvas.begin(BOXES[str(kind)])
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
