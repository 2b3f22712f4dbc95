"""Objects on the map: by the coordinates of a GeoTIFF, by a camera over ground, or not at all."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import TINY, build
from draw_places import write_geotiff, write_shot
from PIL import Image

from sartm.cli.main import main
from sartm.io.labels import read_label
from sartm.io.places import Grid, Place, Shot, read_place
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.objects.places import locate, project
from sartm.scenes.dataset import SceneOptions, draw_scene

SIZE = (96, 128)
HERE = (47.05, 8.3)


@pytest.fixture(scope="module")
def scene():
    return draw_scene(4, SceneOptions(size=SIZE))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save(build(TINY, seed=2), folder, ModelFacts())
    return folder


def predict(folder: Path, model: Path, rgb: str, thermal: str, *more: str) -> tuple[list, dict]:
    """The features of objects.geojson, and the pair's entry of the summary."""
    command = ["predict", f"{folder}/{rgb}", f"{folder}/{thermal}", "--objects", "--out"]
    command += [f"{folder}/out", "--model", str(model), "--device", "cpu", *more]
    assert main(command) == 0
    (entry,) = json.loads((folder / "out/summary.json").read_text())["pairs"].values()
    return json.loads((folder / "out/objects.geojson").read_text())["features"], entry


# --- a grid of coordinates -----------------------------------------------------------------------


@pytest.mark.parametrize(("epsg", "corner", "step"), [
    (32632, (447_000.0, 5_211_000.0), 0.25), (4326, (8.3, 47.05), 3e-6),
])  # fmt: skip
def test_a_geotiff_pair_gives_labels_and_objects_in_its_coordinates(
    epsg, corner, step, scene, model, tmp_path
):
    pyproj = pytest.importorskip("pyproj", reason="the extra `geo` is not installed")
    write_geotiff(tmp_path / "rgb.tif", scene.rgb, corner, step, epsg, photometric="rgb")
    write_geotiff(tmp_path / "thermal.tif", scene.celsius, corner, step, epsg)
    features, entry = predict(tmp_path, model, "rgb.tif", "thermal.tif", "--min-area", "4")
    with tifffile.TiffFile(tmp_path / "out/geotiff/rgb.tif") as written:
        tags = written.pages[0].tags
        with tifffile.TiffFile(tmp_path / "rgb.tif") as given:
            for code in (33550, 33922, 34735):
                found, expected = tags[code], given.pages[0].tags[code]
                assert (found.value, found.dtype, found.count) == (
                    expected.value, expected.dtype, expected.count,
                )  # fmt: skip
        assert 42113 not in tags  # what means no value in thermal is a class here
        assert np.array_equal(
            written.pages[0].asarray(), read_label(tmp_path / "out/labels/rgb.png")
        )
    turn = pyproj.Transformer.from_crs(epsg, 4326, always_xy=True)
    back = pyproj.Transformer.from_crs(4326, epsg, always_xy=True)
    assert features
    for feature in features:
        row = feature["properties"]
        x, y = corner[0] + (row["x"] + 0.5) * step, corner[1] - (row["y"] + 0.5) * step
        assert (row["longitude"], row["latitude"]) == pytest.approx(turn.transform(x, y), abs=2e-7)
        assert row["located"] == "grid"
        (outer, *_) = feature["geometry"]["coordinates"]
        assert outer[0] == outer[-1]
        ring = np.array(outer)
        x, y = back.transform(*ring.T)
        pixels = np.stack([x - corner[0], corner[1] - y], axis=1) / step
        low = np.array([row["left"], row["top"]])
        assert np.abs(pixels.min(0) - low).max() <= 0.5
        assert np.abs(pixels.max(0) - low - (row["width"], row["height"])).max() <= 0.5
        area = 0.5 * np.sum(ring[:-1, 0] * ring[1:, 1] - ring[1:, 0] * ring[:-1, 1])
        assert area > 0  # against the clock, as RFC 7946 wants it
    assert entry["place"]["grid"]["epsg"] == epsg
    assert entry["place"]["located"] == "grid"


def test_other_coordinates_of_thermal_are_said(scene, model, tmp_path):
    write_geotiff(tmp_path / "rgb.tif", scene.rgb, (8, 47), 1e-6, 4326, photometric="rgb")
    write_geotiff(tmp_path / "thermal.tif", scene.celsius, (8.1, 47), 1e-6, 4326)
    _, entry = predict(tmp_path, model, "rgb.tif", "thermal.tif")
    assert "other coordinates" in entry["place"]["note"]


def test_a_system_without_a_number_keeps_its_grid_and_has_no_place_on_earth(scene, model, tmp_path):
    write_geotiff(tmp_path / "rgb.tif", scene.rgb, (10, 20), 1, 32767, photometric="rgb")
    write_geotiff(tmp_path / "thermal.tif", scene.celsius, (10, 20), 1, 32767)
    features, entry = predict(tmp_path, model, "rgb.tif", "thermal.tif")
    assert {feature["geometry"] for feature in features} == {None}
    assert "EPSG" in entry["place"]["note"]
    assert (tmp_path / "out/geotiff/rgb.tif").is_file()


def test_coordinates_that_are_not_on_earth_are_no_place():
    grid = Grid((1.0, 0.0, 8.0, 0.0, -1.0, 90.5), 4326, ())
    located = locate(Place(grid=grid, size=(9, 9)), (9, 9))
    points = located.place(np.array([[0.0, 0.0], [0.0, 1.0]]))
    assert np.isnan(points[0]).all()
    assert points[1].tolist() == [8.0, 89.5]


# --- a camera over ground ------------------------------------------------------------------------


@pytest.mark.parametrize("heading", [0, 37.5, 180, 301])
def test_a_drone_s_picture_puts_objects_within_a_pixel_of_where_they_are(
    heading, scene, model, tmp_path
):
    """Against the geodesic over the ellipsoid, which the code does not use."""
    pyproj = pytest.importorskip("pyproj", reason="the extra `geo` is not installed")
    height, equivalent = 60.0, 40
    xmp = {"RelativeAltitude": height, "GimbalYawDegree": heading, "GimbalPitchDegree": -90}
    write_shot(tmp_path / "rgb.jpg", scene.rgb, *HERE, xmp, equivalent, g5=b"\0", g6=512.0)
    Image.fromarray(scene.thermal).save(tmp_path / "thermal.png")
    features, entry = predict(tmp_path, model, "rgb.jpg", "thermal.png", "--min-area", "4")
    focal = equivalent / math.hypot(36, 24) * math.hypot(*SIZE)
    geod = pyproj.Geod(ellps="WGS84")
    assert features
    for feature in features:
        row = feature["properties"]
        right = (row["x"] - (SIZE[1] - 1) / 2) * height / focal
        ahead = ((SIZE[0] - 1) / 2 - row["y"]) * height / focal
        azimuth = heading + math.degrees(math.atan2(right, ahead))
        longitude, latitude, _ = geod.fwd(HERE[1], HERE[0], azimuth, math.hypot(right, ahead))
        _, _, off = geod.inv(longitude, latitude, row["longitude"], row["latitude"])
        assert off < 0.1 * height / focal
        assert row["located"] == "ground"
        assert row["taken"] == "2026-07-14T13:05:59"
        assert feature["geometry"]["type"] == "Polygon"
    assert entry["place"]["camera"]["altitude"] == 512
    assert entry["place"]["taken"] == "2026-07-14T13:05:59"


def test_an_oblique_camera_is_turned_back_into_the_pixels_it_came_from():
    """Points on the ground, seen through a pinhole whose axes are built here another way."""
    shot = Shot(47, 8, height=50, heading=120, pitch=-40, roll=7, focal=300)
    east, north = np.meshgrid(np.linspace(20, 60, 5), np.linspace(-50, -15, 5))
    ground = np.stack([east.ravel(), north.ravel(), np.full(25, -50.0)], axis=1)

    def turn(axis: int, degrees: float) -> np.ndarray:
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        first, second = [(1, 2), (2, 0), (0, 1)][axis]
        matrix = np.eye(3)
        matrix[first, first] = matrix[second, second] = c
        matrix[first, second], matrix[second, first] = -s, s
        return matrix

    # World (east, north, up) to the camera's (right, forward, up): heading, then pitch, then roll.
    seen = ground @ turn(2, 120).T @ turn(0, 40).T @ turn(1, 7)
    pixels = np.stack([seen[:, 0], -seen[:, 2]], axis=1) / seen[:, 1:2] * 300 + (319.5, 239.5)
    found = project(pixels, shot, (480, 640))
    metres = np.radians(found - (8, 47)) * (6_378_137 * math.cos(math.radians(47)), 6_367_000)
    assert np.abs(metres - ground[:, :2]).max() < 0.5  # the radii above are of a sphere


def test_what_the_camera_sees_above_the_horizon_is_nowhere():
    shot = Shot(47, 8, height=2, heading=0, pitch=0, focal=100)
    assert np.isnan(project(np.array([[50.0, 0.0]]), shot, (101, 101))).all()
    assert np.isfinite(project(np.array([[50.0, 100.0]]), shot, (101, 101))).all()


def test_without_a_height_only_the_camera_s_position_is_said(scene, model, tmp_path):
    write_shot(tmp_path / "rgb.jpg", scene.rgb, -HERE[0], -HERE[1], None, 35, g17=90.0)
    Image.fromarray(scene.thermal).save(tmp_path / "thermal.png")
    features, entry = predict(tmp_path, model, "rgb.jpg", "thermal.png")
    assert features
    for feature in features:
        assert feature["properties"]["located"] == "camera"
        found = feature["geometry"]["coordinates"]
        assert feature["geometry"]["type"] == "Point"
        assert found == pytest.approx([-HERE[1], -HERE[0]], abs=1e-6)
    assert "--height" in entry["place"]["note"]
    features, entry = predict(tmp_path, model, "rgb.jpg", "thermal.png", "--height", "30")
    assert {feature["properties"]["located"] for feature in features} == {"ground"}
    assert "straight down" in entry["place"]["note"]


def test_a_place_in_the_thermal_file_counts_where_rgb_has_none(scene, model, tmp_path):
    Image.fromarray(scene.rgb).save(tmp_path / "rgb.png")
    grey = np.repeat(scene.thermal[..., None], 3, axis=2)
    write_shot(tmp_path / "thermal.jpg", grey, *HERE)
    features, _ = predict(tmp_path, model, "rgb.png", "thermal.jpg")
    assert {feature["properties"]["located"] for feature in features} == {"camera"}


def test_pictures_without_a_place_have_none(scene, model, tmp_path):
    Image.fromarray(scene.rgb).save(tmp_path / "rgb.png")
    Image.fromarray(scene.thermal).save(tmp_path / "thermal.png")
    features, entry = predict(tmp_path, model, "rgb.png", "thermal.png")
    assert {feature["geometry"] for feature in features} == {None}
    assert {feature["properties"]["latitude"] for feature in features} == {None}
    assert "place" not in entry
    assert not (tmp_path / "out/geotiff").exists()


# --- what files say ------------------------------------------------------------------------------


def test_the_time_of_the_satellites_counts_where_the_camera_has_none(tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    write_shot(tmp_path / "a.jpg", image, *HERE, taken="", g29="2026:01:02", g7=(3.0, 4.0, 5.0))
    assert read_place(tmp_path / "a.jpg").taken == "2026-01-02T03:04:05Z"


@pytest.mark.parametrize("gps", [
    {"g2": (91.0, 0.0, 0.0)}, {"g2": (1.0, 2.0)}, {"g1": ""},
])  # fmt: skip
def test_odd_positions_are_no_place(gps, tmp_path):
    write_shot(tmp_path / "a.jpg", np.zeros((8, 8, 3), np.uint8), *HERE, **gps)
    assert read_place(tmp_path / "a.jpg").shot is None


@pytest.mark.parametrize("cut", range(10, 700, 69))
def test_files_that_are_cut_off_say_nothing_and_raise_nothing(cut, tmp_path):
    write_shot(tmp_path / "a.jpg", np.zeros((8, 8, 3), np.uint8), *HERE, {"RelativeAltitude": 5})
    write_geotiff(tmp_path / "a.tif", np.zeros((8, 8), np.uint8), (0, 0), 1, 4326)
    for name in ("a.jpg", "a.tif"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[:cut])
        assert isinstance(read_place(tmp_path / name), Place)
        flipped = bytearray(data)
        flipped[cut % len(data)] ^= 0xFF
        (tmp_path / name).write_bytes(flipped)
        assert isinstance(read_place(tmp_path / name), Place)
    assert locate(read_place(tmp_path / "none.jpg"), (8, 8)).how == ""


def test_of_a_png_the_header_alone_is_read(tmp_path):
    """Its pixels may be too many for the memory, which only reading the image checks."""
    path = tmp_path / "a.png"
    Image.new("L", (7, 5)).save(path)
    data = path.read_bytes()
    start = data.index(b"IDAT") + 4
    path.write_bytes(data[:start] + b"\xff" * 8 + data[start + 8 :])
    assert read_place(path).size == (5, 7)
