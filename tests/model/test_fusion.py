"""FRM and FFM compute what CMX's formulas say, cross the modalities, and scale with the image."""

import golden
import numpy as np
import pytest
import torch
from torch import Tensor

from sartm.config import FusionConfig
from sartm.model.encoder import Levels
from sartm.model.fusion import CrossPath, FeatureFusion, FeatureRectification, Fusion, context
from sartm.model.released import rename

close = torch.testing.assert_close


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# Against the formulas, written the slow way


def test_rectification_adds_to_each_modality_the_gated_other_one():
    module, (x1, x2) = FeatureRectification(8), torch.randn(2, 3, 8, 4, 6)
    out = module(x1, x2)
    for b in range(3):
        both = torch.cat([x1[b], x2[b]])
        pooled = torch.cat([both.mean((1, 2)), both.flatten(1).max(1).values])
        first, _, second, _ = module.channel_gates
        channel = second.weight @ (first.weight @ pooled + first.bias).relu() + second.bias
        channel = channel.sigmoid()
        first, _, second, _ = module.spatial_gates
        for i in range(4):
            for j in range(6):
                column = both[:, i, j]
                hidden = (first.weight[:, :, 0, 0] @ column + first.bias).relu()
                spatial = (second.weight[:, :, 0, 0] @ hidden + second.bias).sigmoid()
                from_rgb = 0.5 * (channel[:8] + spatial[0]) * x1[b, :, i, j]
                from_thermal = 0.5 * (channel[8:] + spatial[1]) * x2[b, :, i, j]
                close(out[0][b, :, i, j], x1[b, :, i, j] + from_thermal, atol=1e-5, rtol=1e-5)
                close(out[1][b, :, i, j], x2[b, :, i, j] + from_rgb, atol=1e-5, rtol=1e-5)


def slow_context(kv: Tensor, heads: int, n0: int) -> Tensor:
    """softmax over the rows of (n0 / n) / sqrt(d) * sum over positions of k v^T, per head."""
    batch, n, double = kv.shape
    d = double // 2 // heads
    out = torch.zeros(batch, heads, d, d)
    for b in range(batch):
        for h in range(heads):
            keys = kv[b, :, h * d : (h + 1) * d]
            values = kv[b, :, double // 2 + h * d : double // 2 + (h + 1) * d]
            total = sum(torch.outer(k, v) for k, v in zip(keys, values, strict=True))
            exponent = (total * n0 / n / d**0.5).exp()
            out[b, h] = exponent / exponent.sum(0, keepdim=True)
    return out


@pytest.mark.parametrize(("heads", "n0"), [(1, 12), (2, 12), (2, 5), (4, 40)])
def test_context_is_a_softmax_over_the_keys_of_their_products_with_the_values(heads, n0):
    kv = torch.randn(2, 12, 16)
    close(context(kv, heads, n0), slow_context(kv, heads, n0), atol=1e-5, rtol=1e-5)


def test_context_of_a_larger_image_with_the_same_content_is_the_same():
    kv = torch.randn(1, 12, 16)
    close(context(kv.repeat(1, 9, 1), 2, 12), context(kv, 2, 12), atol=1e-5, rtol=1e-5)


def test_context_is_computed_in_float32_under_autocast():
    kv = torch.randn(1, 300, 16)
    with torch.autocast("cpu", torch.bfloat16):
        close(context(kv, 2, 300), context(kv, 2, 300).float(), atol=0, rtol=0)
        low = context(kv, 2, 300)
    assert low.dtype == torch.float32
    close(low, slow_context(kv, 2, 300), atol=1e-5, rtol=1e-5)


def test_each_modality_asks_with_its_own_tokens_in_the_context_of_the_other():
    module, (x1, x2) = CrossPath(8, 2), torch.randn(2, 1, 12, 8)
    out1, out2 = module(x1, x2, 12)
    y1, u1 = module.enter_rgb(x1).relu().split(8, -1)
    y2, u2 = module.enter_thermal(x2).relu().split(8, -1)
    contexts = (
        slow_context(module.keys_values_rgb(u1), 2, 12),
        slow_context(module.keys_values_thermal(u2), 2, 12),
    )

    def read(u: Tensor, table: Tensor) -> Tensor:
        return torch.cat([u[..., :4] @ table[:, 0], u[..., 4:] @ table[:, 1]], -1)

    told1 = module.leave_rgb(torch.cat([y1, read(u1, contexts[1])], -1))
    told2 = module.leave_thermal(torch.cat([y2, read(u2, contexts[0])], -1))
    close(out1, module.norm_rgb(x1 + told1), atol=1e-5, rtol=1e-5)
    close(out2, module.norm_thermal(x2 + told2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_fusion_is_the_norm_of_a_residual_and_a_depthwise_mix_of_both(norm):
    module, (x1, x2) = FeatureFusion(8, 2, norm), torch.randn(2, 2, 8, 4, 6)
    tokens = [x.flatten(2).transpose(1, 2) for x in (x1, x2)]
    crossed = [t.transpose(1, 2).unflatten(2, (4, 6)) for t in module.cross(*tokens, 24)]
    both = torch.cat(crossed, 1)
    expected = module.norm(module.residual(both) + module.mix(both))
    close(module(x1, x2, 24), expected, atol=1e-5, rtol=1e-5)


def test_layer_norms_make_a_pair_independent_of_its_batch_also_in_training():
    fusion = Fusion(32, FusionConfig(crop=(64, 96))).train()
    levels = [Levels(*(torch.randn(3, c, *s) for c, s in SIZES)) for _ in range(2)]
    whole = fusion(*levels)
    alone = fusion(*(Levels(*(x[1:2] for x in level)) for level in levels))
    for x, y in zip(whole, alone, strict=True):
        close(x[1:2], y, atol=1e-5, rtol=1e-5)


SIZES = ((4, (16, 24)), (8, (8, 12)), (32, (4, 6)))


def test_n0_of_each_level_is_the_tokens_of_the_training_crop():
    """At the crop's size the context is the plain one: that of n0 = n."""
    fusion = Fusion(32, FusionConfig(crop=(64, 96)))
    rgb, thermal = (Levels(*(torch.randn(1, c, *s) for c, s in SIZES)) for _ in range(2))
    fused = fusion(rgb, thermal)
    for index, (_, (height, width)) in enumerate(SIZES):
        rectified = fusion.rectify[index](rgb[index], thermal[index])
        close(fused[index], fusion.fuse[index](*rectified, height * width))


def test_batch_norm_statistics_never_change():
    module = FeatureFusion(8, 2, "batch").train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module(*torch.randn(2, 2, 8, 4, 6), 24)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


# The authors' arithmetic: batch norms with frozen statistics and n0 = h w


@pytest.fixture(scope="module")
def released():
    keys = golden.listing("sartm_released_keys_tiny.json")
    keys = {key: value for key, value in keys.items() if key.startswith(("FRMs.", "FFMs."))}
    renamed = rename(golden.filled(keys, ()), "golden")
    fusion = Fusion(256, FusionConfig(norm="batch"))
    fusion.load_state_dict({k.removeprefix("fusion."): v for k, v in renamed.items()})
    return fusion.eval(), np.load(golden.FOLDER / "golden_modules.npz")


@golden.needed
@pytest.mark.parametrize(("level", "name"), [(0, "fuse32"), (1, "fuse64")])
def test_rectification_and_fusion_are_the_released_ones(released, level, name):
    """`ffm_train` and the statistics after it have no counterpart: ours never change."""
    fusion, arrays = released
    stored = {k.split("/")[1]: arrays[k] for k in arrays if k.startswith(name)}
    rectify, fuse = fusion.rectify[level], fusion.fuse[level]
    x1, x2 = (torch.from_numpy(stored[key]).requires_grad_() for key in ("x1", "x2"))

    def same(ours: Tensor, key: str) -> None:
        close(ours, torch.from_numpy(stored[key]), atol=1e-5, rtol=1e-5)

    channel, spatial = rectify.gates(x1, x2)
    same(torch.stack(channel.chunk(2, 1)), "frm_channel_weights")
    same(torch.stack(spatial.chunk(2, 1)), "frm_spatial_weights")
    for ours, key in zip(rectify(x1, x2), ("frm_out1", "frm_out2"), strict=True):
        same(ours, key)
    tokens = (x.flatten(2).transpose(1, 2) for x in (x1, x2))
    for ours, key in zip(fuse.cross(*tokens, 64), ("ffm_cross1", "ffm_cross2"), strict=True):
        same(ours, key)
    same(fuse(x1, x2, 64), "ffm_eval")
    both = fuse(*rectify(x1, x2), 64)
    same(both, "frm_then_ffm_eval")
    for gradient, key in zip(
        torch.autograd.grad(both.square().mean(), (x1, x2)), ("x1", "x2"), strict=True
    ):
        same(gradient, f"grad_{key}_of_mean_square")
