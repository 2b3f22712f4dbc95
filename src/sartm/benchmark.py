"""`sartm bench`: how fast a model runs, in how much memory, and how near that is to the machine.

Two settings are compared in turns within one process: what disturbs the machine disturbs both, so
the ratio per round says more than two runs one after the other.
"""

import platform
import re
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch._C._autograd import DeviceType
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from sartm.config import Modality, from_dict, to_dict
from sartm.errors import InputError
from sartm.export import export_model
from sartm.inference.devices import Precision
from sartm.inference.predictor import Predictor
from sartm.model.exported import INPUTS, ExportedModel
from sartm.model.loading import load
from sartm.model.sartm import SARTM

Array = npt.NDArray[Any]
Runtime = Literal["torch", "onnx", "openvino"]
IN_A_ROW = 4
"""Batches that each of several workers runs in a round: they need not end together."""
PUBLISHED_TFLOPS = {
    "H200": 989.4, "H100 PCIe": 756.0, "H100 NVL": 835.5, "H100": 989.4, "A100": 312.0,
    "L40S": 362.0, "L4": 121.0, "A10": 125.0,
}  # fmt: skip
"""Peak of a GPU in bf16 and fp16 without sparsity, from NVIDIA's data sheets."""


@dataclass(frozen=True)
class Setting:
    """What one measurement is of."""

    model: str = "mini"
    runtime: Runtime = "torch"
    """`onnx` and `openvino` export the model first; an exported file has its own."""
    height: int = 480
    width: int = 640
    batch_size: int = 1
    precision: Precision = "auto"
    modality: Modality = "both"
    workers: int = 1
    """Batches under way at a time, each on its part of the cores."""
    compile: bool = False
    """By `torch.compile`."""

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 32 or max(self.height, self.width) > 16384:
            raise InputError(f"size is {self.height}x{self.width}; each side needs 32 to 16384")
        if not 1 <= self.batch_size <= 1024:
            raise InputError(f"batch_size is {self.batch_size}; choose 1 to 1024")
        if not 1 <= self.workers <= 256:
            raise InputError(f"workers is {self.workers}; choose 1 to 256")
        if self.compile and self.runtime != "torch":
            raise InputError(f"compile is for runtime=torch, not for {self.runtime}")


@dataclass(frozen=True)
class _Ready:
    """A setting that can be run."""

    setting: Setting
    run: Callable[[], Array | Tensor]
    """Gives logits (B, K, h/4, w/4) of one batch, where they were computed."""
    predictor: Predictor
    count: Callable[[], object] | None
    """Computes one pair, not compiled, to count its arithmetic; None in other runtimes."""


def bench(
    setting: Setting,
    changed: Setting | None = None,
    *,
    rounds: int = 10,
    device: str = "auto",
    model: SARTM | ExportedModel | None = None,
    gemm_side: int | None = None,
) -> dict[str, Any]:
    """Measure the network in a setting, or in two in turns.

    On CUDA the time is that between events on the GPU: images lie there before, logits stay there.

    Args:
        setting: what to run.
        changed: a second setting to compare with.
        rounds: timed runs of each, after one that is not counted.
        device: where PyTorch runs.
        model: used for every setting instead of the model that it names.
        gemm_side: rows and columns of the square matrices that the GEMM rate is measured on; None:
            1024, on CUDA 8192.

    Returns:
        JSON-ready: `machine`, `rows` (one per setting: median_ms, iqr_ms, pairs_per_second,
        peak_mib, gflop of one pair, gflops, gemm_gflops, share of it, mfu (model-FLOP utilisation:
        share of the published peak, on GPUs of `PUBLISHED_TFLOPS`), operators) and, of two,
        `compare`: median_ratio and ratios (time per pair of the first over that of the second,
        per round: above 1 the second is faster), agreement of the classes.

    Raises:
        InputError: a model that cannot be loaded, or a setting it cannot run in.
    """
    settings = [setting] if changed is None else [setting, changed]
    with tempfile.TemporaryDirectory() as scratch:
        ready = [
            _make_ready(each, model or load(each.model), device, Path(scratch) / str(index))
            for index, each in enumerate(settings)
        ]
        outputs, peaks = zip(*(_warm_up(each) for each in ready), strict=True)
        seconds: list[list[float]] = [[] for _ in ready]
        for _ in range(rounds):
            for each, times in zip(ready, seconds, strict=True):
                times.append(_time(each))
        rows = [_row(*each, gemm_side) for each in zip(ready, seconds, peaks, strict=True)]
    result: dict[str, Any] = {"machine": _machine(ready[0].predictor.device), "rows": rows}
    if changed is not None:
        share = _pairs(changed) / _pairs(setting)
        ratios = [share * first / second for first, second in zip(*seconds, strict=True)]
        same = outputs[0].shape == outputs[1].shape
        agreement = float((outputs[0].argmax(1) == outputs[1].argmax(1)).mean()) if same else None
        result["compare"] = {
            "median_ratio": round(statistics.median(ratios), 4),
            "ratios": [round(ratio, 4) for ratio in ratios],
            "agreement": agreement,
        }
    return result


def change_setting(setting: Setting, text: str) -> Setting:
    """`runtime=onnx,precision=fp32` applied to a setting; InputError for what it does not know."""
    values = to_dict(setting)
    for part in text.split(","):
        key, found, value = part.strip().partition("=")
        if not found or key not in values:
            raise InputError(f"--compare {part!r}; write KEY=VALUE with {', '.join(values)}")
        words: dict[str, Any] = {"true": True, "false": False}
        values[key] = int(value) if value.isdecimal() else words.get(value, value)
    return from_dict(Setting, values, "--compare")


def _make_ready(
    setting: Setting, model: SARTM | ExportedModel, device: str, scratch: Path
) -> _Ready:
    if setting.runtime != "torch" and isinstance(model, SARTM):
        exported = export_model(model, scratch, format=setting.runtime, modality=setting.modality)
        model = load(exported.file)
    predictor = Predictor(
        model,
        device="cpu" if isinstance(model, ExportedModel) else device,
        precision=setting.precision,
        compiled=setting.compile,
    )
    draw = np.random.default_rng(0)
    shape = (setting.batch_size, setting.height, setting.width)
    images: dict[str, Array] = {
        "rgb": draw.integers(0, 256, (*shape, 3), np.uint8),
        "thermal": draw.random(shape, np.float32),
    }
    images = {name: images[name] for name in INPUTS[setting.modality]}
    network = predictor.model
    if isinstance(network, ExportedModel):
        setting = replace(setting, runtime=network.export.format)
        opened = network
        return _Ready(setting, lambda: opened.run(images), predictor, None)
    x, y = _on_device(images, predictor.device)
    run = torch.inference_mode()(lambda: predictor.network(x, y))
    one = [None if each is None else each[:1] for each in (x, y)]
    count = torch.inference_mode()(lambda: network.predict_logits(*one))
    return _Ready(setting, run, predictor, count)


def _on_device(
    images: dict[str, Array], device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """What `SARTM.predict_logits` takes."""
    x = y = None
    if "rgb" in images:
        x = torch.from_numpy(images["rgb"]).to(device).permute(0, 3, 1, 2).float() / 255
    if "thermal" in images:
        y = torch.from_numpy(images["thermal"]).to(device)[:, None]
    return x, y


def _warm_up(ready: _Ready) -> tuple[Array, float | None]:
    """The output, and the peak memory in MiB of a second run: of the GPU, else of the process."""
    out, device = ready.run(), ready.predictor.device
    out = out.float().cpu().numpy() if isinstance(out, Tensor) else out
    _time(ready)
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    else:
        _reset_peak()
    _time(ready)
    if cuda:
        return out, torch.cuda.max_memory_allocated(device) / 2**20
    return out, _peak()


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # then the peak is that of the whole run so far, which is still an upper bound


def _peak() -> float:
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        unit = 2**20 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _time(ready: _Ready) -> float:
    """Seconds of a batch; of several workers, until each has run IN_A_ROW, by that number."""
    workers, device = ready.setting.workers, ready.predictor.device
    if workers == 1:
        return _seconds(ready.run, device)

    def run_all() -> None:
        with ready.predictor.side_by_side(workers), ThreadPoolExecutor(workers) as pool:
            for done in [pool.submit(ready.run) for _ in range(workers * IN_A_ROW)]:
                done.result()

    return _seconds(run_all, device) / IN_A_ROW


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """What `run` takes: on CUDA between two events on the GPU, else by the clock."""
    if device.type != "cuda":
        begun = time.perf_counter()
        run()
        return time.perf_counter() - begun
    with torch.cuda.device(device):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        run()
        end.record()
        end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def _row(
    ready: _Ready, seconds: Sequence[float], peak: float | None, gemm_side: int | None
) -> dict[str, Any]:
    median = statistics.median(seconds)
    low, high = np.percentile(seconds, (25, 75))
    pairs = _pairs(ready.setting)
    row: dict[str, Any] = to_dict(ready.setting) | {
        "precision": ready.predictor.precision,
        "median_ms": round(1e3 * median, 3),
        "iqr_ms": round(1e3 * float(high - low), 3),
        "rounds": len(seconds),
        "pairs_per_second": round(pairs / median, 3),
        "peak_mib": None if peak is None else round(peak, 1),
    }
    if ready.count is None:
        return row
    dtype, device = _number_format(ready.predictor.precision), ready.predictor.device
    rate, gflop = gemm_gflops(device, dtype, gemm_side), _gflop(ready.count)
    reached = gflop * pairs / median
    return row | {
        "gflop": round(gflop, 3),
        "gflops": round(reached, 2),
        "gemm_gflops": round(rate, 2),
        "share": round(reached / rate, 4),
        "mfu": model_flop_utilisation(reached, _name(device), dtype),
        "operators": _operators(ready),
    }


def _pairs(setting: Setting) -> int:
    """In the seconds that `_time` gives."""
    return setting.batch_size * setting.workers


def _number_format(precision: str) -> torch.dtype:
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def gemm_gflops(device: torch.device, dtype: torch.dtype, side: int | None = None) -> float:
    """Rate of square matrix products in GFLOP/s: the best of five.

    `side` None is 1024, and on CUDA 8192, ten in a row: smaller ones do not fill a large GPU.
    """
    cuda = device.type == "cuda"
    side, in_a_row = side or (8192 if cuda else 1024), 10 if cuda else 1
    a = torch.full((side, side), 0.1, device=device, dtype=dtype)
    product = torch.empty_like(a)

    def multiply() -> None:
        for _ in range(in_a_row):
            torch.matmul(a, a, out=product)
        if device.type not in ("cpu", "cuda"):
            product[0, 0].item()  # waits for it

    best = min(_seconds(multiply, device) for _ in range(5))
    return 2 * side**3 * in_a_row / best / 1e9


def model_flop_utilisation(gflops: float, gpu: str, dtype: torch.dtype) -> float | None:
    """Share of the published peak in [0, 1] that so many GFLOP/s are; None where none is known."""
    known = [peak for name, peak in PUBLISHED_TFLOPS.items() if re.search(rf"\b{name}\b", gpu)]
    if not known or dtype not in (torch.bfloat16, torch.float16):
        return None
    return round(gflops / 1e3 / known[0], 4)


def _gflop(run: Callable[[], object]) -> float:
    """Of one run; a multiplication and an addition count as two."""
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):  # the fused kernels are not counted on CPUs
        run()
    return float(counter.get_total_flops()) / 1e9


def _operators(ready: _Ready) -> list[dict[str, Any]]:
    """The operators that take longest, with their share of the time."""
    cuda = ready.predictor.device.type == "cuda"
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
    with profile(activities=kinds) as profiled:
        ready.run()
        if cuda:
            torch.cuda.synchronize(ready.predictor.device)
    times = {  # the kernels' own entries repeat what counts for the operators that start them
        event.key: event.self_device_time_total if cuda else event.self_cpu_time_total
        for event in profiled.key_averages()
        if event.device_type == DeviceType.CPU
    }
    total = sum(times.values()) or 1.0
    longest = sorted(times, key=lambda key: times[key], reverse=True)[:8]
    return [{"name": key, "share": round(times[key] / total, 4)} for key in longest]


def _machine(device: torch.device) -> dict[str, Any]:
    """In words that tell machines apart without naming one."""
    return {
        "device": device.type,
        "processor": _name(device),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()
