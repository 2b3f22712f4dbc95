"""Where objects are, over REST: what `sartm predict --objects` says of the same files."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import TINY, build
from draw_places import write_geotiff, write_shot
from PIL import Image

pytest.importorskip("fastapi")
from starlette.testclient import TestClient

from sartm.app.server import create_app
from sartm.cli.main import main
from sartm.inference.predictor import Predictor
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.model.loading import load
from sartm.scenes.dataset import SceneOptions, draw_scene

SIZE = (64, 96)
DOWN = {"RelativeAltitude": 60.0, "GimbalYawDegree": 30.0, "GimbalPitchDegree": -90.0}


@pytest.fixture(scope="module")
def scene():
    return draw_scene(4, SceneOptions(size=SIZE))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save(build(TINY, seed=2), folder, ModelFacts())
    return folder


@pytest.fixture(scope="module")
def client(model) -> Iterator[TestClient]:
    predictor = Predictor(load(model), device="cpu", precision="fp32")
    with TestClient(create_app({"tiny": predictor})) as client:
        yield client


def write_pair(folder: Path, kind: str, scene) -> tuple[str, str]:
    if kind == "grid":
        write_geotiff(folder / "rgb.tif", scene.rgb, (8.3, 47), 3e-6, 4326, photometric="rgb")
        write_geotiff(folder / "thermal.tif", scene.celsius, (8.4, 47), 3e-6, 4326)
        return "rgb.tif", "thermal.tif"
    if kind == "thermal":
        Image.fromarray(scene.rgb).save(folder / "rgb.png")
        grey = scene.thermal[..., None].repeat(3, axis=2)
        write_shot(folder / "thermal.jpg", grey, -47.05, 8.3)
        return "rgb.png", "thermal.jpg"
    write_shot(folder / "rgb.jpg", scene.rgb, 47.05, -8.3, DOWN if kind == "ground" else None, 40)
    Image.fromarray(scene.thermal).save(folder / "thermal.png")
    return "rgb.jpg", "thermal.png"


@pytest.mark.parametrize(("kind", "height", "located", "note"), [
    ("grid", None, "grid", "other coordinates"), ("ground", None, "ground", None),
    ("camera", None, "camera", "no height above ground"),
    ("camera", 30, "camera", "no heading"), ("thermal", None, "camera", "no height above ground"),
])  # fmt: skip
def test_places_are_those_of_predict(kind, height, located, note, scene, model, client, tmp_path):
    rgb, thermal = write_pair(tmp_path, kind, scene)
    more = ["--height", str(height)] if height else []
    command = ["predict", f"{tmp_path}/{rgb}", f"{tmp_path}/{thermal}", "--objects", *more]
    command += ["--out", f"{tmp_path}/out", "--model", str(model), "--device", "cpu"]
    assert main([*command, "--precision", "fp32", "--min-area", "5"]) == 0
    lines = (tmp_path / "out/objects.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    (entry,) = json.loads((tmp_path / "out/summary.json").read_text())["pairs"].values()
    answer = client.post(
        "/v1/segment",
        files={"rgb": (tmp_path / rgb).read_bytes(), "thermal": (tmp_path / thermal).read_bytes()},
        data={"output": "json", "objects": "true", "min_area": "5"}
        | ({"height": str(height)} if height else {}),
    ).json()
    known = [{name: value for name, value in row.items() if value is not None and name != "pair"}
             for row in rows]  # fmt: skip
    assert answer["objects"] == known
    assert {row["located"] for row in known} == {located}
    kinds = {row["geometry"]["type"] for row in known}
    assert kinds == {"Point" if located == "camera" else "Polygon"}
    assert answer["place"] == entry["place"]
    assert (note or "") in answer["place"].get("note", "")


def test_pictures_without_a_place_have_none(scene, client, tmp_path):
    Image.fromarray(scene.rgb).save(tmp_path / "rgb.png")
    data = {"output": "json", "objects": "true", "min_area": "5"}
    files = {"rgb": (tmp_path / "rgb.png").read_bytes()}
    answer = client.post("/v1/segment", files=files, data=data).json()
    assert answer["objects"]
    assert "place" not in answer
    assert not {"latitude", "geometry", "taken"} & set(answer["objects"][0])
    refused = client.post("/v1/segment", files=files, data=data | {"height": "0"})
    assert refused.status_code == 422
