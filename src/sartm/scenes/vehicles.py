"""The vehicles of synthetic scenes: cars, vans, trucks and buses.

Cars are low solids, of which the sides seen are drawn; windows belong to the car. Bikes are flat
in the plane of their wheels. As in MFNet, wheels and frames are filled in the label, so that the
road seen between spokes counts as bike.

Driven vehicles are warm at tyres, bonnet, grille and exhaust; parked ones are near ambient.
"""

import math
from dataclasses import dataclass

import numpy as np

from sartm.classes import MFNET
from sartm.scenes.canvas import Array, Colour, Shape, Stage, ellipse, place

CAR, BIKE = (MFNET.names.index(name) for name in ("car", "bike"))
PAINTS: tuple[Colour, ...] = (
    (215, 215, 212), (228, 228, 226), (160, 163, 166), (128, 130, 134), (30, 30, 33), (22, 24, 30),
    (66, 68, 72), (40, 58, 112), (130, 26, 30), (168, 150, 118), (150, 190, 205), (36, 70, 52),
    (225, 180, 40), (70, 100, 150), (120, 84, 60),
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
class _View:
    """Which sides of a vehicle the camera sees, and the vehicle's size in metres."""

    body: _Body
    length: float
    height: float
    half: float
    """Half of the width."""
    ahead: float
    """Where the camera is along the vehicle, from its middle."""
    side: float
    """The flank it sees: -1 or 1 across, 0 for neither."""
    above: float

    @property
    def front(self) -> bool:
        """Whether the front is seen."""
        return self.ahead > self.length / 2

    @property
    def rear(self) -> bool:
        """Whether the rear is seen."""
        return self.ahead < -self.length / 2


def draw_car(stage: Stage, x: float, z: float, yaw: float, driven: bool) -> None:
    """A vehicle whose front points along `yaw` (0: to the right, pi / 2: away from the camera)."""
    body = BODIES[str(stage.rng.choice(_KINDS, p=_KIND_SHARES))]
    scale = stage.uniform(0.94, 1.06)
    half = body.width / 2 * scale
    ahead = -x * math.cos(yaw) - z * math.sin(yaw)
    across = x * math.sin(yaw) - z * math.cos(yaw)
    side = 0.0 if abs(across) < half else math.copysign(1.0, across)
    view = _View(
        body, body.length * scale, body.height * scale, half, ahead, side, stage.camera.above
    )
    _cast_car(stage, view, x, z, yaw)
    paint = _CarPaint.mix(stage, z, driven, yaw)
    shapes = [
        *_underside(view, paint), *_hull(view, paint), *_cabin(view, paint),
        *_flank(view, paint), *_cargo(view, paint), *_front(stage, view, paint),
        *_rear(stage, view, paint), *_wheels(view, paint),
    ]  # fmt: skip
    stage.draw(shapes, x, z, yaw)


def _cast_car(stage: Stage, view: _View, x: float, z: float, yaw: float) -> None:
    a, b = view.length / 2, view.half
    corners = np.array([(-a, 0, -b), (a, 0, -b), (a, 0, b), (-a, 0, b)], np.float32)
    plan = place(corners, x, z, yaw)
    if stage.climate.sun > 0.3:
        for corner_x, _, corner_z in plan.tolist():
            stage.cast(corner_x, corner_z, b * 0.5, view.height * 0.6)
    stage.canvas.darken(stage.camera.project(plan), 0.22)


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

        def coat(shade: float, heat: float) -> int:
            factor = tone * shade
            return part(
                (red * factor, green * factor, blue * factor), heat, z, fine=0.02,
                coarse=0.12, mottle=0.5,
            )  # fmt: skip

        sides = [0.82, 0.82]
        turned = math.cos(yaw) * climate.sun_side
        sides[0] += 0.2 * climate.sun * math.sin(yaw) * climate.sun_side
        sides[1] -= 0.2 * climate.sun * math.sin(yaw) * climate.sun_side
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
            side=(coat(sides[0], body), coat(sides[1], body)),
            end=coat(0.88 + 0.12 * climate.sun * turned, body + engine * 0.25),
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
            front_lamp=part((225, 228, 230), body + engine * 0.4, z, glow=front),
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


def _face(part: int, *corners: tuple[float, float, float]) -> Shape:
    return Shape(np.array(corners, np.float32), part, CAR)


def _hull(view: _View, paint: _CarPaint) -> list[Shape]:
    """Bonnet and boot lid: the upper side of the lower body, where the camera looks down on it."""
    tops = _belt_line(view.body, view.height)
    faces = []
    for index in range(7):
        (s0, s1), (w0, w1) = _STATIONS[index : index + 2], _NARROWING[index : index + 2]
        a0, a1 = s0 * view.length, s1 * view.length
        y0, y1 = tops[index : index + 2]
        looking_down = (y0 - y1) * (view.ahead - a0) + (a1 - a0) * (view.above - y0)
        if looking_down > 0:
            b0, b1 = w0 * view.half, w1 * view.half
            part = paint.bonnet if index >= 4 else paint.top
            faces.append(_face(part, (a0, y0, -b0), (a1, y1, -b1), (a1, y1, b1), (a0, y0, b0)))
    return faces


def _cabin(view: _View, paint: _CarPaint) -> list[Shape]:
    """Roof, screens and side windows."""
    body, height = view.body, view.height
    belt = body.belt * height
    foot_rear, roof_rear, roof_front, foot_front = (s * view.length for s in body.cabin)
    low, high = view.half * 0.95, view.half * (0.78 if body.height < 1.9 else 0.92)
    faces = []
    if view.above > height:
        faces.append(_face(paint.top, (roof_rear, height, -high), (roof_front, height, -high),
                           (roof_front, height, high), (roof_rear, height, high)))  # fmt: skip
    for foot, roof, sign in ((foot_rear, roof_rear, -1.0), (foot_front, roof_front, 1.0)):
        leaning = sign * (view.ahead - foot) * (height - belt)
        if leaning + abs(foot - roof) * (view.above - belt) <= 0:
            continue
        for inset, part in ((0.0, paint.end), (0.09, paint.screen)):
            y0, y1 = belt + (height - belt) * inset, height - (height - belt) * inset
            a0, a1 = foot + (roof - foot) * inset, roof + (foot - roof) * inset
            b0, b1 = low * (1 - inset), high * (1 - inset)
            faces.append(_face(part, (a0, y0, -b0), (a0, y0, b0), (a1, y1, b1), (a1, y1, -b1)))
    if view.side:
        wall = _face(
            paint.side[view.side > 0],
            (foot_rear, belt, view.side * low), (foot_front, belt, view.side * low),
            (roof_front, height, view.side * high), (roof_rear, height, view.side * high),
        )  # fmt: skip
        faces += [wall, *_panes(body.panes, paint, wall.outline)]
    return faces


def _panes(count: int, paint: _CarPaint, wall: Array) -> list[Shape]:
    """Side windows in the four corners of a cabin's wall."""
    faces = []
    for index in range(count):
        left, right = (index + 0.06) / count, (index + 0.94) / count
        corners = []
        for t, u in ((left, 0.06), (right, 0.06), (right, 0.86), (left, 0.86)):
            bottom = wall[0] + (wall[1] - wall[0]) * t
            top = wall[3] + (wall[2] - wall[3]) * t
            corners.append(bottom + (top - bottom) * u)
        faces.append(Shape(np.array(corners, np.float32), paint.glass, CAR))
    return faces


def _flank(view: _View, paint: _CarPaint) -> list[Shape]:
    """The side below the windows that is seen, with mirrors and doors."""
    at, mirror = view.body.belt * view.height, view.body.cabin[3] * view.length * 0.85
    glass = paint.end if view.ahead > mirror else paint.dark
    faces = []
    for sign in (-1.0, 1.0):
        inner, outer = sign * view.half, sign * (view.half + 0.18)
        faces.append(_face(glass, (mirror, at, inner), (mirror, at, outer),
                           (mirror, at + 0.14, outer), (mirror, at + 0.14, inner)))  # fmt: skip
    if not view.side:
        return faces
    sill, b = 0.2, view.side * view.half
    stations = list(zip(_STATIONS, _belt_line(view.body, view.height), _NARROWING, strict=True))
    upper = [(s * view.length, y, b * w) for s, y, w in stations]
    lower = [(s * view.length, sill + (0.1 if abs(s) > 0.45 else 0.0), b * w)
             for s, _, w in reversed(stations)]  # fmt: skip
    faces.append(_face(paint.side[view.side > 0], *upper, *lower))
    first, last = -0.4 * view.length, 0.4 * view.length
    faces.append(_face(paint.dark, (first, sill, b), (last, sill, b), (last, sill + 0.09, b),
                       (first, sill + 0.09, b)))  # fmt: skip
    for door in (-0.14, 0.12):
        a = door * view.length
        faces.append(_face(paint.dark, (a, sill, b), (a + 0.015, sill, b), (a + 0.015, at, b),
                           (a, at, b)))  # fmt: skip
    return faces


def _cargo(view: _View, paint: _CarPaint) -> list[Shape]:
    """The box of a truck, behind its cabin."""
    if not view.body.cargo:
        return []
    rear, front, low, high = -0.5 * view.length, 0.17 * view.length, 0.7, view.body.cargo
    b = view.half * 1.08
    faces = []
    if view.side:
        flank = view.side * view.half * 0.9
        faces.append(_face(paint.dark, (rear, 0.35, flank), (front, 0.35, flank),
                           (front, low, flank), (rear, low, flank)))  # fmt: skip
    if view.rear:
        faces.append(_upright(paint.dark, rear, 0.0, (low + 0.35) / 2, b, (low - 0.35) / 2))
    for at, seen in ((front, view.front), (rear, view.rear)):
        if seen:
            faces.append(_face(paint.cargo[1], (at, low, -b), (at, low, b), (at, high, b),
                               (at, high, -b)))  # fmt: skip
    if view.side:
        b *= view.side
        faces.append(_face(paint.cargo[0], (rear, low, b), (front, low, b), (front, high, b),
                           (rear, high, b)))  # fmt: skip
    return faces


def _upright(
    part: int, along: float, across: float, up: float, half_width: float, half: float
) -> Shape:
    """A rectangle that faces along the vehicle, given by its middle."""
    left, right, low, high = across - half_width, across + half_width, up - half, up + half
    return _face(part, (along, low, left), (along, low, right), (along, high, right),
                 (along, high, left))  # fmt: skip


def disc(along: float, across: float, up: float, half_width: float, half: float) -> Array:
    """A wheel as seen: corners of an ellipse."""
    flat = ellipse(across, up, half_width, half, 12)
    column = np.full(len(flat), along, np.float32)
    return np.stack([column, flat[:, 1], flat[:, 0]], axis=1)


def _front(stage: Stage, view: _View, paint: _CarPaint) -> list[Shape]:
    if not view.front:
        return []
    top, at, half = view.body.bonnet * view.height * 0.74, view.length / 2, view.half
    lamp = (half * stage.uniform(0.12, 0.2), stage.uniform(0.06, 0.1))
    faces = [
        _upright(paint.end, at, 0, (0.16 + top) / 2, half * 0.76, (top - 0.16) / 2),
        _upright(paint.dark, at, 0, 0.25, half * 0.72, 0.07),
        _upright(paint.grille, at, 0, top * stage.uniform(0.68, 0.82),
                 half * stage.uniform(0.35, 0.55), stage.uniform(0.06, 0.13)),
        _upright(paint.plate, at, 0, 0.42, 0.16, 0.08),
    ]  # fmt: skip
    for side in (-0.62, 0.62):
        outline = disc(at + 0.01, side * half, top * 0.84, *lamp)
        faces.append(Shape(outline, paint.front_lamp, CAR))
    return faces


def _rear(stage: Stage, view: _View, paint: _CarPaint) -> list[Shape]:
    if not view.rear:
        return []
    top, at, half = view.body.deck * view.height * 0.88, -view.length / 2, view.half
    tall = stage.uniform(0.05, 0.16)
    return [
        _upright(paint.end, at, 0, (0.18 + top) / 2, half * 0.8, (top - 0.18) / 2),
        _upright(paint.dark, at, 0, 0.25, half * 0.78, 0.07),
        _upright(paint.plate, at, 0, top * 0.7, 0.17, 0.08),
        _upright(paint.exhaust, at, half * 0.5, 0.24, 0.05, 0.035),
        *(_upright(paint.rear_lamp, at - 0.01, side * half, top * 0.84, half * 0.14, tall)
          for side in (-0.64, 0.64)),
    ]  # fmt: skip


def _underside(view: _View, paint: _CarPaint) -> list[Shape]:
    """What is seen under the bumpers: the dark underside between the tyres."""
    if not (view.front or view.rear):
        return []
    at = math.copysign(0.44, view.ahead) * view.length
    return [
        _upright(paint.dark, at, 0.0, 0.22, view.half * 0.9, 0.12),
        *(_upright(paint.tyre, at, side * view.half, 0.14, view.half * 0.12, 0.14)
          for side in (-0.84, 0.84)),
    ]  # fmt: skip


def _wheels(view: _View, paint: _CarPaint) -> list[Shape]:
    if not view.side:
        return []
    radius = 0.3 if view.body.height < 2 else 0.4
    faces = []
    for at in (-0.31, 0.32):
        for size, part in (
            (radius * 1.17, paint.dark), (radius, paint.tyre), (radius * 0.62, paint.rim),
        ):  # fmt: skip
            disc = np.full((16, 3), view.side * view.half * 1.01, np.float32)
            disc[:, :2] = ellipse(at * view.length, radius, size, size, 16)
            np.maximum(disc[:, 1], 0, out=disc[:, 1])
            faces.append(Shape(disc, part, CAR))
    return faces
