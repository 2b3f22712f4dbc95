"""What stands where in a drawn street: houses, greenery, cars, persons and small things."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple, get_args

import numpy as np

from sartm.scenes.bikes import draw_bike
from sartm.scenes.canvas import Camera, Canvas, Stage
from sartm.scenes.conditions import (
    choose_light,
    draw_climate,
    draw_place,
    draw_weather,
    place_lights,
)
from sartm.scenes.light import Lights, Weather
from sartm.scenes.objects import (
    CONES,
    CarStopKind,
    GuardrailKind,
    draw_car_stop,
    draw_cone,
    draw_guardrail,
)
from sartm.scenes.persons import draw_person
from sartm.scenes.street import draw_bump, draw_corner, draw_ground, draw_kerb, draw_sky
from sartm.scenes.surroundings import (
    draw_backdrop,
    draw_box,
    draw_building,
    draw_hedge,
    draw_lamp,
    draw_post,
    draw_tree,
)
from sartm.scenes.vehicles import draw_car

_NEAREST = 0.5
"""Metres: what has come closer to the camera has passed it."""


class Item(NamedTuple):
    """Something that stands in the scene."""

    x: float
    z: float
    """Metres; `z` also orders the drawing."""
    reach: float
    """Half of its width in metres, generously: what lies outside the picture is not drawn."""
    draw: Callable[[Stage, float, float], None]
    """Called with a stage, x and z."""
    plan: tuple[float, float] = (0.4, 0.4)
    """Metres of ground it takes, across and along the view; nothing stands inside a car."""
    is_car: bool = False
    goes_on: bool = False
    """Whether it is one length of a thing that goes on in the next one: no instance of its own."""


def compose(
    rng: np.random.Generator, condition: str, size: tuple[int, int], moment: float = 0.0
) -> tuple[Stage, Lights, Weather]:
    """Choose the street and its weather and draw everything into a new canvas.

    `moment` seconds later the same people walk and the same cars drive elsewhere.
    """
    height, width = size
    light = choose_light(rng, condition)
    view = (width + height * 4 / 3) / 2
    camera = Camera(
        width, height,
        focal=view * float(np.exp(rng.uniform(math.log(0.75), math.log(1.7)))),
        horizon=height * float(np.clip(rng.normal(0.47, 0.06), 0.3, 0.62)),
        roll=float(rng.normal(0, 0.012)), above=float(rng.uniform(0.95, 1.75)),
    )  # fmt: skip
    stage = Stage(
        Canvas(height, width), camera, draw_climate(rng, light, condition), rng,
        ego=float(rng.uniform(-2.2, 2.2)), heading=float(rng.normal(0, 0.14)),
        bend=float(rng.normal(0, 0.0016)), half_road=float(rng.uniform(2.0, 5.0)),
        sidewalk=float(rng.choice([0.0, 1.0, 1.0, 1.0])) * float(rng.uniform(1.2, 4.0)),
    )  # fmt: skip
    draw_sky(stage)
    draw_backdrop(stage)
    draw_ground(stage)
    _draw_flat_classes(stage)
    lamps: list[tuple[float, float, float]] = []
    items = [
        *_buildings(stage), *_greenery(stage), *_clutter(stage, lamps), *_cars(stage),
        *_persons(stage), *_bikes(stage), *_car_stops(stage), *_guardrails(stage), *_cones(stage),
    ]  # fmt: skip
    items = _clear_cars(items)
    seeds = rng.integers(0, 2**63, len(items))
    items = [_move(item, int(seed), moment) for seed, item in zip(seeds, items, strict=True)]
    numbered = zip(range(1, len(items) + 1), seeds, items, strict=True)
    for number, seed, item in sorted(numbered, key=lambda entry: -entry[2].z):
        if item.z >= _NEAREST and _is_in_view(camera, item):
            stage.canvas.instance = 0 if item.goes_on else number
            # Each object has its own stream, so that one left out does not change the others.
            item.draw(replace(stage, rng=np.random.default_rng(seed)), item.x, item.z)
    return stage, place_lights(stage, condition, tuple(lamps)), draw_weather(rng, condition)


def _move(item: Item, seed: int, moment: float) -> Item:
    """An item some seconds later: who walks crosses, what is driven or ridden follows its front."""
    if not moment:
        return item
    draw = np.random.default_rng([seed, 1])
    told = item.draw.keywords if isinstance(item.draw, partial) else {}
    if item.draw is draw_person:
        speed, angle = draw.uniform(0.7, 1.6), draw.choice([0.0, math.pi]) + draw.normal(0, 0.3)
    elif told.get("driven") or told.get("rider"):
        speed, angle = draw.uniform(2, 9) if told.get("driven") else draw.uniform(2, 5), told["yaw"]
    else:
        return item
    way = speed * moment
    return item._replace(x=item.x + way * math.cos(angle), z=item.z + way * math.sin(angle))


def _clear_cars(items: list[Item]) -> list[Item]:
    """Without the cars that would stand in another car, and without what would stand in a car."""
    cars: list[Item] = []

    def is_free(item: Item) -> bool:
        return not any(
            2 * abs(item.x - car.x) < item.plan[0] + car.plan[0]
            and 2 * abs(item.z - car.z) < item.plan[1] + car.plan[1]
            for car in cars
        )

    for item in items:
        if item.is_car and is_free(item):
            cars.append(item)
    return [item for item in items if not item.is_car and is_free(item)] + cars


def _is_in_view(camera: Camera, item: Item) -> bool:
    half = 0.5 * camera.width / camera.focal * (item.z + item.reach) + 0.02 * item.z
    return abs(item.x) - item.reach < half


def _depth(stage: Stage, near: float, far: float) -> float:
    """A distance in metres; near and far places fill the picture alike."""
    return float(np.exp(stage.uniform(math.log(near), math.log(far))))


def _draw_flat_classes(stage: Stage) -> None:
    """Kerbs and bumps."""
    if stage.chance(0.34):
        draw_bump(stage, _depth(stage, 3.5, 24))
    if stage.chance(0.12):
        draw_corner(stage, _depth(stage, 8, 40))
    for side in (-1.0, 1.0):
        if not stage.chance(0.5):
            continue
        start = 1.0 if stage.chance(0.7) else _depth(stage, 3, 20)
        end = start * stage.uniform(2, 5) if stage.chance(0.3) else stage.uniform(20, 120)
        draw_kerb(stage, side, start, max(end, start + 1))


def _buildings(stage: Stage) -> list[Item]:
    items: list[Item] = []
    for side in (-1.0, 1.0):
        if not stage.chance(0.75):
            continue
        offset = stage.half_road + stage.sidewalk + stage.uniform(0.5, 8)
        start = stage.uniform(3, 25)
        while start < 90:
            end = start + stage.uniform(8, 26)
            if stage.chance(0.8):
                x = stage.lateral(side * offset, end)
                house = partial(_draw_building, side=side, offset=offset, start=start)
                reach = 20.0 + abs(stage.heading) * (end - start)
                items.append(Item(x, end, reach, house, (0.0, 0.0)))
            start = end + stage.uniform(0, 8)
    return items


def _draw_building(
    stage: Stage, x: float, z: float, side: float, offset: float, start: float
) -> None:
    draw_building(stage, side, offset, start, z)


def _greenery(stage: Stage) -> list[Item]:
    items: list[Item] = []
    edge = stage.half_road + stage.sidewalk
    for side in (-1.0, 1.0):
        if stage.chance(0.75):
            spacing, depth = stage.uniform(4, 11), stage.uniform(4, 14)
            offset = edge + stage.uniform(-0.6, 3.0)
            while depth < 75:
                if stage.chance(0.85):
                    x = stage.lateral(side * offset, depth) + stage.uniform(-0.5, 0.5)
                    items.append(Item(x, depth, 6.5, draw_tree))
                depth += spacing * stage.uniform(0.7, 1.4)
        if stage.chance(0.55):
            offset, depth = edge + stage.uniform(0.3, 2), stage.uniform(4, 15)
            for _ in range(int(stage.rng.integers(3, 14))):
                x = stage.lateral(side * offset, depth)
                items.append(Item(x, depth, 2.5, draw_hedge))
                depth += stage.uniform(0.7, 3)
    return items


def _clutter(stage: Stage, lamps: list[tuple[float, float, float]]) -> list[Item]:
    items: list[Item] = []
    edge = stage.half_road + min(0.6, stage.sidewalk)

    def shine(stage: Stage, x: float, z: float) -> None:
        lamps.append(draw_lamp(stage, x, z))

    if stage.chance(0.85):
        depth, side = stage.uniform(5, 25), float(stage.rng.choice([-1.0, 1.0]))
        for _ in range(int(stage.rng.integers(1, 7))):
            x = stage.lateral(side * edge, depth)
            # A lamp beside the picture still lights the road.
            items.append(Item(x, depth, 15.0, shine))
            depth += stage.uniform(8, 25)
            side = -side if stage.chance(0.5) else side
    for draw, most in ((draw_post, 5), (draw_box, 4)):
        for _ in range(int(stage.rng.integers(0, most))):
            depth = _depth(stage, 6, 50)
            side = float(stage.rng.choice([-1.0, 1.0]))
            beyond = stage.uniform(0.2, 1 + stage.sidewalk)
            x = stage.lateral(side * (stage.half_road + beyond), depth)
            items.append(Item(x, depth, 1.0, draw))
    return items


def _cars(stage: Stage) -> list[Item]:
    items: list[Item] = []
    half = stage.half_road

    def add(x: float, depth: float, yaw: float, driven: bool) -> None:
        cosine, sine = abs(math.cos(yaw)), abs(math.sin(yaw))
        plan = (4.8 * cosine + 1.9 * sine, 4.8 * sine + 1.9 * cosine)
        car = partial(draw_car, yaw=yaw, driven=driven)
        items.append(Item(x, depth, 5.5, car, plan, is_car=True))

    if stage.chance(0.6):
        for _ in range(int(stage.rng.integers(1, 4))):
            depth = _depth(stage, 8, 70)
            ahead = stage.chance(0.5)
            # Traffic keeps left: cars ahead are seen from the rear, oncoming ones from the front.
            offset = (-0.45 if ahead else 0.45) * half
            yaw = stage.along(depth) + (0.0 if ahead else math.pi)
            add(stage.lateral(offset, depth), depth, yaw + stage.uniform(-0.06, 0.06), True)
    if stage.chance(0.4):
        side, depth = float(stage.rng.choice([-1.0, 1.0])), _depth(stage, 7, 25)
        offset = side * (half + stage.uniform(-0.9, 1.2))
        turned = stage.chance(0.5) * math.pi
        for _ in range(int(stage.rng.integers(1, 6))):
            add(
                stage.lateral(offset, depth), depth, stage.along(depth) + turned, stage.chance(0.15)
            )
            depth += stage.uniform(5.2, 8)
    if stage.chance(0.3):
        for _ in range(int(stage.rng.integers(1, 3))):
            depth = _depth(stage, 8, 45)
            yaw = stage.uniform(0, 2 * math.pi)
            add(draw_place(stage, depth), depth, yaw, stage.chance(0.6))
    if stage.chance(0.15):
        # Parked side by side, as on a parking lot, with wheel stops in front.
        depth, x = _depth(stage, 10, 25), stage.uniform(-8, 2)
        yaw = stage.along(depth) + stage.chance(0.5) * math.pi
        for _ in range(int(stage.rng.integers(2, 6))):
            add(x, depth, yaw, stage.chance(0.1))
            stop = partial(draw_car_stop, yaw=0.0, kind="wheel_stop")
            items.append(Item(x, depth - 3.2, 1.5, stop))
            x += stage.uniform(2.3, 2.9)
    return items


def _persons(stage: Stage) -> list[Item]:
    items: list[Item] = []
    for _ in range(int(stage.rng.choice([0, 1, 2, 3, 4, 6], p=[0.1, 0.2, 0.25, 0.2, 0.15, 0.1]))):
        depth = _depth(stage, 5.5, 55)
        x = draw_place(stage, depth)
        for _ in range(int(stage.rng.choice([1, 2, 3, 5], p=[0.6, 0.22, 0.12, 0.06]))):
            at_x, at_z = x + stage.uniform(-1, 1), depth + stage.uniform(-0.4, 0.4)
            items.append(Item(at_x, at_z, 0.8, draw_person))
            x += stage.uniform(-0.4, 0.8)
    return items


def _bikes(stage: Stage) -> list[Item]:
    items: list[Item] = []

    def add(x: float, depth: float, yaw: float, rider: bool, motor: bool) -> None:
        bike = partial(draw_bike, yaw=yaw, rider=rider, motor=motor)
        items.append(Item(x, depth, 1.2, bike))

    for _ in range(int(stage.rng.choice([0, 1, 2, 3], p=[0.4, 0.3, 0.18, 0.12]))):
        depth = _depth(stage, 5.5, 40)
        yaw = stage.uniform(0, 2 * math.pi)
        if stage.chance(0.5):
            yaw = stage.along(depth) + stage.chance(0.5) * math.pi + stage.uniform(-0.2, 0.2)
        add(draw_place(stage, depth), depth, yaw, stage.chance(0.65), stage.chance(0.22))
    if stage.chance(0.36):
        side, depth = float(stage.rng.choice([-1.0, 1.0])), _depth(stage, 4, 16)
        offset = side * (stage.half_road + stage.uniform(-0.4, 1.6))
        pitch, turn = stage.uniform(0.4, 0.8), stage.uniform(-0.5, 0.5)
        for _ in range(int(stage.rng.integers(3, 14))):
            x = stage.lateral(offset, depth) + stage.uniform(-0.12, 0.12)
            lean = turn + stage.uniform(-0.15, 0.15) + stage.chance(0.3) * math.pi
            add(x, depth, lean, False, stage.chance(0.06))
            depth += pitch
    if stage.chance(0.1):
        # A rack seen along its bikes: each from the front or rear, side by side.
        depth, x = _depth(stage, 7, 20), 0.0
        x = draw_place(stage, depth)
        turn = math.pi / 2 + stage.uniform(-0.5, 0.5)
        for _ in range(int(stage.rng.integers(3, 10))):
            add(x, depth + stage.uniform(-0.1, 0.1), turn, False, False)
            x += stage.uniform(0.35, 0.6)
    return items


def _car_stops(stage: Stage) -> list[Item]:
    items: list[Item] = []
    kinds = get_args(CarStopKind)
    shares = (0.28, 0.16, 0.2, 0.1, 0.1, 0.08, 0.08)

    def add(x: float, depth: float, yaw: float, kind: CarStopKind) -> None:
        items.append(Item(x, depth, 1.5, partial(draw_car_stop, yaw=yaw, kind=kind)))

    for _ in range(int(stage.rng.choice([0, 1, 2], p=[0.42, 0.42, 0.16]))):
        kind = kinds[int(stage.rng.choice(len(kinds), p=shares))]
        depth = _depth(stage, 4, 30)
        count, pitch = int(stage.rng.integers(1, 7)), stage.uniform(1.2, 2.6)
        if kind in ("fence", "block", "hoop"):
            pitch = max(pitch, 2.0)
        if stage.chance(0.45):
            x = draw_place(stage, depth) - count * pitch / 2
            tilt = stage.uniform(-0.3, 0.3)
            for index in range(count):
                add(x + index * pitch, depth + index * pitch * tilt, tilt, kind)
            continue
        side = float(stage.rng.choice([-1.0, 1.0]))
        offset = side * (stage.half_road + stage.uniform(-0.3, 0.8))
        for _ in range(count):
            yaw = stage.along(depth) + (stage.uniform(-0.2, 0.2) if kind == "fence" else 0.0)
            add(stage.lateral(offset, depth), depth, yaw, kind)
            depth += pitch
    return items


def _guardrails(stage: Stage) -> list[Item]:
    if not stage.chance(0.14):
        return []
    items: list[Item] = []
    kinds = get_args(GuardrailKind)
    kind: GuardrailKind = kinds[int(stage.rng.choice(4, p=[0.4, 0.25, 0.2, 0.15]))]
    tone = stage.uniform(60, 220)
    pitch = 2.0
    if stage.chance(0.3):
        depth = _depth(stage, 9, 30)
        x, count, tilt = draw_place(stage, depth), int(stage.rng.integers(2, 8)), 0.0
        tilt = stage.uniform(-0.2, 0.2)
        for index in range(count):
            begin = (x + index * pitch, depth + index * tilt)
            end = (begin[0] + pitch, begin[1] + tilt)
            field = partial(draw_guardrail, end=end, kind=kind, tone=tone)
            items.append(Item(*begin, 2.5, field, goes_on=True))
        return items
    side = float(stage.rng.choice([-1.0, 1.0]))
    offset = side * (stage.half_road + stage.uniform(-0.2, 0.9))
    depth = _depth(stage, 3, 18)
    for _ in range(int(stage.rng.integers(4, 22))):
        begin = (stage.lateral(offset, depth), depth)
        end = (stage.lateral(offset, depth + pitch), depth + pitch)
        field = partial(draw_guardrail, end=end, kind=kind, tone=tone)
        items.append(Item(*begin, 2.5, field, goes_on=True))
        depth += pitch
    return items


def _cones(stage: Stage) -> list[Item]:
    items: list[Item] = []
    for _ in range(int(stage.rng.choice([0, 1, 2, 3], p=[0.48, 0.32, 0.13, 0.07]))):
        colour = CONES[stage.rng.integers(len(CONES))]
        height = stage.uniform(0.45, 0.9)
        depth, count = _depth(stage, 3.5, 26), int(stage.rng.choice([1, 2, 3, 5, 8]))
        x, step_x, step_z = (
            draw_place(stage, depth),
            stage.uniform(-1, 1),
            stage.uniform(0.2, 2.2),
        )
        for _ in range(count):
            items.append(Item(x, depth, 0.5, partial(draw_cone, colour=colour, height=height)))
            x, depth = x + step_x, depth + step_z
    return items
