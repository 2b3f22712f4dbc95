"""How often an alarm finds what breaks a rig, and how often it is raised for nothing.

    python benchmarks/alarms.py --data DIR [--data DIR]... [--every N] [--night REGEX]

Each DIR has rgb/ and thermal/ with equal names, and pairs that lie on one another. Of each the
middle is taken, so that a shifted or turned one shows real content up to its border:

    misaligned   thermal shifted by 6, 8, 12 or 20 pixels in any direction, or turned by 1.5 to 3
                 degrees about the centre; AUROC of the evidence, against pairs as they are
    black-hot    the same thermal inverted; AUROC of polarity
    exchanged    grey thermal as RGB, grey RGB as thermal

The last line is one JSON object.
"""

import argparse
import json
import re
import time
from pathlib import Path

import cv2
import numpy as np

from sartm.data.pairs import Sample
from sartm.inference.alarm import check_pair
from sartm.io.decode import read_rgb, read_thermal
from sartm.registration.displacement import Displacement, measure_displacement

SHIFTS, TURNS = (6, 8, 12, 20), (1.5, 2.0, 3.0)
MARGIN = 32
"""Pixels of the frame that are only seen after a shift."""


def list_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Files of RGB and thermal with one stem, in the order of their names."""
    thermal = {path.stem: path for path in (folder / "thermal").iterdir()}
    return [(path, thermal[path.stem]) for path in sorted((folder / "rgb").iterdir())
            if path.stem in thermal]  # fmt: skip


def cut(image: np.ndarray, dx: float = 0, dy: float = 0, degrees: float = 0) -> np.ndarray:
    """The middle of an image as if its camera had been moved."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    turn[:, 2] += (dx, dy)
    moved = image
    if dx or dy or degrees:
        moved = cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    return np.ascontiguousarray(moved[MARGIN:-MARGIN, MARGIN:-MARGIN])


def area_under_curve(found: list[float], clean: list[float]) -> float:
    """Chance that a bad pair's figure lies above a good one's."""
    if not found or not clean:
        return float("nan")
    ordered = np.sort(clean)
    below = np.searchsorted(ordered, found, "left") + np.searchsorted(ordered, found, "right")
    return float(below.mean() / 2 / len(clean))


def measure(folder: Path, every: int, night: str, random: np.random.Generator) -> list[dict]:
    """Figures of each pair of a folder."""
    rows = []
    for rgb_path, thermal_path in list_pairs(folder)[::every]:
        rgb, thermal = read_rgb(rgb_path), read_thermal(thermal_path)
        if rgb.shape[:2] != thermal.shape:
            continue
        scale = max(thermal.shape) / 640
        fixed, still = cut(rgb), cut(thermal)
        begun = time.process_time()
        clean = measure_displacement(fixed, still)
        seconds = time.process_time() - begun
        moved: dict[str, Displacement] = {}
        for pixels in SHIFTS:
            angle = random.uniform(0, 2 * np.pi)
            step = pixels * scale * np.array([np.cos(angle), np.sin(angle)])
            moved[f"{pixels} px"] = measure_displacement(fixed, cut(thermal, *step))
        for degrees in TURNS:
            signed = degrees * random.choice((-1, 1))
            moved[f"{degrees:g} degrees"] = measure_displacement(fixed, cut(thermal, 0, 0, signed))
        good = check_pair(Sample("", fixed, still))
        inverted = check_pair(Sample("", fixed, 255 - still))
        grey = cv2.cvtColor(fixed, cv2.COLOR_RGB2GRAY)
        exchanged = check_pair(Sample("", np.stack([still] * 3, -1), grey))
        rows.append(
            {
                "name": rgb_path.stem,
                "group": f"{folder.name} {'night' if re.search(night, rgb_path.stem) else 'day'}",
                "clean": clean,
                "moved": moved,
                "good": good,
                "inverted": inverted,
                "exchanged": exchanged,
                "seconds": seconds,
            }
        )
    return rows


def summarise(rows: list[dict]) -> dict[str, float]:
    """AUROC and shares of a group of pairs."""
    clean = [row["clean"].evidence for row in rows]
    found: dict[str, float] = {"pairs": len(rows)}
    every = []
    for name in rows[0]["moved"]:
        bad = [row["moved"][name] for row in rows]
        every += bad
        found[f"auroc {name}"] = area_under_curve([one.evidence for one in bad], clean)
        found[f"found {name}"] = float(np.mean([one.misaligned for one in bad]))
    found["auroc misaligned"] = area_under_curve([one.evidence for one in every], clean)
    found["found misaligned"] = float(np.mean([one.misaligned for one in every]))
    found["false misaligned"] = float(np.mean([row["clean"].misaligned for row in rows]))
    white = [-row["good"].polarity for row in rows if row["good"].polarity is not None]
    black = [-row["inverted"].polarity for row in rows if row["inverted"].polarity is not None]
    found["auroc black-hot"] = area_under_curve(black, white)
    for name, kind, alarm in (
        ("found black-hot", "inverted", "black-hot"),
        ("false black-hot", "good", "black-hot"),
        ("found exchanged", "exchanged", "colourless"),
        ("false exchanged", "good", "colourless"),
    ):
        found[name] = float(np.mean([alarm in row[kind].alarms for row in rows]))
    found["false flat"] = float(
        np.mean([any("flat" in alarm for alarm in row["good"].alarms) for row in rows])
    )
    found["seconds"] = float(np.median([row["seconds"] for row in rows]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, action="append", required=True)
    parser.add_argument("--every", type=int, default=1, help="only each N-th pair")
    parser.add_argument("--night", default=r"^\d{5}N$", help="regular expression on the names")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    random = np.random.default_rng(arguments.seed)
    rows = []
    for folder in arguments.data:
        rows += measure(folder, arguments.every, arguments.night, random)
    if not rows:
        parser.error("no pair of one size in these folders")
    for row in rows:
        if row["clean"].misaligned:
            print(f"{row['group']}, {row['name']}: {row['clean']}")
    groups = {name: [row for row in rows if row["group"] == name]
              for name in dict.fromkeys(row["group"] for row in rows)}  # fmt: skip
    for word in ("day", "night"):
        groups[f"all {word}"] = [row for row in rows if row["group"].endswith(word)]
    tables = {name: summarise(group) for name, group in groups.items() if group}
    for name, table in tables.items():
        print(f"\n{name}")
        for key, value in table.items():
            print(f"  {key:22} {value:8.3f}")
    print(json.dumps({name: {key: round(value, 4) for key, value in table.items()}
                      for name, table in tables.items()}))  # fmt: skip


if __name__ == "__main__":
    main()
