"""Draws RGB-thermal street scenes with exact labels: for demos, tests and pretraining.

`composition` decides what stands where and draws it part by part, `conditions` which light and
weather, `sensors` turn it into images. A scene depends on nothing but the seed and the options.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from sartm.errors import InputError
from sartm.files import write_atomic
from sartm.io.labels import encode_label
from sartm.outputs import finished_folder
from sartm.progress import Meter
from sartm.scenes.composition import compose
from sartm.scenes.conditions import draw_rgb_camera, draw_thermal_camera
from sartm.scenes.light import add_dazzle, gather_fields, light_scene, smoke_opacity  # fmt: skip
from sartm.scenes.sensors import (
    SHADING,
    add_thermal_noise,
    expose,
    focus,
    misalign,
    radiate,
    show_thermal,
    take_rgb,
)
from sartm.scenes.things import TABLES, Vocabulary

SUFFIXES = {"day": "D", "dusk": "U", "night": "N", "fog": "F", "smoke": "S", "glare": "G"}
"""Condition -> last letter of a pair's name in a written data set."""
CONDITIONS = tuple(SUFFIXES)
_SHARES = (0.32, 0.1, 0.32, 0.08, 0.08, 0.1)
SMALLEST = 64
LARGEST = 8192


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
    """What `write_dataset` stores: the 8-bit display image, or float32 degrees and, in celsius/,
    the exact ones."""
    classes: Vocabulary = "mfnet"
    """What labels tell apart: MFNet's classes, or road, pavement, building, ... too."""

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
        if self.classes not in TABLES:
            raise InputError(f"classes are mfnet or full, found {self.classes!r}")


@dataclass(frozen=True)
class Scene:
    """One drawn pair with its ground truth."""

    rgb: npt.NDArray[np.uint8]
    """(H, W, 3)."""
    thermal: npt.NDArray[np.uint8]
    """(H, W): what a thermal camera's display shows."""
    celsius: npt.NDArray[np.float32]
    """(H, W): the apparent temperatures behind `thermal`, noise included."""
    exact: npt.NDArray[np.float32]
    """(H, W): the same of an ideal camera, without optics and noise, aligned with `rgb`."""
    label: npt.NDArray[np.uint8]
    """(H, W): ids of the options' `classes`, by default of MFNet, aligned with `rgb`."""
    condition: str
    instances: npt.NDArray[np.uint16]
    """(H, W): a number for each car, person, ...; 0 for what is unlabelled, flat or goes on, as
    guardrails and kerbs do."""


def draw_scene(seed: int, options: SceneOptions = SceneOptions(), moment: float = 0.0) -> Scene:
    """Draw the scene that belongs to a seed (any integer from 0), `moment` seconds after it began.

    What walks and drives moves on with time, and noise is new; the rest of the scene is the same.

    The same seed and options give the same pixels, in any process. Size and misregistration do
    not change what is in the scene; a seed drawn `random` equals the condition it happened to get.

    Raises:
        InputError: the seed is negative.
    """
    if seed < 0 or not 0 <= moment < 1e6:
        raise InputError(f"seed and moment of a scene count from 0, found {seed} and {moment:g}")
    condition = options.condition
    if condition == "random":
        condition = str(np.random.default_rng([seed, 0]).choice(CONDITIONS, p=_SHARES))
    rng = np.random.default_rng([seed, 1 + CONDITIONS.index(condition)])
    stage, lights, weather = compose(rng, condition, options.size, moment)
    sensors = np.random.default_rng([seed, 100])
    rgb_camera = draw_rgb_camera(sensors, condition, stage.climate.light)
    thermal_camera = draw_thermal_camera(sensors)
    if moment:
        sensors = np.random.default_rng([seed, 102, round(1000 * moment)])
    fields = gather_fields(stage)
    smoke = smoke_opacity(stage, fields, weather) if weather.plumes else None
    exposed = expose(rgb_camera, light_scene(stage, fields, lights, weather))
    if smoke is not None:
        tone = rgb_camera.brightness**2 * stage.uniform(0.15, 2.2)
        exposed += smoke[..., None] * (np.float32(tone) - exposed)
    add_dazzle(stage, lights, exposed)
    rgb = take_rgb(sensors, rgb_camera, exposed)
    exact = radiate(stage, fields, weather, smoke)
    celsius = focus(exact, thermal_camera)
    if options.misregistration:
        celsius = misalign(np.random.default_rng([seed, 101]), celsius, options.misregistration)
    celsius = add_thermal_noise(sensors, celsius, thermal_camera)
    thermal = show_thermal(stage.climate, celsius, thermal_camera)
    label = stage.canvas.label_map(options.classes)
    instances = np.where(label == 0, np.uint16(0), stage.canvas.instance_map())
    celsius = celsius - np.float32(SHADING)
    return Scene(rgb, thermal, celsius, exact, label, condition, instances)


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
    pairs is the val split. Thermal is 8-bit PNG, or float32 TIFF in Celsius as the options say;
    then celsius/ holds what it would be without the camera's optics and noise. A shorter data set
    of the same seed and options is the beginning of a longer one. The folder appears under its
    name once it is complete.

    Raises:
        InputError: `root` holds files already, is in use or cannot be written, or a number is out
            of range.
    """
    if pairs < 1:
        raise InputError(f"a data set needs at least one pair, found {pairs}")
    if seed < 0:
        raise InputError(f"a data set's seed is an integer from 0, found {seed}")
    if not 0 <= validation <= 1:
        raise InputError(f"validation is a share from 0 to 1, found {validation:g}")
    root, names = Path(root), []
    with finished_folder(root) as new, Meter("synth", pairs) as meter:
        for index in range(pairs):
            scene = draw_scene(pair_seed(seed, index), options)
            name = f"drawn{index:05d}{SUFFIXES[scene.condition]}"
            _write_scene(new, name, scene, options, rgb_format)
            names.append(name)
            meter.advance()
        split = pairs - round(pairs * validation)
        for part, listed in (("train", names[:split]), ("val", names[split:])):
            write_atomic(new / f"{part}.txt", "".join(f"{name}\n" for name in listed).encode())
        text = _describe(root.resolve().name, options, rgb_format)
        write_atomic(new / "dataset.toml", text.encode())
    return root / "dataset.toml"


def _write_scene(
    root: Path, name: str, scene: Scene, options: SceneOptions, rgb_format: str
) -> None:
    flags = [cv2.IMWRITE_JPEG_QUALITY, 93] if rgb_format == "jpg" else []
    rgb = cv2.imencode(f".{rgb_format}", cv2.cvtColor(scene.rgb, cv2.COLOR_RGB2BGR), flags)[1]
    write_atomic(root / "rgb" / f"{name}.{rgb_format}", rgb.tobytes())
    thermal: dict[str, npt.NDArray[Any]] = {f"thermal/{name}.png": scene.thermal}
    if options.thermal == "celsius":
        thermal = {f"thermal/{name}.tiff": scene.celsius, f"celsius/{name}.tiff": scene.exact}
    for file, field in thermal.items():
        write_atomic(root / file, cv2.imencode(Path(file).suffix, field)[1].tobytes())
    write_atomic(root / "labels" / f"{name}.png", encode_label(scene.label, name))
    numbers = cv2.imencode(".png", scene.instances)[1]
    write_atomic(root / "instances" / f"{name}.png", numbers.tobytes())


def _describe(name: str, options: SceneOptions, rgb_format: str) -> str:
    """The text of dataset.toml."""
    suffix = "tiff" if options.thermal == "celsius" else "png"
    quoted = name.replace("\\", "\\\\").replace('"', '\\"') or "synthetic"

    def words(values: tuple[str, ...]) -> str:
        return ", ".join(f'"{value}"' for value in values)

    classes = TABLES[options.classes]
    palette = ", ".join(f"[{r}, {g}, {b}]" for r, g, b in classes.palette)
    subsets = "\n".join(f'{name} = "{letter}$"' for name, letter in SUFFIXES.items())
    return f"""name = "{quoted}"
classes = [{words(classes.names)}]
palette = [{palette}]
prompts = [{words(classes.prompts)}]

[files]
rgb = "rgb/{{name}}.{rgb_format}"
thermal = "thermal/{{name}}.{suffix}"
label = "labels/{{name}}.png"
instances = "instances/{{name}}.png"

[splits]
train = "train.txt"
val = "val.txt"

[subsets]
{subsets}

[thermal]
unit = "{options.thermal}"
"""
