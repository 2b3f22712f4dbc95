"""EfficientNet-Lite as a trunk: the published arithmetic, adapters per modality, files."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY
from torch import Tensor

from sartm.config import RGB_MEAN, RGB_STD, LoRAConfig
from sartm.errors import InputError
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.model.filling import load_encoder
from sartm.model.lite import (
    LITES,
    NORM_EPSILON,
    TAPS,
    AdaptedConv,
    Conv,
    LiteTrunk,
    clip,
    from_efficientnet,
)
from sartm.model.loading import load
from sartm.model.sartm import SARTM

LORA = LoRAConfig(rank=2, alpha=4.0)
LITE = replace(TINY, size="lite", lora=LORA, frozen_encoder=False)
STRIDES = (4, 8, 16, 32)


def published(seed: int = 0, size: str = "lite") -> dict[str, Tensor]:
    """Random weights under the names and of the shapes of PyTorch's ports, classifier included."""
    draw = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}

    def put(conv: str, norm: str, *shape: int) -> None:
        fan = shape[1] * shape[2] * shape[3]
        tensors[f"{conv}.weight"] = torch.randn(shape, generator=draw) * (2 / fan) ** 0.5
        for part, low in (("weight", 0.5), ("running_var", 0.5), ("bias", -0.5)):
            tensors[f"{norm}.{part}"] = low + torch.rand(shape[0], generator=draw)
        tensors[f"{norm}.running_mean"] = torch.rand(shape[0], generator=draw) - 0.5
        tensors[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    put("_conv_stem", "_bn0", 32, 3, 3, 3)
    width, index = 32, 0
    for stage in LITES[size]:
        for _ in range(stage.blocks):
            name, inner = f"_blocks.{index}", width * stage.expand
            if stage.expand > 1:
                put(f"{name}._expand_conv", f"{name}._bn0", inner, width, 1, 1)
            put(f"{name}._depthwise_conv", f"{name}._bn1", inner, 1, stage.kernel, stage.kernel)
            put(f"{name}._project_conv", f"{name}._bn2", stage.width, inner, 1, 1)
            width, index = stage.width, index + 1
    put("_conv_head", "_bn1", 1280, width, 1, 1)
    tensors["_fc.weight"] = torch.randn(1000, 1280, generator=draw)
    return tensors


def as_published(t: dict[str, Tensor], rgb: Tensor) -> list[Tensor]:
    """The network as its paper and TensorFlow compute it, step by step, on RGB in [0, 1]."""

    def conv(x: Tensor, name: str, norm: str, stride: int = 1) -> Tensor:
        weight = t[f"{name}.weight"]
        groups = weight.shape[0] if weight.shape[1] == 1 else 1
        side = weight.shape[-1]
        pads = []
        for size in (x.shape[3], x.shape[2]):  # TensorFlow's SAME
            whole = max((-(-size // stride) - 1) * stride + side - size, 0)
            pads += [whole // 2, whole - whole // 2]
        y = F.conv2d(F.pad(x, pads), weight, None, stride, groups=groups)
        mean, variance = t[f"{norm}.running_mean"], t[f"{norm}.running_var"]
        return F.batch_norm(
            y, mean, variance, t[f"{norm}.weight"], t[f"{norm}.bias"], eps=NORM_EPSILON
        )

    x = F.relu6(conv((rgb * 255 - 127) / 128, "_conv_stem", "_bn0", 2))
    taps, index = [], 0
    for number, stage in enumerate(LITES["lite"]):
        for place in range(stage.blocks):
            name, before = f"_blocks.{index}", x
            if stage.expand > 1:
                x = F.relu6(conv(x, f"{name}._expand_conv", f"{name}._bn0"))
            stride = stage.stride if place == 0 else 1
            x = F.relu6(conv(x, f"{name}._depthwise_conv", f"{name}._bn1", stride))
            x = conv(x, f"{name}._project_conv", f"{name}._bn2")
            if x.shape == before.shape:
                x = x + before
            index += 1
        if number in TAPS:
            taps.append(x)
    return taps


def standardised(rgb: Tensor) -> Tensor:
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (RGB_MEAN, RGB_STD))
    return (rgb - mean) / std


@pytest.fixture(scope="module")
def filled() -> LiteTrunk:
    """With random published weights and adapters that do something."""
    trunk = LiteTrunk(LORA)
    trunk.load_state_dict(from_efficientnet(published(), "x"), strict=False)
    torch.manual_seed(1)
    for name, parameter in trunk.named_parameters():
        if name.endswith("lora_up"):
            torch.nn.init.normal_(parameter, std=0.02)
    return trunk


@torch.no_grad()
def test_it_computes_what_was_published():
    """To the last pixel but where the stem sees the border: there the padding is another grey."""
    trunk, weights = LiteTrunk(LORA), published()
    trunk.load_state_dict(from_efficientnet(weights, "x"), strict=False)
    grey = torch.tensor([(127 / 255 - m) / s for m, s in zip(RGB_MEAN, RGB_STD, strict=True)])
    rgb = torch.rand(2, 3, 64, 96)
    # inside a frame of the grey that the published network pads with
    framed = torch.full((2, 3, 192, 224), 127 / 255)
    framed[..., 64:128, 64:160] = rgb
    assert torch.allclose(standardised(framed)[0, :, 0, 0], grey)
    expected = as_published(weights, framed)
    for ours, theirs, stride in zip(trunk(standardised(framed), 1), expected, STRIDES, strict=True):
        assert ours.shape == (2, 192 // stride, 224 // stride, theirs.shape[1])
        if stride > 8:  # the border reaches everything there
            continue
        margin = 48 // stride
        inner = slice(margin, -margin)
        torch.testing.assert_close(
            ours[:, inner, inner], theirs.permute(0, 2, 3, 1)[:, inner, inner],
            atol=2e-3, rtol=1e-3,
        )  # fmt: skip


@torch.no_grad()
def test_the_whole_depth_is_as_published_where_there_is_no_border():
    """With a mean that makes both paddings the same grey, deep maps agree as well."""
    trunk, weights = LiteTrunk(LORA), published(3)
    turned = from_efficientnet(weights, "x")
    # undo the turn: the plain stem on the published input
    factor = weights["_bn0.weight"] / (weights["_bn0.running_var"] + NORM_EPSILON).sqrt()
    turned["stem.weight"] = weights["_conv_stem.weight"] * factor.view(-1, 1, 1, 1)
    turned["stem.bias"] = weights["_bn0.bias"] - weights["_bn0.running_mean"] * factor
    trunk.load_state_dict(turned, strict=False)
    rgb = torch.rand(1, 3, 96, 64)
    for ours, theirs in zip(
        trunk((rgb * 255 - 127) / 128, 1), as_published(weights, rgb), strict=True
    ):
        scale = float(theirs.abs().max())
        torch.testing.assert_close(ours.permute(0, 3, 1, 2), theirs, atol=1e-4 * scale, rtol=1e-3)


@torch.no_grad()
def test_every_modality_has_its_own_adapters_and_nothing_of_the_other(filled):
    images = torch.randn(3, 3, 32, 64)
    both = filled(images, 2)
    rgb, thermal = filled(images[:2], 2), filled(images[2:], 0)
    for whole, first, second in zip(both, rgb, thermal, strict=True):
        assert torch.equal(whole, torch.cat([first, second]))
    assert not torch.allclose(filled(images[2:], 1)[0], thermal[0])


@torch.no_grad()
def test_adapters_are_what_lora_says_and_fold_exactly():
    layer = AdaptedConv(6, 5, LORA)
    torch.nn.init.normal_(layer.lora_up)
    x = torch.randn(2, 3, 4, 6)
    for modality in (0, 1):
        change = x @ layer.lora_down[modality].T @ layer.lora_up[modality].T * 4.0 / 2
        plain = x @ layer.weight.T + layer.bias
        torch.testing.assert_close(layer(x, modality), plain + change)
        torch.testing.assert_close(layer.merged()(x, modality), layer(x, modality))
    shared = AdaptedConv(6, 5, LoRAConfig("shared", rank=2, alpha=4.0))
    torch.nn.init.normal_(shared.lora_up)
    assert torch.equal(shared(x, 0), shared(x, 1))
    none = AdaptedConv(6, 5, LoRAConfig("none"))
    assert [name for name, _ in none.named_parameters()] == ["weight", "bias"]
    assert torch.equal(none.merged()(x, 1), none(x, 0))


@pytest.mark.parametrize("given", ["both", "rgb", "thermal"])
@torch.no_grad()
def test_a_merged_model_predicts_the_same(given):
    torch.manual_seed(0)
    model = SARTM(LITE).eval()
    for module in model.modules():
        if isinstance(module, AdaptedConv):
            torch.nn.init.normal_(module.lora_up, std=0.05)
    rgb = torch.rand(1, 3, 70, 90) if given != "thermal" else None
    thermal = torch.rand(1, 1, 70, 90) if given != "rgb" else None
    expected = model.predict_logits(rgb, thermal)
    got = model.merged().predict_logits(rgb, thermal)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_a_model_starts_from_a_file(tmp_path):
    file = tmp_path / "efficientnet-lite0.pth"
    torch.save(published(), file)
    model = SARTM(LITE)
    loaded = load_encoder(model, file)
    assert all(name.startswith("image_encoder.trunk.") for name in loaded.loaded)
    assert any("neck" in name for name in loaded.new)
    for name, tensor in from_efficientnet(published(), "x").items():
        assert torch.equal(model.get_parameter(f"image_encoder.trunk.{name}").data, tensor)


def test_another_file_is_refused(tmp_path):
    lacking = published()
    del lacking["_blocks.9._bn2.running_var"]
    files: dict[str, Path] = {}
    for name, tensors in (("lacking", lacking), ("wide", {**published()})):
        files[name] = tmp_path / f"{name}.pth"
        if name == "wide":  # as Lite1 and larger are: more blocks or channels
            tensors["_blocks.4._expand_conv.weight"] = torch.zeros(300, 40, 1, 1)
            for part in ("weight", "bias", "running_mean", "running_var"):
                tensors[f"_blocks.4._bn0.{part}"] = torch.ones(300)
        torch.save(tensors, files[name])
    with pytest.raises(InputError, match=r"lacks _blocks\.9\._bn2\.running_var"):
        load_encoder(SARTM(LITE), files["lacking"])
    with pytest.raises(InputError, match=r"blocks\.4\.expand"):
        load_encoder(SARTM(LITE), files["wide"])
    torch.save(published(), tmp_path / "right.pth")
    with pytest.raises(InputError, match=r"model\.size=lite"):
        load_encoder(SARTM(TINY), tmp_path / "right.pth")


def test_a_file_of_the_wider_family_is_refused(tmp_path):
    """EfficientNet-B0 has Lite0's names and widths, and gates besides."""
    gated = published() | {"_blocks.0._se_reduce.weight": torch.zeros(8, 32, 1, 1)}
    torch.save(gated, tmp_path / "b0.pth")
    with pytest.raises(InputError, match="squeeze-and-excitation"):
        load_encoder(SARTM(LITE), tmp_path / "b0.pth")


def test_a_trunk_alone_is_no_model(tmp_path):
    torch.save(published(), tmp_path / "lite0.pth")
    with pytest.raises(InputError, match=r"--set encoder="):
        load(tmp_path / "lite0.pth")


def test_a_model_on_a_frozen_trunk_is_saved_whole(tmp_path):
    """A file brings the trunk alone: the neck learns, and is in the folder."""
    torch.save(published(), tmp_path / "lite0.pth")
    model = SARTM(replace(LITE, frozen_encoder=True))
    load_encoder(model, tmp_path / "lite0.pth")
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any(name.startswith("image_encoder.neck.") for name in learning)
    trunk = {n for n in learning if n.startswith("image_encoder.trunk.")}
    assert trunk
    assert all(".lora_" in name for name in trunk)
    save(model, tmp_path / "model", ModelFacts())
    (tmp_path / "lite0.pth").unlink()
    found = load(tmp_path / "model").state_dict()
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())
    assert "EfficientNet-Lite" in (tmp_path / "model" / "README.md").read_text()


def test_each_size_takes_its_own_file(tmp_path):
    for size in LITES:
        torch.save(published(size=size), tmp_path / f"{size}.pth")
    model = SARTM(replace(LITE, size="lite2"))
    load_encoder(model, tmp_path / "lite2.pth")
    for name, tensor in from_efficientnet(published(size="lite2"), "x").items():
        assert torch.equal(model.get_parameter(f"image_encoder.trunk.{name}").data, tensor)
    with pytest.raises(InputError, match=r"model\.size=lite"):
        load_encoder(model, tmp_path / "lite.pth")


def test_a_size_between_is_refused(tmp_path):
    between = published(size="lite2")
    for part in ("_expand_conv", "_depthwise_conv", "_project_conv"):
        del between[f"_blocks.20.{part}.weight"]
    torch.save(between, tmp_path / "cut.pth")
    with pytest.raises(InputError, match=r"of 20 blocks; .* Lite0 and Lite2"):
        load_encoder(SARTM(LITE), tmp_path / "cut.pth")


# With batch norms (two per channel, here one bias), classifier and head, as the files hold them.
@pytest.mark.parametrize(
    ("size", "widths", "published_count"),
    [("lite", (24, 40, 112, 320), 4_652_008), ("lite2", (24, 48, 120, 352), 6_092_072)],
)
def test_the_trunk_is_as_large_as_published(size, widths, published_count):
    trunk = LiteTrunk(LoRAConfig("none"), LITES[size])
    assert LiteTrunk(LORA, LITES[size]).widths == widths
    head = 1280 * widths[3] + 2 * 1280 + 1000 * 1280 + 1000
    norms = sum(p.numel() for name, p in trunk.named_parameters() if name.endswith("bias"))
    assert sum(p.numel() for p in trunk.parameters()) + norms + head == published_count


@pytest.mark.parametrize("part", ["weight", "running_var"])
def test_norms_that_would_spread_the_weights_are_refused(part, tmp_path):
    weights = published()
    weights[f"_bn0.{part}"] = torch.ones(2**20)
    torch.save(weights, tmp_path / "lite0.pth")
    with pytest.raises(InputError, match="_conv_stem and _bn0 do not fit"):
        load(tmp_path / "lite0.pth")


def test_clipping_has_the_values_and_gradients_of_relu6():
    values = torch.tensor([-1.0, 0.0, 1e-6, 3.0, 6.0 - 1e-6, 6.0, 9.0])
    with torch.no_grad():
        assert torch.equal(clip(values.clone()), F.relu6(values))
    found = []
    for clipped in (clip, F.relu6):
        x = values.clone().requires_grad_()
        out = clipped((2 * x).view(-1, 1)[:, 0])
        (out * torch.arange(7.0)).sum().backward()
        found.append((out.detach(), x.grad))
    assert all(map(torch.equal, *found))


def test_convolutions_are_learned_in_fp32_under_autocast():
    """Their gradients in bf16 are slow, and coarse: a weight's is a sum over all positions."""
    conv = Conv(8, 8, 3, 2, groups=8)
    x = torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = torch.autograd.grad(conv(x).square().sum(), conv.weight)[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(conv(x).square().sum(), conv.weight)[0]
        with torch.no_grad():
            assert conv(x).dtype == torch.bfloat16
    assert torch.equal(found, expected)
