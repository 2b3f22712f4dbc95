"""Pairs are read with every check a user relies on, and loose files find their partners."""

import re
from pathlib import Path

import draw_layouts
import numpy as np
import pytest
from PIL import Image

from sartm.classes import MFNET, Classes
from sartm.data.finding import search_pairs
from sartm.data.pairs import (
    PairDataset,
    describe_mixed_types,
    fit_thermal,
    pixel_hash,
    read_images,
    read_pair,
)
from sartm.data.sets import Pair
from sartm.errors import InputError
from sartm.io.cameras import Camera
from sartm.io.sources import Upload
from sartm.spaces import classes_of_words

SHARED = Path(__file__).resolve().parents[3] / "shared"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="no folder shared beside the checkout"
)


def image(path: Path, height: int = 8, width: int = 12, channels: int = 3, value: int = 9) -> Path:
    shape = (height, width, channels) if channels > 1 else (height, width)
    draw_layouts.save(path, np.full(shape, value, np.uint8))
    return path


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(pairs: list[Pair]) -> list[str]:
    return [pair.name for pair in pairs]


def test_a_pair_of_two_sizes_is_refused_with_both_remedies_or_fitted(tmp_path):
    rgb = image(tmp_path / "rgb.png")
    half = np.arange(24, dtype=np.uint16).reshape(4, 6) * 1000
    draw_layouts.save(tmp_path / "thermal.png", half)
    pair = Pair("street", rgb, tmp_path / "thermal.png")
    with pytest.raises(
        InputError, match=r"'street'.*8x12.*4x6.*sartm data align.*--calibration FILE"
    ):
        read_pair(pair)
    thermal = read_pair(pair, resize_thermal=True).thermal
    assert thermal.shape == (8, 12)
    assert thermal.dtype == np.uint16
    assert abs(thermal.astype(float).mean() - half.mean()) < 100


@pytest.mark.parametrize("resize", [False, True])
def test_a_pair_of_which_one_is_turned_is_not_squeezed(resize, tmp_path):
    """RGB of a phone that was held upright says so in EXIF; the thermal file beside it does not."""
    rgb, exif = tmp_path / "rgb.jpg", Image.Exif()
    exif[274] = 6
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(rgb, exif=exif)
    for height, width in ((48, 64), (24, 32), (18, 32), (40, 50)):
        pair = Pair("yard", rgb, image(tmp_path / "thermal.png", height, width, 1))
        with pytest.raises(InputError, match=rf"64x48.*{height}x{width}.*turned by a quarter") as e:
            read_pair(pair, resize_thermal=resize)
        assert "--resize-thermal" not in str(e.value)
    upright = Pair("yard", rgb, image(tmp_path / "thermal.png", 32, 24, 1))
    assert read_pair(upright, resize_thermal=True).thermal.shape == (64, 48)


def test_nearly_square_images_are_not_taken_for_turned(tmp_path):
    pair = Pair("x", image(tmp_path / "rgb.png", 50, 52), image(tmp_path / "t.png", 27, 25, 1))
    assert read_pair(pair, resize_thermal=True).thermal.shape == (50, 52)


def test_what_is_unseen_is_resized_with_its_image(tmp_path):
    raw = np.arange(1, 49, dtype=np.uint16).reshape(6, 8)
    raw[2:4, 2:4] = 0
    draw_layouts.save(tmp_path / "t.png", raw)
    pair = Pair("x", image(tmp_path / "rgb.png", 12, 16), tmp_path / "t.png")
    sample = read_pair(pair, resize_thermal=True, camera=Camera(holes=0))
    assert sample.unseen.dtype == bool
    assert sample.unseen[4:8, 4:8].all()
    assert not sample.unseen[:3].any()
    assert read_pair(pair, resize_thermal=True).unseen is None


def test_images_that_differ_in_size_are_read_apart_and_as_stored(tmp_path):
    raw = np.array([[0, 5], [7, 9]], np.uint16)
    draw_layouts.save(tmp_path / "t.png", raw)
    camera = Camera(black_hot=True, holes=0)
    files = image(tmp_path / "rgb.png", 12, 16), tmp_path / "t.png"
    images = read_images(*files, camera=camera)
    assert images.rgb.shape == (12, 16, 3)
    assert images.thermal.min() == 65535 - 9
    assert images.unseen.tolist() == [[True, False], [False, False]]
    stored = read_images(*files, camera=camera.as_stored())
    assert np.array_equal(stored.thermal, raw)
    assert stored.unseen is None
    uploads = [Upload(file.name, file.read_bytes()) for file in files]
    assert np.array_equal(read_images(*uploads, camera=camera).thermal, images.thermal)


def test_several_number_types_in_one_set_are_named():
    assert describe_mixed_types([]) == ""
    assert describe_mixed_types([("a", "uint8"), ("b", "uint8")]) == ""
    said = describe_mixed_types([("a", "uint16"), ("b", "uint8"), ("c", "uint16")])
    assert "uint16 in 2 (such as 'a'), uint8 in 1 (such as 'b')" in said


def test_a_label_of_another_size_is_refused_even_when_thermal_may_be_resized(tmp_path):
    label = image(tmp_path / "label.png", 4, 6, 1, 0)
    pair = Pair("x", image(tmp_path / "rgb.png"), None, label)
    with pytest.raises(InputError, match=r"label\.png.*4x6.*8x12"):
        read_pair(pair, MFNET, resize_thermal=True)


def test_ids_outside_the_class_table_are_refused_with_id_file_and_count(tmp_path):
    ids = np.zeros((8, 12), np.uint8)
    ids[0, :5], ids[1, :3] = 255, 8
    draw_layouts.save(tmp_path / "label.png", ids)
    pair = Pair("x", image(tmp_path / "rgb.png"), None, tmp_path / "label.png")
    np.testing.assert_array_equal(read_pair(pair, MFNET).label, ids)
    ids[2, :4] = 9
    draw_layouts.save(tmp_path / "label.png", ids)
    with pytest.raises(InputError, match=r"label\.png: 4 pixels have id 9.*0-8 and 255"):
        read_pair(pair, MFNET)


def test_label_alone_can_be_read_for_scoring(tmp_path):
    label = image(tmp_path / "label.png", 4, 6, 1, 3)
    sample = PairDataset([Pair("x", label=label)], MFNET)[0]
    assert sample.rgb is None
    assert sample.thermal is None
    assert (sample.label == 3).all()
    with pytest.raises(InputError, match="neither RGB nor thermal"):
        sample.size  # noqa: B018


def test_a_limit_takes_pairs_from_the_whole_split(tmp_path):
    draw_layouts.mfnet_flipped(tmp_path)
    taken = names(list(PairDataset.open(tmp_path, "train", limit=2).pairs))
    assert taken == ["00001D", "00001D_flip"]
    assert len(PairDataset.open(tmp_path, "train", limit=99)) == 4
    with pytest.raises(InputError, match="limit is 0"):
        PairDataset.open(tmp_path, limit=0)


def test_a_split_that_does_not_exist_is_refused_with_those_that_do(tmp_path):
    draw_layouts.msrs(tmp_path)
    with pytest.raises(InputError, match="no split 'val'; it has train, test"):
        PairDataset.open(tmp_path, "val")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_black_hot_is_inverted_so_that_hot_is_large(dtype, tmp_path):
    raw = np.array([[10, 20, 200]], dtype)
    path = tmp_path / "t.tif"
    draw_layouts.save(path, raw)
    plain = PairDataset([Pair("t", None, path)], MFNET)[0].thermal
    found = PairDataset([Pair("t", None, path)], MFNET, black_hot=True)[0].thermal
    assert found.dtype == dtype
    np.testing.assert_array_equal(np.argsort(found), np.argsort(plain)[:, ::-1])
    np.testing.assert_array_equal(np.abs(np.diff(found.astype(float))), [[10, 180]])


def test_other_pairs_of_a_data_set_keep_its_meaning(tmp_path):
    draw_layouts.mfnet_original(tmp_path)
    whole = PairDataset.open(tmp_path, "train")
    part = whole.replace(pairs=whole.pairs[1:], split="held")
    assert (len(part), part.split, part.classes) == (1, "held", whole.classes)
    assert part.subset_of(part[0].name) == ["night"]
    assert (len(whole), whole.split) == (2, "train")


def test_labels_in_chosen_classes_count_all_else_as_the_rest_or_say_what_is_missing(tmp_path):
    image(tmp_path / "a.png", 4, 4)
    Image.fromarray(np.array([[0, 1, 2, 255]] * 4, np.uint8)).save(tmp_path / "label.png")
    pairs = [Pair("a", tmp_path / "a.png", None, tmp_path / "label.png")]
    chosen = classes_of_words("car, person")
    for first in ("unlabeled", "road"):  # as Cityscapes, where every pixel is something
        own = Classes((first, "person", "car"))
        found = PairDataset(pairs, own, name="streets", split="val").relabel(chosen)[0].label
        assert found is not None
        assert found[0].tolist() == [0, 2, 1, 255]
        wanted = classes_of_words("person, sky")
        with pytest.raises(
            InputError, match=rf"streets has no labels of 'sky'; it has {first}, pe"
        ):
            PairDataset(pairs, own, name="streets", split="val").relabel(wanted)


def test_pixel_hash_is_of_the_pixels_not_of_the_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    for name in ("a.png", "b.bmp", "c.tif"):
        Image.fromarray(pixels).save(tmp_path / name)
    read = [read_pair(Pair(name, tmp_path / name)) for name in ("a.png", "b.bmp", "c.tif")]
    hashes = {pixel_hash(sample.rgb, sample.thermal) for sample in read}
    assert len(hashes) == 1
    grey = pixels[..., 0]
    others = {
        pixel_hash(rgb, thermal)
        for rgb, thermal in (
            (pixels, grey),
            (pixels, grey.T),
            (pixels, grey.astype(np.uint16)),
            (pixels, None),
            (None, grey),
            (pixels[::-1], grey),
        )
    }
    assert len(others) == 6
    assert pixel_hash(pixels, None) in hashes


def test_shrinking_thermal_averages_and_keeps_the_number_type():
    raw = np.tile(np.array([[0, 0, 0, 60000]], np.uint16), (8, 6))
    found = fit_thermal(raw, (2, 6))
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, np.full((2, 6), 15000))


def test_folders_are_paired_by_the_path_below_them_without_suffix(tmp_path):
    touch(
        tmp_path / "v/a.jpg", tmp_path / "v/night/a.jpg", tmp_path / "v/alone.PNG",
        tmp_path / "v/notes.txt", tmp_path / "v/._a.jpg",
        tmp_path / "t/a.tiff", tmp_path / "t/night/a.png", tmp_path / "t/extra.png",
    )  # fmt: skip
    found = search_pairs(tmp_path / "v", tmp_path / "t")
    assert names(found.pairs) == ["a", "night/a"]
    assert found.pairs[1].thermal == tmp_path / "t/night/a.png"
    assert found.unpaired == [tmp_path / "t/extra.png", tmp_path / "v/alone.PNG"]
    found = search_pairs(tmp_path / "v", tmp_path / "t", allow_single=True)
    assert names(found.pairs) == ["a", "alone", "extra", "night/a"]
    assert found.unpaired == []
    assert [(pair.rgb is None, pair.thermal is None) for pair in found.pairs[1:3]] == [
        (False, True), (True, False),
    ]  # fmt: skip


def test_a_regular_expression_pairs_names_that_differ(tmp_path):
    touch(tmp_path / "RGB_007_x.png", tmp_path / "RGB_008_x.png", tmp_path / "RGB_none.png")
    touch(tmp_path / "t" / "IR_007_y.png", tmp_path / "t" / "IR_008_y.png")
    with pytest.raises(InputError, match=r"--pair REGEX.*--allow-single"):
        search_pairs(tmp_path / "*.png", tmp_path / "t")
    found = search_pairs(tmp_path / "*.png", tmp_path / "t", r"_(\d+)_")
    assert names(found.pairs) == ["RGB_007_x", "RGB_008_x"]
    assert [pair.thermal.name for pair in found.pairs] == ["IR_007_y.png", "IR_008_y.png"]
    assert found.unpaired == [tmp_path / "RGB_none.png"]


@pytest.mark.parametrize(
    ("regex", "message"),
    [("(x", "not a regular expression"), ("x", "no group"), (r"_(x)$", "for two RGB images")],
)
def test_a_useless_expression_is_refused(regex, message, tmp_path):
    touch(tmp_path / "v/7_x.png", tmp_path / "v/8_x.png", tmp_path / "t/9_x.png")
    with pytest.raises(InputError, match=message):
        search_pairs(tmp_path / "v", tmp_path / "t", regex)


def test_two_files_are_a_pair_whatever_they_are_called(tmp_path):
    touch(tmp_path / "left.png", tmp_path / "right.tif")
    found = search_pairs(tmp_path / "left.png", tmp_path / "right.tif")
    assert found.pairs == [Pair("left", tmp_path / "left.png", tmp_path / "right.tif")]
    assert found.unpaired == []


def test_one_side_alone_is_enough_and_globs_keep_subfolders(tmp_path):
    touch(tmp_path / "a/x.png", tmp_path / "a/b/x.png", tmp_path / "c.txt")
    pairs = search_pairs(tmp_path / "**" / "*.png", None).pairs
    assert names(pairs) == ["a/b/x", "a/x"]
    pairs = search_pairs(None, str(tmp_path / "a" / "*.png")).pairs
    assert (names(pairs), pairs[0].rgb) == (["x"], None)


@pytest.mark.parametrize("allow_single", [True, False])
def test_two_inputs_of_one_output_name_are_refused(allow_single, tmp_path):
    touch(tmp_path / "v/a.png", tmp_path / "v/a.jpg", tmp_path / "t/a.png")
    with pytest.raises(InputError, match=r"a\.jpg.*a\.png.*'a'"):
        search_pairs(tmp_path / "v", tmp_path / "t", allow_single=allow_single)


def test_single_images_of_one_name_left_by_an_expression_are_refused(tmp_path):
    touch(tmp_path / "v/1.png", tmp_path / "v/x.png", tmp_path / "t/1.png", tmp_path / "t/x.png")
    with pytest.raises(InputError, match="written as 'x'"):
        search_pairs(tmp_path / "v", tmp_path / "t", r"(\d)", allow_single=True)


def test_no_input_and_nothing_found_are_refused(tmp_path):
    with pytest.raises(InputError, match="no input"):
        search_pairs(None, None)
    for source in (tmp_path, tmp_path / "*.png"):
        with pytest.raises(InputError, match=re.escape(f"RGB {source}: no images found")):
            search_pairs(source, None)
    with pytest.raises(InputError, match="no such file or folder"):
        search_pairs(None, tmp_path / "none")


def test_a_fourth_channel_is_used_only_where_asked(tmp_path):
    draw_layouts.save(tmp_path / "x.png", draw_layouts.four(draw_layouts.draw("x", (8, 12), MFNET)))
    pair = Pair("x", tmp_path / "x.png")
    assert read_pair(pair).thermal is None
    sample = read_pair(pair, four_channel="auto")
    np.testing.assert_array_equal(sample.thermal, draw_layouts.draw("x", (8, 12), MFNET)["thermal"])
    assert "taken as thermal" in sample.note


@needs_shared
def test_real_street_pairs_read_whole_and_belong_to_day_or_night():
    dataset = PairDataset.open(SHARED / "data" / "msrs268" / "dataset.toml", "val", limit=6)
    assert [dataset.subset_of(p.name) for p in dataset.pairs] == [["day"]] * 3 + [["night"]] * 3
    for sample in dataset:
        assert sample.rgb.shape == (480, 640, 3)
        assert sample.thermal.shape == sample.label.shape == (480, 640)


@needs_shared
def test_all_real_road_scenes_find_their_partner():
    folder = SHARED / "data" / "roadscene"
    found = search_pairs(folder / "rgb", folder / "thermal")
    assert (len(found.pairs), found.unpaired) == (221, [])
    assert read_pair(found.pairs[100], Classes(("a", "b"))).label is None
