"""The persons of synthetic scenes: walking, standing, riding (class person).

Skin and clothes lie between the air's temperature and the body's. What is carried belongs to the
person, as in MFNet.
"""

import math
from dataclasses import dataclass

import numpy as np

from sartm.classes import MFNET
from sartm.scenes.canvas import Colour, Shape, Stage, box, ellipse, limb, points

PERSON = MFNET.names.index("person")
BODY_HEAT = 34.0
CLOTHES: tuple[Colour, ...] = (
    (26, 26, 30), (30, 34, 56), (40, 42, 46), (86, 86, 90), (130, 128, 124), (214, 212, 206),
    (190, 176, 150), (112, 82, 58), (64, 74, 52), (150, 38, 42), (48, 84, 146), (120, 150, 190),
    (196, 110, 130), (205, 170, 60), (70, 40, 80), (238, 240, 240),
)  # fmt: skip
TROUSERS: tuple[Colour, ...] = (
    (24, 24, 28), (30, 34, 52), (50, 62, 92), (60, 60, 62), (120, 110, 92), (150, 140, 120),
)  # fmt: skip
SKIN: tuple[Colour, ...] = ((224, 178, 148), (202, 152, 120), (160, 112, 82), (110, 74, 54))


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


def draw_rider(stage: Stage, x: float, z: float, yaw: float, motor: bool) -> None:
    """The person on a bicycle, or on a scooter if `motor`, turned and placed like it."""
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
    lower = np.array((0.0, seat + 0.77 - 1.72), np.float32)
    for shape in _head(outfit, view, long_hair=False):
        shapes.append(Shape(shape.outline * factor + lower, shape.part, PERSON))
    return shapes
