"""Prompts are answered as SAM 2's image predictor answers them: transformers is the oracle."""

import pytest
import torch
import torch.nn.functional as F
from sam2_oracle import oracle
from torch import nn

import sartm
from sartm.config import RGB_MEAN, RGB_STD, DecoderConfig, ModelConfig
from sartm.inference.clicks import Promptable
from sartm.model.encoder import Levels
from sartm.model.hiera import ENCODERS
from sartm.model.prompts import Answer, PromptDecoder, choose_stable, prompt_state
from sartm.model.sources import Weights, from_hub_names

close = torch.testing.assert_close
POINT = ([(150.0, 90.0)], [1])
SEVERAL = ([(150.0, 90.0), (30.0, 200.0), (220.0, 60.0)], [1, 0, 1])
BOX = (40.0, 30.0, 190.0, 170.0)
CASES = {
    "a point": {"points": POINT},
    "several points": {"points": SEVERAL},
    "a point that does not count": {"points": ([(150.0, 90.0), (0.0, 0.0)], [1, -1])},
    "a box": {"box": BOX},
    "box and point": {"points": ([(100.0, 60.0)], [0]), "box": BOX},
    "a mask": {"mask": True},
    "point and mask": {"points": POINT, "mask": True},
}


def ours(theirs: nn.Module, tmp_path, config: ModelConfig, canvas: int, named: str) -> Promptable:
    """A model on the same weights, which come from a file of the hub's or of Meta's names."""
    state = theirs.state_dict()
    if named == "Meta":
        state = from_hub_names(state, "transformers")
        codes = state.pop("sam_prompt_encoder.point_embeddings.weight")
        for index in range(4):
            state[f"sam_prompt_encoder.point_embeddings.{index}.weight"] = codes[index : index + 1]
    path = tmp_path / "sam2.pt"
    torch.save({"model": state} if named == "Meta" else state, path)
    model = sartm.load(path)
    assert model.config.width == config.width
    model.config = config
    return Promptable(model, canvas=canvas, device="cpu", precision="fp32")


def ask(theirs: nn.Module, embeddings, case: dict, size, side: int, mask, multimask: bool):
    """What transformers answers to a prompt in pixels of an image of (height, width)."""
    scale = torch.tensor([side / size[1], side / size[0]])
    given = {"multimask_output": multimask, "image_embeddings": embeddings}
    if "points" in case:
        points, labels = case["points"]
        given["input_points"] = (torch.tensor(points) * scale)[None, None]
        given["input_labels"] = torch.tensor(labels)[None, None]
    if "box" in case:
        given["input_boxes"] = (torch.tensor(case["box"]).view(2, 2) * scale).view(1, 1, 4)
    if "mask" in case:
        given["input_masks"] = mask
    answer = theirs(**given)
    return answer.pred_masks[0, 0], answer.iou_scores[0, 0], answer.object_score_logits[0, 0]


def compare(theirs: nn.Module, prompt: Promptable, size, side: int, apart: bool = False) -> None:
    """Every case, of three masks and of one, at an image's size.

    `apart`: the maps first, then the answers to prompts on the same maps. Through a deep encoder
    rounding alone, of either in float32, moves a few pixels by more than the answers may differ.
    """
    generator = torch.Generator().manual_seed(3)
    rgb = torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8)
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (RGB_MEAN, RGB_STD))
    image = rgb.permute(2, 0, 1)[None].float() / 255
    square = F.interpolate(image, (side, side), mode="bilinear", antialias=True)
    mask = 5 * torch.randn(1, 1, 8, 8, generator=generator)
    mask = F.interpolate(mask, (side // 4, side // 4), mode="bilinear")
    with torch.no_grad():
        embeddings = theirs.get_image_embeddings((square - mean) / std)
        scene = prompt.encode(rgb.numpy(), None)
        if apart:
            for found, expected in zip(scene.maps, embeddings, strict=True):
                close(found, expected, atol=1e-4 * float(expected.std()), rtol=1e-4)
            embeddings = list(scene.maps)
        for name, case in CASES.items():
            for multimask in (False, True):
                logits, scores, _ = ask(theirs, embeddings, case, size, side, mask, multimask)
                points, labels = case.get("points", ((), None))
                found = prompt.masks(
                    scene,
                    points,
                    labels,
                    case.get("box"),
                    mask[0, 0].numpy() if "mask" in case else None,
                    multimask=multimask,
                )
                order = scores.argsort(descending=True)
                assert len(found) == (3 if multimask else 1), name
                full = F.interpolate(logits[None], size, mode="bilinear")[0]
                for answer, index in zip(found, order, strict=True):
                    expected = logits[index]
                    near = 1e-4 * (1.0 if apart else float(expected.std()))
                    close(torch.from_numpy(answer.logits), expected, atol=near, rtol=1e-4)
                    close(answer.score, float(scores[index]), atol=1e-4, rtol=1e-4)
                    differ = torch.from_numpy(answer.mask) != (full[index] > 0)
                    assert (full[index][differ].abs() < near).all(), name


@pytest.mark.parametrize("named", ["hub", "Meta"])
@pytest.mark.parametrize("size", [(256, 256), (240, 320)])
@pytest.mark.slow
def test_rgb_alone_without_adapters_is_sam2s_image_predictor(tmp_path, named, size):
    config = ModelConfig(size="test", width=64, decoder=DecoderConfig(heads=8, mlp_dim=48))
    theirs = oracle(ENCODERS["test"], 64, config.decoder, 256)
    compare(theirs, ours(theirs, tmp_path, config, 256, named), size, 256)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1024, 1024), (480, 640)])
@pytest.mark.parametrize("name", ["tiny", "base_plus"])
def test_published_sizes_are_sam2s_image_predictor(tmp_path, name, size):
    theirs = oracle(ENCODERS[name], 256, DecoderConfig(), 1024)
    prompt = ours(theirs, tmp_path, ModelConfig(size=name), 1024, "hub")
    compare(theirs, prompt, size, 1024, apart=True)


@torch.no_grad()
def test_a_batch_of_prompts_is_each_by_itself_and_as_transformers_has_it():
    config = DecoderConfig(heads=8, mlp_dim=48)
    theirs = oracle(ENCODERS["test"], 64, config, 128)
    decoder = PromptDecoder(64, config)
    meta = from_hub_names(theirs.state_dict(), "transformers")
    wanted = decoder.state_dict()
    decoder.load_state_dict(prompt_state(Weights("SAM 2", "test", meta, "oracle"), wanted))
    ffp, ifp, sfm = torch.randn(1, 8, 32, 32), torch.randn(1, 16, 16, 16), torch.randn(1, 64, 8, 8)
    points = torch.rand(5, 3, 2) * 128
    labels = torch.tensor([[1, 0, 1], [1, -1, -1], [1, 1, 1], [0, 1, 0], [1, 1, 0]])
    for multimask in (False, True):
        together = decoder(Levels(ffp, ifp, sfm), points, labels, None, multimask)
        answer = theirs(
            image_embeddings=[ffp, ifp, sfm],
            input_points=points[None],
            input_labels=labels[None],
            multimask_output=multimask,
        )
        close(together.logits, answer.pred_masks[0], atol=1e-4, rtol=1e-4)
        close(together.scores, answer.iou_scores[0], atol=1e-4, rtol=1e-4)
        close(together.present, answer.object_score_logits[0, :, 0], atol=1e-4, rtol=1e-4)
        for row in range(5):
            one = slice(row, row + 1)
            alone = decoder(Levels(ffp, ifp, sfm), points[one], labels[one], None, multimask)
            close(together.logits[one], alone.logits, atol=1e-5, rtol=1e-5)


def test_a_single_mask_that_hangs_on_the_threshold_gives_way_to_the_best_of_three():
    clear, doubtful = torch.full((1, 8, 8), -9.0), torch.full((1, 8, 8), -9.0)
    clear[:, :4], doubtful[:, :4], doubtful[:, 3] = 9.0, 9.0, 0.01  # the last row of it hangs
    others = torch.arange(3.0).view(3, 1, 1).expand(3, 8, 8)
    logits = torch.stack([torch.cat([clear, others]), torch.cat([doubtful, others])])
    scores = torch.tensor([[0.2, 0.5, 0.9, 0.4]]).expand(2, 4)
    chosen = choose_stable(Answer(logits, scores, torch.zeros(2)))
    close(chosen.logits[:, 0], torch.stack([clear[0], others[1]]))
    close(chosen.scores[:, 0], torch.tensor([0.2, 0.9]))
