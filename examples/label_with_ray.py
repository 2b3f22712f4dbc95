"""Label a folder of pairs by Ray Data: python label_with_ray.py RGB THERMAL OUT [MODEL]

Any source of Ray Data does that gives rows with name, rgb and thermal, the last two as bytes of
image files. `sartm predict --manifest pairs.parquet --engine ray` does more: a record, and reruns.
"""

import sys
from pathlib import Path

import ray

import sartm


def main(rgb: str, thermal: str, out: str, model: str = "mini") -> None:
    rows = [
        {
            "name": file.stem,
            "rgb": file.read_bytes(),
            "thermal": (Path(thermal) / file.name).read_bytes(),
        }
        for file in sorted(Path(rgb).iterdir())
    ]
    ray.init(include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    labelled = ray.data.from_items(rows).map(
        sartm.PairLabeller,
        fn_constructor_args=(model,),
        compute=ray.data.ActorPoolStrategy(size=2),  # num_gpus=1 beside it, where there are GPUs
    )
    Path(out).mkdir(parents=True, exist_ok=True)
    for row in labelled.iter_rows():
        if row["error"]:
            print(f"{row['name']}: {row['error']}")
        else:
            (Path(out) / f"{row['name']}.png").write_bytes(row["label"])


if __name__ == "__main__":
    main(*sys.argv[1:])
