"""The model as its users meet it: both modalities count, what is missing or padded does not."""

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, build
from small_weights import count_parameters
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sartm.classes import Classes
from sartm.config import FusionConfig, LoRAConfig, ThermalRule
from sartm.data.pairs import Sample
from sartm.errors import InputError
from sartm.inference.prediction import Prediction
from sartm.inference.predictor import Predictor, label_map
from sartm.inference.schedule import prepare_network
from sartm.inference.tiles import resize_strips
from sartm.model.sartm import SARTM, Output, resize_logits
from sartm.training.recipes import mini

close = torch.testing.assert_close
ALL = torch.ones(2, dtype=torch.bool)
NONE = ~ALL


def tensors(output: Output) -> list[torch.Tensor]:
    assert output.auxiliary is not None
    return [output.logits, output.auxiliary, output.fused, output.rgb, output.thermal]


def assert_same(a: Output, b: Output, tolerance: float = 1e-5) -> None:
    for x, y in zip(tensors(a), tensors(b), strict=True):
        close(x, y, atol=tolerance, rtol=tolerance)


def loss_of(output: Output) -> torch.Tensor:
    assert output.auxiliary is not None
    return output.logits.square().mean() + output.auxiliary.square().mean() + output.fused.mean()


# Both modalities count


def test_each_modality_changes_everything_that_is_computed_from_both(tiny_model, pair):
    rgb, thermal = pair
    first = tiny_model(rgb, thermal)
    for other in (tiny_model(rgb.flip(-1), thermal), tiny_model(rgb, thermal.flip(-1))):
        for name in ("logits", "auxiliary", "fused"):
            assert (getattr(first, name) - getattr(other, name)).abs().max() > 1e-3, name


def test_each_modality_changes_the_fused_map_of_every_level(tiny_model, pair):
    rgb, thermal = tiny_model.encode(*pair)
    fused = tiny_model.fusion(rgb, thermal)
    for index in range(3):
        for which in (0, 1):
            changed = [list(rgb), list(thermal)]
            changed[which][index] = changed[which][index].flip(-1)
            again = tiny_model.fusion(*(type(rgb)(*levels) for levels in changed))
            differs = [not torch.equal(x, y) for x, y in zip(fused, again, strict=True)]
            assert differs == [level == index for level in range(3)]


def test_the_modalities_have_their_own_adapters(tiny_model, pair):
    def change(modality: int) -> list[bool]:
        model = copy.deepcopy(tiny_model)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".lora_" in name:
                    parameter[modality] += 0.1
        before, after = tiny_model.encode(*pair), model.encode(*pair)
        return [not torch.equal(x.sfm, y.sfm) for x, y in zip(before, after, strict=True)]

    assert change(0) == [True, False]
    assert change(1) == [False, True]


@pytest.mark.parametrize("lora", ["per_modality", "shared", "none"])
@pytest.mark.parametrize("kind", ["frm_ffm", "mean", "rgb", "thermal"])
def test_every_kind_of_adapter_and_fusion_runs_and_predicts_merged(lora, kind, pair):
    config = replace(TINY, lora=LoRAConfig(lora), fusion=FusionConfig(kind, crop=(64, 96)))
    model = build(config)
    assert model(*pair).logits.shape == (2, 9, 16, 24)
    close(model.merged().predict_logits(*pair), model.predict_logits(*pair), atol=1e-4, rtol=1e-4)
    reads_rgb = not torch.equal(model(*pair).fused, model(pair[0].flip(-1), pair[1]).fused)
    assert reads_rgb == (kind != "thermal")


def test_the_label_map_is_made_of_the_logits_that_the_config_names(pair):
    models = {name: build(replace(TINY, output=name)) for name in ("decoder", "auxiliary", "blend")}
    output = models["decoder"](*pair)
    close(models["decoder"].predict_logits(*pair), output.logits)
    close(models["auxiliary"].predict_logits(*pair), output.auxiliary)
    close(models["blend"].predict_logits(*pair), (output.logits + output.auxiliary) / 2)


def test_decoding_per_modality_is_the_mean_of_what_each_modality_says(pair):
    model = build(replace(TINY, decode="per_modality"))
    alone = [model.decode(levels) for levels in model.encode(*pair)]
    close(model(*pair).logits, (alone[0] + alone[1]) / 2)
    close(model(pair[0], None).logits, alone[0], atol=1e-5, rtol=1e-5)


def test_the_encoder_sees_both_modalities_standardised_rgb_first(pair):
    """RGB by ImageNet's mean and deviation, thermal by the rule's in three channels, then 0."""
    model = build(replace(TINY, thermal=ThermalRule(mean=0.3, std=0.1)))
    rgb, thermal = (x[..., :50, :70] for x in pair)
    seen = []
    hook = model.image_encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(rgb, thermal)
    hook.remove()
    mean = torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1)
    expected = torch.zeros(4, 3, 64, 96)
    expected[:2, :, :50, :70] = (rgb - mean) / std
    expected[2:, :, :50, :70] = (thermal - 0.3) / 0.1
    close(seen[0], expected)


def test_the_auxiliary_head_reads_the_sum_of_the_fused_maps_at_stride_4(tiny_model, pair):
    levels, head = tiny_model.encode(*pair)[0], tiny_model.auxiliary_head
    x = F.interpolate(levels.sfm, (8, 12), mode="bilinear") + head.lift_ifp(levels.ifp)
    x = F.interpolate(x, (16, 24), mode="bilinear") + head.lift_ffp(levels.ffp)
    close(head(levels), F.conv2d(x, head.predict.weight, head.predict.bias, padding=1))


def test_the_embedding_for_no_memory_reaches_the_decoder_and_nothing_else(tiny_model, pair):
    """SAM 2 adds it to the map that its decoder reads; what is fused are the encoder's maps."""
    before = tiny_model(*pair)
    levels = tiny_model.encode(*pair)[0]
    vector = tiny_model.no_mem_embed.detach().clone().view(1, -1, 1, 1)
    with torch.no_grad():
        decoded = tiny_model.decode(levels)
        tiny_model.no_mem_embed.zero_()
    by_hand = tiny_model.decode(levels._replace(sfm=levels.sfm + vector))
    close(decoded, by_hand, atol=1e-5, rtol=1e-5)
    after = tiny_model(*pair)
    for name in ("auxiliary", "fused", "rgb", "thermal"):
        assert torch.equal(getattr(before, name), getattr(after, name)), name
    assert (before.logits - after.logits).abs().max() > 1e-3


def test_models_of_format_1_add_it_before_the_fusion(pair):
    """Which is the same as a bias of the neck, as `start_from` makes it."""
    older, plain = build(replace(TINY, no_mem_embed="fusion")), build(TINY)
    with torch.no_grad():
        plain.image_encoder.neck.convs[1].conv.bias += plain.no_mem_embed.flatten()
        plain.no_mem_embed.zero_()
    assert_same(older(*pair), plain(*pair))
    assert not torch.equal(older(*pair).fused, build(TINY)(*pair).fused)


# Weights


def test_a_state_dict_holds_all_that_a_prediction_depends_on(tiny_model, pair):
    other = build(TINY, seed=1)
    other.load_state_dict(tiny_model.state_dict())
    assert_same(other(*pair), tiny_model(*pair), 0)


def test_the_same_pair_gives_the_same_prediction_twice(tiny_model, pair):
    for model in (tiny_model, tiny_model.eval(), tiny_model.merged()):
        assert_same(model(*pair), model(*pair), 0)


@pytest.mark.parametrize("present", ["both", "no rgb", "no thermal", "rgb alone", "thermal alone"])
@pytest.mark.parametrize("frozen", [True, False])
def test_every_learning_weight_gets_a_gradient_in_every_step(pair, present, frozen):
    model = build(replace(TINY, frozen_encoder=frozen))
    rgb, thermal = pair
    output = {
        "both": lambda: model(rgb, thermal, ALL, ALL),
        "no rgb": lambda: model(rgb, thermal, NONE, ALL),
        "no thermal": lambda: model(rgb, thermal, ALL, NONE),
        "rgb alone": lambda: model(rgb, None),
        "thermal alone": lambda: model(None, thermal),
    }[present]()
    loss_of(output).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        else:
            assert parameter.grad is None, name


@pytest.mark.parametrize("kind", ["mean", "rgb", "thermal"])
def test_what_an_ablation_leaves_out_does_not_wait_for_a_gradient(pair, kind):
    model = build(replace(TINY, fusion=FusionConfig(kind, crop=(64, 96))))
    loss_of(model(*pair)).backward()
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not unused


def test_a_frozen_encoder_leaves_adapters_fusion_and_heads_to_learn(tiny_model):
    learning = {name for name, p in tiny_model.named_parameters() if p.requires_grad}
    for name, _ in tiny_model.named_parameters():
        fixed = name.startswith(("image_encoder", "sam_prompt_encoder", "no_mem_embed"))
        assert (name in learning) == (not fixed or ".lora_" in name), name
    groups = count_parameters(tiny_model)
    assert groups["encoder"][1] == groups["codes"][1] == 0
    assert groups["lora"][0] == groups["lora"][1] > 0
    assert groups["total"][0] == sum(p.numel() for p in tiny_model.parameters())


@pytest.mark.parametrize("prepared", [False, True])
def test_one_model_serves_several_threads(tiny_model, pair, prepared):
    model = prepare_network(tiny_model, torch.device("cpu")) if prepared else tiny_model.eval()
    rgb, thermal = pair
    calls = [(rgb, thermal), (rgb, None), (None, thermal), (rgb[..., :32, :64], None)] * 6
    with torch.no_grad():
        expected = [model(*call).logits for call in calls[:4]] * 6

    def predict(call: tuple) -> torch.Tensor:
        with torch.no_grad():
            return model(*call).logits

    with ThreadPoolExecutor(4) as pool:
        for logits, wanted in zip(pool.map(predict, calls), expected, strict=True):
            close(logits, wanted, atol=0, rtol=0)


# Missing modality


def test_a_missing_modality_is_never_read(tiny_model, pair):
    rgb, thermal = pair
    for garbage in (torch.zeros_like(thermal), thermal * 50 - 3):
        assert_same(tiny_model(rgb, garbage, ALL, NONE), tiny_model(rgb, thermal, ALL, NONE), 0)
    for garbage in (torch.zeros_like(rgb), rgb * 50 - 3):
        assert_same(tiny_model(garbage, thermal, NONE, ALL), tiny_model(rgb, thermal, NONE, ALL), 0)


def test_missing_per_sample_is_the_same_as_not_given(tiny_model, pair):
    rgb, thermal = pair
    assert_same(tiny_model(rgb, thermal, ALL, NONE), tiny_model(rgb, None))
    assert_same(tiny_model(rgb, thermal, NONE, ALL), tiny_model(None, thermal))
    assert_same(tiny_model(rgb, thermal, ALL, ALL), tiny_model(rgb, thermal))
    first = torch.tensor([True, False])
    mixed = tensors(tiny_model(rgb, thermal, first, ~first))
    alone = tensors(tiny_model(rgb[:1], None)), tensors(tiny_model(None, thermal[1:]))
    for index, tensor in enumerate(mixed):
        for row in (0, 1):
            close(tensor[row], alone[row][index][0], atol=1e-5, rtol=1e-5)


def test_no_modality_at_all_is_refused(tiny_model):
    with pytest.raises(ValueError, match="at least one"):
        tiny_model(None, None)


# Size and padding


@pytest.mark.parametrize("size", [(64, 96), (33, 31), (1, 130), (96, 40)])
def test_any_size_gives_logits_that_cover_it(tiny_model, size):
    logits = tiny_model(torch.rand(1, 3, *size), torch.rand(1, 1, *size)).logits
    below, right = (side + -side % 32 for side in size)
    assert logits.shape == (1, 9, below // 4, right // 4)
    assert resize_logits(logits, size).shape == (1, 9, *size)


def test_padding_is_the_mean_of_each_modality_right_and_below(pair):
    rule = ThermalRule(mean=0.3, std=0.1)
    model = build(replace(TINY, thermal=rule))
    rgb, thermal = (x[..., :50, :70] for x in pair)
    wide = [model.rgb_mean.expand(2, 3, 64, 96).clone(), torch.full((2, 1, 64, 96), rule.mean)]
    wide[0][..., :50, :70], wide[1][..., :50, :70] = rgb, thermal
    assert_same(model(rgb, thermal), model(*wide), 1e-5)


def test_at_a_smaller_working_size_padding_is_the_mean_too(pair):
    rule = ThermalRule(mean=0.3, std=0.1)
    model = build(replace(TINY, thermal=rule, scale=0.5))
    rgb, thermal = (x[..., :50, :70] for x in pair)
    wide = [model.rgb_mean.expand(2, 3, 64, 96).clone(), torch.full((2, 1, 64, 96), rule.mean)]
    wide[0][..., :50, :70], wide[1][..., :50, :70] = rgb, thermal
    for given, whole in ((rgb, wide[0]), (None, None)):
        logits = model.predict_logits(given, thermal)
        assert logits.shape == (2, 9, 16, 24)
        close(logits, model.predict_logits(whole, wide[1]), atol=1e-4, rtol=1e-4)


def test_the_working_size_is_that_share_of_the_padded_one(pair):
    """64x96 at 0.67 are the 32x64 that are nearest; logits come back at stride 4 of 64x96."""
    model = build(replace(TINY, scale=0.67))
    whole = build(TINY)
    small = [F.interpolate(x, (32, 64), mode="bilinear") for x in pair]
    expected = F.interpolate(whole.predict_logits(*small), (16, 24), mode="bilinear")
    close(model.predict_logits(*pair), expected, atol=1e-5, rtol=1e-5)


def test_logits_of_the_input_are_cropped_from_those_of_the_padded_one():
    logits = torch.randn(1, 5, 16, 24)
    whole = F.interpolate(logits, (64, 96), mode="bilinear", align_corners=False)
    close(resize_logits(logits, (50, 70)), whole[..., :50, :70])


@pytest.mark.parametrize(
    ("size", "count"),
    [((61, 94), 4), ((64, 96), 4), ((256, 33), 4), ((257, 40), 4), ((515, 21), 4),
     ((315, 1021), 40), ((40, 2045), 240)],
    ids=str,
)  # fmt: skip
def test_the_label_map_is_the_largest_of_the_resized_logits(size, count):
    """The last two are so large that they are made in strips of several rows and of one."""
    classes = Classes(tuple(f"c{index}" for index in range(count)))
    height, width = (side + -side % 32 for side in size)
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(count, height // 4, width // 4, generator=random)
    logits[3, -(-size[0] // 4) :] = logits[3, :, -(-size[1] // 4) :] = 1e3  # deep in the padding
    whole = F.interpolate(logits[None], (height, width), mode="bilinear")[0]
    whole = whole[:, : size[0], : size[1]]
    strips = [strip.shape[1] for _, strip in resize_strips([logits], size)]
    assert (len(strips) > 2) == (count > 4)  # the last row may stand alone
    labels = label_map(logits, size, count)
    chosen = whole.gather(0, torch.from_numpy(labels.astype(np.int64))[None])[0]
    close(chosen, whole.amax(0), atol=1e-5, rtol=0)  # of equals either will do
    largest = whole.argmax(0)
    assert (labels == largest.numpy()).mean() > 0.9999
    prediction = Prediction(labels, classes, logits, np.zeros((*size, 3), np.uint8))
    expected = whole.softmax(0).amax(0).numpy()
    np.testing.assert_allclose(prediction.confidence, expected, atol=1e-3)
    summary = prediction.summary()
    assert summary["size"] == list(size)
    coarse = logits[:, : -(-size[0] // 4), : -(-size[1] // 4)].softmax(0).amax(0)
    assert summary["confidence"] == pytest.approx(float(coarse.mean()), abs=1e-3)
    assert sum(summary["shares"].values()) == pytest.approx(1, abs=1e-5)
    for index, name in enumerate(classes.names):
        share = float((largest == index).float().mean())
        assert summary["shares"].get(name, 0) == pytest.approx(share, abs=1e-5)


def test_a_predictor_labels_at_the_size_of_its_input_with_what_it_is_given(tiny_model, pair):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    thermal = rng.integers(0, 256, (50, 70), dtype=np.uint8)
    predictor = Predictor(tiny_model, device="cpu", precision="fp32")
    x = torch.from_numpy(rgb).permute(2, 0, 1)[None] / 255
    y = torch.from_numpy(thermal)[None, None] / 255
    for given, inputs in (
        ((rgb, thermal), (x, y)),
        ((rgb, None), (x, None)),
        ((None, thermal), (None, y)),
    ):
        expected = resize_logits(tiny_model.eval().predict_logits(*inputs), (50, 70))[0].argmax(0)
        np.testing.assert_array_equal(predictor(*given).labels, expected.numpy())
    sample = Sample("x", rgb, thermal)
    for modality, given in (("rgb", (rgb, None)), ("thermal", (None, thermal))):
        again = predictor.predict(sample, modality).labels
        np.testing.assert_array_equal(again, predictor(*given).labels)
    with pytest.raises(InputError, match="has no RGB"):
        predictor.predict(Sample("x", None, thermal), "rgb")


# Merged


def test_merged_gives_the_same_and_leaves_the_model_as_it_was(tiny_model, pair):
    rgb, thermal = pair
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    merged = tiny_model.merged()
    for call in ((rgb, thermal), (rgb, None), (None, thermal)):
        assert_same(merged(*call), tiny_model(*call), 1e-4)
    assert not any(parameter.requires_grad for parameter in merged.parameters())
    assert not any(".lora_" in name for name, _ in merged.named_parameters())
    assert not merged.training
    assert tiny_model.training
    assert tiny_model.state_dict().keys() == before.keys()
    for name, tensor in tiny_model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    loss_of(tiny_model(rgb, thermal)).backward()
    assert any(p.grad is not None for p in tiny_model.parameters())


def test_merged_twice_is_merged_once(tiny_model, pair):
    once = tiny_model.merged()
    assert_same(once.merged()(*pair), once(*pair), 0)


def test_merged_in_bf16_predicts_nearly_the_same(tiny_model, pair):
    exact, fast = (m.predict_logits(*pair) for m in (tiny_model, tiny_model.merged(torch.bfloat16)))
    assert fast.dtype == torch.bfloat16
    assert (fast.float() - exact).abs().mean() < 0.03 * exact.std()


def test_merged_in_bf16_rounds_weights_but_not_what_images_and_positions_are_measured_by(
    tiny_model,
):
    """Rounding these shifts every input: the error would be systematic, not noise."""
    fast = tiny_model.merged(torch.bfloat16)
    assert fast.no_mem_embed.dtype == torch.bfloat16
    for constant in ("rgb_mean", "rgb_std"):
        assert torch.equal(getattr(fast, constant), getattr(tiny_model, constant))
    exact, rounded = (
        m.sam_prompt_encoder.pe_layer(30, 40, torch.bfloat16) for m in (tiny_model, fast)
    )
    assert torch.equal(exact, rounded)


# Working at another size


class Brightness(SARTM):
    """Answers with what it sees."""

    def forward(self, rgb, thermal, *_, auxiliary=True):
        self.seen = rgb.shape[2:]
        assert rgb.shape[2:] == thermal.shape[2:]
        logits = F.avg_pool2d(torch.cat([rgb[:, :1], thermal], dim=1), 4)
        return Output(logits, None, logits, logits, logits)


@pytest.mark.parametrize("size", [(160, 320), (33, 31), (97, 130)])
def test_a_model_that_works_smaller_gives_logits_of_the_same_places(size):
    model = Brightness(replace(TINY, scale=0.6)).eval()
    height, width = (side + -side % 32 for side in size)
    y, x = torch.meshgrid(torch.arange(size[0]) / 100, torch.arange(size[1]) / 100, indexing="ij")
    logits = model.predict_logits(x.expand(1, 3, -1, -1), y.expand(1, 1, -1, -1))
    assert logits.shape == (1, 2, height // 4, width // 4)
    assert all(side % 32 == 0 for side in model.seen)
    for small, side in zip(model.seen, (height, width), strict=True):
        assert abs(small - 0.6 * side) <= 16
    rows, columns = (slice(3, side // 4 - 3) for side in size)  # away from edges and padding
    for found, drawn in zip(logits[0], (x, y), strict=True):
        expected = F.avg_pool2d(drawn[None], 4)[0]
        close(found[rows, columns], expected[rows, columns], atol=2e-3, rtol=0)


def test_the_scale_is_that_of_the_image_and_not_of_the_label_map(pair):
    model = build(replace(TINY, scale=0.5, output="blend")).eval()
    rgb, thermal = (F.interpolate(x, scale_factor=2.0) for x in pair)
    output = model(*(F.interpolate(x, scale_factor=0.5, mode="bilinear") for x in (rgb, thermal)))
    expected = F.interpolate((output.logits + output.auxiliary) / 2, (32, 48), mode="bilinear")
    close(model.predict_logits(rgb, thermal), expected)
    for given in ((rgb, None), (None, thermal)):
        assert model.predict_logits(*given).shape == expected.shape
    array = (255 * rgb[0].permute(1, 2, 0).numpy()).astype(np.uint8)
    assert Predictor(model, precision="fp32")(array, None).labels.shape == (128, 192)


@pytest.mark.parametrize("scale", [0.4, 1.1])
def test_a_scale_that_blurs_or_enlarges_is_refused(scale):
    with pytest.raises(InputError, match=r"0\.5 to 1"):
        replace(TINY, scale=scale)


# Budget


def test_mini_stays_within_its_budget():
    """<= 6 M parameters and <= 8 GFLOP for a 480x640 pair, counted with attention as products."""
    model = SARTM(mini().model)
    assert count_parameters(model)["total"][0] <= 6_000_000
    merged = model.merged()
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        merged.predict_logits(torch.rand(1, 3, 480, 640), torch.rand(1, 1, 480, 640))
    assert 1e9 < counter.get_total_flops() <= 8e9


@torch.no_grad()
def test_contrast_views_do_not_know_gain_and_offset_of_the_camera(pair):
    """A display picture of half the contrast and twice the level shows the same two views."""
    model = SARTM(replace(TINY, thermal_view="contrast")).eval()
    thermal = torch.rand(1, 1, 96, 128)
    seen = [model._standardise(None, x)[0] for x in (thermal, 0.3 + 0.4 * thermal)]
    grey = (thermal[0] - TINY.thermal.mean) / TINY.thermal.std
    torch.testing.assert_close(seen[0][0], grey[0])
    assert (seen[0][0] - seen[1][0]).abs().max() > 0.5
    torch.testing.assert_close(seen[0][1:], seen[1][1:], atol=0.02, rtol=0.02)
    assert seen[0][1:].abs().mean() > 0.5


@torch.no_grad()
def test_contrast_views_show_what_stands_out_and_nothing_in_a_flat_image():
    model = SARTM(replace(TINY, thermal_view="contrast")).eval()
    flat = torch.full((1, 1, 96, 128), 0.3)
    torch.testing.assert_close(model._standardise(None, flat)[0, 1:], torch.zeros(2, 96, 128))
    flat[..., 40:60, 60:70] = 0.5
    near, far = model._standardise(None, flat)[0, 1:]
    assert near[50, 65] > 1
    assert far[50, 65] > near[50, 65]  # seen from afar it is a smaller part of what is around
    assert near[5, 5].abs() < 0.1


@pytest.mark.parametrize("size", ["lite", "lite2"])
@torch.no_grad()
def test_contrast_views_predict_at_any_size(size):
    config = replace(TINY, size=size, thermal_view="contrast", scale=0.5, frozen_encoder=False)
    model = SARTM(config).eval()
    for height, width in ((64, 96), (70, 90)):
        logits = model.predict_logits(
            torch.rand(1, 3, height, width), torch.rand(1, 1, height, width)
        )
        assert logits.shape[2:] == ((height + -height % 32) // 4, (width + -width % 32) // 4)
