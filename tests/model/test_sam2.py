"""Encoder and mask decoder compute what SAM 2 does, for square and other inputs."""

import math

import pytest
import torch
from sam2_oracle import oracle, randomise
from torch import Tensor, nn

from sartm.config import DecoderConfig, EncoderConfig, LoRAConfig
from sartm.model.decoder import MaskDecoder, PositionCode, PromptCodes
from sartm.model.encoder import ImageEncoder, Levels
from sartm.model.hiera import ENCODERS, Trunk, from_windows, to_windows
from sartm.model.released import join_hypernetworks
from sartm.model.sources import from_hub_names

close = torch.testing.assert_close
WIDTH, CLASSES = 64, 6
DECODER = DecoderConfig(heads=8, mlp_dim=48)
PLAIN = LoRAConfig("none")
SMALL = {
    "test": ENCODERS["test"],
    "mini": ENCODERS["mini"],
    "two heads, wide background": EncoderConfig(16, 2, (2, 1, 3, 1), (8, 4, 14, 7), (4,), (14, 14)),
}
SQUARE, PHOTO = (256, 256), (480, 640)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def by_meta(config: EncoderConfig) -> tuple[nn.Module, dict[str, Tensor]]:
    """transformers' SAM 2, and its weights under Meta's names."""
    model = oracle(config, WIDTH, DECODER, masks=CLASSES, stability=False)
    return model, from_hub_names(model.state_dict(), "transformers")


def our_encoder(config: EncoderConfig, meta: dict[str, Tensor]) -> tuple[ImageEncoder, nn.Module]:
    encoder = ImageEncoder(Trunk(config, PLAIN), WIDTH)
    encoder.load_state_dict(under(meta, "image_encoder."))
    return encoder, our_decoder(meta)


def our_decoder(meta: dict[str, Tensor]) -> MaskDecoder:
    decoder = MaskDecoder(CLASSES, WIDTH, DECODER)
    ours = decoder.state_dict().keys()
    joined = under(join_hypernetworks(meta, "transformers"), "sam_mask_decoder.")
    decoder.load_state_dict({key: joined[key] for key in ours})
    return decoder


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("size", [SQUARE, PHOTO, (96, 160)])
@torch.no_grad()
def test_trunk_and_neck_are_those_of_transformers(name, size):
    theirs, meta = by_meta(SMALL[name])
    encoder, decoder = our_encoder(SMALL[name], meta)
    images = torch.randn(2, 3, *size)
    maps = theirs.vision_encoder(images).fpn_hidden_states
    expected = decoder.conv_s0(maps[0]), decoder.conv_s1(maps[1]), maps[2]
    for rgb_rows in (0, 1, 2):
        levels = encoder(images, rgb_rows, decoder.conv_s0, decoder.conv_s1)
        for ours, wanted in zip(levels, expected, strict=True):
            close(ours, wanted, atol=1e-4 * float(wanted.std()), rtol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_the_published_size_tiny_is_that_of_transformers():
    theirs, meta = by_meta(ENCODERS["tiny"])
    encoder, decoder = our_encoder(ENCODERS["tiny"], meta)
    images = torch.randn(1, 3, *PHOTO)
    maps = theirs.vision_encoder(images).fpn_hidden_states
    levels = encoder(images, 1, decoder.conv_s0, decoder.conv_s1)
    close(levels.sfm, maps[2], atol=1e-4 * float(maps[2].std()), rtol=1e-4)


@pytest.mark.parametrize("grid", [(8, 8), (30, 40)])
@torch.no_grad()
def test_decoder_is_that_of_transformers_with_a_token_per_class(grid):
    theirs, meta = by_meta(SMALL["test"])
    decoder, codes = our_decoder(meta), PromptCodes(WIDTH)
    codes.load_state_dict(
        {
            key: v
            for key, v in under(meta, "sam_prompt_encoder.").items()
            if key in codes.state_dict()
        }
    )
    height, width = grid
    sfm = torch.randn(2, WIDTH, height, width)
    ifp = torch.randn(2, WIDTH // 4, 2 * height, 2 * width)
    ffp = torch.randn(2, WIDTH // 8, 4 * height, 4 * width)
    code = codes.pe_layer(height, width)
    logits = decoder(Levels(ffp, ifp, sfm), codes.dense(), code)

    def ask(several: bool) -> Tensor:
        masks: Tensor = theirs.mask_decoder(
            image_embeddings=sfm,
            image_positional_embeddings=code.transpose(1, 2).view(1, WIDTH, height, width),
            sparse_prompt_embeddings=torch.empty(2, 1, 0, WIDTH),
            dense_prompt_embeddings=theirs.prompt_encoder.no_mask_embed.weight[..., None, None],
            multimask_output=several,
            high_resolution_features=[ffp, ifp],
        )[0]
        return masks[:, 0]

    expected = torch.cat([ask(several=False), ask(several=True)], dim=1)
    assert logits.shape == expected.shape == (2, CLASSES, 4 * height, 4 * width)
    close(logits, expected, atol=1e-4 * float(expected.std()), rtol=1e-4)


@torch.no_grad()
def test_positional_code_is_that_of_transformers():
    theirs, meta = by_meta(SMALL["test"])
    layer = PositionCode(WIDTH)
    layer.load_state_dict(under(meta, "sam_prompt_encoder.pe_layer."))
    wide = theirs.get_image_wide_positional_embeddings()  # (1, D, 64, 64), square only
    close(layer(64, 64), wide.flatten(2).transpose(1, 2), atol=1e-4, rtol=1e-4)
    x, y = (torch.arange(5) + 0.5) / 5, (torch.arange(3) + 0.5) / 3
    points = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
    close(layer(3, 5), theirs.shared_image_embedding(points).flatten(1, 2), atol=1e-4, rtol=1e-4)


# Without an oracle


def test_positional_code_is_of_the_centres_of_cells_in_the_unit_square():
    layer = PositionCode(8)
    code = layer(3, 5)[0]
    matrix = layer.positional_encoding_gaussian_matrix
    for row in range(3):
        for column in range(5):
            place = torch.tensor([(column + 0.5) / 5, (row + 0.5) / 3])
            phase = 2 * math.pi * (2 * place - 1) @ matrix
            close(code[row * 5 + column], torch.cat([phase.sin(), phase.cos()]), atol=1e-5, rtol=0)


def test_positional_codes_are_kept_per_size_where_there_is_a_place_for_them():
    layer, trunk = PositionCode(8), Trunk(ENCODERS["test"], PLAIN)
    randomise(trunk)
    for module, ask in ((layer, layer), (trunk, trunk.position_code)):
        fresh = ask(3, 5)
        assert module.codes is None
        module.codes = {}
        assert ask(3, 5) is ask(3, 5)
        assert ask(5, 3) is not ask(3, 5)
        close(ask(3, 5), fresh, atol=0, rtol=0)


def test_positional_codes_of_many_sizes_do_not_pile_up():
    layer, trunk = PositionCode(8), Trunk(ENCODERS["test"], PLAIN)
    randomise(trunk)
    for module, ask in ((layer, layer), (trunk, trunk.position_code)):
        module.codes = {}
        first = ask(3, 2)
        for width in range(3, 40):
            ask(3, width)
            assert ask(3, width) is ask(3, width)
            assert len(module.codes) <= 8
        close(ask(3, 2), first, atol=0, rtol=0)


@pytest.mark.parametrize("side", [4, 7])
@pytest.mark.parametrize("size", [(8, 8), (14, 21), (5, 9)])
def test_windows_hold_every_token_once_and_come_back(side, size):
    tokens = torch.randn(3, *size, 2)
    windows = to_windows(tokens, side)
    per_image = -(-size[0] // side) * -(-size[1] // side)
    assert windows.shape == (3 * per_image, side, side, 2)
    assert torch.equal(from_windows(windows, 3, *size), tokens)
    close(windows[per_image : 2 * per_image].sum(), tokens[1].sum())  # batch-major, zeros beyond


@torch.no_grad()
def test_trunk_adapts_rgb_and_thermal_rows_apart_in_windowed_and_global_blocks():
    trunk = Trunk(ENCODERS["test"], LoRAConfig(rank=2, alpha=2.0))
    randomise(trunk)
    images = torch.randn(4, 3, 64, 96)
    for rgb_rows in (1, 2, 3):
        together = trunk(images, rgb_rows)
        apart = trunk(images[:rgb_rows], rgb_rows), trunk(images[rgb_rows:], 0)
        for stage, both in enumerate(together):
            wanted = torch.cat([apart[0][stage], apart[1][stage]])
            close(both, wanted, atol=1e-4 * float(wanted.std()), rtol=1e-4)
