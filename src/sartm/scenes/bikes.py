"""Bicycles and scooters, with and without riders."""

import math

import numpy as np

from sartm.scenes.canvas import Shape, Stage, box, ellipse, limb, points, ring
from sartm.scenes.persons import draw_rider
from sartm.scenes.vehicles import BIKE, PAINTS, disc


def draw_bike(
    stage: Stage, x: float, z: float, yaw: float, rider: bool, motor: bool = False
) -> None:
    """A bicycle, or a scooter if `motor`, in the plane given by `yaw`; its rider is a person."""
    stage.cast(x, z, 0.5 * abs(math.cos(yaw)) + 0.1, 0.8)
    shapes = _scooter(stage, z, rider) if motor else _bicycle(stage, z)
    stage.draw(shapes, x, z, yaw)
    if rider:
        draw_rider(stage, x, z, yaw, motor)


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
    fine = stage.pixels(1.0, z) > 60
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
        Shape(disc(0.52, 0.0, 0.85, 0.08, 0.08), lamp, BIKE),
        Shape(disc(-0.86, 0.0, 0.6, 0.08, 0.05), tail, BIKE),
    ]  # fmt: skip
    if stage.chance(0.3):
        shapes.append(Shape(box(-0.95, 0.78, -0.5, 1.15), shade, BIKE))
    return shapes
