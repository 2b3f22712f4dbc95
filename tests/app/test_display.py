"""What the page and programs get to show: display colours, and thermal of any depth."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from conftest import TINY, build

pytest.importorskip("fastapi")
from starlette.testclient import TestClient

from sartm.app.server import create_app
from sartm.colours import display_palette
from sartm.inference.predictor import Predictor

GREY = cv2.resize(np.random.default_rng(5).integers(0, 256, (6, 9), np.uint8), (90, 61))


def thermal(image: np.ndarray) -> dict[str, bytes]:
    return {"thermal": cv2.imencode(".png", image)[1].tobytes()}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    predictor = Predictor(build(TINY), device="cpu", precision="fp32")
    with TestClient(create_app({"tiny": predictor})) as client:
        yield client


def segment(client: TestClient, image: np.ndarray, **fields: str):
    return client.post("/v1/segment", files=thermal(image), data={"output": "json", **fields})


def test_classes_have_the_colours_of_files_and_of_pictures(client):
    model = client.get("/v1/models").json()["models"][0]
    assert model["thermal_range"] == "auto"
    assert [tuple(row["colour"]) for row in model["classes"]] == list(TINY.classes.palette)
    shown = display_palette(TINY.classes)
    assert [tuple(row["display"]) for row in model["classes"]] == list(shown)
    for part in segment(client, GREY).json()["segments"]:
        assert tuple(part["display"]) == shown[part["id"]]


def test_deeper_thermal_is_scaled_and_the_answer_says_how(client):
    counts = GREY.astype(np.uint16) * 10 + 29000
    answer = segment(client, counts).json()["thermal_range"]
    assert (answer["unit"], answer["by"]) == ("counts", "image")
    assert 29000 <= answer["low"] < answer["high"] <= 31550
    exact = segment(client, counts, thermal_range="29000:31550").json()
    assert exact["thermal_range"]["by"] == "option"
    assert exact["segments"] == segment(client, GREY).json()["segments"]
    assert segment(client, GREY).json()["thermal_range"]["by"] == "rule"


@pytest.mark.parametrize(
    ("value", "said"), [("model", "uint8"), ("9", "LOW:HIGH"), ("a:b", "LOW:")]
)
def test_ranges_that_do_not_fit_are_refused(client, value, said):
    answer = segment(client, GREY.astype(np.uint16) * 10, thermal_range=value)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]


def test_the_service_may_have_another_default():
    predictor = Predictor(build(TINY), device="cpu", precision="fp32", thermal_range="model")
    with TestClient(create_app({"tiny": predictor})) as client:
        assert client.get("/v1/models").json()["models"][0]["thermal_range"] == "model"
        assert segment(client, GREY.astype(np.uint16) * 10).status_code == 422
        assert segment(client, GREY.astype(np.uint16) * 10, thermal_range="auto").status_code == 200
