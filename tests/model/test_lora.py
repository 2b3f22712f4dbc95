"""Adapters change all of q and v of their own modality, nothing of k, and fold into the weights."""

from dataclasses import replace

import golden
import numpy as np
import pytest
import torch
from torch import Tensor

from sartm.config import LoRAConfig
from sartm.model.lora import AdaptedQKV, project

close = torch.testing.assert_close
WIDTHS = [(16, 16), (16, 32)]  # within a stage; where one begins
CONFIG = LoRAConfig(rank=4, alpha=8.0)


def filled(inputs: int, outputs: int, config: LoRAConfig = CONFIG) -> AdaptedQKV:
    torch.manual_seed(0)
    layer = AdaptedQKV(inputs, outputs, config)
    with torch.no_grad():
        layer.lora_up_q.normal_()
        layer.lora_up_v.normal_()
    return layer


def changes(layer: AdaptedQKV, x: Tensor, rgb_rows: int) -> list[Tensor]:
    plain = torch.nn.functional.linear(x, layer.weight, layer.bias).chunk(3, dim=-1)
    return [a - b for a, b in zip(layer(x, rgb_rows), plain, strict=True)]


@pytest.mark.parametrize(("inputs", "outputs"), WIDTHS)
def test_an_untrained_adapter_changes_nothing(inputs, outputs):
    layer = AdaptedQKV(inputs, outputs, CONFIG)
    for change in changes(layer, torch.randn(4, 5, inputs), 2):
        assert not change.any()


@pytest.mark.parametrize(("inputs", "outputs"), WIDTHS)
def test_all_of_q_and_v_is_adapted_and_none_of_k(inputs, outputs):
    layer = filled(inputs, outputs)
    q, k, v = changes(layer, torch.randn(4, 5, inputs), 2)
    assert q.shape == k.shape == v.shape == (4, 5, outputs)
    assert q.all()
    assert v.all()
    assert not k.any()


@pytest.mark.parametrize(("inputs", "outputs"), WIDTHS)
@pytest.mark.parametrize("rgb_rows", [0, 1, 2, 3, 4])
def test_each_row_gets_its_modality_s_update_scaled_by_alpha_over_rank(inputs, outputs, rgb_rows):
    layer, x = filled(inputs, outputs), torch.randn(4, 3, 5, inputs)
    q, _, v = changes(layer, x, rgb_rows)
    for row in range(4):
        modality = 0 if row < rgb_rows else 1
        down_q, down_v = layer.lora_down[modality, :4], layer.lora_down[modality, 4:]
        up_q, up_v = layer.lora_up_q[modality], layer.lora_up_v[modality]
        close(q[row], 2 * x[row] @ down_q.T @ up_q.T, atol=1e-5, rtol=1e-5)
        close(v[row], 2 * x[row] @ down_v.T @ up_v.T, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("inputs", "outputs"), WIDTHS)
@pytest.mark.parametrize("sets", ["per_modality", "shared"])
@pytest.mark.parametrize("rgb_rows", [0, 1, 2, 4])
def test_merged_is_the_same_projection(inputs, outputs, sets, rgb_rows):
    layer = filled(inputs, outputs, replace(CONFIG, sets=sets))
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    x = torch.randn(4, 3, 5, inputs)
    for ours, folded in zip(layer(x, rgb_rows), layer.merged()(x, rgb_rows), strict=True):
        close(folded, ours, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(before[name], t) for name, t in layer.state_dict().items())


def test_without_adapters_there_is_one_plain_projection():
    layer = AdaptedQKV(8, 8, LoRAConfig("none"))
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    x = torch.randn(4, 5, 8)
    close(torch.cat(layer.merged()(x, 2), -1), torch.cat(layer(x, 2), -1))


@pytest.mark.parametrize("bias", [True, False])
def test_projecting_by_modality_is_projecting_each_row_alone(bias):
    weight, x = torch.randn(2, 6, 5), torch.randn(4, 3, 5)
    shift = torch.randn(6) if bias else None
    for rgb_rows in range(5):
        rows = [
            torch.nn.functional.linear(row, weight[int(index >= rgb_rows)], shift)
            for index, row in enumerate(x)
        ]
        close(project(x, weight, shift, rgb_rows), torch.stack(rows))


# The authors' arithmetic


def from_golden(name: str, outputs: int) -> AdaptedQKV:
    """Their three pairs of rank 4 as one adapter of rank 12 for both modalities."""
    fill = golden.recipe().fill
    layer = AdaptedQKV(16, outputs, LoRAConfig("shared", rank=12, alpha=12.0))

    def take(part: str, *shape: int) -> Tensor:
        pairs = [fill(f"{name}.linear_{part}{suffix}.weight", shape) for suffix in ("", "2", "3")]
        return torch.from_numpy(np.concatenate(pairs, axis=0 if part.startswith("a") else 1))

    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(fill(f"{name}.qkv.weight", (3 * outputs, 16))))
        layer.bias.copy_(torch.from_numpy(fill(f"{name}.qkv.bias", (3 * outputs,))))
        layer.lora_down.copy_(torch.cat([take("a_q", 4, 16), take("a_v", 4, 16)])[None])
        layer.lora_up_q[0, :16] = take("b_q", 16, 4)
        layer.lora_up_v[0, -16:] = take("b_v", 16, 4)
    return layer


@golden.needed
@pytest.mark.parametrize(("name", "outputs"), [("lora_same", 16), ("lora_stage", 32)])
def test_three_released_pairs_are_one_adapter_of_three_times_the_rank(name, outputs):
    """Where a block widens theirs reaches only the first half of q and the last of v; ours all,

    so the golden holds there for an adapter whose other rows are zero.
    """
    arrays = np.load(golden.FOLDER / "golden_modules.npz")
    x = torch.from_numpy(arrays[f"{name}/x"])
    layer = from_golden(name, outputs)
    expected = torch.from_numpy(arrays[f"{name}/out"])
    assert not np.allclose(arrays[f"{name}/base_qkv"], expected, atol=0.1)
    for rgb_rows in (0, 1, 2):
        close(torch.cat(layer(x, rgb_rows), -1), expected, atol=1e-5, rtol=1e-5)
        close(torch.cat(layer.merged()(x, rgb_rows), -1), expected, atol=1e-5, rtol=1e-5)
