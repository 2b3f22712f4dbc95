"""sartm against the authors' computation: in turns, in one process, a ratio per pair of runs.

    python benchmarks/released.py --what tiny-1024 [--threads 2] [--rounds 7]
        [--runtime torch|openvino|openvino-int8] [--precision fp32|bf16] [--checkpointing]

`--what` is tiny-512, tiny-1024 (prediction at that square), base_plus-480x640 (sartm at 480x640,
the authors on the 1280x1280 canvas they pad to), train-tiny-512 or train-tiny-1024 (a training
step of one pair). Weights are random, images noise: neither changes the work.

The authors' time ends with logits of the image's size, sartm's with the label map. A ratio counts
only if the authors' computation runs here as fast as where it was measured first: its GFLOP/s,
as a share of the rate of a 2048 x 2048 product, must be within 15 % of that machine's share.
Peak memory is that of a process of its own that does nothing else. The last line is one JSON
object.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from released_model import ReleasedLoss, ReleasedModel
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sartm.classes import Classes
from sartm.config import FusionConfig, ModelConfig
from sartm.export import export_model
from sartm.inference.predictor import Predictor, label_map
from sartm.model.loading import load
from sartm.model.sartm import SARTM
from sartm.training.criterion import Criterion
from sartm.training.recompute import recompute_activations
from sartm.training.settings import LossConfig

Run = Callable[[], object]

CLASSES = Classes(("background", "extinguisher", "backpack", "drill", "survivor"))
"""As many as the authors' model has."""
BASELINE_GEMM = 270.0
"""GFLOP/s in fp32 of the machine that the authors' computation was first measured on."""


class Case(NamedTuple):
    size: str
    canvas: int
    """Side of the square the authors compute."""
    image: tuple[int, int]
    """What sartm computes."""
    training: bool
    seconds: float
    """Of the authors' computation on that machine, median, two threads."""


CASES = {
    "tiny-512": Case("tiny", 512, (512, 512), False, 0.913),
    "tiny-1024": Case("tiny", 1024, (1024, 1024), False, 4.892),
    "base_plus-480x640": Case("base_plus", 1280, (480, 640), False, 16.393),
    "train-tiny-512": Case("tiny", 512, (512, 512), True, 3.182),
    "train-tiny-1024": Case("tiny", 1024, (1024, 1024), True, 19.3),
}


def make_theirs(case: Case) -> Run:
    torch.manual_seed(0)
    model = ReleasedModel(case.size).train(case.training)
    shape = (1, 3, case.canvas, case.canvas)
    rgb, thermal = torch.randn(shape), torch.randn(shape)
    if not case.training:
        return lambda: predict_theirs(model, rgb, thermal)
    label, loss = draw_label((case.canvas, case.canvas)), ReleasedLoss(len(CLASSES))
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(model(rgb, thermal), label).backward()
        optimizer.step()

    return step


def draw_label(size: tuple[int, int]) -> torch.Tensor:
    """(1, *size) ids in squares of 32 pixels."""
    coarse = torch.randint(0, len(CLASSES), (1, size[0] // 32, size[1] // 32))
    return coarse.repeat_interleave(32, 1).repeat_interleave(32, 2)


@torch.inference_mode()
def predict_theirs(model: ReleasedModel, rgb: torch.Tensor, thermal: torch.Tensor) -> torch.Tensor:
    return model(rgb, thermal).m_output


def make_ours(case: Case, options: argparse.Namespace) -> Run:
    torch.manual_seed(0)
    model = SARTM(ModelConfig(CLASSES, case.size, fusion=FusionConfig(crop=case.image)))
    if case.training:
        return make_our_step(model, case, options)
    draw = np.random.default_rng(0)
    rgb = draw.integers(0, 256, (*case.image, 3), np.uint8)
    thermal = draw.random(case.image, np.float32)
    if options.runtime != "torch":
        model = exported(model, case, options.runtime)
    predictor = Predictor(model, device="cpu", precision=options.precision)
    del model
    return lambda: label_map(predictor.logits(rgb, thermal), case.image, len(CLASSES))


def exported(model: SARTM, case: Case, runtime: str):
    """Through the command's own export, fixed to the size."""
    from sartm.data.pairs import Sample

    draw = np.random.default_rng(0)
    rgb = draw.integers(0, 256, (*case.image, 3), np.uint8)
    sample = Sample("drawn", rgb, draw.integers(0, 256, case.image, np.uint8))
    int8 = runtime.endswith("int8")
    with tempfile.TemporaryDirectory() as folder:
        file = export_model(
            model,
            Path(folder) / "export",
            format="openvino",
            size=case.image,
            int8=int8,
            calibration=[sample] if int8 else (),
            agreement=0.0 if int8 else None,  # of random weights classes are a matter of noise
        ).file
        return load(file)


def make_our_step(model: SARTM, case: Case, options: argparse.Namespace) -> Run:
    speaks = torch.ones(len(CLASSES), dtype=torch.bool)
    criterion = Criterion(LossConfig(), model.config.width, speaks, torch.eye(len(CLASSES)))
    model.train()
    if options.checkpointing:
        recompute_activations(model)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4)
    rgb, thermal = torch.rand(1, 3, *case.image), torch.rand(1, 1, *case.image)
    label = draw_label(case.image)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
            terms = criterion(model(rgb, thermal), label)
        terms["total"].backward()
        optimizer.step()
        criterion.remember()

    return step


def count_gflop(case: Case, options: argparse.Namespace) -> tuple[float, float]:
    """Of theirs and ours, networks alone, on tensors without memory; attention counts."""
    theirs = ReleasedModel(case.size).train(case.training)
    ours = SARTM(ModelConfig(CLASSES, case.size, fusion=FusionConfig(crop=case.image)))
    if options.checkpointing:
        recompute_activations(ours)
    ours = ours.train() if case.training else ours.merged()

    def run_theirs() -> list[torch.Tensor]:
        shape = (1, 3, case.canvas, case.canvas)
        result = theirs(torch.rand(shape), torch.rand(shape))
        return [result.m_output, result.output]

    def run_ours() -> list[torch.Tensor]:
        rgb, thermal = torch.rand(1, 3, *case.image), torch.rand(1, 1, *case.image)
        if not case.training:
            return [ours.predict_logits(rgb, thermal)]
        output = ours(rgb, thermal)
        return [output.logits, output.auxiliary]

    counted = []
    for run in (run_theirs, run_ours):
        counter = FlopCounterMode(display=False)
        empty, plain = FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH)
        with torch.set_grad_enabled(case.training), empty, counter, plain:
            logits = run()
            if case.training:
                sum(x.mean() for x in logits).backward()
        counted.append(counter.get_total_flops() / 1e9)
    return counted[0], counted[1]


def gemm_gflops(side: int = 2048) -> float:
    """Median of eight, in fp32, as the baseline's."""
    a, b = torch.randn(2, side, side)
    times = []
    for _ in range(8):
        begun = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - begun)
    return 2 * side**3 / statistics.median(times) / 1e9


def seconds_of(run: Run) -> tuple[float, float]:
    """Of the clock, and of the processor over all threads: other work disturbs that less."""
    begun, used = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - begun, time.process_time() - used


def peak_mib(which: str) -> float:
    """Of a fresh process that builds one of both and runs it twice."""
    command = [sys.executable, __file__, *sys.argv[1:], "--alone", which]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def own_peak() -> float:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--what", choices=CASES, default="tiny-1024")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--runtime", choices=("torch", "openvino", "openvino-int8"), default="torch"
    )
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--checkpointing", action="store_true", help="of our training step")
    parser.add_argument("--alone", choices=("theirs", "ours"), help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(case: Case, options: argparse.Namespace) -> dict[str, object]:
    memory = [peak_mib(which) for which in ("theirs", "ours")]
    runs = [make_theirs(case), make_ours(case, options)]
    for run in runs:
        run()
    rates, times, used = [gemm_gflops()], [], []
    for number in range(options.rounds):
        (theirs, their_work), (ours, our_work) = (seconds_of(run) for run in runs)
        times.append((theirs, ours))
        used.append(their_work / our_work)
        print(
            f"round {number + 1}: theirs {theirs:.3f} s, ours {ours:.3f} s: {theirs / ours:.2f}x "
            f"({used[-1]:.2f}x in processor time)",
            flush=True,
        )
        rates.append(gemm_gflops())
    ratio = statistics.median(theirs / ours for theirs, ours in times)
    gemm = statistics.median(rates)
    rows = {}
    counted = count_gflop(case, options)
    for name, column, gflop, peak in zip(
        ("theirs", "ours"), zip(*times, strict=True), counted, memory, strict=True
    ):
        median = statistics.median(column)
        rows[name] = {
            "seconds": round(median, 4),
            "gflop": round(gflop, 1),
            "gflops": round(gflop / median, 1),
            "share_of_gemm": round(gflop / median / gemm, 3),
            "peak_mib": round(peak),
        }
    expected = rows["theirs"]["gflop"] / case.seconds * gemm / BASELINE_GEMM
    off = rows["theirs"]["gflops"] / expected - 1
    return {
        "what": options.what,
        "runtime": options.runtime,
        "precision": options.precision,
        "checkpointing": options.checkpointing,
        "threads": options.threads,
        "rounds": options.rounds,
        "processor": platform.processor() or platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "gemm_gflops": round(gemm, 1),
        **rows,
        "ratio": round(ratio, 3),
        "ratios": [round(theirs / ours, 3) for theirs, ours in times],
        "processor_time_ratio": round(statistics.median(used), 3),
        "memory_ratio": round(memory[1] / memory[0], 3),
        "expected_gflops_of_theirs": round(expected, 1),
        "off_baseline": round(off, 3),
        "counts": abs(off) <= 0.15,
    }


def show(result: dict) -> None:
    print(f"{'':8} {'s':>9} {'GFLOP':>8} {'GFLOP/s':>8} {'of GEMM':>8} {'peak MiB':>9}")
    for name in ("theirs", "ours"):
        row = result[name]
        print(
            f"{name:8} {row['seconds']:9.3f} {row['gflop']:8.1f} {row['gflops']:8.1f} "
            f"{100 * row['share_of_gemm']:7.0f}% {row['peak_mib']:9}"
        )
    print(
        f"GEMM {result['gemm_gflops']:.1f} GFLOP/s fp32; median ratio {result['ratio']:.2f}x, "
        f"in processor time {result['processor_time_ratio']:.2f}x"
    )
    sense = "counts" if result["counts"] else "does NOT count"
    print(
        f"theirs was to reach {result['expected_gflops_of_theirs']:.1f} GFLOP/s here and is "
        f"{100 * result['off_baseline']:+.0f} % off (15 allowed): the ratio {sense}"
    )


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # for the processes of their own
    case = CASES[options.what]
    if options.alone:
        run = make_theirs(case) if options.alone == "theirs" else make_ours(case, options)
        run()
        run()
        print(own_peak())
        return
    result = measure(case, options)
    show(result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
