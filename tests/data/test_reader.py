"""One function reads a pair: the same degrees by every command, and no decoder elsewhere."""

import ast
from pathlib import Path

import cv2
import numpy as np
import pytest
from draw_flir import counts_of, field, write_flir

import sartm
from sartm.app.annotation import open_annotation
from sartm.app.reading import Extent, read_inputs
from sartm.classes import MFNET
from sartm.data.layouts import open_layout
from sartm.data.pairs import PairDataset, read_pair
from sartm.data.sets import Layout, Pair
from sartm.datatools.align import align_dataset
from sartm.datatools.check import check_dataset
from sartm.datatools.convert import convert_dataset
from sartm.datatools.stats import stats_dataset
from sartm.io.cameras import Camera

SOURCE = Path(sartm.__file__).parent
READERS = {
    "read_four_channel", "read_label", "read_radiometric", "read_raw", "read_rgb",
    "read_rgb_alone", "read_thermal", "load_pixels", "load_palette", "imread", "imdecode",
}  # fmt: skip
"""What makes pixels of a file."""
ELSEWHERE = {
    # labels without their images
    "evaluation/scoring.py": {"read_label"},
    "fleet/counting.py": {"read_label"},
    # unknown ids are a finding there, not a refusal
    "datatools/survey.py": {"read_label"},
    # what the ids mean is still to be found out
    "datatools/legend.py": {"read_label"},
    # one file as it is, to look at: no pair; and labels that are sent
    "app/reading.py": {
        "read_rgb",
        "read_rgb_alone",
        "read_thermal",
        "read_radiometric",
        "read_label",
    },  # values under the pointer
    # masks inside an annotation file
    "datatools/tool_exports.py": {"read_label"},
    # the numbers of things, which go along when a set is converted
    "datatools/writing.py": {"read_label"},
    # a drawn picture, compressed as a camera does
    "scenes/sensors.py": {"imdecode"},
}


@pytest.mark.slow
def test_pixels_are_read_in_one_place() -> None:
    found: dict[str, set[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if name.startswith("io/") or name == "data/pairs.py":
            continue
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        calls = [node.func for node in tree if isinstance(node, ast.Call)]
        names = {getattr(call, "id", getattr(call, "attr", "")) for call in calls}
        if names & READERS:
            found[name] = names & READERS
    assert found == ELSEWHERE


@pytest.fixture
def celsius(tmp_path: Path) -> Path:
    """Two pairs with radiometric JPEGs, whose pictures are in false colour."""
    root = tmp_path / "set"
    for folder in ("rgb", "thermal", "labels"):
        (root / folder).mkdir(parents=True)
    for name, warmer in (("a", 0.0), ("b", 6.0)):
        noise = np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8)
        cv2.imwrite(str(root / "rgb" / f"{name}.png"), noise)
        label = np.zeros((48, 64), np.uint8)
        label[10:20, 10:20] = 1
        cv2.imwrite(str(root / "labels" / f"{name}.png"), label)
        write_flir(root / "thermal" / f"{name}.jpg", counts_of(field() + warmer))
    (root / "train.txt").write_text("a\nb\n")
    (root / "dataset.toml").write_text(
        'name = "flir"\nclasses = ["ground", "person"]\n[files]\nrgb = "rgb/{name}.png"\n'
        'thermal = "thermal/{name}.jpg"\nlabel = "labels/{name}.png"\n'
        '[splits]\ntrain = "train.txt"\n[thermal]\nunit = "celsius"\n'
    )
    return root


def is_field(thermal: np.ndarray | None) -> bool:
    return thermal is not None and float(np.abs(thermal - field()).max()) < 0.05


def test_training_and_prediction_read_degrees(celsius: Path) -> None:
    layout = open_layout(celsius)
    pair = layout.splits["train"][0]
    assert is_field(PairDataset.of(layout)[0].thermal)
    assert is_field(read_pair(pair, camera=layout.camera_of(pair)).thermal)
    assert is_field(read_pair(pair, camera=Camera(radiometric=True)).thermal)  # sartm predict
    assert PairDataset.of(layout).camera_of(pair) == layout.camera_of(pair)


@pytest.mark.parametrize(
    ("name", "unit", "radiometric"),
    [("x.jpg", "celsius", True), ("x.JPEG", "celsius", True), ("x.tiff", "celsius", False),
     ("x.jpg", "display", False), ("x.png", "counts", False)],
)  # fmt: skip
def test_the_camera_of_a_pair_follows_from_its_data_set(
    name: str, unit: str, radiometric: bool
) -> None:
    layout = Layout("x", Path(), MFNET, {}, {}, unit, True, 7.0)
    camera = layout.camera_of(Pair("x", None, Path(name)))
    assert camera == Camera(radiometric, black_hot=True, holes=7.0)
    assert camera.as_stored() == Camera(radiometric)
    both = Pair("x", four_channel=Path("x.png"))
    assert layout.camera_of(both) == Camera(black_hot=True, holes=7.0)


def test_check_reads_degrees(celsius: Path) -> None:
    check = check_dataset(celsius)
    assert check.usable
    assert check.thermal_types == {"float32": 2}


def test_stats_reads_degrees(celsius: Path) -> None:
    stats = stats_dataset(celsius)
    assert not stats.failures
    low, mean, high = stats.groups[0].thermal or (0, 0, 0)
    assert (low, high) == pytest.approx((field().min(), field().max() + 6), abs=0.05)
    assert mean == pytest.approx(field().mean() + 3, abs=0.05)


def test_convert_keeps_degrees(celsius: Path, tmp_path: Path) -> None:
    convert_dataset(celsius, "dataset.toml", tmp_path / "out")
    assert is_field(PairDataset.open(tmp_path / "out")[0].thermal)


def test_degrees_that_become_grey_levels_are_not_called_degrees(
    celsius: Path, tmp_path: Path
) -> None:
    for to, unit, top in (("flat", "counts", 65535), ("flat-jpeg", "display", 255)):
        convert_dataset(celsius, to, tmp_path / to, lossy=True)
        layout = open_layout(tmp_path / to)
        assert layout.thermal_unit == unit
        thermal = PairDataset.of(layout)[0].thermal
        assert thermal is not None
        low, high = field().min(), field().max() + 6  # of both pairs
        expected = top * (field() - low) / (high - low)
        assert np.abs(thermal - expected).mean() < 0.01 * top


@pytest.mark.parametrize("mark", [-9999.0, 7.25])
def test_holes_stay_holes_when_values_are_scaled(mark: float, tmp_path: Path) -> None:
    root = tmp_path / "set"
    warm = (field() + 100).astype(np.float32)
    warm[5:9, 7:20] = mark
    for folder in ("rgb", "thermal", "labels"):
        (root / folder).mkdir(parents=True)
    cv2.imwrite(str(root / "rgb" / "a.png"), np.zeros((48, 64, 3), np.uint8))
    cv2.imwrite(str(root / "labels" / "a.png"), np.zeros((48, 64), np.uint8))
    cv2.imwrite(str(root / "thermal" / "a.tiff"), warm)
    (root / "train.txt").write_text("a\n")
    (root / "dataset.toml").write_text(
        'name = "set"\nclasses = ["ground", "person"]\n[files]\nrgb = "rgb/{name}.png"\n'
        'thermal = "thermal/{name}.tiff"\nlabel = "labels/{name}.png"\n[splits]\n'
        f'train = "train.txt"\n[thermal]\nunit = "celsius"\nholes = {mark}\n'
    )
    convert_dataset(root, "dataset.toml", tmp_path / "same")
    convert_dataset(root, "flat", tmp_path / "flat", lossy=True)
    for out in ("same", "flat"):
        sample = PairDataset.open(tmp_path / out)[0]
        assert sample.unseen is not None
        assert np.array_equal(sample.unseen, warm == mark)
    assert PairDataset.open(tmp_path / "same").holes == mark
    lost = convert_dataset(root, "flat-jpeg", tmp_path / "jpeg", lossy=True).lost
    assert any("no measurements" in line for line in lost)
    assert open_layout(tmp_path / "jpeg").holes is None


def test_align_keeps_degrees(celsius: Path, tmp_path: Path) -> None:
    still = tmp_path / "still.json"
    still.write_text('{"homography": [[1, 0, 0], [0, 1, 0], [0, 0, 1]]}')
    align_dataset(celsius, tmp_path / "out", calibration=still)
    assert is_field(PairDataset.open(tmp_path / "out")[0].thermal)


def test_annotation_reads_degrees(celsius: Path) -> None:
    annotation = open_annotation(celsius, None, MFNET)
    assert is_field(
        read_inputs(annotation.pairs[0], annotation.cameras[0], Extent(10**6, 10**4)).thermal
    )


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("black_hot", [False, True])
def test_align_writes_what_it_does_not_see_as_holes(
    kind: str, black_hot: bool, tmp_path: Path
) -> None:
    root, suffix = tmp_path / "set", "tiff" if kind == "float32" else "png"
    for folder in ("rgb", "thermal"):
        (root / folder).mkdir(parents=True)
    raw = (field() if kind == "float32" else field() * (5 if kind == "uint8" else 900)).astype(kind)
    cv2.imwrite(str(root / "rgb" / "a.png"), np.zeros((48, 64, 3), np.uint8))
    cv2.imwrite(str(root / "thermal" / f"a.{suffix}"), raw)
    (root / "train.txt").write_text("a\n")
    (root / "dataset.toml").write_text(
        'name = "set"\nclasses = ["ground", "person"]\n[files]\nrgb = "rgb/{name}.png"\n'
        f'thermal = "thermal/{{name}}.{suffix}"\n[splits]\ntrain = "train.txt"\n'
        f'[thermal]\nunit = "counts"\nblack_hot = {str(black_hot).lower()}\n'
    )
    (tmp_path / "away.json").write_text('{"homography": [[1, 0, 20], [0, 1, 0], [0, 0, 1]]}')
    align_dataset(root, tmp_path / "out", calibration=tmp_path / "away.json")
    assert open_layout(tmp_path / "out").holes is not None
    before, after = PairDataset.open(root)[0], PairDataset.open(tmp_path / "out")[0]
    assert after.unseen is not None
    assert after.unseen[:, :19].all()
    assert not after.unseen[:, 20:].any()
    assert before.thermal is not None
    assert after.thermal is not None
    assert np.array_equal(after.thermal[:, 20:], before.thermal[:, :-20])
    # Black-hot: what nobody saw is not the hottest.
    assert after.thermal[:, :19].max() <= before.thermal.max()
    assert after.thermal[:, :19].min() >= before.thermal.min()
