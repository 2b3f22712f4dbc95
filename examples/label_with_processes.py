"""Label pairs by plain processes: python label_with_processes.py RGB THERMAL OUT [MODEL]

The labeller is pickled once for each process and loads its model there, on the first pair.
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import sartm

LABELLER: sartm.PairLabeller


def begin(labeller: sartm.PairLabeller) -> None:
    global LABELLER
    LABELLER = labeller


def label(row: dict[str, object]) -> dict[str, object]:
    return LABELLER(row)


def rows(rgb: str, thermal: str) -> Iterator[dict[str, object]]:
    for file in sorted(Path(rgb).iterdir()):
        partner = (Path(thermal) / file.name).read_bytes()
        yield {"name": file.stem, "rgb": file.read_bytes(), "thermal": partner}


def main(rgb: str, thermal: str, out: str, model: str = "mini") -> None:
    Path(out).mkdir(parents=True, exist_ok=True)
    started = get_context("spawn")  # a forked process must not use the parent's torch
    labeller = sartm.PairLabeller(model, workers=1)
    with ProcessPoolExecutor(2, started, begin, (labeller,)) as pool:
        for row in pool.map(label, rows(rgb, thermal)):
            if row["error"]:
                print(f"{row['name']}: {row['error']}")
            else:
                (Path(out) / f"{row['name']}.png").write_bytes(row["label"])


if __name__ == "__main__":
    main(*sys.argv[1:])
