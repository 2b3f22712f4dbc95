"""Which device and which number format the network runs in."""

import math
import time
from typing import Literal

import torch

from sartm.errors import InputError

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def fast_precision(device: str) -> Literal["fp32", "bf16"]:
    """bf16 where a small matrix product is clearly faster in it, else fp32."""
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device != "cpu" or torch.backends.cpu.get_cpu_capability() == "AVX2":
        return "fp32"  # AVX2 has no bf16: the measurement would take longer than a small image
    a = torch.full((192, 192), 0.1)
    best = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(8):  # the least of several: a busy machine must not decide
        for kind in best:
            x = a.to(kind)
            begun = time.perf_counter()
            x @ x
            best[kind] = min(best[kind], time.perf_counter() - begun)
    return "bf16" if best[torch.bfloat16] < 0.67 * best[torch.float32] else "fp32"


def choose_device(device: str) -> torch.device:
    """`auto` is CUDA, then Apple's MPS, then the CPU."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {device!r} cannot be used: {reason}. Try --device cpu") from None
    return chosen
