"""Draws one tiny data set in every layout that benchmarks circulate in, for the tests."""

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from sartm.classes import FMB, MFNET, PST900, Classes

MFNET_NAMES = {"train": ["00001D", "00002N"], "val": ["00003D"], "test": ["00004N", "00005D"]}
OTHER_NAMES = {"train": ["00010", "00011"], "test": ["00012"]}


def draw(name: str, size: tuple[int, int], classes: Classes) -> dict[str, np.ndarray]:
    """RGB, thermal and label of a pair, a function of its name alone."""
    rng = np.random.default_rng(list(name.encode()))
    return {
        "rgb": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        "thermal": rng.integers(0, 256, size, dtype=np.uint8),
        "label": rng.integers(0, len(classes), size, dtype=np.uint8),
    }


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".jpg":
        Image.fromarray(array).save(path, quality=100, subsampling=0)
    else:
        Image.fromarray(array).save(path)


def lists(root: Path, splits: dict[str, list[str]]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for split, names in splits.items():
        (root / f"{split}.txt").write_text("\n".join(names) + "\n")


def mfnet(root: Path, place: Callable[[str, str, dict[str, np.ndarray]], None]) -> None:
    for split, names in MFNET_NAMES.items():
        for name in names:
            place(split, name, draw(name, (24, 32), MFNET))


def four(pair: dict[str, np.ndarray]) -> np.ndarray:
    return np.dstack([pair["rgb"], pair["thermal"]])


def mfnet_original(root: Path) -> None:
    def place(split: str, name: str, pair: dict[str, np.ndarray]) -> None:
        save(root / "images" / f"{name}.png", four(pair))
        save(root / "labels" / f"{name}.png", pair["label"])

    mfnet(root, place)
    lists(root, MFNET_NAMES)


def mfnet_flipped(root: Path) -> None:
    """The original with the mirrored copies that RTFNet's script adds beside each image."""
    mfnet_original(root)
    for folder in ("images", "labels"):
        for file in sorted((root / folder).iterdir()):
            array = np.asarray(Image.open(file))[:, ::-1]
            save(file.with_name(f"{file.stem}_flip.png"), np.ascontiguousarray(array))
    names = MFNET_NAMES["train"] + [f"{name}_flip" for name in MFNET_NAMES["train"]]
    lists(root, MFNET_NAMES | {"train": names})


def flat(
    rgb: str, thermal: str, label: str, suffix: str = ".png", repeat: bool = False
) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        def place(split: str, name: str, pair: dict[str, np.ndarray]) -> None:
            heat = np.dstack([pair["thermal"]] * 3) if repeat else pair["thermal"]
            save(root / rgb / f"{name}{suffix}", pair["rgb"])
            save(root / thermal / f"{name}{suffix}", heat)
            save(root / label / f"{name}.png", pair["label"])

        mfnet(root, place)
        lists(root, MFNET_NAMES)

    return write


def mfnet_split_folders(root: Path) -> None:
    def place(split: str, name: str, pair: dict[str, np.ndarray]) -> None:
        save(root / "images" / split / f"{name}.png", pair["rgb"])
        save(root / "thermal" / split / f"{name}.png", pair["thermal"])
        save(root / "labels" / split / f"{name}.png", pair["label"])

    mfnet(root, place)


def mfnet_annotations(root: Path) -> None:
    def place(split: str, name: str, pair: dict[str, np.ndarray]) -> None:
        save(root / "images" / split / f"{name}.png", four(pair))
        save(root / "annotations" / split / f"{name}.png", pair["label"])

    mfnet(root, place)


def mfnet_numpy(root: Path) -> None:
    folder = {"train": "training", "val": "validation", "test": "test"}

    def place(split: str, name: str, pair: dict[str, np.ndarray]) -> None:
        six = np.dstack([pair["rgb"], *[pair["thermal"]] * 3])
        save(root / "rgbx_np" / folder[split] / f"{name}.npy", six)
        save(root / "annotations" / folder[split] / f"{name}.png", pair["label"])

    mfnet(root, place)


def msrs(root: Path) -> None:
    for split in ("train", "test"):
        for name in MFNET_NAMES[split]:
            pair = draw(name, (24, 32), MFNET)
            save(root / split / "vi" / f"{name}.png", pair["rgb"])
            save(root / split / "ir" / f"{name}.png", pair["thermal"])
            save(root / split / "Segmentation_labels" / f"{name}.png", pair["label"])


def pst900(root: Path) -> None:
    for split, names in OTHER_NAMES.items():
        for name in names:
            pair = draw(name, (36, 64), PST900)
            save(root / split / "rgb" / f"{name}.png", pair["rgb"])
            save(root / split / "thermal" / f"{name}.png", pair["thermal"])
            save(root / split / "thermal_raw" / f"{name}.png", pair["thermal"].astype(np.uint16))
            save(root / split / "labels" / f"{name}.png", pair["label"])


def pst900_raw(root: Path) -> None:
    """Counts projected into RGB: 0 where the thermal camera saw nothing."""
    for split, names in OTHER_NAMES.items():
        for name in names:
            pair = draw(name, (36, 64), PST900)
            counts = 20000 + 10 * pair["thermal"].astype(np.uint16)
            counts[:3] = counts[:, :5] = counts[20, 30:32] = 0
            save(root / split / "rgb" / f"{name}.png", pair["rgb"])
            save(root / split / "thermal_raw" / f"{name}.png", counts)
            save(root / split / "labels" / f"{name}.png", pair["label"])


def pst900_flat(root: Path) -> None:
    """In the common flat folders only the size of its camera tells PST900."""
    for names in OTHER_NAMES.values():
        for name in names:
            pair = enlarge(draw(name, (36, 64), PST900), 20)
            save(root / "RGB" / f"{name}.png", pair["rgb"])
            save(root / "Thermal" / f"{name}.png", pair["thermal"])
            save(root / "Label" / f"{name}.png", pair["label"])
    lists(root, OTHER_NAMES)


def enlarge(pair: dict[str, np.ndarray], times: int) -> dict[str, np.ndarray]:
    return {key: array.repeat(times, 0).repeat(times, 1) for key, array in pair.items()}


def fmb(label: str, order: str = "RGB") -> Callable[[Path], None]:
    palette = np.array(FMB.palette, np.uint8)

    def write(root: Path) -> None:
        for split, names in OTHER_NAMES.items():
            for name in names:
                pair = draw(name, (30, 40), FMB)
                colours = palette[pair["label"]]
                shown = colours if order == "RGB" else cv2.cvtColor(colours, cv2.COLOR_RGB2BGR)
                save(root / split / "Visible" / f"{name}.png", pair["rgb"])
                save(root / split / "Infrared" / f"{name}.png", pair["thermal"])
                save(
                    root / split / label / f"{name}.png",
                    shown if label == "color" else pair["label"],
                )

    return write


def fmb_flat(root: Path) -> None:
    parts = {"Visible": "rgb", "Infrared": "thermal", "Label": "label"}
    for names in OTHER_NAMES.values():
        for name in names:
            pair = draw(name, (30, 40), FMB)
            for folder, part in parts.items():
                save(root / folder / f"{name}.png", pair[part])
    lists(root, OTHER_NAMES)


def toml(root: Path, text: str) -> Path:
    """An MFNet-like set described by a dataset.toml of the given text."""
    shutil.rmtree(root, ignore_errors=True)
    flat("rgb", "thermal", "labels")(root)
    (root / "dataset.toml").write_text(text)
    return root / "dataset.toml"


MFNET_LAYOUTS = {
    "original": mfnet_original,
    "RGB Thermal Label": flat("RGB", "Thermal", "Label"),
    "RGB Modal Label": flat("RGB", "Modal", "Label", repeat=True),
    "rgb ther labels": flat("rgb", "ther", "labels"),
    "images thermal labels": mfnet_split_folders,
    "images annotations": mfnet_annotations,
    "numpy": mfnet_numpy,
}
OTHER_LAYOUTS = {
    "pst900": (pst900, PST900, (36, 64)),
    "fmb ids": (fmb("Label"), FMB, (30, 40)),
    "fmb RGB colours": (fmb("color"), FMB, (30, 40)),
    "fmb BGR colours": (fmb("color", "BGR"), FMB, (30, 40)),
    "fmb flat": (fmb_flat, FMB, (30, 40)),
}
