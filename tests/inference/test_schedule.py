"""How the network is run changes no result: strips of rows, and codes that are kept."""

import pytest
import torch
from conftest import TINY, build

from sartm.config import EncoderConfig, LoRAConfig
from sartm.inference.schedule import prepare_network, run_in_strips, split_rows
from sartm.model.hiera import ENCODERS, Trunk

WIDE = EncoderConfig(16, 1, (2, 1, 1, 1), (8, 4, 4, 4), (1,), (7, 7), mlp_ratio=64)
"""Such an MLP that small maps take several strips."""


@pytest.mark.parametrize(
    ("config", "size", "cut"),
    [
        pytest.param(WIDE, (160, 224), True, id="wide"),
        pytest.param(ENCODERS["tiny"], (256, 1024), False, id="tiny", marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_blocks_compute_the_same_in_strips_as_at_once(config, size, cut):
    """Windowed, pooling and global blocks; the last strip may be cut."""
    torch.manual_seed(0)
    trunk = Trunk(config, LoRAConfig())
    for parameter in trunk.parameters():
        parameter.normal_(std=0.05)
    images = torch.randn(2, 3, *size)
    whole = trunk(images, 1)
    heights = [strip.shape[1] for _, strip in split_rows(trunk.blocks[0], whole[0])]
    assert len(heights) > 1
    assert (heights[-1] < heights[0]) == cut
    trunk.run_block = run_in_strips
    for a, b in zip(trunk(images, 1), whole, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_a_network_is_made_ready_without_changing_the_model(pair):
    model = build(TINY).eval()
    network = prepare_network(model, torch.device("cpu"))
    again = prepare_network(network, torch.device("cpu"), strips=False)
    with torch.inference_mode():
        expected = model.predict_logits(*pair)
        for ready in (network, again):
            for _ in range(2):  # the second time with the codes of the first
                torch.testing.assert_close(ready.predict_logits(*pair), expected)
    trunks = [m.image_encoder.trunk for m in (model, network, again)]
    assert [trunk.run_block for trunk in trunks] == [None, run_in_strips, None]
    assert trunks[0].codes is None
    assert trunks[1].codes.keys() == trunks[2].codes.keys() == {(16, 24)}
