"""The small classes of synthetic scenes: traffic cones, car stops and guardrails.

All are near ambient temperature: mostly, RGB alone tells them apart. As in MFNet, the gaps of
fences and rails are filled in the label.
"""

import math
from typing import Literal

import numpy as np

from sartm.classes import MFNET
from sartm.scenes.canvas import Array, Colour, Shape, Stage, box, ellipse, limb, points

CAR_STOP, GUARDRAIL, CONE = (
    MFNET.names.index(name) for name in ("car_stop", "guardrail", "color_cone")
)
CONES: tuple[Colour, ...] = (
    (216, 74, 38), (206, 46, 44), (222, 96, 40), (34, 70, 178), (56, 150, 84), (200, 50, 60),
    (216, 180, 40),
)  # fmt: skip


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
    stage: Stage, x: float, z: float, end: tuple[float, float], kind: GuardrailKind, tone: float
) -> None:
    """One field of a guardrail from (x, z) to the ground point `end`, with its posts."""
    length = math.hypot(end[0] - x, end[1] - z)
    yaw = math.atan2(end[1] - z, end[0] - x)
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
    stage.draw(shapes, x, z, yaw)
