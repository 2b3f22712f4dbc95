"""The objects of synthetic scenes: cars, persons, bikes, car stops, guardrails and cones.

Every function draws one object as flat parts into the stage's canvas, far parts first. Labels
follow the way MFNet is annotated: windows belong to the car, what is carried to the person, and
wheels, frames and fences are filled, so that the road seen between spokes counts as bike.

Temperatures: skin and clothes lie between the air's and the body's, driven cars are warm at tyres,
bonnet, grille and exhaust, parked ones and everything else are near ambient.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sartm.data.classes import MFNET
from sartm.data.scene_canvas import (
    Array,
    Colour,
    Shape,
    Stage,
    box,
    ellipse,
    limb,
    place,
    points,
    ring,
)  # fmt: skip

CAR, PERSON, BIKE, CAR_STOP, GUARDRAIL, CONE = (
    MFNET.names.index(name)
    for name in ("car", "person", "bike", "car_stop", "guardrail", "color_cone")
)
BODY_HEAT = 34.0

PAINTS: tuple[Colour, ...] = (
    (215, 215, 212), (228, 228, 226), (160, 163, 166), (128, 130, 134), (30, 30, 33), (22, 24, 30),
    (66, 68, 72), (40, 58, 112), (130, 26, 30), (168, 150, 118), (150, 190, 205), (36, 70, 52),
    (225, 180, 40), (70, 100, 150), (120, 84, 60),
)  # fmt: skip
CLOTHES: tuple[Colour, ...] = (
    (26, 26, 30), (30, 34, 56), (40, 42, 46), (86, 86, 90), (130, 128, 124), (214, 212, 206),
    (190, 176, 150), (112, 82, 58), (64, 74, 52), (150, 38, 42), (48, 84, 146), (120, 150, 190),
    (196, 110, 130), (205, 170, 60), (70, 40, 80), (238, 240, 240),
)  # fmt: skip
TROUSERS: tuple[Colour, ...] = (
    (24, 24, 28), (30, 34, 52), (50, 62, 92), (60, 60, 62), (120, 110, 92), (150, 140, 120),
)  # fmt: skip
SKIN: tuple[Colour, ...] = ((224, 178, 148), (202, 152, 120), (160, 112, 82), (110, 74, 54))
CONES: tuple[Colour, ...] = (
    (216, 74, 38), (206, 46, 44), (222, 96, 40), (34, 70, 178), (56, 150, 84), (200, 50, 60),
    (216, 180, 40),
)  # fmt: skip


@dataclass(frozen=True)
class _Body:
    """Proportions of a vehicle: metres, and fractions of its length measured from the middle."""

    length: float
    height: float
    width: float
    belt: float
    """Lower edge of the windows as a fraction of the height."""
    deck: float
    """Height of the boot lid, fraction of the height."""
    bonnet: float
    cabin: tuple[float, float, float, float]
    """Along the car: rear foot, rear roof, front roof, front foot."""
    panes: int = 2
    cargo: float = 0.0
    """Height of a cargo box behind the cabin, metres; 0 without."""


BODIES = {
    "sedan": _Body(4.6, 1.45, 1.75, 0.62, 0.66, 0.62, (-0.42, -0.25, 0.1, 0.27)),
    "hatch": _Body(4.0, 1.5, 1.7, 0.6, 0.62, 0.6, (-0.49, -0.38, 0.12, 0.3)),
    "kei": _Body(3.4, 1.75, 1.48, 0.56, 0.56, 0.56, (-0.49, -0.46, 0.22, 0.38)),
    "wagon": _Body(4.7, 1.52, 1.76, 0.6, 0.6, 0.6, (-0.49, -0.42, 0.1, 0.27), 3),
    "suv": _Body(4.6, 1.72, 1.85, 0.6, 0.6, 0.6, (-0.49, -0.42, 0.12, 0.27), 3),
    "van": _Body(4.7, 1.95, 1.75, 0.52, 0.52, 0.5, (-0.495, -0.475, 0.3, 0.44), 3),
    "truck": _Body(6.0, 2.2, 1.9, 0.55, 0.42, 0.5, (0.2, 0.21, 0.42, 0.49), 1, 2.6),
    "bus": _Body(9.5, 3.0, 2.4, 0.45, 0.45, 0.45, (-0.497, -0.49, 0.47, 0.495), 7),
}
_KINDS = tuple(BODIES)
_KIND_SHARES = (0.24, 0.15, 0.13, 0.12, 0.13, 0.14, 0.06, 0.03)


@dataclass(frozen=True)
class _Face:
    outline: Array
    """(N, 3) along, up, across."""
    outward: tuple[float, float, float]
    part: int


def draw_car(stage: Stage, x: float, z: float, yaw: float, driven: bool) -> None:
    """A vehicle whose front points along `yaw` (0: to the right, pi / 2: away from the camera)."""
    rng = stage.rng
    body = BODIES[str(rng.choice(_KINDS, p=_KIND_SHARES))]
    scale = stage.uniform(0.94, 1.06)
    half = body.width / 2
    plan = place(
        np.array([(a * body.length, 0, b) for a, b in
                  ((-0.5, -half), (0.5, -half), (0.5, half), (-0.5, half))], np.float32),
        x, z, yaw,
    )  # fmt: skip
    stage.canvas.darken(stage.camera.project(plan), 0.22)
    if stage.climate.sun > 0.3:
        for index in range(4):
            stage.cast(float(plan[index, 0]), float(plan[index, 2]), half * 0.5, body.height * 0.6)
    faces = _car_faces(stage, body, scale, z, driven, yaw)
    camera = np.array((0.0, stage.camera.above, 0.0), np.float32)
    shapes = []
    for face in faces:
        centre = place(face.outline.mean(axis=0, keepdims=True), x, z, yaw)[0]
        normal = place(np.array([face.outward], np.float32), 0.0, 0.0, yaw)[0]
        if float(normal @ (camera - centre)) > 0:
            shapes.append(Shape(face.outline, face.part, CAR))
    stage.draw(shapes, x, z, yaw)


def _car_faces(
    stage: Stage, body: _Body, scale: float, z: float, driven: bool, yaw: float
) -> list[_Face]:
    """All faces of a vehicle, in the order of painting."""
    paint = _CarPaint.mix(stage, z, driven, yaw)
    length, height, half = body.length * scale, body.height * scale, body.width / 2 * scale
    sill, belt = 0.2, body.belt * height
    faces = _hull(body, paint, length, height, half, sill)
    faces += _cabin(body, paint, length, height, half, belt)
    faces += _flanks(stage, body, paint, length, height, half, sill)
    if body.cargo:
        faces += _cargo(body, paint, length, half)
    faces += _front(stage, body, paint, length, height, half)
    faces += _rear(stage, body, paint, length, height, half)
    return _underside(paint, length, half) + faces + _wheels(body, paint, length, half)


@dataclass(frozen=True)
class _CarPaint:
    """Part ids of one vehicle."""

    top: int
    bonnet: int
    side: tuple[int, int]
    """The flanks at across < 0 and > 0."""
    end: int
    dark: int
    glass: int
    screen: int
    tyre: int
    rim: int
    grille: int
    plate: int
    front_lamp: int
    rear_lamp: int
    exhaust: int
    cargo: tuple[int, int]

    @staticmethod
    def mix(stage: Stage, z: float, driven: bool, yaw: float) -> "_CarPaint":
        """Draw colours and temperatures of one vehicle."""
        rng, climate, part = stage.rng, stage.climate, stage.canvas.part
        red, green, blue = PAINTS[rng.integers(len(PAINTS))]
        tone = stage.uniform(0.85, 1.1)
        dull = climate.light == "night"
        body = stage.near_ambient(9, 1.2) + (stage.uniform(0, 3) if driven else -0.6 * dull)
        engine = stage.uniform(3, 22) if driven else stage.uniform(-0.5, 1.5)
        tyres = stage.uniform(4, 22) if driven else stage.uniform(-0.5, 2)
        sky_mirror = 0.12 * (climate.sky - climate.air)
        lit = climate.light != "day" and driven

        def coat(shade: float, heat: float, rise: float = 0.0) -> int:
            factor = tone * shade
            return part(
                (red * factor, green * factor, blue * factor), heat, z, fine=0.02,
                coarse=0.12, mottle=0.5, rise=rise, row=stage.camera.horizon,
            )  # fmt: skip

        sides = [0.82, 0.82]
        turned = math.cos(yaw) * climate.sun_side
        sides[0] += 0.2 * climate.sun * math.sin(yaw) * climate.sun_side
        sides[1] -= 0.2 * climate.sun * math.sin(yaw) * climate.sun_side
        rise = stage.uniform(0, 6) / stage.pixels(1.5, z) if driven else 0.0
        # Bare glass mirrors the sky by day and shows a dark inside by night.
        sheen = stage.uniform(40, 150) if climate.light == "day" else stage.uniform(20, 60)
        strength = float(np.exp(stage.uniform(math.log(1.5), math.log(30))))
        white = stage.uniform(0.6, 1.0)
        front = (strength, strength * (0.7 + 0.3 * white), strength * white) if lit else (0.0,) * 3
        braking = stage.uniform(0.25, 2.5)
        rear = (braking, 0.06 * braking, 0.05 * braking) if lit else (0.0, 0.0, 0.0)
        dim = (stage.uniform(22, 40),) * 3
        box_tone = stage.uniform(120, 225)
        return _CarPaint(
            top=coat(1.12, body + sky_mirror * 0.8),
            bonnet=coat(1.05, body + engine * 0.45 + sky_mirror * 0.4),
            side=(coat(sides[0], body, rise), coat(sides[1], body, rise)),
            end=coat(0.88 + 0.12 * climate.sun * turned, body + engine * 0.25, rise),
            dark=part(dim, body + 0.2 * tyres, z),
            glass=part((sheen, sheen * 1.03, sheen * 1.08), body + sky_mirror * 0.6, z, coarse=0.4,
                       fine=0.02),
            screen=part((sheen * 0.9, sheen, sheen * 1.05), body + sky_mirror * 0.6
                        + (stage.uniform(-1, 4) if driven else -0.5), z, coarse=0.45, fine=0.02),
            tyre=part((26, 26, 27), body + tyres, z, fine=0.1, mottle=0.6),
            rim=part((stage.uniform(60, 180),) * 3, body + tyres * stage.uniform(0.2, 1.1), z),
            grille=part((stage.uniform(24, 110),) * 3, body + engine, z, fine=0.2, mottle=1.0),
            plate=part((225, 226, 220), body, z, fine=0.2,
                       glow=(0.03, 0.03, 0.03) if lit else (0.0, 0.0, 0.0)),
            front_lamp=part((225, 228, 230), body + engine * 0.4, z, glow=front),  # type: ignore[arg-type]
            rear_lamp=part((170, 30, 30), body + 1, z, glow=rear),
            exhaust=part((70, 70, 70), body + (stage.uniform(15, 45) if driven else 0), z),
            cargo=(part((box_tone,) * 3, body + stage.uniform(-1, 1), z, coarse=0.15),
                   part((box_tone * 0.85,) * 3, body + stage.uniform(-1, 1), z, coarse=0.15)),
        )  # fmt: skip


_STATIONS = (-0.5, -0.47, -0.38, -0.12, 0.12, 0.36, 0.46, 0.5)
_NARROWING = (0.8, 0.94, 1.0, 1.0, 1.0, 1.0, 0.93, 0.76)


def _belt_line(body: _Body, height: float) -> list[float]:
    """Upper edge of the lower body at each station."""
    deck, belt, bonnet = (value * height for value in (body.deck, body.belt, body.bonnet))
    return [deck * 0.88, deck, max(deck, belt * 0.98), belt, belt, bonnet, bonnet * 0.93,
            bonnet * 0.74]  # fmt: skip


def _hull(
    body: _Body, paint: _CarPaint, length: float, height: float, half: float, sill: float
) -> list[_Face]:
    """Bonnet and boot lid: the upper side of the lower body."""
    tops = _belt_line(body, height)
    faces = []
    for index in range(7):
        (s0, s1), (w0, w1) = _STATIONS[index : index + 2], _NARROWING[index : index + 2]
        y0, y1 = tops[index : index + 2]
        quad = np.array(
            [(s0 * length, y0, -w0 * half), (s1 * length, y1, -w1 * half),
             (s1 * length, y1, w1 * half), (s0 * length, y0, w0 * half)], np.float32,
        )  # fmt: skip
        outward = (-(y1 - y0), (s1 - s0) * length, 0.0)
        faces.append(_Face(quad, outward, paint.bonnet if index >= 4 else paint.top))
    return faces


def _cabin(
    body: _Body, paint: _CarPaint, length: float, height: float, half: float, belt: float
) -> list[_Face]:
    """Roof, screens and side windows."""
    foot_rear, roof_rear, roof_front, foot_front = (s * length for s in body.cabin)
    low, high = half * 0.95, half * 0.78 if body.height < 1.9 else half * 0.92
    faces = []
    for foot, roof, sign, part in (
        (foot_rear, roof_rear, -1.0, paint.screen), (foot_front, roof_front, 1.0, paint.screen),
    ):  # fmt: skip
        outward = (sign * (height - belt), abs(foot - roof), 0.0)
        for inset, fill in ((0.0, paint.end), (0.09, part)):
            y0 = belt + (height - belt) * inset
            y1 = height - (height - belt) * inset
            a0 = foot + (roof - foot) * inset
            a1 = roof + (foot - roof) * inset
            w0, w1 = low * (1 - inset), high * (1 - inset)
            quad = np.array([(a0, y0, -w0), (a0, y0, w0), (a1, y1, w1), (a1, y1, -w1)], np.float32)
            faces.append(_Face(quad, outward, fill))
    for side in (-1.0, 1.0):
        corners = ((foot_rear, belt), (foot_front, belt), (roof_front, height),
                   (roof_rear, height))  # fmt: skip
        outward = (0.0, (low - high) * 0.5, side)
        wall = np.array(
            [(a, y, side * (low if y == belt else high)) for a, y in corners], np.float32
        )
        faces.append(_Face(wall, outward, paint.side[side > 0]))
        faces += _panes(body, paint, wall, outward)
    # The roof bulges a little, so that it shows as a line from the camera's height.
    roof = np.array(
        [(roof_rear, height, -high), (roof_front, height, -high), (roof_front, height, high),
         (roof_rear, height, high)], np.float32,
    )  # fmt: skip
    faces.append(_Face(roof, (0.0, 1.0, 0.0), paint.top))
    return faces


def _panes(
    body: _Body, paint: _CarPaint, wall: Array, outward: tuple[float, float, float]
) -> list[_Face]:
    faces = []
    margin, count = 0.06, body.panes
    for index in range(count):
        left, right = (index / count + margin / 2), ((index + 1) / count - margin / 2)
        corners = []
        for t, u in ((left, 0.06), (right, 0.06), (right, 0.86), (left, 0.86)):
            bottom = wall[0] + (wall[1] - wall[0]) * t
            top = wall[3] + (wall[2] - wall[3]) * t
            corners.append(bottom + (top - bottom) * u)
        faces.append(_Face(np.array(corners, np.float32), outward, paint.glass))
    return faces


def _flanks(
    stage: Stage,
    body: _Body,
    paint: _CarPaint,
    length: float,
    height: float,
    half: float,
    sill: float,
) -> list[_Face]:
    tops = _belt_line(body, height)
    faces = []
    mirror_at = body.cabin[3] * length * 0.85
    for side in (-1.0, 1.0):
        upper = [(s * length, y, side * half * w)
                 for s, y, w in zip(_STATIONS, tops, _NARROWING, strict=True)]  # fmt: skip
        lower = [(s * length, sill + (0.1 if abs(s) > 0.45 else 0.0), side * half * w)
                 for s, w in zip(_STATIONS, _NARROWING, strict=True)]  # fmt: skip
        flank = np.array(upper + lower[::-1], np.float32)
        faces.append(_Face(flank, (0.0, 0.0, side), paint.side[side > 0]))
        skirt = np.array(
            [(s * length, y, side * half) for s, y in
             ((-0.4, sill), (0.4, sill), (0.4, sill + 0.09), (-0.4, sill + 0.09))], np.float32,
        )  # fmt: skip
        faces.append(_Face(skirt, (0.0, 0.0, side), paint.dark))
        y = body.belt * height
        mirror = np.array(
            [(mirror_at, y, side * half), (mirror_at, y, side * (half + 0.18)),
             (mirror_at, y + 0.14, side * (half + 0.18)), (mirror_at, y + 0.14, side * half)],
            np.float32,
        )  # fmt: skip
        faces.append(_Face(mirror, (1.0, 0.0, 0.0), paint.end))
        faces.append(_Face(mirror, (-1.0, 0.0, 0.0), paint.dark))
        for door in (-0.14, 0.12):
            gap = np.array(
                [(door * length, sill, side * half), (door * length + 0.015, sill, side * half),
                 (door * length + 0.015, y, side * half), (door * length, y, side * half)],
                np.float32,
            )  # fmt: skip
            if stage.pixels(1.0, 1.0) > 200:
                faces.append(_Face(gap, (0.0, 0.0, side), paint.dark))
    return faces


def _cargo(body: _Body, paint: _CarPaint, length: float, half: float) -> list[_Face]:
    """The box of a truck, behind its cabin."""
    rear, front, low, high = -0.5 * length, 0.17 * length, 0.7, body.cargo
    half *= 1.08
    faces = [_Face(np.array([(front, low, -half), (front, low, half), (front, high, half),
                             (front, high, -half)], np.float32), (1.0, 0.0, 0.0),
                   paint.cargo[1])]  # fmt: skip
    for side in (-1.0, 1.0):
        wall = np.array([(rear, low, side * half), (front, low, side * half),
                         (front, high, side * half), (rear, high, side * half)],
                        np.float32)  # fmt: skip
        faces.append(_Face(wall, (0.0, 0.0, side), paint.cargo[0]))
    back = np.array([(rear, low, -half), (rear, low, half), (rear, high, half),
                     (rear, high, -half)], np.float32)  # fmt: skip
    faces.append(_Face(back, (-1.0, 0.0, 0.0), paint.cargo[1]))
    return faces


def _upright(along: float, across: float, up: float, half_width: float, half: float) -> Array:
    """A rectangle (4, 3) that faces along the vehicle."""
    return np.array(
        [(along, up - half, across - half_width), (along, up - half, across + half_width),
         (along, up + half, across + half_width), (along, up + half, across - half_width)],
        np.float32,
    )  # fmt: skip


def _disc(along: float, across: float, up: float, half_width: float, half: float) -> Array:
    flat = ellipse(across, up, half_width, half, 12)
    column = np.full(len(flat), along, np.float32)
    return np.stack([column, flat[:, 1], flat[:, 0]], axis=1)


def _front(
    stage: Stage, body: _Body, paint: _CarPaint, length: float, height: float, half: float
) -> list[_Face]:
    top, ahead = body.bonnet * height * 0.74, (1.0, 0.0, 0.0)
    at = length / 2
    middle = (0.16 + top) / 2
    lamp = (half * stage.uniform(0.12, 0.2), stage.uniform(0.06, 0.1))
    faces = [
        _Face(_upright(at, 0, middle, half * 0.76, (top - 0.16) / 2), ahead, paint.end),
        _Face(_upright(at, 0, 0.25, half * 0.72, 0.07), ahead, paint.dark),
        _Face(_upright(at, 0, top * stage.uniform(0.68, 0.82), half * stage.uniform(0.35, 0.55),
                       stage.uniform(0.06, 0.13)), ahead, paint.grille),
        _Face(_upright(at, 0, 0.42, 0.16, 0.08), ahead, paint.plate),
    ]  # fmt: skip
    for side in (-0.62, 0.62):
        outline = _disc(at + 0.01, side * half, top * 0.84, *lamp)
        faces.append(_Face(outline, ahead, paint.front_lamp))
    return faces


def _rear(
    stage: Stage, body: _Body, paint: _CarPaint, length: float, height: float, half: float
) -> list[_Face]:
    top, behind = body.deck * height * 0.88, (-1.0, 0.0, 0.0)
    at = -length / 2
    faces = [
        _Face(_upright(at, 0, (0.18 + top) / 2, half * 0.8, (top - 0.18) / 2), behind, paint.end),
        _Face(_upright(at, 0, 0.25, half * 0.78, 0.07), behind, paint.dark),
        _Face(_upright(at, 0, top * 0.7, 0.17, 0.08), behind, paint.plate),
        _Face(_upright(at, half * 0.5, 0.24, 0.05, 0.035), behind, paint.exhaust),
    ]
    tall = stage.uniform(0.05, 0.16)
    for side in (-0.64, 0.64):
        outline = _upright(at - 0.01, side * half, top * 0.84, half * 0.14, tall)
        faces.append(_Face(outline, behind, paint.rear_lamp))
    return faces


def _underside(paint: _CarPaint, length: float, half: float) -> list[_Face]:
    """What is seen under the bumpers: the dark underside between the tyres."""
    faces = []
    for at, sign in ((0.44 * length, 1.0), (-0.44 * length, -1.0)):
        ends = (sign, 0.0, 0.0)
        faces.append(_Face(_upright(at, 0.0, 0.22, half * 0.9, 0.12), ends, paint.dark))
        for side in (-0.84, 0.84):
            tyre = _upright(at, side * half, 0.14, half * 0.12, 0.14)
            faces.append(_Face(tyre, ends, paint.tyre))
    return faces


def _wheels(body: _Body, paint: _CarPaint, length: float, half: float) -> list[_Face]:
    radius = 0.3 if body.height < 2 else 0.4
    faces = []
    for side in (-1.0, 1.0):
        for at in (-0.31, 0.32):
            for size, part, across in (
                (radius * 1.17, paint.dark, half), (radius, paint.tyre, half * 1.01),
                (radius * 0.62, paint.rim, half * 1.02),
            ):  # fmt: skip
                flat = ellipse(at * length, radius, size, size, 16)
                flat[:, 1] = np.maximum(flat[:, 1], 0.0)
                column = np.full(len(flat), side * across, np.float32)
                disc = np.concatenate([flat, column[:, None]], axis=1)
                faces.append(_Face(disc, (0.0, 0.0, side), part))
    return faces


@dataclass(frozen=True)
class _Outfit:
    """Part ids of one person."""

    skin: int
    hair: int
    top: int
    shade: int
    legs: int
    far_leg: int
    shoes: int
    bag: int

    @staticmethod
    def mix(stage: Stage, z: float) -> "_Outfit":
        """Draw colours and temperatures; thicker clothes show less of the body's heat."""
        rng, part, air = stage.rng, stage.canvas.part, stage.climate.air
        bright = stage.uniform(0.75, 1.1)

        def warm(low: float, high: float) -> float:
            return air + (BODY_HEAT - air) * stage.uniform(low, high)

        def dyed(colour: Colour, factor: float, heat: float) -> int:
            red, green, blue = (value * bright * factor for value in colour)
            return part((red, green, blue), heat, z, fine=0.1, coarse=0.14, mottle=1.0)

        top, legs = CLOTHES[rng.integers(len(CLOTHES))], TROUSERS[rng.integers(len(TROUSERS))]
        if stage.chance(0.12):
            legs = top
        if stage.chance(0.15):
            legs = SKIN[rng.integers(2)]
        cloth, trousers = warm(0.18, 0.58), warm(0.16, 0.5)
        hair: Colour = (34, 28, 26) if stage.chance(0.8) else (120, 100, 84)
        if stage.chance(0.12):
            hair = CLOTHES[rng.integers(len(CLOTHES))]
        return _Outfit(
            skin=dyed(SKIN[rng.integers(len(SKIN))], 0.95, warm(0.75, 0.97)),
            hair=dyed(hair, 1.0, warm(0.4, 0.8)),
            top=dyed(top, 1.0, cloth), shade=dyed(top, 0.72, cloth - 0.8),
            legs=dyed(legs, 1.0, trousers), far_leg=dyed(legs, 0.75, trousers - 0.5),
            shoes=dyed(CLOTHES[rng.integers(len(CLOTHES))], 0.8, warm(0.05, 0.3)),
            bag=dyed(CLOTHES[rng.integers(len(CLOTHES))], 0.9, warm(0.0, 0.15)),
        )  # fmt: skip


def draw_person(stage: Stage, x: float, z: float) -> None:
    """Somebody who walks or stands, seen from the front, the back or the side."""
    outfit = _Outfit.mix(stage, z)
    height = stage.uniform(1.5, 1.86) if stage.chance(0.88) else stage.uniform(0.95, 1.4)
    view = str(stage.rng.choice(["front", "back", "side"], p=[0.33, 0.3, 0.37]))
    mirror = -1.0 if stage.chance(0.5) else 1.0
    shapes = _walker(stage, outfit, view)
    stage.cast(x, z, 0.22, height)
    factor = np.array((height * mirror * stage.uniform(0.92, 1.2), height), np.float32)
    stage.draw([Shape(s.outline * factor, s.part, s.label) for s in shapes], x, z)


def _walker(stage: Stage, outfit: _Outfit, view: str) -> list[Shape]:
    """Shapes of a person of height 1."""
    side = view == "side"
    stride = stage.uniform(0.0, 0.13) if side else stage.uniform(0.0, 0.03)
    lift = stage.uniform(0.0, 0.05)
    hips = 0.02 if side else 0.045
    shapes = []
    carried = stage.rng.random()
    if carried < 0.15 and view != "front":
        pack_x = -0.1 if side else 0.0
        shapes_last = [Shape(ellipse(pack_x, 0.7, 0.075, 0.11, 10), outfit.bag, PERSON)]
    elif carried < 0.3:
        shapes_last = [Shape(box(0.07, 0.42, 0.16, 0.53), outfit.bag, PERSON)]
    else:
        shapes_last = []
    for sign, part in ((-1.0, outfit.far_leg), (1.0, outfit.legs)):
        foot = (sign * (hips + stride) * 0.9, 0.04 + (lift if sign < 0 else 0.0))
        knee = (sign * (hips + stride * 0.45) + (0.02 if side else 0.0), 0.28)
        shapes.append(Shape(limb((sign * hips * 0.9, 0.5), knee, 0.062, 0.042), part, PERSON))
        shapes.append(Shape(limb(knee, foot, 0.042, 0.028), part, PERSON))
        toe = 0.035 if side else 0.0
        shoe = ellipse(foot[0] + toe, foot[1] - 0.018, 0.05 if side else 0.032, 0.022, 8)
        shapes.append(Shape(shoe, outfit.shoes, PERSON))
    shoulder = 0.07 if side else 0.115
    waist, hem = (0.062, 0.085) if side else (0.085, 0.1)
    swing = stage.uniform(0.02, 0.14) if side else stage.uniform(0.0, 0.05)
    arm_x = 0.0 if side else shoulder * 0.98
    far = _arm(outfit, -arm_x, -swing, outfit.shade)
    near = _arm(outfit, arm_x, swing, outfit.top if side else outfit.shade)
    bottom = float(stage.rng.choice([0.47, 0.43, 0.3], p=[0.6, 0.25, 0.15]))
    flare = hem + (0.03 if bottom < 0.4 else 0.0)
    torso = points(
        (-flare, bottom), (flare, bottom), (hem, 0.5), (waist, 0.62), (shoulder, 0.77),
        (shoulder * 0.8, 0.815), (0.03, 0.845), (-0.03, 0.845), (-shoulder * 0.8, 0.815),
        (-shoulder, 0.77), (-waist, 0.62), (-hem, 0.5),
    )  # fmt: skip
    shapes += far
    shapes.append(Shape(limb((0, 0.82), (0, 0.88), 0.032, 0.03), outfit.skin, PERSON))
    shapes.append(Shape(torso, outfit.top, PERSON))
    if stage.chance(0.4) and view == "front":
        shapes.append(Shape(points((-0.03, 0.84), (0.03, 0.84), (0.0, 0.66)), outfit.shade, PERSON))
    shapes += near
    shapes += _head(outfit, view, long_hair=stage.chance(0.3))
    return shapes + shapes_last


def _arm(outfit: _Outfit, shoulder: float, swing: float, part: int) -> list[Shape]:
    outward = 0.02 if shoulder > 0 else -0.02 if shoulder < 0 else 0.0
    elbow = (shoulder + outward + swing * 0.5, 0.63)
    hand = (shoulder + outward + swing * 1.2, 0.49)
    return [
        Shape(limb((shoulder, 0.79), elbow, 0.036, 0.03), part, PERSON),
        Shape(limb(elbow, hand, 0.03, 0.022), part, PERSON),
        Shape(ellipse(hand[0], hand[1] - 0.015, 0.02, 0.026, 8), outfit.skin, PERSON),
    ]


def _head(outfit: _Outfit, view: str, long_hair: bool) -> list[Shape]:
    hair = Shape(ellipse(-0.006 if view == "side" else 0, 0.938, 0.053, 0.064, 12), outfit.hair,
                 PERSON)  # fmt: skip
    shapes = [hair]
    if long_hair:
        shapes.append(Shape(box(-0.05, 0.82, 0.02 if view == "side" else 0.05, 0.93), outfit.hair,
                            PERSON))  # fmt: skip
    if view == "front":
        shapes.append(Shape(ellipse(0, 0.922, 0.041, 0.05, 10), outfit.skin, PERSON))
    elif view == "side":
        shapes.append(Shape(ellipse(0.018, 0.918, 0.034, 0.046, 10), outfit.skin, PERSON))
    return shapes


def draw_bike(
    stage: Stage, x: float, z: float, yaw: float, rider: bool, motor: bool = False
) -> None:
    """A bicycle, or a scooter if `motor`, in the plane given by `yaw`; its rider is a person."""
    stage.cast(x, z, 0.5 * abs(math.cos(yaw)) + 0.1, 0.8)
    shapes = _scooter(stage, z, rider) if motor else _bicycle(stage, z)
    stage.draw(shapes, x, z, yaw)
    if rider:
        _draw_rider(stage, x, z, yaw, motor)


def _bicycle(stage: Stage, z: float) -> list[Shape]:
    part, ambient = stage.canvas.part, stage.near_ambient
    colour = PAINTS[stage.rng.integers(len(PAINTS))]
    frame = part(colour, ambient(4), z, fine=0.02)
    rubber = part((28, 28, 28), ambient(3), z)
    metal_tone = stage.uniform(90, 210)
    metal = part((metal_tone,) * 3, ambient(3), z, fine=0.05)
    radius, base = stage.uniform(0.27, 0.35), stage.uniform(0.5, 0.56)
    rear, front = (-base, radius), (base, radius)
    seat, crank, head = (-0.2, stage.uniform(0.78, 0.95)), (-0.05, 0.27), (0.33, 0.82)
    grip = (0.28, stage.uniform(0.95, 1.08))
    cover = points(rear, crank, front, head, (head[0], 0.9), seat)
    shapes = [Shape(ellipse(*hub, radius + 0.02, radius + 0.02, 20), None, BIKE)
              for hub in (rear, front)]  # fmt: skip
    shapes.append(Shape(cover, None, BIKE))
    fine = stage.pixels(1.0, z) > 35
    for hub in (rear, front):
        shapes.append(Shape(ring(*hub, radius + 0.02, radius - 0.02), rubber, BIKE))
        # Seen edge-on, a wheel is a bar as wide as its tyre.
        edge = np.array(
            [(hub[0], 0, -0.022), (hub[0], 0, 0.022), (hub[0], 2 * radius, 0.022),
             (hub[0], 2 * radius, -0.022)], np.float32,
        )  # fmt: skip
        shapes.append(Shape(edge, rubber, BIKE))
        for turn in range(5 if fine else 0):
            angle = turn * math.pi / 5 + 0.2
            reach = (radius * math.cos(angle), radius * math.sin(angle))
            spoke = limb((hub[0] - reach[0], hub[1] - reach[1]),
                         (hub[0] + reach[0], hub[1] + reach[1]), 0.003, 0.003)  # fmt: skip
            shapes.append(Shape(spoke, metal, BIKE))
    low = stage.chance(0.5)
    tubes = [(rear, crank), (rear, (seat[0] + 0.02, seat[1] - 0.1)), (crank, seat),
             (crank, (head[0], head[1] - 0.12)), (front, grip)]  # fmt: skip
    if not low:
        tubes.append(((seat[0], seat[1] - 0.12), head))
    shapes += [Shape(limb(begin, end, 0.02, 0.018), frame, BIKE) for begin, end in tubes]
    shapes.append(Shape(limb((seat[0] - 0.12, seat[1]), (seat[0] + 0.1, seat[1] - 0.01),
                             0.04, 0.025), rubber, BIKE))  # fmt: skip
    shapes += _fittings(stage, metal, rubber, grip, radius, base)
    return shapes


def _fittings(
    stage: Stage, metal: int, rubber: int, grip: tuple[float, float], radius: float, base: float
) -> list[Shape]:
    """Handlebar, basket, mudguards and a child's seat."""
    bar = np.array(
        [(grip[0], grip[1] - 0.02, -0.27), (grip[0], grip[1] - 0.02, 0.27),
         (grip[0] - 0.06, grip[1] + 0.02, 0.27), (grip[0] - 0.06, grip[1] + 0.02, -0.27)],
        np.float32,
    )  # fmt: skip
    shapes = [Shape(bar, metal, BIKE), Shape(limb((grip[0] - 0.1, grip[1]), grip, 0.02, 0.02),
                                             rubber, BIKE)]  # fmt: skip
    if stage.chance(0.5):
        for depth in (0.14, -0.14):
            basket = np.array(
                [(grip[0] + 0.05, grip[1] - 0.27, depth), (grip[0] + 0.3, grip[1] - 0.25, depth),
                 (grip[0] + 0.38, grip[1], depth), (grip[0] + 0.02, grip[1], depth)], np.float32,
            )  # fmt: skip
            shapes.append(Shape(basket, metal if depth > 0 else rubber, BIKE))
    if stage.chance(0.6):
        for hub in (-base, base):
            guard = [(hub + (radius + 0.04) * math.cos(a), radius + (radius + 0.04) * math.sin(a))
                     for a in np.linspace(0.5, 2.7, 7)]  # fmt: skip
            inner = [(hub + (radius + 0.015) * math.cos(a), radius + (radius + 0.015) * math.sin(a))
                     for a in np.linspace(2.7, 0.5, 7)]  # fmt: skip
            shapes.append(Shape(np.array(guard + inner, np.float32), metal, BIKE))
    if stage.chance(0.2):
        shapes.append(Shape(box(-base - 0.08, 0.72, -base + 0.2, 1.0), rubber, BIKE))
    return shapes


def _scooter(stage: Stage, z: float, driven: bool) -> list[Shape]:
    part = stage.canvas.part
    heat = stage.near_ambient(6)
    engine = stage.uniform(8, 35) if driven else stage.uniform(0, 2)
    red, green, blue = PAINTS[stage.rng.integers(len(PAINTS))]
    body = part((red, green, blue), heat, z, fine=0.02, coarse=0.15)
    shade = part((red * 0.6, green * 0.6, blue * 0.6), heat + 0.3 * engine, z)
    rubber = part((26, 26, 26), heat + (6 if driven else 0), z)
    motor = part((90, 90, 92), heat + engine, z, fine=0.2)
    lit = driven and stage.climate.light != "day"
    lamp = part((220, 220, 210), heat, z, glow=(6.0, 5.6, 4.8) if lit else (0.0, 0.0, 0.0))
    tail = part((160, 30, 30), heat, z, glow=(1.0, 0.06, 0.05) if lit else (0.0, 0.0, 0.0))
    radius = stage.uniform(0.2, 0.3)
    shapes = []
    for hub in (-0.6, 0.6):
        shapes.append(Shape(ellipse(hub, radius, radius, radius, 16), rubber, BIKE))
        edge = np.array([(hub, 0, -0.06), (hub, 0, 0.06), (hub, 2 * radius, 0.06),
                         (hub, 2 * radius, -0.06)], np.float32)  # fmt: skip
        shapes.append(Shape(edge, rubber, BIKE))
        shapes.append(Shape(ellipse(hub, radius, radius * 0.5, radius * 0.5, 10), motor, BIKE))
    shapes += [
        Shape(box(-0.4, 0.22, 0.1, 0.45), motor, BIKE),
        Shape(points((-0.85, 0.55), (-0.3, 0.4), (0.1, 0.3), (0.35, 0.32), (0.2, 0.5),
                     (-0.15, 0.72), (-0.8, 0.75)), body, BIKE),
        Shape(limb((0.62, 0.3), (0.36, 1.02), 0.07, 0.05), body, BIKE),
        Shape(points((0.3, 0.4), (0.45, 0.4), (0.5, 0.95), (0.36, 0.98)), shade, BIKE),
        Shape(limb((-0.75, 0.78), (-0.1, 0.76), 0.06, 0.06), rubber, BIKE),
        Shape(np.array([(0.38, 0.98, -0.32), (0.38, 0.98, 0.32), (0.36, 1.04, 0.32),
                        (0.36, 1.04, -0.32)], np.float32), rubber, BIKE),
        Shape(np.array([(0.45, 0.45, -0.2), (0.45, 0.45, 0.2), (0.42, 0.95, 0.16),
                        (0.42, 0.95, -0.16)], np.float32), shade, BIKE),
        Shape(_disc(0.52, 0.0, 0.85, 0.08, 0.08), lamp, BIKE),
        Shape(_disc(-0.86, 0.0, 0.6, 0.08, 0.05), tail, BIKE),
    ]  # fmt: skip
    if stage.chance(0.3):
        shapes.append(Shape(box(-0.95, 0.78, -0.5, 1.15), shade, BIKE))
    return shapes


def _draw_rider(stage: Stage, x: float, z: float, yaw: float, motor: bool) -> None:
    outfit = _Outfit.mix(stage, z - 0.05)
    if abs(math.cos(yaw)) < 0.45:
        shapes = _rider_from_ahead(outfit, "front" if math.sin(yaw) < 0 else "back", motor)
        stage.draw(shapes, x, z - 0.05)
        return
    seat = (-0.25, 0.78 if motor else 0.95)
    lean = stage.uniform(0.1, 0.3)
    neck = (seat[0] + lean, seat[1] + 0.53)
    turn = stage.uniform(0, 2 * math.pi)
    hand = (0.3, 1.02)
    elbow = ((neck[0] + hand[0]) / 2, (neck[1] + hand[1]) / 2 - 0.12)
    shapes = []
    for phase, part in ((turn, outfit.far_leg), (turn + math.pi, outfit.legs)):
        foot = (
            (0.15, 0.32)
            if motor
            else (-0.05 + 0.16 * math.cos(phase), 0.29 + 0.16 * math.sin(phase))
        )
        knee = (0.18, (seat[1] + foot[1]) / 2 + 0.08)
        shapes += [Shape(limb(seat, knee, 0.1, 0.07), part, PERSON),
                   Shape(limb(knee, foot, 0.07, 0.045), part, PERSON),
                   Shape(ellipse(foot[0] + 0.06, foot[1] - 0.02, 0.1, 0.04, 8), outfit.shoes,
                         PERSON)]  # fmt: skip
    shapes += [
        Shape(limb((seat[0], seat[1] - 0.05), neck, 0.14, 0.16), outfit.top, PERSON),
        Shape(limb((neck[0], neck[1] - 0.05), elbow, 0.06, 0.05), outfit.shade, PERSON),
        Shape(limb(elbow, hand, 0.05, 0.035), outfit.shade, PERSON),
        Shape(ellipse(*hand, 0.035, 0.035, 8), outfit.skin, PERSON),
        Shape(ellipse(neck[0] + 0.06, neck[1] + 0.2, 0.1, 0.12, 12), outfit.hair, PERSON),
        Shape(ellipse(neck[0] + 0.1, neck[1] + 0.17, 0.065, 0.085, 10), outfit.skin, PERSON),
    ]
    stage.draw(shapes, x, z, yaw)


def _rider_from_ahead(outfit: _Outfit, view: str, motor: bool) -> list[Shape]:
    seat = 0.75 if motor else 0.92
    shapes = []
    for sign, part in ((-1.0, outfit.far_leg), (1.0, outfit.legs)):
        knee, foot = (sign * 0.15, seat - 0.25), (sign * 0.12, 0.22 if sign > 0 else 0.36)
        shapes += [Shape(limb((sign * 0.08, seat), knee, 0.1, 0.08), part, PERSON),
                   Shape(limb(knee, foot, 0.07, 0.05), part, PERSON)]  # fmt: skip
        arm = [(sign * 0.2, seat + 0.5), (sign * 0.28, seat + 0.28), (sign * 0.25, 1.02)]
        shapes += [Shape(limb(arm[0], arm[1], 0.06, 0.05), outfit.shade, PERSON),
                   Shape(limb(arm[1], arm[2], 0.05, 0.04), outfit.shade, PERSON)]  # fmt: skip
    torso = points((-0.16, seat - 0.06), (0.16, seat - 0.06), (0.21, seat + 0.45),
                   (0.12, seat + 0.56), (-0.12, seat + 0.56), (-0.21, seat + 0.45))  # fmt: skip
    shapes.append(Shape(torso, outfit.top, PERSON))
    factor = np.array((1.72, 1.72), np.float32)
    lower = np.array((0.0, seat + 0.85 - 1.72), np.float32)
    for shape in _head(outfit, view, long_hair=False):
        shapes.append(Shape(shape.outline * factor + lower, shape.part, PERSON))
    return shapes


def draw_cone(stage: Stage, x: float, z: float, colour: Colour, height: float) -> None:
    """A traffic cone on its foot, with or without bright bands."""
    heat = stage.near_ambient(5, 0.4)
    fade = stage.uniform(0.75, 1.1)
    red, green, blue = (value * fade for value in colour)
    body = stage.canvas.part((red, green, blue), heat, z, fine=0.04, coarse=0.1)
    dark = stage.canvas.part((red * 0.62, green * 0.62, blue * 0.62), heat - 0.3, z, fine=0.04)
    white = stage.canvas.part((225, 224, 220), heat - 0.3, z, fine=0.05)
    foot, top = 0.24 * height, 0.035 * height

    def half(fraction: float) -> float:
        return foot + (top - foot) * fraction

    shapes = [
        Shape(box(-foot * 1.45, 0, foot * 1.45, 0.06 * height), dark, CONE),
        Shape(points((-foot, 0.05 * height), (foot, 0.05 * height), (top, height), (-top, height)),
              body, CONE),
        Shape(points((foot * 0.35, 0.05 * height), (foot, 0.05 * height), (top, height)), dark,
              CONE),
    ]  # fmt: skip
    bands = [] if stage.chance(0.35) else [(0.3, 0.48), (0.62, 0.78)]
    if len(bands) and stage.chance(0.4):
        bands = bands[:1]
    for low, high in bands:
        shapes.append(Shape(points((-half(low), low * height), (half(low), low * height),
                                   (half(high), high * height), (-half(high), high * height)),
                            white, CONE))  # fmt: skip
    stage.cast(x, z, foot, height * 0.6)
    stage.draw(shapes, x, z)


CarStopKind = Literal["bollard", "stone", "fence", "hoop", "wheel_stop", "block", "pole"]


def draw_car_stop(stage: Stage, x: float, z: float, yaw: float, kind: CarStopKind) -> None:
    """What keeps cars out: bollards, stones, plastic fences, hoops, wheel stops, blocks, poles."""
    shapes = {
        "bollard": _bollard, "stone": _stone, "fence": _fence, "hoop": _hoop,
        "wheel_stop": _wheel_stop, "block": _block, "pole": _pole,
    }[kind](stage, z)  # fmt: skip
    stage.cast(x, z, 0.25, 0.5)
    stage.draw(shapes, x, z, yaw if kind in ("fence", "hoop", "wheel_stop", "block") else 0.0)


def _bollard(stage: Stage, z: float) -> list[Shape]:
    heat = stage.near_ambient(5)
    tone = float(stage.rng.choice([28, 40, 90, 170]))
    body = stage.canvas.part((tone,) * 3, heat, z, fine=0.04, coarse=0.15)
    lit = stage.canvas.part((tone * 1.5,) * 3, heat + 0.4, z, fine=0.04)
    band = stage.canvas.part((225, 222, 205), heat, z)
    half, height = stage.uniform(0.06, 0.15), stage.uniform(0.6, 0.95)
    return [
        Shape(box(-half, 0, half, height), body, CAR_STOP),
        Shape(box(-half * 0.6, 0, -half * 0.1, height), lit, CAR_STOP),
        Shape(box(-half, height * 0.74, half, height * 0.86), band, CAR_STOP),
        Shape(ellipse(0, height, half, half * 0.35, 10), body, CAR_STOP),
    ]


def _stone(stage: Stage, z: float) -> list[Shape]:
    heat = stage.near_ambient(4) + stage.uniform(-0.5, 1)
    tone = stage.uniform(95, 175)
    body = stage.canvas.part((tone * 1.02, tone, tone * 0.96), heat, z, fine=0.2, coarse=0.25)
    cap_colour: Colour = (214, 110, 44) if stage.chance(0.5) else (tone * 1.1,) * 3
    cap = stage.canvas.part(cap_colour, heat, z, fine=0.1)
    half, height = stage.uniform(0.14, 0.28), stage.uniform(0.45, 0.8)
    return [
        Shape(points((-half * 1.1, 0), (half * 1.1, 0), (half, height), (-half, height)), body,
              CAR_STOP),
        Shape(box(-half * 1.15, height * 0.86, half * 1.15, height * 1.02), cap, CAR_STOP),
    ]  # fmt: skip


def _fence(stage: Stage, z: float) -> list[Shape]:
    heat = stage.near_ambient(3)
    tone = stage.uniform(150, 225)
    tint = stage.uniform(0.9, 1.05)
    body = stage.canvas.part((tone, tone * tint, tone * tint), heat, z, fine=0.04, coarse=0.1)
    foot = stage.canvas.part((tone * 0.8,) * 3, heat, z)
    half, height = stage.uniform(0.5, 0.95), stage.uniform(0.7, 1.0)
    shapes = [Shape(box(-half, 0.16, half, height), None, CAR_STOP),
              Shape(box(-half, height - 0.14, half, height), body, CAR_STOP),
              Shape(box(-half, 0.16, half, 0.26), body, CAR_STOP)]  # fmt: skip
    count = int(stage.rng.integers(5, 11))
    for index in range(count + 1):
        at = -half + 2 * half * index / count
        shapes.append(Shape(box(at - 0.03, 0.16, at + 0.03, height), body, CAR_STOP))
    for end in (-half * 0.85, half * 0.85):
        shapes.append(Shape(box(end - 0.05, 0.0, end + 0.05, 0.2), body, CAR_STOP))
        flat = np.array([(end - 0.08, 0.02, -0.3), (end + 0.08, 0.02, -0.3), (end + 0.08, 0.1, 0.3),
                         (end - 0.08, 0.1, 0.3)], np.float32)  # fmt: skip
        shapes.append(Shape(flat, foot, CAR_STOP))
    return shapes


def _hoop(stage: Stage, z: float) -> list[Shape]:
    heat = stage.near_ambient(5)
    tone = stage.uniform(110, 215)
    colour: Colour = (214, 172, 44) if stage.chance(0.3) else (tone,) * 3
    pipe = stage.canvas.part(colour, heat, z, fine=0.02, coarse=0.1)
    half, height = stage.uniform(0.3, 0.9), stage.uniform(0.55, 0.9)
    bars = [
        ((-half, 0.0), (-half, height)),
        ((half, 0.0), (half, height)),
        ((-half, height), (half, height)),
        ((-half, height * 0.5), (half, height * 0.5)),
    ]
    shapes = [Shape(box(-half, 0, half, height), None, CAR_STOP)]
    return shapes + [Shape(limb(a, b, 0.03, 0.03), pipe, CAR_STOP) for a, b in bars]


def _slab(half: float, deep: float, low: float, high: float) -> tuple[Array, Array]:
    """Front and top of a low block."""
    front = np.array([(-half, low, -deep), (half, low, -deep), (half * 0.97, high, -deep * 0.7),
                      (-half * 0.97, high, -deep * 0.7)], np.float32)  # fmt: skip
    top = np.array([(-half * 0.97, high, -deep * 0.7), (half * 0.97, high, -deep * 0.7),
                    (half * 0.97, high, deep * 0.7), (-half * 0.97, high, deep * 0.7)],
                   np.float32)  # fmt: skip
    return front, top


def _wheel_stop(stage: Stage, z: float) -> list[Shape]:
    heat = stage.near_ambient(5) + stage.uniform(-0.5, 0.5)
    tone = stage.uniform(115, 190)
    face = stage.canvas.part((tone * 0.75,) * 3, heat, z, fine=0.15, coarse=0.15)
    top = stage.canvas.part((tone * 1.1,) * 3, heat + 0.3, z, fine=0.15, coarse=0.15)
    front, upper = _slab(stage.uniform(0.28, 0.9), 0.1, 0.0, stage.uniform(0.1, 0.18))
    return [Shape(upper, top, CAR_STOP), Shape(front, face, CAR_STOP)]


def _block(stage: Stage, z: float) -> list[Shape]:
    heat = stage.near_ambient(4)
    yellow = stage.chance(0.5)
    colour: Colour = (214, 172, 44) if yellow else (stage.uniform(130, 200),) * 3
    face = stage.canvas.part(colour, heat, z, fine=0.1, coarse=0.15)
    upper_colour = (colour[0] * 1.15, colour[1] * 1.15, colour[2] * 1.15)
    top = stage.canvas.part(upper_colour, heat + 0.5, z, fine=0.1)
    black = stage.canvas.part((40, 40, 40), heat + 0.3, z)
    half, high = stage.uniform(0.4, 1.3), stage.uniform(0.3, 0.8)
    front, upper = _slab(half, 0.22, 0.0, high)
    shapes = [Shape(upper, top, CAR_STOP), Shape(front, face, CAR_STOP)]
    if yellow:
        for at in np.arange(-half, half - 0.2, 0.45):
            stripe = np.array([(at, 0, -0.22), (at + 0.2, 0, -0.22), (at + 0.32, high, -0.16),
                               (at + 0.12, high, -0.16)], np.float32)  # fmt: skip
            stripe[:, 0] = stripe[:, 0].clip(-half, half)
            shapes.append(Shape(stripe, black, CAR_STOP))
    return shapes


def _pole(stage: Stage, z: float) -> list[Shape]:
    heat = stage.near_ambient(4)
    colour = CONES[stage.rng.integers(3)]
    body = stage.canvas.part(colour, heat, z, fine=0.03)
    white = stage.canvas.part((228, 226, 220), heat, z)
    half, height = stage.uniform(0.035, 0.06), stage.uniform(0.65, 1.0)
    shapes = [Shape(ellipse(0, 0.03, half * 2.6, 0.04, 10), body, CAR_STOP),
              Shape(box(-half, 0, half, height), body, CAR_STOP)]  # fmt: skip
    for low in (0.4, 0.7):
        shapes.append(Shape(box(-half, low * height, half, (low + 0.14) * height), white,
                            CAR_STOP))  # fmt: skip
    return shapes


GuardrailKind = Literal["pipe", "beam", "iron", "lattice"]


def draw_guardrail(
    stage: Stage,
    start: tuple[float, float],
    end: tuple[float, float],
    kind: GuardrailKind,
    tone: float,
) -> None:
    """One field of a guardrail between two ground points (x, z), with its posts."""
    length = math.hypot(end[0] - start[0], end[1] - start[1])
    yaw = math.atan2(end[1] - start[1], end[0] - start[0])
    z = (start[1] + end[1]) / 2
    heat = stage.near_ambient(6, 0.3)
    rusty = kind == "iron" and tone < 110
    colour = (tone * 1.2, tone * 0.8, tone * 0.7) if rusty else (tone,) * 3
    steel = stage.canvas.part(colour, heat, z, fine=0.03, coarse=0.1)
    dark = stage.canvas.part((colour[0] * 0.7, colour[1] * 0.7, colour[2] * 0.7), heat, z)
    height = {"pipe": 0.8, "beam": 0.75, "iron": 1.0, "lattice": 1.1}[kind]
    bars = {
        "pipe": (0.32, 0.76), "beam": (0.62,), "iron": (0.12, 0.96),
        "lattice": (0.1, 0.45, 0.78, 1.06),
    }[kind]  # fmt: skip
    thick = {"pipe": 0.035, "beam": 0.15, "iron": 0.03, "lattice": 0.025}[kind]
    low = 0.4 if kind == "beam" else 0.08
    shapes = [Shape(box(0, low, length, height), None, GUARDRAIL)]
    for bar in bars:
        shapes.append(Shape(box(0, bar - thick, length, bar + thick), steel, GUARDRAIL))
        if kind == "beam":
            shapes.append(Shape(box(0, bar - 0.03, length, bar + 0.03), dark, GUARDRAIL))
    step = {"pipe": length, "beam": length, "iron": 0.14, "lattice": 0.5}[kind]
    width = 0.05 if step == length else 0.02
    for at in np.arange(0, length + 1e-3, step):
        post = box(at - width, 0 if width > 0.03 else bars[0], at + width, height)
        shapes.append(Shape(post, steel, GUARDRAIL))
    stage.draw(shapes, start[0], start[1], yaw)
