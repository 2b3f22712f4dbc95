"""Conversion keeps every pixel or refuses; alignment puts thermal images where they belong."""

import json
import os
from pathlib import Path

import cv2
import draw_layouts
import numpy as np
import pytest
from draw_rig import draw_pair
from PIL import Image

from sartm.cli.main import main
from sartm.data.layouts import open_layout
from sartm.data.pairs import PairDataset
from sartm.datatools import convert as conversion
from sartm.datatools.align import align_dataset
from sartm.datatools.convert import convert_dataset
from sartm.errors import InputError
from sartm.io.decode import read_thermal

SOURCES = {
    "original": draw_layouts.mfnet_original,
    "flipped": draw_layouts.mfnet_flipped,
    "flat": draw_layouts.flat("RGB", "Thermal", "Label"),
    "grey thrice": draw_layouts.flat("RGB", "Modal", "Label", repeat=True),
    "jpeg": draw_layouts.flat("rgb", "ther", "labels", suffix=".jpg"),
    "split folders": draw_layouts.mfnet_split_folders,
    "annotations": draw_layouts.mfnet_annotations,
    "numpy": draw_layouts.mfnet_numpy,
    "msrs": draw_layouts.msrs,
    "pst900": draw_layouts.pst900,
    "fmb": draw_layouts.fmb("Label"),
    "fmb colours": draw_layouts.fmb("color"),
    "fmb BGR colours": draw_layouts.fmb("color", "BGR"),
}
LOSSLESS = ("four-channel", "flat", "dataset.toml")
SIZE = (24, 32)


def own(root: Path, thermal: np.dtype | type = np.uint8, suffix: str = ".png") -> Path:
    """A data set of one's own with everything that a dataset.toml can say."""
    for name in ("sub/a", "b"):
        rng = np.random.default_rng(list(name.encode()))
        heat = 7000 + 3000 * rng.random(SIZE)
        values = (heat / 50 if thermal == np.uint8 else heat).astype(thermal)
        draw_layouts.save(root / "rgb" / f"{name}.png", rng.integers(0, 256, (*SIZE, 3), np.uint8))
        draw_layouts.save(root / "thermal" / f"{name}{suffix}", values)
        label = rng.choice([0, 1, 254], SIZE).astype(np.uint8)
        draw_layouts.save(root / "labels" / f"{name}.png", label)
    draw_layouts.lists(root, {"train": ["sub/a"], "val": ["b"], "night-drive": ["b"]})
    (root / "dataset.toml").write_text(
        'name = "own \\"set\\""\nclasses = ["rest", "tram é"]\npalette = [[1, 2, 3], [9, 8, 7]]\n'
        'ignore = 254\nprompts = ["", "a tram"]\n[files]\nrgb = "rgb/{name}.png"\n'
        f'thermal = "thermal/{{name}}{suffix}"\nlabel = "labels/{{name}}.png"\n[splits]\n'
        'train = "train.txt"\nval = "val.txt"\n[subsets]\ninner = "^sub/\\\\w"\n'
        '[thermal]\nunit = "counts"\nblack_hot = true\n'
    )
    return root


def content(root: Path) -> dict[str, list]:
    layout = open_layout(root)
    return {
        split: [(s.name, s.rgb, s.thermal, s.label) for s in PairDataset.of(layout, split)]
        for split in layout.splits
    }


def assert_same(before: Path, after: Path) -> None:
    old, new = content(before), content(after)
    assert list(old) == list(new)
    for split, samples in old.items():
        for first, second in zip(samples, new[split], strict=True):
            assert first[0] == second[0]
            for one, other in zip(first[1:], second[1:], strict=True):
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other)
    one, other = open_layout(before), open_layout(after)
    for part in ("name", "classes", "subsets", "thermal_unit", "black_hot"):
        assert getattr(one, part) == getattr(other, part)


@pytest.mark.parametrize("to", LOSSLESS)
@pytest.mark.parametrize("source", SOURCES)
def test_every_layout_becomes_another_with_identical_pixels(source, to, tmp_path):
    SOURCES[source](tmp_path / "in")
    result = convert_dataset(tmp_path / "in", to, tmp_path / "out")
    assert result.lost == ()
    assert_same(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("to", LOSSLESS)
def test_there_and_back_again(to, tmp_path):
    own(tmp_path / "in")
    convert_dataset(tmp_path / "in", to, tmp_path / "there")
    convert_dataset(tmp_path / "there", "dataset.toml", tmp_path / "back")
    assert_same(tmp_path / "in", tmp_path / "back")


def test_original_mfnet_is_written_as_others_read_it(tmp_path):
    draw_layouts.flat("RGB", "Thermal", "Label")(tmp_path / "in")
    convert_dataset(tmp_path / "in", "four-channel", tmp_path / "out")
    drawn = draw_layouts.draw("00001D", SIZE, draw_layouts.MFNET)
    with Image.open(tmp_path / "out" / "images" / "00001D.png") as image:
        assert image.mode == "RGBA"
        np.testing.assert_array_equal(np.asarray(image), draw_layouts.four(drawn))
    assert (tmp_path / "out" / "train.txt").read_text() == "00001D\n00002N\n"
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == ["images", "labels", "test.txt", "train.txt", "val.txt"]


def test_files_are_copied_as_they_are_where_the_layout_allows_it(tmp_path):
    draw_layouts.flat("rgb", "ther", "labels", suffix=".jpg")(tmp_path / "in")
    convert_dataset(tmp_path / "in", "dataset.toml", tmp_path / "out")
    before, after = (tmp_path / "in/rgb/00001D.jpg", tmp_path / "out/rgb/00001D.jpg")
    assert before.read_bytes() == after.read_bytes()


def test_floats_survive_in_a_dataset_toml(tmp_path):
    own(tmp_path / "in", np.float32, ".npy")
    convert_dataset(tmp_path / "in", "dataset.toml", tmp_path / "out")
    assert_same(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize(
    ("thermal", "suffix", "to", "said"),
    [
        (np.uint16, ".png", "four-channel", "uint16 thermal values do not fit 8 bits"),
        (np.float32, ".npy", "four-channel", "float32 thermal values do not fit 8 bits"),
        (np.float32, ".npy", "flat", "float32 thermal values do not fit 16 bits"),
        (np.uint8, ".png", "flat-jpeg", "JPEG changes the pixels"),
    ],
)
def test_a_loss_is_refused_and_said_where_it_is_wanted(thermal, suffix, to, said, tmp_path):
    own(tmp_path / "in", thermal, suffix)
    with pytest.raises(InputError, match=said):
        convert_dataset(tmp_path / "in", to, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    result = convert_dataset(tmp_path / "in", to, tmp_path / "out", lossy=True)
    assert len(result.lost) == 1
    before, after = content(tmp_path / "in")["train"][0], content(tmp_path / "out")["train"][0]
    np.testing.assert_array_equal(before[3], after[3])  # labels never suffer
    heat = [np.argsort(np.argsort(one[2].ravel())) for one in (before, after)]
    assert np.corrcoef(*heat)[0, 1] > 0.95


def test_sixteen_bit_thermal_stays_sixteen_bit_in_a_flat_layout(tmp_path):
    own(tmp_path / "in", np.uint16)
    convert_dataset(tmp_path / "in", "flat", tmp_path / "out")
    assert_same(tmp_path / "in", tmp_path / "out")


def test_sixteen_bit_rgb_is_not_cut_to_eight_without_being_asked(tmp_path):
    own(tmp_path / "in")
    deep = np.full((*SIZE, 3), 1234, np.uint16)
    cv2.imwrite(str(tmp_path / "in" / "rgb" / "b.png"), deep)
    with pytest.raises(InputError, match="16 bits per channel would become 8"):
        convert_dataset(tmp_path / "in", "flat", tmp_path / "out")
    result = convert_dataset(tmp_path / "in", "flat", tmp_path / "out", lossy=True)
    assert result.lost == ("16 bits of 1 RGB images, now 8",)
    convert_dataset(tmp_path / "in", "dataset.toml", tmp_path / "copy")
    kept = cv2.imread(str(tmp_path / "copy" / "rgb" / "b.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(kept, deep)
    # Of two formats a dataset.toml has one, and so cannot take the files as they are.
    toml = tmp_path / "in" / "dataset.toml"
    rows = ["name\trgb\tthermal\tlabel"] + [
        f"{name}\trgb/{name}.{ending}\tthermal/{name}.png\tlabels/{name}.png"
        for name, ending in (("sub/a", "jpg"), ("b", "png"))
    ]
    (tmp_path / "in" / "pairs.tsv").write_text("\n".join(rows))
    head, _, tail = toml.read_text().partition("[files]")
    toml.write_text(f'{head}[files]\ntable = "pairs.tsv"\n{tail[tail.index("[splits]") :]}')
    cv2.imwrite(str(tmp_path / "in" / "rgb" / "sub" / "a.jpg"), np.zeros((*SIZE, 3), np.uint8))
    with pytest.raises(InputError, match=r"would become 8; dataset.toml keeps them where all RGB"):
        convert_dataset(tmp_path / "in", "dataset.toml", tmp_path / "mixed")
    result = convert_dataset(tmp_path / "in", "dataset.toml", tmp_path / "mixed", lossy=True)
    assert result.lost == ("16 bits of 1 RGB images, now 8",)


def test_a_split_that_the_layout_cannot_name_is_refused_or_left_out(tmp_path):
    own(tmp_path / "in")
    toml = tmp_path / "in" / "dataset.toml"
    toml.write_text(
        toml.read_text().replace("[subsets]", 'night-drive = "night-drive.txt"\n[subsets]')
    )
    with pytest.raises(InputError, match="cannot name the split 'night-drive'"):
        convert_dataset(tmp_path / "in", "flat", tmp_path / "out")
    result = convert_dataset(tmp_path / "in", "flat", tmp_path / "out", lossy=True)
    assert result.lost == ("split night-drive (1 pairs)",)
    convert_dataset(tmp_path / "in", "dataset.toml", tmp_path / "all")
    assert_same(tmp_path / "in", tmp_path / "all")


def test_pairs_of_one_name_in_two_splits_are_kept_apart_or_refused(tmp_path):
    draw_layouts.pst900(tmp_path / "in")
    for kind in ("rgb", "thermal", "labels"):
        (tmp_path / "in/test" / kind / "00012.png").rename(
            tmp_path / "in/test" / kind / "00010.png"
        )
    convert_dataset(tmp_path / "in", "dataset.toml", tmp_path / "out")
    assert_same(tmp_path / "in", tmp_path / "out")
    with pytest.raises(InputError, match="2 different pairs are called '00010'"):
        convert_dataset(tmp_path / "in", "flat", tmp_path / "flat")


def test_a_split_that_would_be_a_folder_outside_is_refused(tmp_path):
    draw_layouts.pst900(tmp_path / "in")
    for kind in ("rgb", "thermal", "labels"):
        folder = tmp_path / "in" / "test" / kind
        (folder / "00012.png").rename(folder / "00010.png")
    (tmp_path / "in" / "dataset.toml").write_text(
        'name = "x"\nclasses = ["a", "b", "c", "d", "e"]\n[files]\n'
        'rgb = "{split}/rgb/{name}.png"\nthermal = "{split}/thermal/{name}.png"\n'
        '[splits]\n"../../../loose" = "train"\ntest = "test"\n'
    )
    with pytest.raises(InputError, match="cannot name a folder"):
        convert_dataset(tmp_path / "in", "dataset.toml", tmp_path / "out")


def test_an_unlabelled_set_becomes_a_dataset_toml_only(tmp_path):
    own(tmp_path / "in")
    toml = tmp_path / "in" / "dataset.toml"
    toml.write_text(toml.read_text().replace('label = "labels/{name}.png"\n', ""))
    with pytest.raises(InputError, match="no label image"):
        convert_dataset(tmp_path / "in", "flat", tmp_path / "out")
    convert_dataset(tmp_path / "in", "dataset.toml", tmp_path / "out")
    assert PairDataset.open(tmp_path / "out", "val")[0].label is None


def partly_labelled(root: Path) -> Path:
    """Three pairs, of which `data init` finds two labels."""
    own(root)
    rng = np.random.default_rng(1)
    for kind, shape in (("rgb", (*SIZE, 3)), ("thermal", SIZE)):
        draw_layouts.save(root / kind / "c.png", rng.integers(0, 256, shape, np.uint8))
    for file in (*root.glob("*.txt"), root / "dataset.toml"):
        file.unlink()
    assert main(["data", "init", str(root)]) == 0
    return root


def test_a_set_that_is_labelled_in_part_goes_along_with_what_is_to_be_labelled(tmp_path):
    partly_labelled(tmp_path / "in")
    words = ["data", "convert", str(tmp_path / "in"), "--to", "dataset.toml", "--out"]
    assert main([*words, str(tmp_path / "out")]) == 0
    before, after = (open_layout(tmp_path / name) for name in ("in", "out"))
    assert before.splits.keys() == after.splits.keys()
    for split in before.splits:
        ours, theirs = (PairDataset.of(layout, split) for layout in (after, before))
        for mine, other in zip(ours, theirs, strict=True):
            for kind in ("name", "rgb", "thermal", "label"):
                np.testing.assert_array_equal(getattr(mine, kind), getattr(other, kind))
    (bare,) = after.splits["unlabelled"]
    assert (bare.name, bare.label) == ("c", None)
    assert sorted(path.name for path in (tmp_path / "out" / "thermal").rglob("*.png")) == [
        "a.png", "b.png", "c.png",
    ]  # fmt: skip


def test_pairs_without_an_image_that_others_have_are_refused_in_words(tmp_path):
    """As a table of files can have them; shards keep them."""
    own(tmp_path / "in")
    toml = tmp_path / "in" / "dataset.toml"
    head, _, rest = toml.read_text().partition("rgb = ")
    toml.write_text(f'{head}table = "pairs.tsv"\n[splits]{rest.partition("[splits]")[2]}')
    rows = [("name", "rgb", "thermal", "label"), ("b", "rgb/b.png", "", "labels/b.png"),
            ("sub/a", "rgb/sub/a.png", "thermal/sub/a.png", "labels/sub/a.png")]  # fmt: skip
    (tmp_path / "in" / "pairs.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"in: pair 'b' has no thermal image, .*sartm data shard"):
        convert_dataset(tmp_path / "in", "dataset.toml", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert main(["data", "shard", str(tmp_path / "in"), "--out", str(tmp_path / "shards")]) == 0
    assert PairDataset.open(tmp_path / "shards", "val")[0].thermal is None


def test_what_is_there_is_never_touched(tmp_path):
    own(tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="not an empty folder"):
        convert_dataset(tmp_path / "in", "flat", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    (tmp_path / "out" / "mine.txt").unlink()
    convert_dataset(tmp_path / "in", "flat", tmp_path / "out")
    assert_same(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, os.strerror(28))])
def test_an_interrupted_conversion_leaves_nothing(stop, tmp_path, monkeypatch):
    own(tmp_path / "in")

    def fail(*arguments):
        raise stop

    monkeypatch.setattr(conversion, "write_label", fail)
    with pytest.raises(KeyboardInterrupt if stop is KeyboardInterrupt else InputError):
        convert_dataset(tmp_path / "in", "flat", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_name_of_a_split_cannot_lead_out_of_the_folder(tmp_path):
    own(tmp_path / "in")
    toml = tmp_path / "in" / "dataset.toml"
    toml.write_text(toml.read_text().replace('val = "val.txt"', '"../../val" = "val.txt"'))
    convert_dataset(tmp_path / "in", "dataset.toml", tmp_path / "deep" / "er" / "out")
    assert_same(tmp_path / "in", tmp_path / "deep" / "er" / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "in"]


def test_convert_command_writes_says_and_refuses(tmp_path, capsys):
    draw_layouts.mfnet_original(tmp_path / "in")
    source, target = str(tmp_path / "in"), tmp_path / "result.json"
    arguments = ["data", "convert", source, "--to", "flat", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--json", str(target)]) == 0
    assert "5 pairs" in capsys.readouterr().out
    assert json.loads(target.read_text())["splits"] == {"train": 2, "val": 1, "test": 2}
    assert main(arguments) == 2
    assert "not an empty folder" in capsys.readouterr().err
    jpeg = ["data", "convert", source, "--to", "flat-jpeg", "--out", str(tmp_path / "jpeg")]
    assert main(jpeg) == 2
    assert main([*jpeg, "--lossy"]) == 0
    assert "lost: exact pixels" in capsys.readouterr().out


def misaligned(root: Path, noise: tuple[int, ...] = (), pairs: int = 3) -> Path:
    """Drawn pairs of 240x320; thermal, 16 bits, lies off by 9 columns and 4 rows, or is noise."""
    for index in range(pairs):
        rgb, thermal = draw_pair(index)
        if index in noise:
            thermal = np.random.default_rng(index).integers(0, 65536, (240, 320), np.uint16)
        draw_layouts.save(root / "rgb" / f"{index}.png", rgb)
        draw_layouts.save(root / "thermal" / f"{index}.png", np.roll(thermal, (-4, 9), (0, 1)))
        draw_layouts.save(root / "labels" / f"{index}.png", (rgb[..., 0] > 99).astype(np.uint8))
    draw_layouts.lists(root, {"train": [str(index) for index in range(pairs)], "val": ["0"]})
    (root / "dataset.toml").write_text(
        'name = "off"\nclasses = ["dark", "bright"]\n[files]\nrgb = "rgb/{name}.png"\n'
        'thermal = "thermal/{name}.png"\nlabel = "labels/{name}.png"\n[splits]\n'
        'train = "train.txt"\nval = "val.txt"\n[thermal]\nunit = "counts"\n'
    )
    return root


def off_by(root: Path, index: int) -> float:
    """Mean difference, in counts, from the thermal image as it was drawn, away from the rim."""
    inner = (slice(24, -24), slice(24, -24))
    drawn = draw_pair(index)[1][inner].astype(float)
    return float(np.abs(read_thermal(root / "thermal" / f"{index}.png")[inner] - drawn).mean())


@pytest.mark.slow
def test_align_finds_the_rig_and_keeps_everything_else(tmp_path, capsys):
    misaligned(tmp_path / "in")
    out = tmp_path / "out"
    assert main(["data", "align", str(tmp_path / "in"), "--out", str(out)]) == 0
    assert "3 pairs aligned (rig, quality" in capsys.readouterr().out
    for index in range(3):
        assert off_by(out, index) < 0.25 * off_by(tmp_path / "in", index)
    before, after = content(tmp_path / "in"), content(out)
    assert list(before) == list(after)
    for first, second in zip(before["train"], after["train"], strict=True):
        np.testing.assert_array_equal(first[1], second[1])
        np.testing.assert_array_equal(first[3], second[3])
        assert second[2].dtype == np.uint16
    assert open_layout(out).thermal_unit == "counts"
    assert len(list((out / "comparison").glob("*.jpg"))) == 3
    found = json.loads((out / "alignment.json").read_text())["pairs"]["0"]
    assert 90 < found["seen"] < 100
    # The calibration found is one that can be given again, to the same end.
    again = tmp_path / "again"
    align_dataset(tmp_path / "in", again, calibration=out / "calibration.json")
    np.testing.assert_array_equal(content(again)["val"][0][2], after["val"][0][2])


def test_align_leaves_out_pairs_in_which_nothing_is_found(tmp_path, capsys):
    misaligned(tmp_path / "in", noise=(0,), pairs=2)
    out = tmp_path / "out"
    assert main(["data", "align", str(tmp_path / "in"), "--out", str(out), "--per-pair"]) == 3
    assert "sartm: 0: left out" in capsys.readouterr().err
    layout = open_layout(out)
    assert {split: len(pairs) for split, pairs in layout.splits.items()} == {"train": 1}
    assert off_by(out, 1) < 0.25 * off_by(tmp_path / "in", 1)


def test_align_refuses_what_it_cannot_find(tmp_path):
    misaligned(tmp_path / "in", noise=(0,), pairs=1)
    with pytest.raises(InputError, match="--calibration"):
        align_dataset(tmp_path / "in", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_check_and_align_say_the_same_of_pairs_that_share_no_place(tmp_path, capsys):
    root = misaligned(tmp_path / "in", noise=tuple(range(6)), pairs=6)
    assert main(["data", "check", str(root)]) == 3  # val repeats a pair of train
    said = capsys.readouterr().out
    assert "thermal to RGB: unknown: 6 pairs have no shift in common" in said
    assert "sartm data align" not in said
    assert main(["data", "align", str(root), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "unknown: 6 pairs have no shift in common; give --calibration FILE" in said
    assert "edges" not in said  # the long search has not begun
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_what_tells_things_apart_goes_along(tmp_path, capsys):
    drawn = tmp_path / "drawn"
    assert main(["data", "synth", str(drawn), "--pairs", "3", "--size", "64x64"]) == 0
    gone = PairDataset.open(drawn, "train").pairs[0]
    assert gone.instances is not None
    gone.instances.unlink()  # which single pairs may lack
    for command, out in (("convert", "again"), ("shard", "shards")):
        assert main(["data", command, str(drawn), "--out", str(tmp_path / out)]) == 0
        for split in open_layout(drawn).splits:
            ours, theirs = (PairDataset.open(path, split) for path in (tmp_path / out, drawn))
            for index in range(len(theirs)):
                mine, other = ours.instances(index), theirs.instances(index)
                assert (mine is None) == (other is None)
                np.testing.assert_array_equal(mine, other)
    capsys.readouterr()
    out = str(tmp_path / "flat")
    assert main(["data", "convert", str(drawn), "--to", "flat", "--out", out]) == 0
    assert "lost: which things are one" in capsys.readouterr().out


def test_synth_command_draws_a_set_that_passes_the_check(tmp_path, capsys):
    pytest.importorskip("sartm.scenes.dataset", reason="scenes cannot be drawn yet")
    out = tmp_path / "drawn"
    sized = ["--size", "96x128", "--seed", "1"]
    assert main(["data", "synth", str(out), "--pairs", "4", *sized]) == 0
    assert main(["data", "check", str(out), "--json", str(tmp_path / "check.json")]) == 0
    check = json.loads((tmp_path / "check.json").read_text())
    assert check["sizes"] == {"96x128": 4}
    assert main(["data", "synth", str(out), "--size", "96"]) == 2
    assert "HEIGHTxWIDTH" in capsys.readouterr().err
