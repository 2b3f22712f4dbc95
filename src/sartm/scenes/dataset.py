"""Draws RGB-thermal street scenes with exact labels: for demos, tests and pretraining.

A scene is composed here (which street, which weather, what stands where), drawn part by part with
scene_street, scene_vehicles, scene_persons and scene_objects, and turned into images by
scene_sensors. It depends on nothing but the seed and the options.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np
import numpy.typing as npt

from sartm.classes import MFNET
from sartm.errors import InputError
from sartm.files import write_atomic
from sartm.io.labels import encode_label
from sartm.scenes.canvas import Camera, Canvas, Climate, Stage
from sartm.scenes.objects import (
    CONES,
    CarStopKind,
    GuardrailKind,
    draw_car_stop,
    draw_cone,
    draw_guardrail,
)  # fmt: skip
from sartm.scenes.persons import draw_person
from sartm.scenes.sensors import (
    Lights,
    RgbCamera,
    ThermalCamera,
    Weather,
    add_dazzle,
    add_thermal_noise,
    expose,
    gather_fields,
    light_scene,
    misalign,
    radiate,
    show_thermal,
    smoke_opacity,
    take_rgb,
)  # fmt: skip
from sartm.scenes.street import (
    draw_backdrop,
    draw_box,
    draw_building,
    draw_bump,
    draw_corner,
    draw_ground,
    draw_hedge,
    draw_kerb,
    draw_lamp,
    draw_post,
    draw_sky,
    draw_tree,
)  # fmt: skip
from sartm.scenes.vehicles import draw_bike, draw_car

SUFFIXES = {"day": "D", "dusk": "U", "night": "N", "fog": "F", "smoke": "S", "glare": "G"}
"""Condition -> last letter of a pair's name in a written data set."""
CONDITIONS = tuple(SUFFIXES)
_SHARES = (0.32, 0.1, 0.32, 0.08, 0.08, 0.1)
SMALLEST = 64
LARGEST = 8192


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


@dataclass(frozen=True)
class SceneOptions:
    """What kind of scene to draw, and how large."""

    condition: str = "random"
    """day, dusk, night, fog, smoke, glare, or random."""
    size: tuple[int, int] = (480, 640)
    """Height and width in pixels."""
    misregistration: float = 0.0
    """The most by which a thermal pixel may lie off its RGB pixel, in pixels."""
    thermal: Literal["display", "celsius"] = "display"
    """What `write_dataset` stores: the 8-bit display image or float32 degrees."""

    def __post_init__(self) -> None:
        if self.condition not in (*CONDITIONS, "random"):
            raise InputError(
                f"no scene condition {self.condition!r}; choose random or one of "
                f"{', '.join(CONDITIONS)}"
            )
        if not all(SMALLEST <= side <= LARGEST for side in self.size):
            raise InputError(
                f"scenes are {SMALLEST} to {LARGEST} pixels high and wide, found size "
                f"{self.size[0]}x{self.size[1]}; 480x640 is usual"
            )
        if not 0 <= self.misregistration <= min(self.size) / 4:
            raise InputError(
                f"misregistration is 0 to a quarter of the shorter side in pixels, found "
                f"{self.misregistration:g} for {self.size[0]}x{self.size[1]}"
            )
        if self.thermal not in ("display", "celsius"):
            raise InputError(f"thermal is display or celsius, found {self.thermal!r}")


@dataclass(frozen=True)
class Scene:
    """One drawn pair with its ground truth."""

    rgb: npt.NDArray[np.uint8]
    """(H, W, 3)."""
    thermal: npt.NDArray[np.uint8]
    """(H, W): what a thermal camera's display shows."""
    celsius: npt.NDArray[np.float32]
    """(H, W): the apparent temperatures behind `thermal`, noise included."""
    label: npt.NDArray[np.uint8]
    """(H, W): ids of `sartm.classes.MFNET`, aligned with `rgb`."""
    condition: str


def draw_scene(seed: int, options: SceneOptions = SceneOptions()) -> Scene:
    """Draw the scene that belongs to a seed (any integer from 0).

    The same seed and options give the same pixels, in any process. Size and misregistration do
    not change what is in the scene; a seed drawn `random` equals the condition it happened to get.

    Raises:
        InputError: the seed is negative.
    """
    if seed < 0:
        raise InputError(f"a scene's seed is an integer from 0, found {seed}")
    condition = options.condition
    if condition == "random":
        condition = str(np.random.default_rng([seed, 0]).choice(CONDITIONS, p=_SHARES))
    rng = np.random.default_rng([seed, 1 + CONDITIONS.index(condition)])
    stage, lights, weather = _compose(rng, condition, options.size)
    sensors = np.random.default_rng([seed, 100])
    rgb_camera = _rgb_camera(sensors, condition, stage.climate.light)
    thermal_camera = _thermal_camera(sensors)
    fields = gather_fields(stage)
    smoke = smoke_opacity(stage, fields, weather) if weather.plumes else None
    exposed = expose(rgb_camera, light_scene(stage, fields, lights, weather))
    if smoke is not None:
        tone = rgb_camera.brightness**2 * stage.uniform(0.15, 2.2)
        exposed += smoke[..., None] * (np.float32(tone) - exposed)
    add_dazzle(stage, lights, exposed)
    rgb = take_rgb(sensors, rgb_camera, exposed)
    celsius = radiate(stage, fields, weather, smoke, thermal_camera)
    if options.misregistration:
        celsius = misalign(np.random.default_rng([seed, 101]), celsius, options.misregistration)
    celsius = add_thermal_noise(sensors, celsius, thermal_camera)
    thermal = show_thermal(stage.climate, celsius, thermal_camera)
    return Scene(rgb, thermal, celsius, stage.canvas.label_map(), condition)


def _compose(
    rng: np.random.Generator, condition: str, size: tuple[int, int]
) -> tuple[Stage, Lights, Weather]:
    """Choose the street and its weather and draw everything into a new canvas."""
    height, width = size
    light = _light(rng, condition)
    view = (width + height * 4 / 3) / 2
    camera = Camera(
        width, height,
        focal=view * float(np.exp(rng.uniform(math.log(0.75), math.log(1.7)))),
        horizon=height * float(np.clip(rng.normal(0.47, 0.06), 0.3, 0.62)),
        roll=float(rng.normal(0, 0.012)), above=float(rng.uniform(0.95, 1.75)),
    )  # fmt: skip
    stage = Stage(
        Canvas(height, width), camera, _climate(rng, light, condition), rng,
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
    for seed, item in sorted(zip(seeds, items, strict=True), key=lambda pair: -pair[1].z):
        if _is_in_view(camera, item):
            # Each object has its own stream, so that one left out does not change the others.
            item.draw(replace(stage, rng=np.random.default_rng(seed)), item.x, item.z)
    return stage, _lights(stage, condition, tuple(lamps)), _weather(rng, condition)


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


def _light(rng: np.random.Generator, condition: str) -> str:
    if condition in ("day", "dusk", "night"):
        return condition
    shares = {"fog": (0.6, 0.15, 0.25), "smoke": (0.55, 0.1, 0.35), "glare": (0.35, 0.2, 0.45)}
    return str(rng.choice(["day", "dusk", "night"], p=shares[condition]))


def _climate(rng: np.random.Generator, light: str, condition: str) -> Climate:
    air = float(rng.uniform(3, 26) if light == "day" else rng.uniform(-3, 23))
    sun = 0.0
    if light == "day" and condition != "fog" and rng.random() < 0.55:
        sun = float(rng.uniform(0.3, 1.0))
    if condition == "glare" and light == "day":
        sun = float(rng.uniform(0.6, 1.0))
    clear = sun > 0 or rng.random() < 0.4
    store = float(rng.uniform(0, 4)) if light != "day" else 0.0
    return Climate(
        light=light, air=air, sun=sun, sun_side=float(rng.uniform(-1, 1)),
        sky=air - float(rng.uniform(14, 40) if clear else rng.uniform(1, 10)),
        road=air + float(rng.uniform(-1.5, 2)) + store + sun * float(rng.uniform(2, 9)),
        verge=air + float(rng.uniform(-2.5, 1)) + sun * float(rng.uniform(0, 4)),
        wall=air + float(rng.uniform(-1.5, 2)) + store + sun * float(rng.uniform(0, 4)),
        leaves=air + float(rng.uniform(-1.2, 1.0)) + sun * float(rng.uniform(0, 2)),
    )  # fmt: skip


def _lights(stage: Stage, condition: str, lamps: tuple[tuple[float, float, float], ...]) -> Lights:
    light = stage.climate.light
    warm = stage.uniform(-0.06, 0.06)
    if light == "day":
        level = 1.0
        tint = (1 + warm, 1.0, 1 - warm)
        lamps = ()
    elif light == "dusk":
        level = stage.uniform(0.1, 0.4)
        tint = (0.95 + warm, 0.97, 1.1 - warm)
    else:
        level = float(np.exp(stage.uniform(math.log(0.0008), math.log(0.03))))
        tint = (0.9 + warm, 1.05, 0.95 - warm)
    own = 0.0
    if stage.chance({"day": 0.0, "dusk": 0.2, "night": 0.55}[light]):
        own = float(np.exp(stage.uniform(math.log(0.03), math.log(0.6))))
    ambient = (level * tint[0], level * tint[1], level * tint[2])
    return Lights(lamps, ambient, own, _dazzle(stage) if condition == "glare" else ())


def _dazzle(stage: Stage) -> tuple[tuple[float, float, float, float], ...]:
    """The sun low above the street, or headlights that come towards the camera."""
    width, height = stage.camera.width, stage.camera.height
    column = stage.uniform(0.1, 0.9) * width
    if stage.climate.light != "night":
        row = min(stage.camera.horizon, height * 0.55) - stage.uniform(-0.02, 0.4) * height
        return ((column, row, stage.uniform(0.05, 0.12) * height, stage.uniform(2, 8)),)
    sources = []
    for _ in range(int(stage.rng.integers(1, 4))):
        depth = float(np.exp(stage.uniform(math.log(6), math.log(30))))
        x = _in_view(stage, depth)
        apart = stage.pixels(0.65, depth)
        below = stage.camera.horizon + stage.pixels(stage.camera.above - 0.65, depth)
        middle = stage.camera.width / 2 + stage.pixels(x, depth)
        size = stage.uniform(0.1, 0.25) * apart + stage.uniform(0.012, 0.03) * height
        strength = stage.uniform(2, 12)
        for side in (-apart, apart):
            sources.append((middle + side, below, size, strength))
    return tuple(sources)


def _weather(rng: np.random.Generator, condition: str) -> Weather:
    if condition == "fog":
        visibility = float(np.exp(rng.uniform(math.log(18), math.log(110))))
        return Weather(visibility=visibility, thermal_share=float(rng.uniform(0.05, 0.3)))
    if condition == "smoke":
        return Weather(plumes=int(rng.integers(2, 6)), thermal_share=float(rng.uniform(0.02, 0.2)))
    if rng.random() < 0.2:
        return Weather(visibility=float(np.exp(rng.uniform(math.log(400), math.log(4000)))))
    return Weather()


def _rgb_camera(rng: np.random.Generator, condition: str, light: str) -> RgbCamera:
    aim = {"day": (0.27, 0.52), "dusk": (0.17, 0.42), "night": (0.03, 0.17)}[light]
    brightness = float(rng.uniform(*aim))
    if condition in ("fog", "smoke"):
        brightness *= float(rng.uniform(1.0, 1.5))
    dark = light == "night"
    green = float(rng.uniform(1.0, 1.2) if dark else rng.uniform(0.97, 1.07))
    sharp = rng.random()
    return RgbCamera(
        brightness=brightness,
        balance=(float(rng.uniform(0.8, 1.15)), green, float(rng.uniform(0.75, 1.2))),
        saturation=float(rng.uniform(0.5, 1.15)),
        contrast=float(rng.uniform(-0.15, 0.7)),
        blur=float(rng.uniform(-0.6, 0) if sharp < 0.15 else rng.uniform(0.45, 1.5)),
        bloom=max(0.0, float(rng.uniform(-0.3, 0.4) if light == "day" else rng.uniform(0.3, 1.0))),
        noise=float(rng.uniform(0.5, 5.0) if dark else rng.uniform(0.3, 2.5)),
        vignette=max(0.0, float(rng.uniform(-0.4, 0.45))),
        quality=int(rng.integers(40, 96)) if rng.random() < 0.35 else 0,
    )


def _thermal_camera(rng: np.random.Generator) -> ThermalCamera:
    display = str(rng.choice(["dark", "percentile", "linear", "equalised"],
                             p=[0.62, 0.2, 0.12, 0.06]))  # fmt: skip
    low, high = {
        "dark": (rng.uniform(0.1, 6), rng.uniform(99.4, 99.98)),
        "percentile": (rng.uniform(0.2, 3), rng.uniform(98.5, 99.9)),
        "linear": (rng.uniform(4, 16), rng.uniform(14, 34)),
        "equalised": (rng.uniform(0.2, 2), rng.uniform(99, 99.9)),
    }[display]
    dark = display == "dark"
    return ThermalCamera(
        blur=float(rng.uniform(0.5, 1.5)),
        noise=float(np.exp(rng.uniform(math.log(0.03), math.log(0.25)))),
        pattern=float(np.exp(rng.uniform(math.log(0.02), math.log(0.2)))),
        display=display, low=float(low), high=float(high),
        middle=float(np.exp(rng.uniform(math.log(0.035), math.log(0.14)))) if dark
        else float(rng.uniform(0.15, 0.4)),
        detail=float(rng.uniform(0, 1.2)) if dark else max(0.0, float(rng.uniform(-0.5, 0.6))),
    )  # fmt: skip


def _depth(stage: Stage, near: float, far: float) -> float:
    """A distance in metres; near and far places fill the picture alike."""
    return float(np.exp(stage.uniform(math.log(near), math.log(far))))


def _in_view(stage: Stage, depth: float) -> float:
    """World x somewhere in the picture at a depth, between the house fronts where possible."""
    half = 0.52 * stage.camera.width / stage.camera.focal * depth
    edge = stage.half_road + stage.sidewalk + 1
    left = max(-half, stage.lateral(-edge, depth))
    right = min(half, stage.lateral(edge, depth))
    return stage.uniform(left, right) if left < right else stage.uniform(-half, half)


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
            add(_in_view(stage, depth), depth, yaw, stage.chance(0.6))
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
        x = _in_view(stage, depth)
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
        add(_in_view(stage, depth), depth, yaw, stage.chance(0.65), stage.chance(0.22))
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
        x = _in_view(stage, depth)
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
            x = _in_view(stage, depth) - count * pitch / 2
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
        x, count, tilt = _in_view(stage, depth), int(stage.rng.integers(2, 8)), 0.0
        tilt = stage.uniform(-0.2, 0.2)
        for index in range(count):
            begin = (x + index * pitch, depth + index * tilt)
            end = (begin[0] + pitch, begin[1] + tilt)
            field = partial(draw_guardrail, end=end, kind=kind, tone=tone)
            items.append(Item(*begin, 2.5, field))
        return items
    side = float(stage.rng.choice([-1.0, 1.0]))
    offset = side * (stage.half_road + stage.uniform(-0.2, 0.9))
    depth = _depth(stage, 3, 18)
    for _ in range(int(stage.rng.integers(4, 22))):
        begin = (stage.lateral(offset, depth), depth)
        end = (stage.lateral(offset, depth + pitch), depth + pitch)
        field = partial(draw_guardrail, end=end, kind=kind, tone=tone)
        items.append(Item(*begin, 2.5, field))
        depth += pitch
    return items


def _cones(stage: Stage) -> list[Item]:
    items: list[Item] = []
    for _ in range(int(stage.rng.choice([0, 1, 2, 3], p=[0.48, 0.32, 0.13, 0.07]))):
        colour = CONES[stage.rng.integers(len(CONES))]
        height = stage.uniform(0.45, 0.9)
        depth, count = _depth(stage, 3.5, 26), int(stage.rng.choice([1, 2, 3, 5, 8]))
        x, step_x, step_z = _in_view(stage, depth), stage.uniform(-1, 1), stage.uniform(0.2, 2.2)
        for _ in range(count):
            items.append(Item(x, depth, 0.5, partial(draw_cone, colour=colour, height=height)))
            x, depth = x + step_x, depth + step_z
    return items


def pair_seed(seed: int, index: int) -> int:
    """The scene's seed of pair `index` in a data set that is written with `seed`."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0])


def write_dataset(
    root: str | Path,
    pairs: int,
    seed: int = 0,
    options: SceneOptions = SceneOptions(),
    *,
    validation: float = 0.2,
    rgb_format: Literal["jpg", "png"] = "jpg",
) -> Path:
    """Draw `pairs` scenes into a new folder and return its dataset.toml.

    Names end in a letter that tells the condition (`SUFFIXES`); the last `validation` share of the
    pairs is the val split. Thermal is 8-bit PNG, or float32 TIFF in Celsius as the options say.
    A shorter data set of the same seed and options is the beginning of a longer one.

    Raises:
        InputError: `root` holds files already, or a number is out of range.
    """
    root = Path(root)
    if pairs < 1:
        raise InputError(f"a data set needs at least one pair, found {pairs}")
    if seed < 0:
        raise InputError(f"a data set's seed is an integer from 0, found {seed}")
    if not 0 <= validation <= 1:
        raise InputError(f"validation is a share from 0 to 1, found {validation:g}")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} exists and is not an empty folder; name a new one")
    names = []
    for index in range(pairs):
        scene = draw_scene(pair_seed(seed, index), options)
        name = f"drawn{index:05d}{SUFFIXES[scene.condition]}"
        _write_scene(root, name, scene, options, rgb_format)
        names.append(name)
    split = pairs - round(pairs * validation)
    for part, listed in (("train", names[:split]), ("val", names[split:])):
        write_atomic(root / f"{part}.txt", "".join(f"{name}\n" for name in listed).encode())
    described = root / "dataset.toml"
    write_atomic(described, _describe(root.name, options, rgb_format).encode())
    return described


def _write_scene(
    root: Path, name: str, scene: Scene, options: SceneOptions, rgb_format: str
) -> None:
    flags = [cv2.IMWRITE_JPEG_QUALITY, 93] if rgb_format == "jpg" else []
    rgb = cv2.imencode(f".{rgb_format}", cv2.cvtColor(scene.rgb, cv2.COLOR_RGB2BGR), flags)[1]
    write_atomic(root / "rgb" / f"{name}.{rgb_format}", rgb.tobytes())
    suffix = "tiff" if options.thermal == "celsius" else "png"
    field = scene.celsius if options.thermal == "celsius" else scene.thermal
    write_atomic(
        root / "thermal" / f"{name}.{suffix}", cv2.imencode(f".{suffix}", field)[1].tobytes()
    )
    write_atomic(root / "labels" / f"{name}.png", encode_label(scene.label, name))


def _describe(name: str, options: SceneOptions, rgb_format: str) -> str:
    """The text of dataset.toml."""
    suffix = "tiff" if options.thermal == "celsius" else "png"
    quoted = name.replace("\\", "\\\\").replace('"', '\\"') or "synthetic"

    def words(values: tuple[str, ...]) -> str:
        return ", ".join(f'"{value}"' for value in values)

    palette = ", ".join(f"[{r}, {g}, {b}]" for r, g, b in MFNET.palette)
    subsets = "\n".join(f'{name} = "{letter}$"' for name, letter in SUFFIXES.items())
    return f"""name = "{quoted}"
classes = [{words(MFNET.names)}]
palette = [{palette}]
prompts = [{words(MFNET.prompts)}]

[files]
rgb = "rgb/{{name}}.{rgb_format}"
thermal = "thermal/{{name}}.{suffix}"
label = "labels/{{name}}.png"

[splits]
train = "train.txt"
val = "val.txt"

[subsets]
{subsets}

[thermal]
unit = "{options.thermal}"
"""
