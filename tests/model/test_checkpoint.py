"""Model folders: whole or not at all, strict on loading, nothing half-loaded."""

import dataclasses
import json
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_weights import SMALL, meta_weights, pair, small_model

import sartm
from sartm import files
from sartm.classes import PST900, Classes
from sartm.config import Calibrations, to_dict
from sartm.errors import InputError
from sartm.inference.predictor import label_map
from sartm.model.checkpoint import save, save_calibration
from sartm.model.facts import ModelFacts
from sartm.model.filling import fill, load_encoder
from sartm.model.hub import bundled_models
from sartm.model.loading import convert_weights, load
from sartm.model.sartm import SARTM

DATA = Path(__file__).parent
FACTS = ModelFacts(
    name="street",
    data=("synthetic", "msrs268"),
    selected_on="val",
    command="sartm train mini --data msrs268",
    seed=3,
    steps=40,
    results={"step": 40, "means": {"mfnet-9": {"miou": 51.234, "macc": None, "counted": 9}}},
    training_images={"00001D": "a" * 64},
    text={"encoder": "gt", "prompts": ["car", "person"], "cosines": [[1.0, 0.5], [0.5, 1.0]]},
    recipe={"optim": {"lr": 0.001}},
)


@pytest.fixture
def encoder(tmp_path):
    """A file of SAM 2 weights under Meta's names."""
    path = tmp_path / "sam2.1_test.pt"
    torch.save({"model": meta_weights()}, path)
    return path


@pytest.fixture
def adapted(encoder):
    """A model with trained adapters on that encoder."""
    model = small_model()
    load_encoder(model, encoder)
    return model


@pytest.fixture
def folder(tmp_path):
    save(small_model(), tmp_path / "model", FACTS)
    return tmp_path / "model"


def labels(model: SARTM) -> np.ndarray:
    with torch.inference_mode():
        return label_map(model.merged().predict_logits(*pair())[0], (64, 96), 3)


def same_weights(a: SARTM, b: SARTM) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def rewrite(folder: Path, change) -> None:
    """Change the tensors of a model folder."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def reconfigure(folder: Path, change) -> None:
    values = json.loads((folder / "config.json").read_text())
    change(values)
    (folder / "config.json").write_text(json.dumps(values))


def test_a_saved_model_loads_bit_for_bit_with_its_facts(tmp_path):
    model = small_model()
    save(model, tmp_path / "m", FACTS, full=True)
    loaded = sartm.load(str(tmp_path / "m"))
    assert same_weights(model, loaded)
    assert not loaded.training
    assert loaded.config == model.config
    assert dataclasses.replace(loaded.facts, encoder_sha256="") == FACTS
    with torch.no_grad():
        assert torch.equal(loaded.predict_logits(*pair()), model.predict_logits(*pair()))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert [name for name, p in loaded.named_parameters() if p.requires_grad] == trained


def test_loading_draws_no_random_numbers(folder):
    state = torch.get_rng_state()
    load(folder)
    assert torch.equal(torch.get_rng_state(), state)


def test_adapters_leave_the_encoder_out_and_give_identical_label_maps_on_it(adapted, tmp_path):
    save(adapted, tmp_path / "adapters", FACTS)
    stored = load_file(tmp_path / "adapters" / "model.safetensors")
    assert not [k for k in stored if k.startswith("image_encoder.") and ".lora_" not in k]
    assert [k for k in stored if ".lora_" in k]
    loaded = load(tmp_path / "adapters")
    assert same_weights(adapted, loaded)
    assert np.array_equal(labels(adapted), labels(loaded))
    save(loaded, tmp_path / "again", loaded.facts)  # what was loaded knows its encoder
    assert same_weights(adapted, load(tmp_path / "again"))


def test_adapters_find_their_encoder_where_the_user_says(adapted, encoder, tmp_path):
    save(adapted, tmp_path / "adapters", FACTS)
    moved = encoder.rename(tmp_path / "moved.pt")
    with pytest.raises(InputError, match="--encoder") as error:
        load(tmp_path / "adapters")
    assert str(encoder) in str(error.value)
    assert same_weights(adapted, load(tmp_path / "adapters", encoder=moved))


def test_adapters_of_a_published_size_say_how_to_get_their_encoder(adapted, folder, tmp_path):
    save(adapted, tmp_path / "adapters", FACTS)

    def tiny(values):
        values["model"]["size"] = "tiny"
        values["facts"]["encoder"] = str(tmp_path / "gone.pt")

    reconfigure(tmp_path / "adapters", tiny)
    with pytest.raises(InputError) as error:
        load(tmp_path / "adapters")
    assert "`sartm weights get facebook/sam2.1-hiera-tiny`" in str(error.value)
    assert "`sartm weights get facebook/sam2.1-hiera-tiny`" in str(error.value)

    def hub(values):
        values["facts"]["encoder"] = "facebook/sam2-hiera-tiny"

    reconfigure(tmp_path / "adapters", hub)
    with pytest.raises(InputError, match=r"`sartm weights get facebook/sam2-hiera-tiny`"):
        load(tmp_path / "adapters")


def test_adapters_stay_adapters_when_converted_unless_full_is_asked_for(adapted, encoder, tmp_path):
    save(adapted, tmp_path / "adapters", FACTS)
    moved = encoder.rename(tmp_path / "moved.pt")
    for full in (False, True):
        out = tmp_path / f"full {full}"
        convert_weights(tmp_path / "adapters", out, encoder=moved, full=full)
        assert json.loads((out / "config.json").read_text())["weights"] == (
            "full" if full else "adapters"
        )
        assert same_weights(adapted, load(out))  # knows where its encoder lies now
    moved.unlink()
    assert same_weights(adapted, load(tmp_path / "full True"))


def test_numbers_beyond_float16_are_not_written_as_infinity(tmp_path):
    model = small_model()
    with torch.no_grad():
        model.auxiliary_head.predict.bias[0] = 1e6
    with pytest.raises(InputError, match=r"float16: auxiliary_head\.predict\.bias.*--half"):
        save(model, tmp_path / "m", FACTS, dtype=torch.float16)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [{"encoder": "x.pt"}, {"canvas": 640}], ids=str)
def test_what_means_nothing_to_sam2_itself_is_refused(given, encoder):
    with pytest.raises(InputError, match=rf"SAM 2\.1 itself.*leave --{next(iter(given))} out"):
        load(encoder, **given)


def test_a_canvas_is_for_released_weights(folder):
    with pytest.raises(InputError, match=r"no released SARTM.*leave --canvas out"):
        load(folder, canvas=640)


def test_adapters_refuse_another_encoder(adapted, tmp_path):
    save(adapted, tmp_path / "adapters", FACTS)
    other = meta_weights()
    other["image_encoder.trunk.blocks.0.norm1.bias"][0] += 1e-3
    torch.save(other, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"SHA-256 [0-9a-f]{16}.*but that of"):
        load(tmp_path / "adapters", encoder=tmp_path / "other.pt")


def test_full_needs_no_encoder(adapted, encoder, tmp_path):
    save(adapted, tmp_path / "full", FACTS, full=True)
    encoder.unlink()
    assert same_weights(adapted, load(tmp_path / "full"))


@pytest.mark.parametrize("frozen", [True, False])
def test_an_encoder_of_no_file_or_trained_is_always_stored(frozen, encoder, tmp_path):
    model = small_model(dataclasses.replace(SMALL, frozen_encoder=frozen))
    if not frozen:
        load_encoder(model, encoder)
    save(model, tmp_path / "m", FACTS)
    encoder.unlink()
    assert same_weights(model, load(tmp_path / "m"))


def test_half_precision_files_load_as_float32(tmp_path):
    model = small_model()
    save(model, tmp_path / "half", FACTS, dtype=torch.float16)
    save(model, tmp_path / "whole", FACTS)
    sizes = [(tmp_path / n / "model.safetensors").stat().st_size for n in ("half", "whole")]
    assert sizes[0] < 0.6 * sizes[1]
    loaded = load(tmp_path / "half")
    for key, value in model.state_dict().items():
        assert loaded.state_dict()[key].dtype == torch.float32
        assert torch.equal(loaded.state_dict()[key], value.half().float())


def test_saving_replaces_a_model_whole(folder):
    other = small_model(seed=1)
    save(other, folder, FACTS)
    assert same_weights(other, load(folder))
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process can grow beyond `size` bytes: a write fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_save_that_runs_out_of_room_leaves_the_old_model(folder):
    before = load(folder)
    size = (folder / "model.safetensors").stat().st_size
    with file_size_limit(size - 1), pytest.raises(InputError, match=r"too large.*there is kept"):
        save(small_model(seed=1), folder, FACTS)
    assert same_weights(before, load(folder))
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_swap_that_fails_brings_the_old_model_back(folder, monkeypatch):
    before, rename, refused = load(folder), Path.rename, []

    def refuse(self, target):
        if target == folder and not refused:  # the new one on its way; the way back is open
            refused.append(self)
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr(files, "exchange", lambda *_: False)  # as on systems that have none
    with pytest.raises(InputError, match="what was there is kept"):
        save(small_model(seed=1), folder, FACTS)
    assert same_weights(before, load(folder))
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_saving_never_replaces_a_folder_of_something_else(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"a\.jpg"):
        save(small_model(), tmp_path / "photos", FACTS)
    assert (tmp_path / "photos" / "a.jpg").read_bytes() == b"x"


def test_a_cut_off_file_is_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="damaged or cut off"):
        load(folder)


def test_a_missing_file_of_weights_is_named(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors is missing"):
        load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(folder, value):
    rewrite(folder, lambda t: t["fusion.fuse.0.norm.weight"].fill_(value))
    with pytest.raises(InputError, match=r"NaN or infinite.*fusion\.fuse\.0\.norm\.weight"):
        load(folder)


def test_the_difference_to_the_config_is_readable(folder):
    def change(tensors):
        for key in [key for key in tensors if key.startswith("fusion.rectify")][:7]:
            del tensors[key]
        tensors["surplus"] = torch.zeros(2)
        tensors["auxiliary_head.predict.bias"] = torch.zeros(4)
        tensors["auxiliary_head.lift_ffp.bias"] = torch.zeros(32, dtype=torch.int32)

    rewrite(folder, change)
    with pytest.raises(InputError) as error:
        load(folder)
    message = str(error.value)
    assert "7 missing" in message
    assert message.count("fusion.rectify") == 5  # the first five stand for the rest
    assert "1 unexpected: surplus" in message
    assert "auxiliary_head.predict.bias is 4, expected 3" in message
    assert "auxiliary_head.lift_ffp.bias is 32 int32, expected 32" in message


def test_a_refused_file_changes_nothing():
    model = small_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    broken = {key: value + 1 for key, value in before.items()}
    broken["auxiliary_head.predict.bias"][0] = float("nan")
    with pytest.raises(InputError):
        fill(model, broken, "broken")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_later_format_asks_for_an_upgrade(folder):
    reconfigure(folder, lambda values: values.update(format=3, brand_new=True))
    with pytest.raises(InputError, match=r"format 3.*upgrade sartm"):
        load(folder)


def test_an_unknown_setting_is_refused_with_the_nearest_name(folder):
    reconfigure(folder, lambda values: values["model"].update(widht=32))
    with pytest.raises(InputError, match="did you mean 'width'"):
        load(folder)


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000, '{"format": "1"}', "\xff"])
def test_a_broken_config_is_refused(folder, text):
    (folder / "config.json").write_text(text, "latin-1")
    with pytest.raises(InputError, match=r"config\.json"):
        load(folder)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("place", [("model", "thermal", "high"), ("facts", "results", "present")])
def test_a_number_of_a_config_that_is_not_finite_is_refused(folder, place, number):
    """JSON has none; Python reads and writes them, and no comparison notices them."""

    def change(values):
        for key in place[:-1]:
            values = values[key]
        values[place[-1]] = "here"

    reconfigure(folder, change)
    text = (folder / "config.json").read_text().replace('"here"', number)
    (folder / "config.json").write_text(text)
    with pytest.raises(InputError, match=rf"not valid JSON.*{number} is not finite"):
        load(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"width": 10**7},
        {"width": -8},
        {"width": 10**30},
        {"decoder": {"depth": 10**9}},
        {"lora": {"rank": 0}},
        {"lora": {"rank": 10**8}},
        {"size": "large"},
    ],
    ids=str,
)
def test_a_config_that_lies_is_found_out_before_memory_is_taken(folder, change):
    reconfigure(folder, lambda values: values["model"].update(change))
    with pytest.raises(InputError):
        load(folder)


def test_names_are_resolved_or_explained(folder, tmp_path):
    assert same_weights(sartm.load("mini"), load(bundled_models()["mini"]))
    assert same_weights(load(folder / "model.safetensors"), load(folder))
    with pytest.raises(InputError, match="did you mean 'mini'"):
        load("mimi")
    for name in ("model.onnx", "model.xml"):
        with pytest.raises(InputError, match="sartm export"):
            load(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        load(tmp_path / "empty")


def test_a_model_knows_no_classes_but_its_own(folder):
    with pytest.raises(InputError, match=r"no class 'fire_extinguisher'.*it knows ground, car"):
        load(folder, classes=PST900)
    with pytest.raises(InputError, match="leave --text-encoder out"):
        load(folder, classes=Classes(("ground", "car")), text_encoder="org/clip")


def test_the_card_says_where_the_model_comes_from(tmp_path):
    hostile = dataclasses.replace(
        FACTS, name="street", data=("a|b\n# c", "<script>"), command="sartm `rm`"
    )
    config = dataclasses.replace(SMALL, classes=Classes(("a|b", "c`d", "e")))
    save(small_model(config), tmp_path / "m", hostile)
    card = (tmp_path / "m" / "README.md").read_text()
    for words in ("# street", "| mfnet-9 | 51.23 | - | 9 |", "| chosen on | val |", "3, 40"):
        assert words in card
    assert "Licence" in card
    assert "<script>" not in card
    assert "\n# c" not in card  # stays in its row
    save(small_model(), tmp_path / "n", dataclasses.replace(FACTS, licence="Only for research."))
    assert "Only for research." in (tmp_path / "n" / "README.md").read_text()


def test_a_folder_of_format_1_still_loads(tmp_path):
    """tests/data/format1: adapters of width 16 in float16, written when format 1 was new."""
    config = dataclasses.replace(
        SMALL,
        width=16,
        decoder=dataclasses.replace(SMALL.decoder, heads=2, mlp_dim=16),
        no_mem_embed="fusion",  # as there was no other way then
        output="decoder",
    )
    encoder = tmp_path / "encoder.pt"
    torch.save(meta_weights(config), encoder)
    model = load(DATA / "format1", encoder=encoder)
    assert model.config == config
    assert model.facts.data == FACTS.data
    assert model.facts.text == FACTS.text
    with torch.no_grad():
        means = model.predict_logits(*pair()).mean((0, 2, 3))
    expected = json.loads((DATA / "format1-logits.json").read_text())
    torch.testing.assert_close(means, torch.tensor(expected), rtol=1e-3, atol=1e-3)


def test_the_config_is_plain_json_that_says_it_all(folder):
    values = json.loads((folder / "config.json").read_text())
    assert values["format"] == 2
    assert values["model"] == to_dict(SMALL)
    assert values["facts"]["training_images"] == FACTS.training_images
    shutil.rmtree(folder)


def test_hashes_that_are_too_many_for_the_configuration_lie_beside_it(tmp_path, monkeypatch):
    images = {f"pair {i}": f"{i:064x}" for i in range(7)}
    save(small_model(), tmp_path / "few", ModelFacts(training_images=images))
    assert sorted(path.name for path in (tmp_path / "few").iterdir()) == [
        "README.md", "config.json", "model.safetensors",
    ]  # fmt: skip
    monkeypatch.setattr("sartm.model.checkpoint.MOST_IN_CONFIG", 5)
    folder = tmp_path / "many"
    save(small_model(), folder, ModelFacts(training_images=images))
    assert "pair 3" not in (folder / "config.json").read_text()
    assert "7, hashes" in (folder / "README.md").read_text()
    assert load(str(folder)).facts.training_images == images
    save_calibration(folder, Calibrations(), ("drawn",))
    assert load(str(folder)).facts.training_images == images
    beside = folder / "training_images.json"
    beside.write_text(beside.read_text().replace("pair 3", "pair 9"))
    with pytest.raises(InputError, match=r"is not the one that config\.json names"):
        load(str(folder))
    beside.unlink()
    with pytest.raises(InputError, match="copy the whole folder"):
        load(str(folder))
