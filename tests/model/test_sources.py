"""SAM 2 from Meta and the hub: recognised, loaded exactly, fetched whole, and nothing executed."""

import argparse
import logging
import os
import pickle
import re
import resource
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import golden
import hub_server
import pytest
import torch
from safetensors.torch import save, save_file
from small_weights import (
    SMALL,
    count_parameters,
    hub_weights,
    meta_weights,
    pair,
    small_model,
    small_released,
)

from sartm.cli.main import main
from sartm.config import FusionConfig, ModelConfig
from sartm.errors import InputError
from sartm.model import sources
from sartm.model.checkpoint import save as save_model
from sartm.model.facts import ModelFacts
from sartm.model.filling import build, load_encoder
from sartm.model.hiera import ENCODERS
from sartm.model.hub import bundled_models, get_weights, list_weights
from sartm.model.loading import convert_weights, load, load_for_training
from sartm.model.sartm import SARTM
from sartm.model.sources import IGNORED, is_sam2, read_weights

REPOSITORY = "facebook/sam2.1-hiera-test"


def published(size):
    """A model without storage: names and shapes only."""
    return build(ModelConfig(size=size), size)


def features(model, height=64, width=96):
    rgb, thermal = pair(height, width)
    with torch.inference_mode():
        return model.encode(rgb, thermal)


# What is in a file


@pytest.mark.parametrize("version", ["2.0", "2.1"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_metas_file_fills_all_that_is_not_per_class(version, wrapped, tmp_path, caplog):
    weights = meta_weights(version=version)
    torch.save({"model": weights} if wrapped else weights, tmp_path / "any_name.pt")
    model = small_model()
    with caplog.at_level(logging.INFO, "sartm"):
        loaded = load_encoder(model, tmp_path / "any_name.pt")
    state = model.state_dict()
    assert all(torch.equal(state[key], weights[key]) for key in loaded.loaded)
    assert sorted(loaded.loaded + loaded.new) == sorted(state)
    assert sorted(loaded.loaded + loaded.ignored) == sorted(weights)
    assert {key.split(".")[0] for key in loaded.new} == {
        "image_encoder", "sam_mask_decoder", "fusion", "auxiliary_head",
    }  # fmt: skip
    assert "sam_mask_decoder.mask_tokens.weight" in loaded.new
    assert "sam_mask_decoder.transformer.layers.0.norm1.weight" in loaded.loaded
    assert "memory_attention.layers.0.norm1.weight" in loaded.ignored
    kind = "SAM 2.1" if version == "2.1" else "SAM 2"
    assert f"is {kind} test: {len(loaded.loaded)} weights loaded" in caplog.text
    for word in ("lora", "mask_tokens (1)", "memory_attention.layers (1)", "iou_prediction_head"):
        assert word in caplog.text


PREFIXES = ["model.", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.model.",
            "model.module._orig_mod.", "student.net."]  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("names", [dict, hub_weights])
def test_what_all_names_begin_with_is_no_part_of_them(prefix, names, tmp_path):
    """As data-parallel training, trainers and torch.compile leave it, in any order."""
    file = tmp_path / "sam2.pt"
    wrapped = {f"{prefix}{key}": value for key, value in names(meta_weights()).items()}
    torch.save({"state_dict": wrapped}, file)
    model, plain = small_model(), small_model()
    load_encoder(model, file)
    torch.save(meta_weights(), file)
    load_encoder(plain, file)
    assert all(torch.equal(v, plain.state_dict()[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("prefix", PREFIXES[4:6])
@pytest.mark.slow
def test_released_weights_and_folders_of_ours_are_read_under_any_such_name(prefix, tmp_path):
    released = small_released()
    torch.save({f"{prefix}{key}": v for key, v in released.items()}, tmp_path / "wrapped.pth")
    torch.save(released, tmp_path / "plain.pth")
    ours, theirs = (load(tmp_path / f"{x}.pth", canvas=64) for x in ("wrapped", "plain"))
    assert all(torch.equal(v, theirs.state_dict()[k]) for k, v in ours.state_dict().items())
    model = small_model()
    save_model(model, tmp_path / "folder", ModelFacts())
    state = {f"{prefix}{key}": value for key, value in model.state_dict().items()}
    save_file(state, tmp_path / "folder" / "model.safetensors")
    for start in (load(tmp_path / "folder"), load_for_training(str(tmp_path / "folder"))):
        assert all(torch.equal(v, start.state_dict()[k]) for k, v in model.state_dict().items())


def test_a_part_that_was_compiled_by_itself_has_its_usual_names(tmp_path):
    home = "image_encoder."
    weights = {key.replace(home, f"{home}_orig_mod."): v for key, v in meta_weights().items()}
    torch.save(weights, tmp_path / "sam2.pt")
    assert read_weights(tmp_path / "sam2.pt").tensors.keys() == meta_weights().keys()
    torch.save(weights | meta_weights(), tmp_path / "sam2.pt")
    with pytest.raises(InputError, match=r"holds image_encoder\.\S+ twice"):
        read_weights(tmp_path / "sam2.pt")


def test_an_encoder_alone_keeps_its_name(tmp_path):
    alone = {k: v for k, v in meta_weights().items() if k.startswith("image_encoder.")}
    torch.save(alone, tmp_path / "sam2.pt")
    with pytest.raises(InputError, match="97 missing: no_mem_embed, sam_"):
        load_encoder(small_model(), tmp_path / "sam2.pt")


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 128)])
def test_metas_and_the_hubs_files_of_the_same_weights_give_identical_features(
    height, width, tmp_path
):
    torch.save(meta_weights(), tmp_path / "meta.pt")
    (tmp_path / "hub").mkdir()
    save_file(hub_weights(meta_weights()), tmp_path / "hub" / "model.safetensors")
    (tmp_path / "hub" / "config.json").write_text('{"model_type": "sam2_video"}')
    one, other = small_model(), small_model()
    first, second = load_encoder(one, tmp_path / "meta.pt"), load_encoder(other, tmp_path / "hub")
    assert first.loaded == second.loaded
    for ours, theirs in zip(
        features(one, height, width), features(other, height, width), strict=True
    ):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert load(tmp_path / "hub", classes=SMALL.classes).config.size == "test"


def transformers_model(meta, size):
    """The provider's own model with these weights, and a loading report without differences."""
    transformers = pytest.importorskip("transformers", reason="the hub's own model is not here")
    encoder = ENCODERS[size]
    widths = [encoder.embed_dim * 2**stage for stage in range(4)]
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=encoder.embed_dim,
        num_attention_heads=encoder.heads,
        blocks_per_stage=list(encoder.stages),
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[encoder.heads * 2**stage for stage in range(4)],
        window_size_per_stage=list(encoder.windows),
        global_attention_blocks=list(encoder.global_blocks),
        window_positional_embedding_background_size=list(encoder.background),
    )
    width = meta["image_encoder.neck.convs.0.conv.bias"].shape[0]
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=widths[::-1], fpn_hidden_size=width
    )
    model = transformers.models.sam2.modeling_sam2.Sam2VisionModel(vision).eval()
    prefix = "vision_encoder."
    state = {k.removeprefix(prefix): v for k, v in meta.items() if k.startswith(prefix)}
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize(("height", "width"), [(256, 256), (480, 640)])
def test_the_encoder_agrees_with_the_hubs_own_model(height, width, tmp_path):
    meta = meta_weights()
    theirs = transformers_model(hub_weights(meta) | meta, "test")
    torch.save(meta, tmp_path / "meta.pt")
    model = small_model()
    load_encoder(model, tmp_path / "meta.pt")
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data.zero_()
    images = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(3))
    decoder = model.sam_mask_decoder
    with torch.inference_mode():
        ours = model.image_encoder(images, 1, decoder.conv_s0, decoder.conv_s1)
        finest, middle, coarse = theirs(images).fpn_hidden_states[:3]
        expected = (decoder.conv_s0(finest), decoder.conv_s1(middle), coarse)
    for actual, wanted in zip(ours, expected, strict=True):
        torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["Sam2Model", "Sam2VideoModel"])
def test_every_name_of_the_hubs_own_models_is_known(name):
    transformers = pytest.importorskip("transformers", reason="the hub's own model is not here")
    with torch.device("meta"):
        theirs = getattr(transformers, name)(getattr(transformers, name[:-5] + "Config")())
    state = theirs.state_dict()
    del state["shared_image_embedding.positional_embedding"]  # the same as the prompt encoder's
    weights = sources.from_hub_names(state, name)
    found = {key: v.shape for key, v in weights.items() if not key.startswith(IGNORED)}
    ours = published("tiny").state_dict()
    assert found == {key: value.shape for key, value in ours.items() if is_sam2(key)}


@pytest.fixture(scope="module")
def golden_sam2():
    shapes = golden.listing("sam2_keys_t.json")["2.1"]
    names = {golden.released_name(key): entry for key, entry in shapes.items()}
    skip = tuple(f"sam.{prefix}" for prefix in IGNORED)
    made = golden.filled(names, skip)
    return {key: made[golden.released_name(key)] for key in shapes}


@golden.needed
@pytest.mark.parametrize("version", ["2.0", "2.1"])
@pytest.mark.slow
def test_metas_names_with_the_golden_weights_give_the_golden_features(
    version, golden_sam2, tmp_path
):
    keys = golden.listing("sam2_keys_t.json")[version]
    torch.save({"model": {key: golden_sam2[key] for key in keys}}, tmp_path / "sam2.pt")
    model = SARTM(ModelConfig(size="tiny"))
    load_encoder(model, tmp_path / "sam2.pt")
    (tmp_path / "sam2.pt").unlink()
    decoder = model.sam_mask_decoder
    with torch.inference_mode():
        images = torch.cat(golden.inputs())
        levels = model.image_encoder(images, 1, decoder.conv_s0, decoder.conv_s1)
    expected = golden.stored("nolora/backbone_fpn_2")
    actual = golden.taken("nolora/backbone_fpn_2", levels.sfm)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-3)


@golden.needed
@pytest.mark.parametrize("version", ["2.0", "2.1"])
@pytest.mark.parametrize(("listing", "size"), [("t", "tiny"), ("bplus", "base_plus")])
def test_metas_key_lists_fit(listing, size, version):
    shapes = golden.listing(f"sam2_keys_{listing}.json")[version]
    tensors = {key: torch.empty(entry["shape"], device="meta") for key, entry in shapes.items()}
    weights = sources.recognise(tensors, "list")
    assert (weights.size, weights.kind) == (size, "SAM 2" if version == "2.0" else "SAM 2.1")
    model = published(size)
    wanted = {key: value.shape for key, value in model.state_dict().items() if is_sam2(key)}
    found = {key: value.shape for key, value in tensors.items() if not key.startswith(IGNORED)}
    assert found == wanted


BIG = [
    pytest.param(size, version, marks=[] if size == "mini" else pytest.mark.slow)
    for size in ("mini", "tiny", "small", "base_plus", "large")
    for version in ("2.0", "2.1")
    if version == "2.1" or size in ("mini", "tiny")  # they differ by one name, whatever the size
]


@pytest.mark.parametrize(("size", "version"), BIG)
def test_every_size_builds_loads_sam2_saves_and_loads_bit_for_bit(size, version, tmp_path):
    config = ModelConfig(size=size, fusion=FusionConfig(crop=(64, 64)))
    path, folder = tmp_path / "sam2.pt", tmp_path / "model"
    model = SARTM(config)
    sam2 = {k: torch.rand_like(v) - 0.5 for k, v in model.state_dict().items() if is_sam2(k)}
    sam2["sam_mask_decoder.mask_tokens.weight"] = torch.zeros(4, 256)
    if version == "2.1":
        sam2["no_obj_embed_spatial"] = torch.zeros(1, 64)
    torch.save({"model": sam2}, path)
    load_encoder(model, path)
    assert all(torch.equal(model.state_dict()[k], v) for k, v in sam2.items() if is_sam2(k))
    save_model(model, folder, ModelFacts())
    loaded = load(folder)
    state, again = model.state_dict(), loaded.state_dict()
    assert state.keys() == again.keys()
    assert all(torch.equal(state[key], again[key]) for key in state)
    assert count_parameters(loaded) == count_parameters(model)
    for file in (path, *folder.iterdir()):
        file.unlink()  # hundreds of megabytes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.update({"image_encoder.trunk.extra": torch.zeros(1)}), "1 unexpected"),
        (lambda w: w.pop("image_encoder.trunk.blocks.2.norm2.bias"), "1 missing"),
        (lambda w: w.pop("no_mem_embed"), "no_mem_embed"),
        (lambda w: w.update({"no_mem_embed": torch.zeros(1, 1, 64)}), "1x1x64, expected 1x1x32"),
        (lambda w: w["no_mem_embed"].fill_(float("nan")), "NaN"),
        (
            lambda w: [w.pop(k) for k in list(w) if "trunk.blocks.4." in k],
            "width 16 with 4 blocks",
        ),
    ],
)
@pytest.mark.parametrize("names", [dict, hub_weights])
def test_what_does_not_fit_is_refused_and_nothing_is_half_loaded(change, words, names, tmp_path):
    weights = meta_weights()
    change(weights)
    if names is hub_weights and "unexpected" in words:
        words = "does not have"
    save_file(names(weights), tmp_path / "sam2.safetensors")
    model = small_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError, match=words):
        load_encoder(model, tmp_path / "sam2.safetensors")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_another_size_is_named(tmp_path):
    torch.save(meta_weights(), tmp_path / "sam2.pt")
    model = published("tiny")
    with pytest.raises(InputError, match=r"SAM 2\.1 test but the model is tiny.*model\.size=test"):
        load_encoder(model, tmp_path / "sam2.pt")


def test_sam2_converts_to_a_folder_of_ours(tmp_path):
    torch.save(meta_weights(), tmp_path / "sam2.pt")
    model = convert_weights(tmp_path / "sam2.pt", tmp_path / "out", classes=SMALL.classes)
    (tmp_path / "sam2.pt").unlink()
    again = load(tmp_path / "out")
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


# Hostile and broken files


@contextmanager
def little_memory(spare: int = 2**30) -> Iterator[None]:
    """This process cannot take more than so many bytes beyond what it has."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + spare, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


SPREAD = (2**16, 2**16)


def _spread(tensors, key):
    tensors[key] = torch.zeros(1).expand(SPREAD)
    return tensors


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (lambda: _spread(meta_weights(), "image_encoder.trunk.blocks.0.attn.qkv.weight"), "bytes"),
        (lambda: _spread(meta_weights(), "memory_attention.layers.0.norm1.weight"), "bytes"),
        (lambda: _spread(hub_weights(meta_weights()), "no_memory_embedding"), "65536x65536.*bytes"),
        (lambda: _spread(small_released(), "sam.image_encoder.trunk.blocks.0.attn.qkv.linear_b_q"
                         ".weight"), "bytes"),
        (lambda: meta_weights() | {"no_mem_embed": torch.empty(SPREAD, device="meta")}, "empty"),
    ],
    ids=["trunk", "memory", "hub", "released", "meta"],
)  # fmt: skip
@pytest.mark.parametrize("legacy", [False, True])
def test_few_bytes_that_are_said_to_be_many_take_no_memory(weights, words, legacy, tmp_path):
    path = tmp_path / "sam2.pt"
    torch.save(weights(), path, _use_new_zipfile_serialization=not legacy)
    assert path.stat().st_size < 3e6
    with little_memory(), pytest.raises(InputError, match=words):
        load(path)


def test_adapters_do_not_copy_an_encoder_of_another_shape(tmp_path):
    encoder, weights = tmp_path / "sam2.pt", meta_weights()
    model = small_model()
    torch.save(weights, encoder)
    load_encoder(model, encoder)
    save_model(model, tmp_path / "adapters", ModelFacts())
    weights["image_encoder.neck.convs.0.conv.weight"] = torch.zeros(64, 128, 1, 1)
    torch.save(weights, encoder)
    with pytest.raises(InputError, match=r"has other shapes; give the file"):
        load(tmp_path / "adapters")


def test_weights_that_ask_for_a_large_model_do_not_get_one(tmp_path):
    """Vectors and columns that fit each other only as a network of gigabytes."""
    weights = meta_weights()
    weights["image_encoder.neck.convs.0.conv.bias"] = torch.zeros(4096)
    layer = "sam_mask_decoder.transformer.layers.0.mlp.layers.0.weight"
    weights[layer] = torch.zeros(65536, 1)
    torch.save(weights, tmp_path / "sam2.pt")
    with little_memory(), pytest.raises(InputError, match="does not fit the model"):
        load(tmp_path / "sam2.pt")


def test_released_adapters_that_would_spread_each_other_are_refused(tmp_path):
    weights, rank = small_released(), 2**16
    block = "sam.image_encoder.trunk.blocks.0.attn.qkv"
    weights[f"{block}.qkv.weight"] = torch.zeros(3 * 2**18, 1)
    for suffix in ("", "2", "3"):
        for which in "qv":
            weights[f"{block}.linear_a_{which}{suffix}.weight"] = torch.zeros(rank, 1)
            weights[f"{block}.linear_b_{which}{suffix}.weight"] = torch.zeros(1, rank)
    torch.save(weights, tmp_path / "released.pth")
    with little_memory(), pytest.raises(InputError, match=r"1 and 1 rows do not fit"):
        load(tmp_path / "released.pth")


class Trap:
    """Unpickling it would write a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_pickle_is_refused_and_does_not_run(legacy, tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "model.pth"
    content = {"model": {"a": Trap(marker)}}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match=r"refused: it asks for \w+\.mkdir"):
        load(path)
    path.write_bytes(pickle.dumps(Trap(marker), protocol=2))
    with pytest.raises(InputError):
        load(path)
    assert not marker.exists()


def deflated(path):
    whole = path.read_bytes()
    path.unlink()
    (path.parent / "x.pt").write_bytes(whole)
    with (
        zipfile.ZipFile(path.parent / "x.pt") as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-500]), "damaged or cut off"),
        (lambda p: p.write_bytes(b""), "neither a file of torch"),
        (lambda p: p.write_bytes(b"<!DOCTYPE html>"), "web page"),
        (lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
        (lambda p: p.write_bytes(b"\x80\x02}q\x00(X"), "cannot be read|refused"),
        (lambda p: p.write_bytes(b"PK\x03\x04" + bytes(99)), "damaged or cut off"),
        (deflated, "compressed"),
        (lambda p: torch.save([1, 2], p), "found list"),
        (
            lambda p: torch.save({"weights": {"a": torch.zeros(1)}}, p),
            "found the entries 'weights'",
        ),
        (lambda p: torch.save({"a": torch.zeros(1)}, p), "neither SAM 2 of Meta"),
        (lambda p: torch.save({"a": torch.eye(2).to_sparse()}, p), "sparse"),
        (lambda p: p.unlink() or p.mkdir(), "single .pt"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(spoil, words, tmp_path):
    path = tmp_path / "model.pt"
    torch.save(meta_weights(), path)
    spoil(path)
    with pytest.raises(InputError, match=words) as error:
        read_weights(path)
    assert str(path) in str(error.value)


def spoil_released(change):
    def write(path):
        tensors = small_released()
        change(tensors)
        torch.save(tensors, path)

    return write


def spoil_folder(change, name):
    def write(path):
        save_model(small_model(), path, ModelFacts())
        change(path / name)

    return write


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_cut(path):
    torch.save(small_released(), path)
    cut(path)


TOKENS = "sam.sam_mask_decoder.mask_tokens.weight"
LATER = '{"format": 99, "something": "new"}'


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda p: torch.save({"model": Trap(p.parent / "ran")}, p), "refused: it asks for"),
        (lambda p: torch.save({"args": argparse.Namespace(), "model": {}}, p), "argparse"),
        (write_cut, "damaged or cut off"),
        (spoil_released(lambda t: t[TOKENS].fill_(float("nan"))), "NaN or infinite"),
        (spoil_released(lambda t: t.update({TOKENS: torch.zeros(6, 31)})), "fit|cannot be split"),
        (spoil_folder(cut, "model.safetensors"), "damaged or cut off"),
        (spoil_folder(lambda p: p.write_text(LATER), "config.json"), "format 99.*upgrade"),
        (spoil_folder(lambda p: p.unlink(), "model.safetensors"), "is missing"),
    ],
    ids=["malicious", "objects", "cut", "nan", "shape", "cut-ours", "later", "no-weights"],
)
def test_a_bad_model_is_two_lines_and_exit_2_for_every_command(write, words, tmp_path, capsys):
    path = tmp_path / "model.pth"
    write(path)
    before = sorted(tmp_path.rglob("*"))
    data = Path(__file__).parent  # never reached
    for command in (
        ["export", "--format", "onnx", "--model", str(path), "--out", str(tmp_path / "out")],
        ["weights", "convert", str(path), "--out", str(tmp_path / "out")],
        ["video", "--rgb", str(data), "--model", str(path), "--out", str(tmp_path / "out")],
    ):
        assert main(command) == 2
        said = capsys.readouterr().err
        assert re.search(words, said)
        assert said.count("\n") <= 2
        assert "Traceback" not in said
    assert sorted(tmp_path.rglob("*")) == before  # nothing ran, nothing was written


# Fetching, against a real server


@pytest.fixture
def hub(monkeypatch):
    files = {
        "config.json": b'{"model_type": "sam2_video"}',
        "README.md": b"# SAM 2.1",
        "model.safetensors": save(hub_weights(meta_weights())),
        "sam2.1_hiera_test.pt": b"not asked for",
    }
    with hub_server.serve(hub_server.Hub(REPOSITORY, files)) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        # the suite runs offline; this server is on loopback
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        yield served


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_the_first_fetch_brings_everything_and_the_second_asks_nobody(hub, cache):
    folder = get_weights(REPOSITORY, cache=cache)
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert (folder / "config.json").is_file()
    assert not (folder / "sam2.1_hiera_test.pt").exists()
    load_encoder(small_model(), folder)
    hub.asked.clear()
    assert get_weights(REPOSITORY, cache=cache) == folder
    assert not hub.asked


def test_a_repository_with_only_metas_file_serves_too(hub, cache, tmp_path):
    torch.save({"model": meta_weights()}, tmp_path / "sam2.pt")
    hub.files = {"sam2_hiera_test.pt": (tmp_path / "sam2.pt").read_bytes()}
    load_encoder(small_model(), get_weights(REPOSITORY, cache=cache))


def test_a_cut_connection_is_resumed_where_it_broke(hub, cache, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 2**16)
    hub.cut_after = len(hub.files["model.safetensors"]) // 2
    folder = get_weights(REPOSITORY, cache=cache)
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    first, second = hub.sent("model.safetensors")
    assert not first
    assert int(second.removeprefix("bytes=").rstrip("-")) > 0


@pytest.mark.slow
def test_the_commands_get_convert_and_say_what_to_do_offline(hub, cache, tmp_path):
    environment = os.environ | {"HF_HOME": str(cache)}

    def run(*words, offline="0"):
        return subprocess.run(
            [sys.executable, "-m", "sartm", "weights", *words],
            env=environment | {"HF_HUB_OFFLINE": offline},
            capture_output=True,
            text=True,
        )

    done = run("get", REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "model.safetensors").is_file()
    assert "HTTP" not in done.stderr
    done = run("convert", REPOSITORY, "--out", str(tmp_path / "ours"), offline="1")
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "ours").config.size == "test"
    done = run("get", "facebook/sam2-hiera-large", offline="1")
    assert done.returncode == 2
    assert "run `sartm weights get facebook/sam2-hiera-large`" in done.stderr.replace("\n", " ")


def test_a_damaged_file_is_refused_and_not_kept(hub, cache):
    hub.damage = True
    with pytest.raises(InputError, match=r"model\.safetensors arrived damaged"):
        get_weights(REPOSITORY, cache=cache)
    hub.damage = False
    folder = get_weights(REPOSITORY, cache=cache)
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]


def test_a_file_that_went_bad_in_the_cache_is_found_on_demand(hub, cache):
    folder = get_weights(REPOSITORY, cache=cache)
    blob = (folder / "model.safetensors").resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match="damaged"):
        get_weights(REPOSITORY, cache=cache, verify=True)
    get_weights(REPOSITORY, cache=cache, verify=True)
    assert blob.read_bytes() == hub.files["model.safetensors"]


def test_a_repository_that_does_not_exist_is_a_404_with_advice(hub, cache):
    with pytest.raises(InputError, match=r"no repository facebook/sam3.*weights list"):
        get_weights("facebook/sam3", cache=cache)


def test_a_server_in_trouble_is_told_from_a_missing_repository(hub, cache):
    hub.broken = True
    with pytest.raises(InputError, match=r"answered 500.*try again later"):
        get_weights(REPOSITORY, cache=cache)


def test_a_repository_without_weights_says_so(hub, cache):
    del hub.files["model.safetensors"], hub.files["sam2.1_hiera_test.pt"]
    with pytest.raises(InputError, match="0 files of weights"):
        get_weights(REPOSITORY, cache=cache)


def test_no_server_gives_the_command_for_a_machine_with_network(cache, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(InputError) as error:
        get_weights("sam2.1-hiera-tiny", cache=cache)
    message = str(error.value)
    assert "cannot be reached" in message
    assert "sartm weights get facebook/sam2.1-hiera-tiny" in message
    assert "models--facebook--sam2.1-hiera-tiny" in message


OFFLINE = """
import sys
from pathlib import Path
from sartm.errors import InputError
from sartm.model.hub import get_weights
for name in sys.argv[1:]:
    try:
        print(get_weights(name))
    except InputError as error:
        print(error)
"""


def test_offline_what_is_cached_serves_and_the_rest_is_explained(hub, cache):
    folder = get_weights(REPOSITORY, cache=cache / "hub")
    hub.asked.clear()
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, REPOSITORY, "sam2-hiera-tiny"],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert Path(first) == folder
    assert "HF_HUB_OFFLINE is set" in second
    assert "sartm weights get facebook/sam2-hiera-tiny" in second
    assert not hub.asked


def test_our_own_models_come_from_the_hub_too(hub, cache, tmp_path, monkeypatch):
    model = small_model()
    save_model(model, tmp_path / "m", ModelFacts(name="mine"))
    hub.files = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    loaded = load(REPOSITORY)
    assert loaded.facts.name == "mine"
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in model.state_dict().items())


def test_the_list_describes_bundled_models(cache):
    rows = {row.name: row for row in list_weights(cache)}
    assert set(bundled_models()) < set(rows)
    for name, folder in bundled_models().items():
        model, row = load(name), rows[name]
        count = sum(value.numel() for value in model.state_dict().values())
        assert (row.size, row.parameters, row.here) == (model.config.size, count, True)
        drawn = all(data.startswith(("synth", "drawn")) for data in model.facts.data)
        assert row.commercial == ("yes" if drawn else "no")
        assert row.licence == ("Apache-2.0" if drawn else "research only")
        assert get_weights(name) == folder


def test_the_list_names_every_published_size_and_what_is_here(cache):
    rows = {row.name: row for row in list_weights(cache)}
    for version in ("sam2", "sam2.1"):
        for size in ("tiny", "small", "base-plus", "large"):
            row = rows[f"facebook/{version}-hiera-{size}"]
            assert (row.licence, row.commercial) == ("Apache-2.0", "yes")
            assert not row.here
            model = published(row.size)
            assert count_parameters(model)["encoder"][0] == row.parameters


def test_a_file_that_is_missing_is_never_looked_up_on_the_hub(hub):
    for read in (read_weights, load):
        with pytest.raises(InputError, match=r"weights/sam2\.pt"):
            read("weights/sam2.pt")
    assert not hub.asked


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"did you mean .*sam2\.1-hiera-tiny"):
        get_weights("sam2.1-hiera-tny")
    with pytest.raises(InputError, match="org/name"):
        get_weights("../../etc/passwd")
    with pytest.raises(InputError, match="did you mean"):
        load_encoder(small_model(), "sam2-hiera-tinny")
