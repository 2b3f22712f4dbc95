"""What users rely on before training: every fault of a data set is named, a clean one passes."""

import json
import shutil
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import draw_layouts
import numpy as np
import pytest
from draw_rig import draw_pair
from PIL import Image

from sartm.cli.main import main
from sartm.datatools.check import Check, Finding, check_dataset
from sartm.datatools.stats import stats_dataset
from sartm.errors import InputError

SHARED = Path(__file__).resolve().parents[3] / "shared"
LAYOUTS = {
    "four-channel": ("mfnet", draw_layouts.mfnet_original),
    "flat": ("mfnet", draw_layouts.flat("RGB", "Thermal", "Label")),
    "flat-ther": ("mfnet", draw_layouts.flat("rgb", "ther", "labels")),
    "images-thermal-labels": ("mfnet", draw_layouts.mfnet_split_folders),
    "four-channel-annotations": ("mfnet", draw_layouts.mfnet_annotations),
    "rgbx-numpy": ("mfnet", draw_layouts.mfnet_numpy),
    "msrs": ("msrs", draw_layouts.msrs),
    "pst900": ("pst900", draw_layouts.pst900),
    "fmb": ("fmb", draw_layouts.fmb("Label")),
    "fmb-color": ("fmb", draw_layouts.fmb("color", "BGR")),
    "fmb-flat": ("fmb", draw_layouts.fmb_flat),
}
SIZE = (48, 64)


def smooth(name: str) -> np.ndarray:
    """A thermal scene as cameras see it, uint8 (H, W): blurred, with a hot spot."""
    rng = np.random.default_rng(list(name.encode()))
    heat = cv2.GaussianBlur(rng.normal(0, 1, SIZE), (0, 0), 4)
    heat = 110 + 40 * heat / np.abs(heat).max()
    cv2.circle(heat, tuple(int(v) for v in rng.integers(12, 36, 2)), 5, 230, -1)
    return cv2.GaussianBlur(heat, (0, 0), 1.2).round().astype(np.uint8)


def street(root: Path, names: tuple[str, ...] = ("a1D", "a2N", "b3D", "b4N")) -> Path:
    """A clean data set: a* for training, b* for validation; ids 0 to 2 and 255."""
    for name in names:
        rng = np.random.default_rng(list(name.encode()))
        draw_layouts.save(root / "rgb" / f"{name}.png", rng.integers(0, 256, (*SIZE, 3), np.uint8))
        draw_layouts.save(root / "thermal" / f"{name}.png", smooth(name))
        label = np.repeat(rng.choice([0, 1, 2, 255], (SIZE[0], 1)), SIZE[1], 1).astype(np.uint8)
        draw_layouts.save(root / "labels" / f"{name}.png", label)
    draw_layouts.lists(
        root,
        {
            "train": [name for name in names if name[0] == "a"],
            "val": [name for name in names if name[0] == "b"],
        },
    )
    (root / "dataset.toml").write_text(
        'name = "street"\nclasses = ["rest", "road <wet>", "person"]\n[files]\n'
        'rgb = "rgb/{name}.png"\nthermal = "thermal/{name}.png"\nlabel = "labels/{name}.png"\n'
        '[splits]\ntrain = "train.txt"\nval = "val.txt"\n[subsets]\nday = "D$"\nnight = "N$"\n'
    )
    return root


def kinds(check: Check) -> set[str]:
    return {finding.kind for finding in check.findings}


def finding(check: Check, kind: str) -> Finding:
    return next(one for one in check.findings if one.kind == kind)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_named_and_counted_against_the_official_numbers(layout, tmp_path):
    name, draw = LAYOUTS[layout]
    draw(tmp_path)
    check = check_dataset(tmp_path)
    assert (check.name, check.layout) == (name, layout)
    assert check.usable
    assert kinds(check) == {"count"}
    official = {"mfnet": 784, "msrs": 1083, "pst900": 597, "fmb": 1220}[name]
    assert check.splits[0].official == official
    assert f"has 2 pairs, officially {official}" in finding(check, "count").message


def test_mirrored_copies_do_not_count_as_pairs(tmp_path):
    draw_layouts.mfnet_flipped(tmp_path)
    train = check_dataset(tmp_path).splits[0]
    assert (train.pairs, train.mirrored) == (4, 2)


def test_a_clean_data_set_has_no_findings(tmp_path):
    check = check_dataset(street(tmp_path))
    assert check.findings == ()
    assert check.sizes == {"48x64": 4}
    assert check.thermal_types == {"uint8": 4}
    json.dumps(check.to_dict(), allow_nan=False)


def cut_off(root: Path) -> None:
    file = root / "rgb" / "a1D.png"
    file.write_bytes(file.read_bytes()[:900])


def other_size(root: Path) -> None:
    draw_layouts.save(root / "thermal" / "a1D.png", smooth("a1D")[:40])


def unknown_id(root: Path) -> None:
    draw_layouts.save(root / "labels" / "a1D.png", np.full(SIZE, 3, np.uint8))


def constant(root: Path) -> None:
    draw_layouts.save(root / "thermal" / "a1D.png", np.full(SIZE, 90, np.uint8))


def saturated(root: Path) -> None:
    heat = smooth("a1D")
    heat[:20] = 255
    draw_layouts.save(root / "thermal" / "a1D.png", heat)


def deepen(root: Path) -> None:
    """All thermal images as counts of 16 bits."""
    for file in (root / "thermal").iterdir():
        draw_layouts.save(file, 7000 + 9 * np.asarray(Image.open(file)).astype(np.uint16))


def narrow(root: Path) -> None:
    deepen(root)
    draw_layouts.save(root / "thermal" / "a1D.png", smooth("a1D").astype(np.uint16))


def stretched(root: Path) -> None:
    deepen(root)
    draw_layouts.save(root / "thermal" / "a1D.png", smooth("a1D").astype(np.uint16) * 257)


def test_thermal_of_several_number_types_is_an_error(tmp_path):
    root = street(tmp_path)
    draw_layouts.save(root / "thermal" / "a1D.png", 7000 + 9 * smooth("a1D").astype(np.uint16))
    check = check_dataset(root)
    assert kinds(check) == {"types"}
    assert not check.usable
    assert "uint16 in 1 (such as 'a1D'), uint8 in 3" in finding(check, "types").message


def test_holes_are_no_part_of_what_is_said_of_thermal(tmp_path):
    root = street(tmp_path)
    deepen(root)
    for file in (root / "thermal").iterdir():
        heat = np.array(Image.open(file))
        heat[:30] = 0  # more than half of the image
        draw_layouts.save(file, heat)
    assert kinds(check_dataset(root)) == {"saturated"}
    toml = root / "dataset.toml"
    toml.write_text(toml.read_text() + "[thermal]\nholes = 0\n")
    assert kinds(check_dataset(root)) == set()
    low, mean, high = stats_dataset(root).groups[0].thermal
    assert 7000 <= low < mean < high


def lower_byte(root: Path) -> None:
    counts = 7000 + 9 * smooth("a1D").astype(np.uint16)
    draw_layouts.save(root / "thermal" / "a1D.png", (counts & 255).astype(np.uint8))


def upper_byte(root: Path) -> None:
    counts = 7000 + 9 * smooth("a1D").astype(np.uint16)
    draw_layouts.save(root / "thermal" / "a1D.png", (counts >> 8).astype(np.uint8))


def same_pair_again(root: Path) -> None:
    for folder in ("rgb", "thermal"):
        pixels = np.asarray(Image.open(root / folder / "a1D.png"))
        Image.fromarray(pixels).save(root / folder / "a2N.png", compress_level=1)  # other bytes


def same_rgb_only(root: Path) -> None:
    (root / "rgb" / "a2N.png").write_bytes((root / "rgb" / "a1D.png").read_bytes())


def in_both_lists(root: Path) -> None:
    (root / "val.txt").write_text("b3D\na1D\n")


def copied_to_the_other_split(root: Path) -> None:
    for folder in ("rgb", "thermal"):
        (root / folder / "b3D.png").write_bytes((root / folder / "a1D.png").read_bytes())


def lost_thermal(root: Path) -> None:
    (root / "thermal" / "a1D.png").unlink()


FAULTS = {
    cut_off: ("unreadable", "error"),
    other_size: ("size", "error"),
    unknown_id: ("ids", "error"),
    lost_thermal: ("missing", "error"),
    in_both_lists: ("leak", "error"),
    copied_to_the_other_split: ("leak", "error"),
    same_pair_again: ("duplicate", "warning"),
    same_rgb_only: ("duplicate", "warning"),
    constant: ("constant", "warning"),
    saturated: ("saturated", "warning"),
    narrow: ("narrow", "warning"),
    stretched: ("narrow", "warning"),
    lower_byte: ("wrapped", "warning"),
    upper_byte: ("coarse", "warning"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found_and_the_pair_named(fault, tmp_path):
    fault(street(tmp_path))
    check = check_dataset(tmp_path)
    kind, severity = FAULTS[fault]
    assert kinds(check) == {kind}
    found = finding(check, kind)
    assert found.severity == severity
    assert "a1D" in found.items[0]
    assert check.usable == (severity == "warning")


def test_every_missing_file_is_listed_and_the_other_pairs_are_still_checked(tmp_path):
    street(tmp_path)
    for kind in ("thermal", "labels"):
        (tmp_path / kind / "a1D.png").unlink()
    (tmp_path / "labels" / "b3D.png").unlink()
    draw_layouts.save(tmp_path / "labels" / "b4N.png", np.full(SIZE, 7, np.uint8))
    check = check_dataset(tmp_path)
    missing = finding(check, "missing").items
    assert len(missing) == 2
    assert any("thermal/a1D" in item for item in missing)
    assert any("labels/a1D" in item for item in missing)
    (bare,) = finding(check, "label").items  # whose images are there
    assert "labels/b3D.png (val)" in bare
    assert "leave them out: sartm data init --overwrite" in finding(check, "label").message
    assert "b4N" in finding(check, "ids").items[0]


@pytest.mark.parametrize("layout", ["flat", "images-thermal-labels", "pst900"])
def test_missing_files_of_a_benchmarks_folder_are_listed(layout, tmp_path):
    LAYOUTS[layout][1](tmp_path)
    lost = [
        next(file for file in sorted(tmp_path.rglob("*.png")) if part in file.parts)
        for part in {
            "flat": ("Thermal", "Label"),
            "images-thermal-labels": ("thermal", "labels"),
            "pst900": ("thermal", "labels"),
        }[layout]
    ]
    for file in lost:
        file.unlink()
    items = finding(check_dataset(tmp_path), "missing").items
    assert len(items) == 2
    for file in lost:
        assert any(str(file.with_suffix("")) in item for item in items)


def test_lists_that_are_parts_of_others_are_no_leak(tmp_path):
    draw_layouts.mfnet_original(tmp_path)
    names = draw_layouts.MFNET_NAMES
    more = {"trainval": names["train"] + names["val"], "test_day": ["00005D"]}
    draw_layouts.lists(tmp_path, more)
    assert kinds(check_dataset(tmp_path)) == {"count"}


def test_a_shift_between_the_cameras_is_measured_and_warned_about(tmp_path):
    names = tuple(f"a{index}" for index in range(6))
    street(tmp_path, (*names, "b0"))
    for index, name in enumerate((*names, "b0")):
        rgb, thermal = draw_pair(index)
        moved = np.roll(thermal, (-4, 9), (0, 1))
        draw_layouts.save(tmp_path / "rgb" / f"{name}.png", rgb)
        draw_layouts.save(tmp_path / "thermal" / f"{name}.png", moved)
        label = np.zeros(rgb.shape[:2], np.uint8)
        label[:9] = 1
        draw_layouts.save(tmp_path / "labels" / f"{name}.png", label)
    check = check_dataset(tmp_path)
    assert check.offset is not None
    assert abs(check.offset.dx + 9) < 1.5
    assert abs(check.offset.dy - 4) < 1.5
    assert "data align" in finding(check, "offset").message
    assert check.usable


def test_what_is_no_data_set_is_refused_with_the_reason(tmp_path):
    (tmp_path / "dataset.toml").write_text("name = ")
    with pytest.raises(InputError, match="not valid TOML"):
        check_dataset(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        check_dataset(tmp_path / "nowhere")


def test_shares_are_those_of_the_pixels_and_ignored_ones_do_not_count(tmp_path):
    street(tmp_path)
    stats = stats_dataset(tmp_path)
    titles = [group.title for group in stats.groups]
    assert titles == ["train", "train/day", "train/night", "val", "val/day", "val/night"]
    for group, names in zip(stats.groups[:2], (("a1D", "a2N"), ("a1D",)), strict=True):
        labels = [np.asarray(Image.open(tmp_path / "labels" / f"{name}.png")) for name in names]
        heats = np.stack([smooth(name) for name in names])
        every = np.stack(labels)
        assert group.pairs == group.labelled == len(names)
        assert group.ignored == (every == 255).sum()
        assert group.pixels == (every != 255).sum()
        for row in group.classes:
            assert row.pixels == (every == row.id).sum()
            assert row.share == pytest.approx(100 * row.pixels / group.pixels)
            assert row.pairs == sum((label == row.id).any() for label in labels)
        assert group.thermal == (heats.min(), pytest.approx(heats.mean()), heats.max())


def test_stats_leave_out_what_cannot_be_used_and_say_so(tmp_path):
    street(tmp_path)
    cut_off(tmp_path)
    stats = stats_dataset(tmp_path)
    assert stats.groups[0].pairs == 1
    assert set(stats.failures) == {"a1D"}


def test_stats_draw_a_chart_that_stands_alone(tmp_path):
    stats_dataset(street(tmp_path / "data"), tmp_path / "out")
    text = (tmp_path / "out" / "classes.svg").read_text()
    root = ElementTree.fromstring(text)
    words = " ".join(node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}text"))
    assert "1 road <wet>" in words
    assert "href" not in text
    bars = list(root.iter("{http://www.w3.org/2000/svg}rect"))
    assert len(bars) == 1 + 3 * 2  # the ground, and every class in every split


def test_check_command_lists_faults_draws_a_sheet_and_exits_3(tmp_path, capfd):
    street(tmp_path / "data")
    cut_off(tmp_path / "data")
    out = tmp_path / "out"
    target = tmp_path / "check.json"
    arguments = ["data", "check", str(tmp_path / "data"), "--out", str(out), "--json", str(target)]
    assert main(arguments) == 3
    shown = capfd.readouterr()
    assert "files that cannot be read: 1" in shown.out
    assert "rgb/a1D.png" in shown.out
    assert "Corrupt" not in shown.err
    assert "libpng" not in shown.err
    with Image.open(out / "contact-sheet.jpg") as sheet:
        assert sheet.width > 1500
    content = json.loads(target.read_text())
    assert not content["usable"]
    assert content["findings"][0]["kind"] == "unreadable"
    main(["data", "check", str(tmp_path / "data"), "--json", "-"])
    assert json.loads(capfd.readouterr().out)["layout"] == "dataset.toml"


def test_stats_command_prints_shares_and_exits_3_for_what_it_left_out(tmp_path, capsys):
    street(tmp_path)
    assert main(["data", "stats", str(tmp_path)]) == 0
    assert "road <wet>" in capsys.readouterr().out
    unknown_id(tmp_path)
    assert main(["data", "stats", str(tmp_path)]) == 3
    assert "a1D" in capsys.readouterr().err


@pytest.mark.skipif(not SHARED.is_dir(), reason="no folder shared beside the checkout")
@pytest.mark.slow
def test_the_real_street_scenes_pass_in_seconds():
    begun = time.process_time()
    check = check_dataset(SHARED / "data" / "msrs268")
    assert time.process_time() - begun < 10  # of both cores together
    assert check.findings == ()
    assert [count.pairs for count in check.splits] == [220, 48]


def test_what_one_set_trains_on_and_another_validates_on_is_a_leak(tmp_path, capsys):
    one, other = street(tmp_path / "one"), street(tmp_path / "other", ("a5D", "b6N"))
    assert main(["data", "check", str(one), str(other)]) == 0
    for kind in ("rgb", "thermal"):  # of validation here, of training there, under another name
        shutil.copy(one / kind / "b3D.png", other / kind / "a5D.png")
    capsys.readouterr()
    assert main(["data", "check", str(one), str(other), "--json", str(tmp_path / "x.json")]) == 3
    said = capsys.readouterr()
    assert f"same pair: b3D ({one}, val), a5D ({other}, train)" in said.out
    assert "another one validates" in said.err
    found = json.loads((tmp_path / "x.json").read_text())
    assert [finding["kind"] for finding in found["findings"]] == ["leak"]
    assert all(one["usable"] for one in found["sets"])
