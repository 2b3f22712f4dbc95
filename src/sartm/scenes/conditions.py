"""A condition drawn: light, climate, weather and what the two cameras make of them."""

import math

import numpy as np

from sartm.scenes.canvas import Climate, Stage
from sartm.scenes.light import Lights, Weather
from sartm.scenes.sensors import RgbCamera, ThermalCamera


def choose_light(rng: np.random.Generator, condition: str) -> str:
    """Day or night: what a condition leaves open is drawn."""
    if condition in ("day", "dusk", "night"):
        return condition
    shares = {"fog": (0.6, 0.15, 0.25), "smoke": (0.55, 0.1, 0.35), "glare": (0.35, 0.2, 0.45)}
    return str(rng.choice(["day", "dusk", "night"], p=shares[condition]))


def draw_climate(rng: np.random.Generator, light: str, condition: str) -> Climate:
    """Temperatures of air, sky and ground under a light and a condition."""
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


def place_lights(
    stage: Stage, condition: str, lamps: tuple[tuple[float, float, float], ...]
) -> Lights:
    """Sun, lamps and headlights of a scene, as far as they shine."""
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
        x = draw_place(stage, depth)
        apart = stage.pixels(0.65, depth)
        below = stage.camera.horizon + stage.pixels(stage.camera.above - 0.65, depth)
        middle = stage.camera.width / 2 + stage.pixels(x, depth)
        size = stage.uniform(0.1, 0.25) * apart + stage.uniform(0.012, 0.03) * height
        strength = stage.uniform(2, 12)
        for side in (-apart, apart):
            sources.append((middle + side, below, size, strength))
    return tuple(sources)


def draw_weather(rng: np.random.Generator, condition: str) -> Weather:
    """Fog or smoke as a condition brings it."""
    if condition == "fog":
        visibility = float(np.exp(rng.uniform(math.log(18), math.log(110))))
        return Weather(visibility=visibility, thermal_share=float(rng.uniform(0.05, 0.3)))
    if condition == "smoke":
        return Weather(plumes=int(rng.integers(2, 6)), thermal_share=float(rng.uniform(0.02, 0.2)))
    if rng.random() < 0.2:
        return Weather(visibility=float(np.exp(rng.uniform(math.log(400), math.log(4000)))))
    return Weather()


def draw_rgb_camera(rng: np.random.Generator, condition: str, light: str) -> RgbCamera:
    """A colour camera, its exposure and its faults."""
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


def draw_thermal_camera(rng: np.random.Generator) -> ThermalCamera:
    """A thermal camera, its range and its faults."""
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


def draw_place(stage: Stage, depth: float) -> float:
    """World x somewhere in the picture at a depth, between the house fronts where possible."""
    half = 0.52 * stage.camera.width / stage.camera.focal * depth
    edge = stage.half_road + stage.sidewalk + 1
    left = max(-half, stage.lateral(-edge, depth))
    right = min(half, stage.lateral(edge, depth))
    return stage.uniform(left, right) if left < right else stage.uniform(-half, half)
