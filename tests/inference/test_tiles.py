"""Large images: tiles give what the whole would, and hold no more than a row of themselves."""

from dataclasses import replace
from functools import partial
from itertools import pairwise, starmap

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, build

from sartm.config import ThermalRule
from sartm.data.pairs import Sample
from sartm.inference.predictor import Predictor
from sartm.inference.tiles import Tiling, resize_strips, tile_logits

SMALL = Tiling(above=0, side=64, overlap=16)


@pytest.mark.parametrize("size", [(50, 300), (64, 64), (203, 65), (211, 190), (128, 40)])
def test_tiles_of_a_field_make_the_field_again(size):
    """Logits that do not depend on the tile come back exactly: weights add up to 1 everywhere."""
    rows, columns = (-(-side // 4) for side in size)
    field = torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(0))
    asked = []

    def see(y, x):
        asked.append((y, x))
        assert y.start % 4 == x.start % 4 == 0
        assert 0 < y.stop - y.start <= 64
        assert 0 < x.stop - x.start <= 64
        assert y.stop <= size[0]
        assert x.stop <= size[1]
        part = field[:, y.start // 4 : -(-y.stop // 4), x.start // 4 : -(-x.stop // 4)]
        return F.pad(part, (0, 3, 0, 2), value=1e6)  # what the model's padding gives

    joined = torch.cat(list(tile_logits(partial(starmap, see), size, SMALL)), dim=1)
    torch.testing.assert_close(joined, field, atol=1e-5, rtol=1e-5)
    for axis in (0, 1):
        spans = sorted({(tile[axis].start, tile[axis].stop) for tile in asked})
        assert all(a[1] - b[0] >= 16 for a, b in pairwise(spans))


def test_two_tiles_fade_into_each_other():
    def see(y, x):
        return torch.full((1, 16, 16), float(x.start > 0))

    logits = next(tile_logits(partial(starmap, see), (64, 112), SMALL))
    (line,) = {tuple(row.tolist()) for row in logits[0]}
    assert line[0] == 0
    assert line[-1] == 1
    assert all(0 <= b - a < 0.35 for a, b in pairwise(line))


def test_rows_resized_as_they_come_are_those_of_the_whole():
    logits = torch.randn(2, 23, 9, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(logits[None], scale_factor=4.0, mode="bilinear")[0, :, :90, :33]
    for cuts in ([23], [1, 1, 21], [5, 18], [22, 1], [7, 7, 7, 2]):
        strips = list(resize_strips(logits.split(cuts, dim=1), (90, 33)))
        assert [top for top, _ in strips] == list(
            np.cumsum([0, *(strip.shape[1] for _, strip in strips)])[:-1]
        )
        torch.testing.assert_close(torch.cat([strip for _, strip in strips], dim=1), whole)


@pytest.mark.parametrize("modality", ["both", "rgb", "thermal"])
def test_a_large_image_is_labelled_in_tiles_by_one_thermal_rule(modality):
    model = build(replace(TINY, thermal=ThermalRule("percentile", 1, 99))).eval()
    draw = np.random.default_rng(0)
    thermal = draw.integers(7000, 9000, (150, 210), dtype=np.uint16)
    thermal[:60] += 3000  # a tile's own percentiles would be others
    sample = Sample("large", draw.integers(0, 256, (150, 210, 3), dtype=np.uint8), thermal)
    asked = []

    class Spied(Predictor):
        def batch_logits(self, pairs):
            asked.extend(pairs)
            return super().batch_logits(pairs)

    options = {"device": "cpu", "precision": "fp32"}
    tiled = Spied(model, tiling=SMALL, **options).predict(sample, modality)
    whole = Predictor(model, **options)
    _, display = whole.inputs(sample, modality)
    assert len(asked) == 15
    if modality != "rgb":
        corner = asked[0][1]
        np.testing.assert_array_equal(corner, display[: corner.shape[0], : corner.shape[1]])
    assert tiled.labels.shape == (150, 210)
    assert tiled.confidence.shape == (150, 210)
    expected = whole.predict(sample, modality)
    np.testing.assert_array_equal(tiled.image, expected.image)
    drawn = tiled.overlay()
    assert drawn.shape == (150, 210, 3)
    if modality != "thermal":
        np.testing.assert_array_equal(tiled.overlay(out=tiled.image), drawn)
    assert tiled.summary()["confidence"] == pytest.approx(tiled.confidence.mean(), abs=0.02)


def test_one_tile_is_the_whole_image():
    model = build(TINY).eval()
    draw = np.random.default_rng(0)
    rgb = draw.integers(0, 256, (61, 90, 3), dtype=np.uint8)
    options = {"device": "cpu", "precision": "fp32"}
    tiled = Predictor(model, tiling=Tiling(above=0, side=96, overlap=32), **options)(rgb, None)
    whole = Predictor(model, **options)(rgb, None)
    np.testing.assert_array_equal(tiled.labels, whole.labels)
