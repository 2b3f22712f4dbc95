"""`sartm bench`: how fast a model runs, in how much memory, and how near that is to the machine.

Two settings are compared in turns within one process: what disturbs the machine disturbs both, so
the ratio per round says more than two runs one after the other.
"""

import platform
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
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from sartm.config import Modality, from_dict, to_dict
from sartm.errors import InputError
from sartm.export import export_model
from sartm.inference import Precision, Predictor
from sartm.model.checkpoint import load
from sartm.model.exported import INPUTS, ExportedModel
from sartm.model.sartm import SARTM

Array = npt.NDArray[Any]
Runtime = Literal["torch", "onnx", "openvino"]
IN_A_ROW = 4
"""Batches that each of several streams runs in a round: they need not end together."""


@dataclass(frozen=True)
class Setting:
    """What one measurement is of."""

    model: str = "mini"
    runtime: Runtime = "torch"
    """`onnx` and `openvino` export the model first; an exported file has its own."""
    height: int = 480
    width: int = 640
    batch: int = 1
    precision: Precision = "auto"
    modality: Modality = "both"
    streams: int = 1
    """Batches under way at a time, each on its part of the cores."""

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 32 or max(self.height, self.width) > 16384:
            raise InputError(f"size is {self.height}x{self.width}; each side needs 32 to 16384")
        if not 1 <= self.batch <= 1024:
            raise InputError(f"batch is {self.batch}; choose 1 to 1024")
        if not 1 <= self.streams <= 256:
            raise InputError(f"streams is {self.streams}; choose 1 to 256")


@dataclass(frozen=True)
class _Ready:
    """A setting that can be run: `run` gives logits (B, K, h/4, w/4) of one batch."""

    setting: Setting
    run: Callable[[], Array]
    predictor: Predictor
    network: SARTM | None
    """For operators and arithmetic; None in other runtimes."""


def bench(
    setting: Setting,
    changed: Setting | None = None,
    *,
    rounds: int = 10,
    device: str = "auto",
    model: SARTM | ExportedModel | None = None,
    gemm_side: int = 1024,
) -> dict[str, Any]:
    """Measure a setting, or two in turns.

    Args:
        setting: what to run.
        changed: a second setting to compare with, of the same batch and modality.
        rounds: timed runs of each, after one that is not counted.
        device: where PyTorch runs.
        model: used for every setting instead of the model that it names.
        gemm_side: rows and columns of the square matrices that the GEMM rate is measured on.

    Returns:
        JSON-ready: `machine`, `rows` (one per setting: median_ms, iqr_ms, pairs_per_second,
        peak_mib, gflop of one pair, gflops, gemm_gflops, share of it, operators) and, of two,
        `compare`: median_ratio and ratios (time of the first over that of the second per round:
        above 1 the second is faster), agreement of the classes.

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
        ratios = [first / second for first, second in zip(*seconds, strict=True)]
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
        values[key] = int(value) if value.isdecimal() else value
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
    )
    draw = np.random.default_rng(0)
    shape = (setting.batch, setting.height, setting.width)
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
    run = _torch_runner(network, images, predictor.device)
    return _Ready(setting, run, predictor, network)


def _torch_runner(
    network: SARTM, images: dict[str, Array], device: torch.device
) -> Callable[[], Array]:
    x = y = None
    if "rgb" in images:
        x = torch.from_numpy(images["rgb"]).to(device).permute(0, 3, 1, 2).float() / 255
    if "thermal" in images:
        y = torch.from_numpy(images["thermal"]).to(device)[:, None]

    def run() -> Array:
        with torch.inference_mode():
            return np.asarray(network.predict_logits(x, y).float().cpu().numpy())

    return run


def _warm_up(ready: _Ready) -> tuple[Array, float | None]:
    """The output, and the peak memory in MiB of a second run: of the GPU, else of the process."""
    out, device = ready.run(), ready.predictor.device
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
    """Seconds until every stream has run IN_A_ROW batches, by that number; outputs arrive on the
    CPU, so a GPU is done by then."""
    streams = ready.setting.streams
    if streams == 1:
        begun = time.perf_counter()
        ready.run()
        return time.perf_counter() - begun
    with ready.predictor.side_by_side(streams), ThreadPoolExecutor(streams) as pool:
        begun = time.perf_counter()
        for done in [pool.submit(ready.run) for _ in range(streams * IN_A_ROW)]:
            done.result()
        return (time.perf_counter() - begun) / IN_A_ROW


def _row(
    ready: _Ready, seconds: Sequence[float], peak: float | None, gemm_side: int
) -> dict[str, Any]:
    median = statistics.median(seconds)
    low, high = np.percentile(seconds, (25, 75))
    pairs = ready.setting.batch * ready.setting.streams
    row: dict[str, Any] = to_dict(ready.setting) | {
        "precision": ready.predictor.precision,
        "median_ms": round(1e3 * median, 3),
        "iqr_ms": round(1e3 * float(high - low), 3),
        "rounds": len(seconds),
        "pairs_per_second": round(pairs / median, 3),
        "peak_mib": None if peak is None else round(peak, 1),
    }
    if ready.network is None:
        return row
    dtype = ready.network.no_mem_embed.dtype
    rate, gflop = gemm_gflops(ready.predictor.device, dtype, gemm_side), _gflop(ready)
    reached = gflop * pairs / median
    return row | {
        "gflop": round(gflop, 3),
        "gflops": round(reached, 2),
        "gemm_gflops": round(rate, 2),
        "share": round(reached / rate, 4),
        "operators": _operators(ready),
    }


def gemm_gflops(device: torch.device, dtype: torch.dtype, side: int = 1024) -> float:
    """Rate of a square matrix product in GFLOP/s: the best of five."""
    a = torch.full((side, side), 0.1, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        (a @ a)[0, 0].item()  # waits for a GPU
        best = min(best, time.perf_counter() - begun)
    return 2 * side**3 / best / 1e9


def _gflop(ready: _Ready) -> float:
    """Of one pair; a multiplication and an addition count as two."""
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):  # the fused kernels are not counted on CPUs
        ready.run()
    return float(counter.get_total_flops()) / ready.setting.batch / 1e9


def _operators(ready: _Ready) -> list[dict[str, Any]]:
    """The operators that take longest, with their share of the time."""
    cuda = ready.predictor.device.type == "cuda"
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
    with profile(activities=kinds) as profiled:
        ready.run()
    times = {
        event.key: event.self_device_time_total if cuda else event.self_cpu_time_total
        for event in profiled.key_averages()
    }
    total = sum(times.values()) or 1.0
    longest = sorted(times, key=lambda key: times[key], reverse=True)[:8]
    return [{"name": key, "share": round(times[key] / total, 4)} for key in longest]


def _machine(device: torch.device) -> dict[str, Any]:
    """In words that tell machines apart without naming one."""
    name = platform.processor() or platform.machine()
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {
        "device": device.type,
        "processor": name,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


__all__ = ["Setting", "bench", "change_setting", "gemm_gflops"]
