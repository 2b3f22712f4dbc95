"""Clicks on a pair, as people use them: what is found, what is refused, what it costs."""

import threading

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_weights import SMALL, prompt_weights, small_model

import sartm
from sartm.errors import InputError
from sartm.inference.clicks import MOST_POINTS, Promptable
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts

SIZE = (60, 90)


def images(seed: int = 0):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (*SIZE, 3), np.uint8), random.integers(0, 256, SIZE, np.uint8)


@pytest.fixture(scope="module")
def on_sam2(tmp_path_factory) -> Promptable:
    folder = tmp_path_factory.mktemp("sam2")
    save_file(prompt_weights(), folder / "sam2.safetensors")
    model = small_model()
    model.encoder_source = str(folder / "sam2.safetensors")
    return Promptable(model, canvas=96, device="cpu", precision="fp32")


def test_a_scene_is_clicked_on_again_and_again_with_the_mask_before(on_sam2):
    scene = on_sam2.encode(*images())
    assert scene.size == SIZE
    assert scene.modality == "both"
    assert scene.nbytes == sum(tensor.nbytes for tensor in scene.maps)
    first = on_sam2.mask(scene, [(20, 30)])
    assert first.mask.shape == SIZE
    assert first.mask.dtype == bool
    assert first.logits.dtype == np.float32
    assert 0 <= first.score <= 1
    second = on_sam2.mask(scene, [(20, 30), (70, 10)], [1, 0], mask_input=first.logits)
    drawn = on_sam2.mask(scene, [(20, 30), (70, 10)], [1, 0], mask_input=first.mask)
    assert second.mask.shape == drawn.mask.shape == SIZE
    assert not np.array_equal(
        second.logits, on_sam2.mask(scene, [(20, 30), (70, 10)], [1, 0]).logits
    )


def test_one_click_may_mean_three_things_and_the_best_comes_first(on_sam2):
    scene = on_sam2.encode(*images())
    several = on_sam2.masks(scene, [(20, 30)])
    assert len(several) == 3
    scores = [mask.score for mask in several]
    assert scores == sorted(scores, reverse=True)
    assert np.array_equal(on_sam2.mask(scene, [(20, 30)]).logits, several[0].logits)
    assert len(on_sam2.masks(scene, [(20, 30)], multimask=False)) == 1
    assert len(on_sam2.masks(scene, [(20, 30), (3, 3)])) == 1
    assert len(on_sam2.masks(scene, box=(2, 2, 50, 50))) == 1


def test_every_modality_is_seen_and_a_missing_one_is_not(on_sam2):
    rgb, thermal = images()
    given = {"both": (rgb, thermal), "rgb": (rgb, None), "thermal": (None, thermal)}
    found = {}
    for name, pair in given.items():
        scene = on_sam2.encode(*pair)
        assert scene.modality == name
        found[name] = on_sam2.mask(scene, [(20, 30)]).logits
    assert not np.array_equal(found["both"], found["rgb"])
    assert not np.array_equal(found["both"], found["thermal"])
    assert not np.array_equal(found["rgb"], found["thermal"])


def test_threads_get_what_they_would_get_alone(on_sam2):
    scenes = [on_sam2.encode(*images(seed)) for seed in range(4)]
    alone = [on_sam2.mask(scene, [(20, 30)]).logits for scene in scenes]
    found: list = [None] * 8

    def work(index: int) -> None:
        scene = on_sam2.encode(*images(index % 4))
        found[index] = on_sam2.mask(scene, [(20, 30)]).logits

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(8):
        np.testing.assert_allclose(found[index], alone[index % 4], atol=1e-4)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ({}, "give a point with label 1, a box or a mask"),
        ({"points": [(20, 30)], "labels": [0]}, "give a point with label 1"),
        ({"points": [(20, 30)], "labels": [1, 1]}, "2 labels for 1 points"),
        ({"points": [(20, 30)], "labels": [7]}, "label 7"),
        ({"points": [(90, 30)]}, r"\(90, 30\) lies outside .* \(89, 59\)"),
        ({"points": [(-1, 30)]}, "lies outside"),
        ({"points": [(float("nan"), 3)]}, "finite"),
        ({"points": [(float("inf"), 3)]}, "finite"),
        ({"points": [("a", 3)]}, "finite"),
        ({"points": [(1, 2, 3)]}, "2 each"),
        ({"points": [(1, 2)] * (MOST_POINTS + 1)}, f"up to {MOST_POINTS}"),
        ({"box": (50, 50, 20, 20)}, "upper left"),
        ({"box": (200, 200, 300, 300)}, "holds nothing"),
        ({"box": (1, 2, 3)}, "4 each"),
        ({"box": (1, 2, 3, float("nan"))}, "finite"),
        ({"points": [(20, 30)], "mask_input": np.zeros(3, np.float32)}, "mask_input"),
        ({"points": [(20, 30)], "mask_input": np.full((4, 4), np.nan)}, "NaN"),
        ({"points": [(20, 30)], "mask_input": np.zeros((4, 4), np.int64)}, "mask_input is int64"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_to_do(on_sam2, prompt, says):
    scene = on_sam2.encode(*images())
    with pytest.raises(InputError, match=says):
        on_sam2.mask(scene, **prompt)


def test_a_box_that_reaches_out_of_the_image_is_cut(on_sam2):
    scene = on_sam2.encode(*images())
    whole = on_sam2.mask(scene, box=(-0.5, -0.5, 89.5, 59.5))
    assert np.array_equal(on_sam2.mask(scene, box=(-400, -9, 1e6, 1e6)).logits, whole.logits)


def test_a_saved_model_finds_its_prompts_where_its_encoder_came_from(tmp_path):
    save_file(prompt_weights(), tmp_path / "sam2.safetensors")
    model = sartm.load(tmp_path / "sam2.safetensors")
    save(model, tmp_path / "model", ModelFacts())
    prompt = Promptable(tmp_path / "model", canvas=96, device="cpu", precision="fp32")
    scene = prompt.encode(*images())
    assert prompt.mask(scene, [(20, 30)]).mask.shape == SIZE


def test_a_model_without_the_prompt_half_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="prompts=FILE"):
        Promptable(small_model(), device="cpu")
    tensors = prompt_weights()
    del tensors["sam_mask_decoder.iou_prediction_head.layers.1.weight"]
    save_file(tensors, tmp_path / "sam2.safetensors")
    with pytest.raises(InputError, match=r"1 missing: sam_mask_decoder\.iou_prediction_head"):
        Promptable(small_model(), prompts=tmp_path / "sam2.safetensors", device="cpu")
    with pytest.raises(InputError, match="multiple of 32"):
        Promptable(small_model(), canvas=100, device="cpu")


def test_labels_and_clicks_share_one_network(on_sam2):
    predictor = sartm.Predictor(small_model(), device="cpu", precision="fp32")
    shared = Promptable(predictor, prompts=on_sam2.network.encoder_source, canvas=96)
    assert shared.network is predictor.model
    expected = on_sam2.mask(on_sam2.encode(*images()), [(20, 30)]).logits
    found = shared.mask(shared.encode(*images()), [(20, 30)]).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert predictor(*images()).labels.shape == SIZE
    assert SMALL.size == "test"
