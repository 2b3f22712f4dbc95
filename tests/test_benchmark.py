"""What `sartm bench` reports; no test states a time."""

import importlib.util
import json
import sys
import time
from functools import partial
from pathlib import Path

import golden
import pytest
import torch
from conftest import TINY, build

from sartm.benchmark import Setting, bench, change_setting, model_flop_utilisation
from sartm.cli.main import main
from sartm.errors import InputError
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.model.sartm import SARTM

SMALL = Setting("drawn", height=64, width=96, precision="fp32")


def test_a_row_holds_speed_memory_and_arithmetic():
    result = bench(SMALL, rounds=3, device="cpu", model=build(TINY).eval(), gemm_side=128)
    (row,) = result["rows"]
    assert row["rounds"] == 3
    assert row["pairs_per_second"] == pytest.approx(1e3 / row["median_ms"], rel=0.01)
    assert row["share"] == pytest.approx(row["gflops"] / row["gemm_gflops"], abs=1e-3)
    assert row["peak_mib"] > 50
    assert 0 < sum(each["share"] for each in row["operators"]) <= 1.001
    assert result["machine"]["device"] == "cpu"
    assert json.loads(json.dumps(result)) == result


@pytest.mark.slow
def test_arithmetic_is_counted_per_pair_and_grows_with_the_image():
    model = build(TINY).eval()
    batch = bench(
        SMALL,
        change_setting(SMALL, "batch_size=2"),
        rounds=1,
        device="cpu",
        model=model,
        gemm_side=64,
    )
    one, two = batch["rows"]
    assert two["gflop"] == pytest.approx(one["gflop"], rel=1e-3)
    assert batch["compare"]["agreement"] is None
    per_pair = two["median_ms"] / 2 / one["median_ms"]
    assert 1 / batch["compare"]["median_ratio"] == pytest.approx(per_pair, rel=1e-2)
    large = bench(
        change_setting(SMALL, "height=128"), rounds=1, device="cpu", model=model, gemm_side=64
    )
    assert large["rows"][0]["gflop"] > 1.8 * one["gflop"]


@pytest.mark.slow
def test_two_settings_are_compared_per_round():
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    model = build(TINY).eval()
    changed = change_setting(SMALL, "runtime=onnx")
    result = bench(SMALL, changed, rounds=3, device="cpu", model=model, gemm_side=64)
    assert [row["runtime"] for row in result["rows"]] == ["torch", "onnx"]
    assert len(result["compare"]["ratios"]) == 3
    assert result["compare"]["agreement"] > 0.999


@pytest.mark.slow
def test_workers_run_at_a_time_and_count_every_batch(monkeypatch):
    before, under_way, most = torch.get_num_threads(), [], []
    logits = SARTM.predict_logits

    def counted(self, *images):
        under_way.append(1)
        most.append(len(under_way))
        time.sleep(0.05)
        out = logits(self, *images)
        under_way.pop()
        return out

    monkeypatch.setattr(SARTM, "predict_logits", counted)
    result = bench(Setting(height=64, width=96, workers=3), rounds=2, model=build(TINY))
    (row,) = result["rows"]
    assert row["workers"] == max(most) == 3
    assert row["pairs_per_second"] == pytest.approx(3e3 / row["median_ms"], rel=1e-2)
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_arithmetic_is_of_the_network_and_speed_of_the_compiled_one(monkeypatch):
    """Compiled code would be counted by none of its operators."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    changed = change_setting(SMALL, "compile=true")
    result = bench(SMALL, changed, rounds=1, device="cpu", model=build(TINY).eval(), gemm_side=64)
    eager, compiled = result["rows"]
    assert (eager["compile"], compiled["compile"]) == (False, True)
    assert compiled["gflop"] == eager["gflop"] > 0
    assert result["compare"]["agreement"] > 0.999


@pytest.mark.parametrize(
    ("gpu", "dtype", "expected"),
    [
        ("NVIDIA H200", torch.bfloat16, 0.5),
        ("NVIDIA H100 80GB HBM3", torch.float16, 0.5),
        ("NVIDIA H100 PCIe", torch.bfloat16, 0.6544),
        ("NVIDIA A100-SXM4-80GB", torch.bfloat16, 1.5856),
        ("NVIDIA L40S", torch.bfloat16, 1.3666),
        ("NVIDIA GH200", torch.bfloat16, None),
        ("NVIDIA H200", torch.float32, None),
        ("x86_64", torch.bfloat16, None),
    ],
)
def test_utilisation_is_of_the_published_peak_and_unknown_where_there_is_none(gpu, dtype, expected):
    assert model_flop_utilisation(494_700, gpu, dtype) == expected


def test_settings_that_do_not_exist_are_refused():
    for text in (
        "runtime",
        "runtime=tpu",
        "threads=2",
        "batch_size=0",
        "height=8",
        "batch_size=many",
    ):
        with pytest.raises(InputError):
            change_setting(SMALL, text)


def test_the_command_ends_with_one_json_object(tmp_path, capsys):
    save(build(TINY), tmp_path / "model", ModelFacts())
    command = ["bench", "--model", str(tmp_path / "model"), "--size", "64x96", "--rounds", "2"]
    assert main([*command, "--precision", "fp32", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert json.loads(lines[-1])["rows"][0]["height"] == 64
    assert main([*command[:4], "64", *command[5:]]) == 2
    assert "HEIGHTxWIDTH" in capsys.readouterr().err


@golden.needed
@pytest.mark.slow
def test_the_denominator_of_speed_claims_computes_what_the_authors_do():
    path = Path(__file__).parents[1] / "benchmarks" / "released_model.py"
    spec = importlib.util.spec_from_file_location("released_model", path)
    released = importlib.util.module_from_spec(spec)
    sys.modules["released_model"] = released
    spec.loader.exec_module(released)
    model = released.ReleasedModel("tiny").eval()
    state = golden.filled(golden.listing("sartm_released_keys_tiny.json"), ("sam.memory",))
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert {name.split(".")[0] for name in missing} == {"lift0", "lift1", "predict"}
    with torch.inference_mode():
        result = model(*golden.inputs())
    found = {f"backbone_fpn_{k}": value for k, value in enumerate(result.levels)}
    found |= {f"fused_released_{k}": value for k, value in enumerate(result.fused)}
    found |= {"low_res_masks": result.masks, "m_output": result.m_output}
    for name, value in found.items():
        taken = golden.taken(f"lora/{name}", value)
        torch.testing.assert_close(taken, golden.stored(f"lora/{name}"), atol=1e-3, rtol=0)
