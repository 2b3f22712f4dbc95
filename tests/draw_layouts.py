"""Draws one tiny data set in every layout that benchmarks circulate in, for the tests."""

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from draw_flir import counts_of, field, write_flir
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
    elif path.suffix.lower() in (".jpg", ".jpeg"):
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


# --- folders of people's own, as `data init` finds them ------------------------------------------

OWN_CLASSES = Classes(("background", "class 1", "class 2"))


def own_pair(index: int, size: tuple[int, int] = (48, 64)) -> dict[str, np.ndarray]:
    """As `draw`, with three classes in every label."""
    pair = draw(f"{index:05}", size, OWN_CLASSES)
    pair["label"] = np.kron(np.arange(6).reshape(2, 3) % 3, np.ones((size[0] // 2, 1)))[
        :, np.arange(size[1]) * 3 // size[1]
    ].astype(np.uint8)
    return pair


def own_flir(root: Path) -> None:
    """FLIR ADAS: the two cameras' own names, thermal twice, no label maps."""
    for split, numbers in (("train", range(8)), ("val", range(8, 10))):
        for index in numbers:
            pair, name = own_pair(index), f"FLIR_{index:05}"
            save(root / split / "RGB" / f"{name}.jpg", pair["rgb"])
            save(root / split / "thermal_8_bit" / f"{name}.jpeg", pair["thermal"])
            save(root / split / "thermal_16_bit" / f"{name}.tiff", pair["thermal"] * np.uint16(99))


def own_kaist(root: Path) -> None:
    """KAIST: the modality is a folder deep in the path."""
    for index in range(12):
        pair, place = own_pair(index), root / "set00" / f"V{index // 2:03}"
        save(place / "visible" / f"I{index % 2:05}.jpg", pair["rgb"])
        save(place / "lwir" / f"I{index % 2:05}.jpg", pair["thermal"])


def own_pst900(root: Path) -> None:
    """Arranged like PST900, but of another camera and with other classes."""
    for split, numbers in (("train", range(8)), ("test", range(8, 11))):
        for index in numbers:
            pair = own_pair(index)
            for folder, part in (("rgb", "rgb"), ("thermal", "thermal"), ("labels", "label")):
                save(root / split / folder / f"{index:03}.png", pair[part])


def own_mfnet(root: Path) -> None:
    """MFNet's four channels and names, without its lists."""
    for index in range(10):
        pair, name = own_pair(index), f"{index:05}{'DN'[index % 2]}"
        save(root / "images" / f"{name}.png", four(pair))
        save(root / "labels" / f"{name}.png", pair["label"])


def own_suffixes(root: Path) -> None:
    """Two folders whose names differ by a suffix, colour labels, and one pair without a label."""
    palette = np.array([(0, 0, 0), (220, 20, 60), (0, 90, 200)], np.uint8)
    for index in range(9):
        pair = own_pair(index)
        save(root / "photos" / f"{index:03}_co.png", pair["rgb"])
        save(root / "heat" / f"{index:03}_th.png", pair["thermal"])
        if index:
            save(root / "masks" / f"{index:03}_mask.png", palette[pair["label"]])


def own_half_size(root: Path) -> None:
    """Thermal has half the rows and columns; masks are black and white."""
    for index in range(10):
        pair = own_pair(index)
        save(root / "visible" / f"{index}.png", pair["rgb"])
        save(root / "infrared" / f"{index}.png", pair["thermal"][::2, ::2])
        save(root / "gt" / f"{index}.png", np.where(pair["label"] == 1, 255, 0).astype(np.uint8))


def own_one_folder(root: Path) -> None:
    """Everything in one folder, endings written in several ways."""
    for index in range(10):
        pair, ending = own_pair(index), "JPG" if index == 4 else "jpg"
        save(root / f"site_{index:02}_rgb.{ending}", pair["rgb"])
        save(root / f"site_{index:02}_ir.png", pair["thermal"] * np.uint16(99))
        save(root / f"site_{index:02}_label.png", pair["label"])


def own_radiometric(root: Path) -> None:
    """Photographs beside the radiometric files of a hand-held camera."""
    for index in range(6):
        save(root / "color" / f"IMG_{index:04}.jpg", own_pair(index)["rgb"])
        (root / "ir").mkdir(parents=True, exist_ok=True)
        write_flir(root / "ir" / f"IMG_{index:04}.jpg", counts_of(field() + index))


OWN_FOLDERS: dict[str, Callable[[Path], None]] = {
    "FLIR": own_flir,
    "KAIST": own_kaist,
    "PST900": own_pst900,
    "MFNet-like": own_mfnet,
    "suffixes": own_suffixes,
    "half-size": own_half_size,
    "one folder": own_one_folder,
    "radiometric": own_radiometric,
}
