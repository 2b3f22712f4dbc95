"""`bench`: how fast models are, and what memory they take."""

import json
from typing import Annotated, Any, Literal

import typer

from sartm.cli import options
from sartm.cli.options import print_json, read_size
from sartm.cli.printing import print_table, say
from sartm.config import Modality
from sartm.outputs import check_json


def bench(
    model: options.Model = "mini",
    runtime: Annotated[
        Literal["torch", "onnx", "openvino"], typer.Option(help="What computes.")
    ] = "torch",
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH in pixels.")] = "480x640",
    batch_size: options.BatchSize = 1,
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Batches under way at a time, sharing the cores.")
    ] = 1,
    modality: Modality = "both",
    compile: options.Compile = False,
    compare: Annotated[
        str, typer.Option(help="A second setting, in turns: runtime=onnx,precision=fp32")
    ] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Timed runs of each.")] = 10,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    json_file: options.Json = "",
) -> int:
    """Measure speed and memory; the last line is one JSON object."""
    from sartm.benchmark import Setting, change_setting
    from sartm.benchmark import bench as run_bench

    check_json(json_file, [model])
    height, width = read_size(size, "--size")
    setting = Setting(
        model=model, runtime=runtime, height=height, width=width, batch_size=batch_size,
        precision=precision, modality=modality, workers=workers, compile=compile,
    )  # fmt: skip
    changed = change_setting(setting, compare) if compare else None
    result = run_bench(setting, changed, rounds=rounds, device=device)
    if json_file != "-":
        _print_speeds(result)
    if json_file not in ("", "-"):
        print_json(json_file, result)
    print(json.dumps(result))
    return 0


def _print_speeds(result: dict[str, Any]) -> None:
    """A table without columns that no setting fills, the operators, and the comparison."""
    titles = ("setting", "ms", "pairs/s", "peak MiB", "GFLOP", "GFLOP/s", "of GEMM", "of peak")
    lines = []
    for row in result["rows"]:
        name = f"{row['model']} {row['runtime']} {row['precision'].removeprefix(row['runtime'])}"
        name = " ".join(f"{name} {row['height']}x{row['width']} x{row['batch_size']}".split())
        name += ", compiled" * row["compile"]
        name += f", {row['workers']} workers" * (row["workers"] > 1)
        keys = ("median_ms", "pairs_per_second", "peak_mib", "gflop", "gflops")
        shares = (row.get(key) for key in ("share", "mfu"))
        values = [name, *(str(row.get(key, "-")) for key in keys)]
        values += ["-" if share is None else f"{100 * share:.0f} %" for share in shares]
        lines.append(values)
    filled = [k for k in range(len(titles)) if any(values[k] != "-" for values in lines)]
    rows = ([values[k] for k in filled] for values in lines)
    print_table([titles[k] for k in filled], rows, whole=True)
    for row in result["rows"]:
        if "operators" in row:
            parts = (f"{each['name']} {100 * each['share']:.0f} %" for each in row["operators"])
            say(f"operators: {', '.join(parts)}")
    if "compare" in result:
        found = result["compare"]
        same = ""
        if found["agreement"] is not None:  # of one size and number of classes
            same = f"; same class on {100 * found['agreement']:.3f} %"
        say(f"the second is {found['median_ratio']:.2f} times as fast{same}")
