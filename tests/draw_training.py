"""Small labelled data sets to train on, for several test files."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from sartm.classes import MFNET

SIZE = (96, 128)


COLOURS = np.array(
    [(90, 90, 90), (60, 70, 160), (170, 60, 60), (60, 150, 70), (160, 160, 70), (120, 60, 150)]
)


HEAT = np.array([90, 150, 220, 120, 60, 180])


def draw_scene(index: int, size: tuple[int, int] = SIZE) -> dict[str, np.ndarray]:
    """RGB, thermal and label of a scene with classes 0 to 5; objects differ in size and place."""
    rng = np.random.default_rng(index)
    label = np.zeros(size, np.uint8)
    label[-20 - 8 * (index % 2) :] = 4
    for k in (1, 2, 3, 5, 1, 2):
        height, width = rng.integers(14, 34, 2)
        y, x = rng.integers(0, size[0] - height), rng.integers(0, size[1] - width)
        label[y : y + height, x : x + width] = k
    for position, k in enumerate((1, 2, 3, 5)):  # every class somewhere, whatever hid it
        x = (24 * position + 40 * index) % (size[1] - 18)
        label[2:18, x : x + 18] = k
    noise = rng.normal(0, 8, (*size, 4))
    rgb = (COLOURS[label] + noise[..., :3]).clip(0, 255).astype(np.uint8)
    thermal = (HEAT[label] + noise[..., 3]).clip(0, 255).astype(np.uint8)
    return {"rgb": rgb, "thermal": thermal, "label": label}


def draw_dataset(root: Path, pairs: int, val: int | None = None) -> Path:
    """A data set of `pairs` training scenes; val as of `write_dataset`."""
    return write_dataset(root, [draw_scene(index) for index in range(pairs)], val)


def write_dataset(root: Path, scenes: list[dict[str, np.ndarray]], val: int | None = None) -> Path:
    """`val`: so many of the scenes again, in files of their own, `val-0.png` and so on; None: the
    training pairs themselves, to be scored and not to be trained on."""
    names = [f"{index:03d}" for index in range(len(scenes))]
    held = names if val is None else [f"val-{index}" for index in range(val)]
    for name, scene in [*zip(names, scenes, strict=True), *zip(held, scenes, strict=False)]:
        for kind, array in scene.items():
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / kind / f"{name}.png")
    (root / "train.txt").write_text("".join(f"{name}\n" for name in names))
    splits = 'train = "train.txt"\n'
    if held:
        (root / "val.txt").write_text("".join(f"{name}\n" for name in held))
        splits += 'val = "val.txt"\n'
    (root / "dataset.toml").write_text(
        f'name = "drawn"\nclasses = {json.dumps(MFNET.names)}\n'
        f"prompts = {json.dumps(MFNET.prompts)}\n"
        '[files]\nrgb = "rgb/{name}.png"\nthermal = "thermal/{name}.png"\n'
        f'label = "label/{{name}}.png"\n[splits]\n{splits}'
    )
    return root
