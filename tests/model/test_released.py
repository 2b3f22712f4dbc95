"""The authors' checkpoints: their arithmetic to the last digits, and a start for training."""

import dataclasses
import json
import logging
from pathlib import Path

import cv2
import golden
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_weights import count_parameters, pair, small_model, small_released

from sartm.classes import MFNET, PST900, Classes
from sartm.cli.main import main
from sartm.config import FusionConfig, LoRAConfig, ModelConfig
from sartm.errors import InputError
from sartm.inference.predictor import Predictor
from sartm.inference.products import fingerprint
from sartm.model import checkpoint
from sartm.model import released as names
from sartm.model.checkpoint import save
from sartm.model.encoder import Levels
from sartm.model.filling import fill
from sartm.model.hiera import ENCODERS
from sartm.model.loading import convert_weights, load, load_for_training
from sartm.model.lora import AdaptedQKV
from sartm.model.released import Released, released_config, released_state, to_default_model
from sartm.model.sartm import SARTM
from sartm.model.sources import is_encoder, recognise

SKIP = tuple(key for key in names.IGNORED if key.startswith("sam."))


def build(tensors, canvas):
    weights = recognise(tensors, "golden")
    state = released_state(tensors, "golden")
    model = Released(released_config(state, weights.size, None, canvas, "golden"))
    fill(model, state, "golden")
    return model.eval()


@pytest.fixture(scope="module")
def golden_weights():
    return golden.filled(golden.listing("sartm_released_keys_tiny.json"), SKIP)


@pytest.fixture(scope="module")
def golden_model(golden_weights):
    return build(golden_weights, 256)


def encode(model, images):
    decoder = model.sam_mask_decoder
    return model.image_encoder(images, 1, decoder.conv_s0, decoder.conv_s1)


def decode(model, levels):
    prompts = model.sam_prompt_encoder
    code = prompts.pe_layer(*levels.sfm.shape[2:])
    return model.sam_mask_decoder.decode(levels, prompts.dense(), code)


def m_output(logits):
    """Theirs: the mean of both modalities' logits at the input size."""
    return F.interpolate(logits, scale_factor=4.0, mode="bilinear").mean(0, keepdim=True)


@golden.needed
@torch.no_grad()
@pytest.mark.slow
def test_every_stage_agrees_with_the_authors_code(golden_model):
    levels = encode(golden_model, torch.cat(golden.inputs()))
    logits, iou, score = decode(golden_model, levels)
    rgb, thermal = Levels(*(x[:1] for x in levels)), Levels(*(x[1:] for x in levels))
    found = {
        "low_res_masks": logits,
        "iou_pred": iou,
        "object_score_logits": score,
        "m_output": m_output(logits),
    }
    fused = golden_model.fusion(rgb, rgb), golden_model.fusion(rgb, thermal)
    for level in range(3):
        found[f"backbone_fpn_{level}"] = levels[level]
        found[f"fused_released_{level}"] = fused[0][level]
        found[f"fused_true_{level}"] = fused[1][level]
    for name, value in found.items():
        expected = golden.stored(f"lora/{name}")
        actual = golden.taken(f"lora/{name}", value)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-3, msg=name)


@golden.needed
@torch.no_grad()
@pytest.mark.slow
def test_without_lora_it_is_sam2(golden_weights):
    plain = {
        key: torch.zeros_like(value) if "linear_b_" in key else value
        for key, value in golden_weights.items()
    }
    model = build(plain, 256)
    levels = encode(model, torch.cat(golden.inputs()))
    found = {"backbone_fpn_2": levels.sfm, "m_output": m_output(decode(model, levels)[0])}
    for name, value in found.items():
        expected = golden.stored(f"nolora/{name}")
        actual = golden.taken(f"nolora/{name}", value)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-3, msg=name)


@golden.needed
@pytest.mark.slow
def test_gradients_agree_with_the_authors_code(golden_weights):
    model = build(golden_weights, 256)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    make = golden.recipe().make_labels
    labels = torch.from_numpy(make("grad", (1, 256, 256), 5, 32, ignore=255))
    logits = decode(model, encode(model, torch.cat(golden.inputs())))[0]
    loss = F.cross_entropy(m_output(logits), labels, ignore_index=255)
    loss.backward()
    stats = golden.listing("golden_tiny_256_stats.json")["lora"]
    assert float(loss.detach()) == pytest.approx(stats["cross_entropy_of_m_output"], rel=1e-4)
    for key, norm in stats["grad_l2"].items():
        assert float(gradient(model, key).norm()) == pytest.approx(norm, rel=0.01), key


def gradient(model, key):
    """The gradient of a released weight, cut from the parameter of ours that holds it."""
    if ".linear_" in key:
        block, part = key.removeprefix("sam.").split("qkv.linear_")
        layer = model.get_submodule(f"{block}qkv")
        kind, which, pair_ = part[0], part[2], part.removesuffix(".weight")[3:]
        index, rank = ("", "2", "3").index(pair_), layer.rank // 3
        rows = slice(index * rank, (index + 1) * rank)
        if kind == "a":
            offset = 0 if which == "q" else layer.rank
            return layer.lora_down.grad[0, offset + rows.start : offset + rows.stop]
        inputs = layer.in_features
        if which == "q":
            return layer.lora_up_q.grad[0, :inputs, rows]
        return layer.lora_up_v.grad[0, -inputs:, rows]
    if "hypernetworks" in key:
        _, _, number, _, layer, part = key.removeprefix("sam.").split(".")
        mlps = model.sam_mask_decoder.output_hypernetworks_mlps
        return mlps.get_parameter(f"{part}{layer}").grad[int(number)]
    return model.get_parameter(key.removeprefix("sam.")).grad


@golden.needed
@torch.no_grad()
@pytest.mark.slow
def test_merged_lora_computes_the_same(golden_model):
    rgb, thermal = torch.rand(1, 3, 200, 256), torch.rand(1, 1, 200, 256)
    torch.testing.assert_close(
        golden_model.merged().predict_logits(rgb, thermal),
        golden_model.predict_logits(rgb, thermal),
        rtol=0,
        atol=1e-4,
    )


@golden.needed
@pytest.mark.parametrize("size", ["tiny", "base_plus"])
def test_the_released_key_lists_load(size):
    shapes = golden.listing(f"sartm_released_keys_{size}.json")
    tensors = {key: torch.empty(entry["shape"], device="meta") for key, entry in shapes.items()}
    tensors["model_clip.visual.proj"] = torch.empty(768, 512, device="meta")
    weights = recognise(tensors, size)
    assert (weights.kind, weights.size) == ("released", size)
    state = released_state(tensors, size)
    config = released_config(state, weights.size, None, 1280, size)
    assert len(config.classes) == 5
    assert config.lora == LoRAConfig("shared", rank=48, alpha=48.0)
    expected = checkpoint.build(config, size, "released").state_dict()
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in expected.items()}


def parameters(model, *parts):
    return sum(p.numel() for name, p in model.named_parameters() if name.startswith(parts))


@pytest.mark.parametrize(
    ("size", "encoder", "lora"),
    [("tiny", 27_219_136, 559_104), ("base_plus", 69_106_816, 1_326_080)],
)
def test_the_table_of_parameters(size, encoder, lora):
    config = ModelConfig(classes=PST900, size=size)
    ours = checkpoint.build(config, size)
    square = dataclasses.replace(config, fusion=FusionConfig(norm="batch", crop=(1280, 1280)))
    theirs = checkpoint.build(square, size, "released")
    groups = count_parameters(ours)
    assert groups["encoder"] == (encoder, 0)
    assert groups["fusion"] == (3_050_534, 3_050_534)
    hypernetwork = 139_808 + 256  # one class: its MLP and its token
    assert groups["decoder"] == (4_230_784 - hypernetwork,) * 2
    blocks = list(blocks_of(size))
    ranks = 2 * 16  # two modalities
    assert lora == sum(ranks * (2 * inputs + 2 * outputs) for inputs, outputs in blocks)
    assert groups["lora"] == (lora, lora)
    rest = groups["auxiliary"][0]
    assert groups["total"][1] == lora + 4_230_784 - hypernetwork + 3_050_534 + rest
    assert groups["total"][0] == groups["total"][1] + encoder + groups["codes"][0]
    heads = ("iou_prediction_head", "pred_obj_score_head", "not_a_point_embed")
    decoder = parameters(theirs, "sam_mask_decoder")
    frozen = parameters(theirs, *(f"sam_mask_decoder.{head}" for head in heads))
    assert decoder - frozen == 4_230_784
    assert frozen == 264_967 + 256
    assert count_parameters(theirs)["fusion"][0] == 3_050_534


def test_the_table_in_the_docs_is_what_the_models_have():
    page = (Path(__file__).resolve().parents[2] / "docs" / "weights.md").read_text()
    table = page[page.index("| size | encoder |") :]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[:6]]
    assert [row[0] for row in rows[2:]] == ["tiny", "small", "base_plus", "large"]
    for size, *cells in rows[2:]:
        model = checkpoint.build(ModelConfig(size=size), size)
        groups = count_parameters(model)
        names_ = ("encoder", "lora", "decoder", "fusion", "auxiliary", "codes", "total")
        counts = [groups[name][0] for name in names_] + [groups["total"][1]]
        assert [int(cell.replace(",", "")) for cell in cells[:-1]] == counts
        stored = sum(v.numel() for k, v in model.state_dict().items() if not is_encoder(k))
        assert cells[-1] == f"{4 * stored / 1e6:.1f}"


def blocks_of(size):
    """Input and output width of every block."""
    config, width = ENCODERS[size], ENCODERS[size].embed_dim
    for stage, depth in enumerate(config.stages):
        for index in range(depth):
            outputs = 2 * width if stage and not index else width
            yield width, outputs
            width = outputs


# A released model of size `test`


def same_weights(a, b):
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.fixture
def file(tmp_path):
    torch.save(small_released(), tmp_path / "model_best.pth")
    return tmp_path / "model_best.pth"


@pytest.mark.parametrize("wrapper", [None, "model_state_dict", "state_dict", "model"])
@pytest.mark.parametrize("parallel", [False, True])
def test_wrapped_and_parallel_files_are_the_same_model(wrapper, parallel, file, tmp_path):
    tensors = small_released()
    if parallel:
        tensors = {f"module.{key}": value for key, value in tensors.items()}
    content = tensors if wrapper is None else {wrapper: tensors, "epoch": 7, "best_miou": 89.88}
    torch.save(content, tmp_path / "other.pth")
    assert same_weights(load(file, canvas=128), load(tmp_path / "other.pth", canvas=128))


@pytest.mark.parametrize(("classes", "rank"), [(5, 2), (9, 4)])
def test_classes_and_rank_come_from_the_shapes(classes, rank, tmp_path):
    torch.save(small_released(classes, rank), tmp_path / "m.pth")
    model = load(tmp_path / "m.pth", canvas=128)
    assert model.config.classes.names == tuple(f"class {k}" for k in range(classes))
    assert model.config.lora.rank == 3 * rank
    table = {5: PST900, 9: MFNET}[classes]
    assert load(tmp_path / "m.pth", canvas=128, classes=table).config.classes == table
    with pytest.raises(InputError, match=f"{classes} classes"):
        load(tmp_path / "m.pth", classes={5: MFNET, 9: PST900}[classes])


@torch.no_grad()
def test_the_three_pairs_reach_the_first_columns_of_q_and_the_last_of_v(file):
    tensors = small_released()
    model = load(file, canvas=128)
    name = "image_encoder.trunk.blocks.1.attn.qkv"  # 16 columns in, 3 x 32 out
    layer = model.get_submodule(name)
    assert isinstance(layer, AdaptedQKV)
    x = torch.randn(1, 2, 2, 16)

    def update(which):
        total = 0
        for suffix in ("", "2", "3"):
            a = tensors[f"sam.{name}.linear_a_{which}{suffix}.weight"]
            total = total + x @ a.T @ tensors[f"sam.{name}.linear_b_{which}{suffix}.weight"].T
        return total

    weight, bias = (tensors[f"sam.{name}.qkv.{part}"] for part in ("weight", "bias"))
    q, k, v = F.linear(x, weight, bias).chunk(3, dim=-1)
    expected_q, expected_v = q.clone(), v.clone()
    expected_q[..., :16] += update("q")
    expected_v[..., -16:] += update("v")
    for rgb_rows in (0, 1):  # one set for both modalities
        for actual, expected in zip(layer(x, rgb_rows), (expected_q, k, expected_v), strict=True):
            torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_inputs_are_padded_with_raw_zeros_to_the_canvas(file):
    model = load(file, canvas=128)
    rgb, thermal = pair(64, 96)
    logits = model.predict_logits(rgb, thermal)
    assert logits.shape == (1, 5, 32, 32)
    padded = [F.pad(image, (0, 32, 0, 64)) for image in (rgb, thermal)]
    torch.testing.assert_close(model.predict_logits(*padded), logits, rtol=0, atol=0)
    alone = [model.predict_logits(rgb, None), model.predict_logits(None, thermal)]
    torch.testing.assert_close(logits, (alone[0] + alone[1]) / 2, rtol=0, atol=1e-4)
    with pytest.raises(InputError, match="canvas 128x128"):
        model.predict_logits(*pair(64, 160))


@torch.no_grad()
def test_a_modality_without_an_object_is_blanked(tmp_path):
    tensors = small_released()
    tensors["sam.sam_mask_decoder.pred_obj_score_head.layers.2.bias"] = torch.full((1,), -99.0)
    torch.save(tensors, tmp_path / "m.pth")
    logits = load(tmp_path / "m.pth", canvas=128).predict_logits(*pair())
    assert (logits == -1024).all()


def test_it_predicts_like_any_model(file):
    model = load(file, canvas=128)
    predictor = Predictor(model, device="cpu", precision="fp32")
    rgb, thermal = ((image * 255).to(torch.uint8) for image in pair(60, 100))
    prediction = predictor(rgb[0].permute(1, 2, 0).numpy(), thermal[0, 0].numpy())
    assert prediction.labels.shape == (60, 100)
    assert prediction.classes.names[0] == "class 0"
    assert fingerprint(predictor.model) != fingerprint(model)  # folders of label maps need it


def test_converting_gives_a_folder_that_loads_as_the_same_model(file, tmp_path):
    model = convert_weights(file, tmp_path / "out", classes=PST900, canvas=128)
    loaded = load(tmp_path / "out")
    assert isinstance(loaded, Released)
    assert same_weights(model, loaded)
    assert loaded.config == model.config
    assert loaded.config.classes == PST900
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.predict_logits(*pair()), load(file, canvas=128).predict_logits(*pair())
        )
    card = (tmp_path / "out" / "README.md").read_text()
    assert "without a licence" in card


@pytest.mark.slow
def test_a_converted_model_without_names_takes_them_and_another_canvas(file, tmp_path):
    convert_weights(file, tmp_path / "out", canvas=128)
    assert load(tmp_path / "out").config.classes.names[0] == "class 0"
    model = load(tmp_path / "out", classes=PST900, canvas=160)
    assert model.config.classes == PST900
    assert model.predict_logits(*pair(64, 160)).shape == (1, 5, 40, 40)
    with pytest.raises(InputError, match="5 classes but 9 names"):
        load(tmp_path / "out", classes=MFNET)
    convert_weights(file, tmp_path / "named", classes=PST900, canvas=128)
    assert load(tmp_path / "named", classes=PST900).config == load(tmp_path / "named").config
    some = load(tmp_path / "named", classes=Classes(("background", "survivor")))
    every = load(tmp_path / "named").predict_logits(*pair())
    torch.testing.assert_close(some.predict_logits(*pair())[:, 1], every[:, 4])
    with pytest.raises(InputError, match="leave --encoder out"):
        load(file, encoder="sam2.pt", canvas=128)


def test_the_log_says_what_of_a_released_file_is_loaded_and_ignored(file, caplog):
    with caplog.at_level(logging.INFO, "sartm"):
        load(file, canvas=128)
    total = len(small_released())
    ignored = sum(key.startswith(names.IGNORED) or "num_batches" in key for key in small_released())
    assert f"LoRA of 3 x rank 2: {total - ignored} weights loaded; {ignored} ignored" in caplog.text
    assert "model_clip.logit_scale (1)" in caplog.text
    assert "sam.memory_attention" in caplog.text


def test_a_released_file_gives_its_heads_to_a_data_set_of_as_many_classes(file):
    assert load_for_training(file, classes=PST900).config.classes == PST900
    assert load_for_training(file, classes=MFNET).config.classes.names[0] == "class 0"


@pytest.fixture
def scenes(tmp_path):
    """A labelled pair whose five classes have PST900's names."""
    for kind in ("rgb", "thermal", "labels"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    rgb, thermal = pair(60, 100)
    cv2.imwrite(str(tmp_path / "data/rgb/a.png"), (rgb[0] * 255).permute(1, 2, 0).byte().numpy())
    cv2.imwrite(str(tmp_path / "data/thermal/a.png"), (thermal[0, 0] * 255).byte().numpy())
    label = np.arange(60 * 100, dtype=np.uint8).reshape(60, 100) % 5
    cv2.imwrite(str(tmp_path / "data/labels/a.png"), label)
    (tmp_path / "data" / "a.txt").write_text("a\n")
    (tmp_path / "data" / "dataset.toml").write_text(
        f"name = 'drawn'\nclasses = {list(PST900.names)}\n[files]\nrgb = 'rgb/{{name}}.png'\n"
        "thermal = 'thermal/{name}.png'\nlabel = 'labels/{name}.png'\n[splits]\nval = 'a.txt'\n"
    )
    return tmp_path / "data"


@pytest.mark.slow
def test_predict_and_evaluate_take_the_authors_file_with_names_and_canvas(
    file, scenes, tmp_path, capsys
):
    inputs = ["--rgb", str(scenes / "rgb"), "--thermal", str(scenes / "thermal")]
    model = ["--model", str(file), "--device", "cpu"]
    out = tmp_path / "out"
    (tmp_path / "names.txt").write_text("\n".join(PST900.names) + "\n")
    for classes in ("pst900", str(scenes), str(tmp_path / "names.txt")):
        words = [*model, "--canvas", "128", "--classes", classes]
        assert main(["predict", *inputs, *words, "--out", str(out), "--overwrite"]) == 0
        shares = json.loads((out / "summary.json").read_text())["pairs"]["a"]["shares"]
        assert set(shares) <= set(PST900.names)
    words = ["evaluate", "--data", str(scenes), *model, "--canvas", "128"]
    assert main([*words, "--classes", "pst900", "--out", str(tmp_path / "report")]) == 0
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "report")]) == 2
    assert "does not name its 5 classes" in capsys.readouterr().err
    for wrong, said in (("mfnet", "5 classes but 9 names"), ("pst", "no class table 'pst'")):
        assert main([*words, "--classes", wrong]) == 2
        assert said in capsys.readouterr().err
    assert main(["predict", *inputs, *model, "--canvas", "96", "--out", str(tmp_path / "o")]) == 2
    assert "canvas 96x96" in capsys.readouterr().err


@torch.no_grad()
def test_training_starts_from_a_default_model_with_the_same_features(file, tmp_path):
    released = load(file, canvas=128)
    model = load_for_training(file)
    assert not isinstance(model, Released)
    decoder = model.sam_mask_decoder
    images = torch.randn(2, 3, 128, 128)
    for actual, expected in zip(
        model.image_encoder(images, 1, decoder.conv_s0, decoder.conv_s1),
        released.image_encoder(images, 1, decoder.conv_s0, decoder.conv_s1),
        strict=True,
    ):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)
    assert torch.equal(decoder.mask_tokens.weight, released.sam_mask_decoder.mask_tokens.weight[1:])
    save(model, tmp_path / "start", model.facts)
    assert same_weights(model, load(tmp_path / "start"))


def test_the_statistics_of_released_fusion_stay_frozen_in_training(file):
    model = to_default_model(load(file, canvas=128))
    before = {k: v.clone() for k, v in model.state_dict().items() if "running_" in k}
    assert before
    model.train()
    model(*pair())
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_the_default_model_knows_nothing_of_it():
    state = SARTM(small_model().config).state_dict()
    assert not [k for k in state if "iou_prediction" in k or "obj_score_head" in k]
    assert not [k for k in state if "not_a_point" in k]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.update({"sam.surprise.weight": torch.zeros(1)}), "sam.surprise.weight"),
        (lambda t: t.update({"FFMs.0.cross.norm3.weight": torch.zeros(1)}), "norm3"),
        (lambda t: t.pop("FRMs.0.channel_weights.mlp.0.bias"), "1 missing"),
        (lambda t: t.pop("sam.image_encoder.trunk.blocks.1.attn.qkv.linear_b_q2.weight"), "b_q2"),
        (
            lambda t: t.pop("sam.sam_mask_decoder.output_hypernetworks_mlps.3.layers.1.bias"),
            "lacks",
        ),
        (
            lambda t: t.update(
                {"sam.image_encoder.trunk.blocks.0.attn.qkv.linear_a_v3.weight": torch.zeros(2, 9)}
            ),
            "do not fit",
        ),
        (
            lambda t: t.update(
                {"sam.sam_mask_decoder.output_hypernetworks_mlps.6.layers.0.bias": torch.zeros(32)}
            ),
            "6 mask tokens",
        ),
        (lambda t: t["FFMs.0.channel_emb.norm.running_var"].fill_(float("nan")), "NaN"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(change, words, tmp_path):
    tensors = small_released()
    change(tensors)
    torch.save(tensors, tmp_path / "m.pth")
    with pytest.raises(InputError, match=words):
        load(tmp_path / "m.pth", canvas=128)


@pytest.mark.parametrize("canvas", [100, 0, -32])
def test_a_canvas_must_fit_the_strides(file, canvas):
    with pytest.raises(InputError, match=r"multiple of 32|must be 1 to"):
        load(file, canvas=canvas)


def test_a_released_model_runs_without_an_auxiliary_head_and_says_that_it_has_none(golden_model):
    rgb, thermal = torch.rand(1, 3, 64, 64), torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        output = golden_model(rgb, thermal)
        assert output.auxiliary is None
        assert output.logits.shape[:2] == (1, len(golden_model.config.classes))
        with pytest.raises(InputError, match="to_default_model"):
            golden_model(rgb, thermal, auxiliary=True)
