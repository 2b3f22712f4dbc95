"""The REST API: what programs get, and what nobody gets through."""

import base64
import io
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path

import cv2
import draw_flir
import numpy as np
import pytest
from browser import serving
from conftest import CLICKED, TINY, build

pytest.importorskip("fastapi")
from starlette.testclient import TestClient
from torch.nn.modules.module import register_module_forward_pre_hook

from sartm.app.annotation import open_annotation
from sartm.app.guard import Limits
from sartm.app.server import create_app, load_predictors, serve
from sartm.classes import Classes
from sartm.cli.main import main
from sartm.config import ThermalRule
from sartm.errors import InputError
from sartm.inference.folders import label_folder
from sartm.inference.predictor import Predictor
from sartm.io.labels import read_label
from sartm.io.run_lengths import encode_masks
from sartm.io.sources import Upload
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts

STATIC = Path(__file__).resolve().parents[2] / "src" / "sartm" / "app" / "static"


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(build(TINY), device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    rgb = cv2.resize(draw.integers(0, 256, (6, 9, 3), np.uint8), (90, 61))
    return {"rgb": rgb, "thermal": cv2.resize(draw.integers(0, 256, (6, 9), np.uint8), (90, 61))}


@pytest.fixture(scope="module")
def files(images) -> dict[str, bytes]:
    return {kind: png(image) for kind, image in images.items()}


@pytest.fixture(scope="module")
def client(predictor) -> Iterator[TestClient]:
    with TestClient(create_app({"tiny": predictor})) as client:
        yield client


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)[1].tobytes()


def pixels(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def is_problem(response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    content = response.json()
    assert content["status"] == status
    assert "Traceback" not in response.text
    return content["detail"]


# --- masks ---------------------------------------------------------------------------------------


def slow_code(mask: np.ndarray) -> str:
    """The definition, one pixel and one bit at a time."""
    runs, value = [0], 0
    for pixel in mask.flatten(order="F").tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    text = ""
    for index, run in enumerate(runs):
        number = run - runs[index - 2] if index > 2 else run
        while True:
            digit = number & 31
            number >>= 5
            last = number == -1 if digit & 16 else number == 0
            text += chr(48 + digit + (0 if last else 32))
            if last:
                break
    return text


def decode(counts: str, size: tuple[int, int]) -> np.ndarray:
    runs, position = [], 0
    while position < len(counts):
        number = shift = 0
        while True:
            digit = ord(counts[position]) - 48
            position += 1
            number |= (digit & 31) << shift
            shift += 5
            if not digit & 32:
                break
        if digit & 16:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
    flat = np.repeat(np.arange(len(runs)) % 2, runs)
    return flat.reshape(size[::-1]).T.astype(bool)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (23, 31), (200, 300)])
def test_masks_are_those_of_the_slow_definition(size):
    draw = np.random.default_rng(size[0])
    for labels in (
        draw.integers(0, 3, size, np.uint8),
        np.kron(draw.integers(0, 3, (2, 3)), np.ones(size, int))[: size[0], : size[1]],
        np.full(size, 300, np.uint16),
    ):
        masks = encode_masks(labels)
        assert sorted(masks) == np.unique(labels).tolist()
        for index, counts in masks.items():
            assert counts == slow_code((labels == index).astype(int))
            np.testing.assert_array_equal(decode(counts, size), labels == index)


# --- segmentation --------------------------------------------------------------------------------


def test_the_label_png_is_the_file_that_predict_writes(client, predictor, files, tmp_path):
    for kind, data in files.items():
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "a.png").write_bytes(data)
    label_folder(predictor, tmp_path / "rgb", tmp_path / "thermal", tmp_path / "out", model="t")
    label = client.post("/v1/segment", files=files)
    assert label.headers["content-type"] == "image/png"
    assert label.content == (tmp_path / "out/labels/a.png").read_bytes()
    overlay = client.post("/v1/segment", files=files, data={"output": "overlay"})
    assert overlay.headers["content-type"] == "image/jpeg"
    assert overlay.content == (tmp_path / "out/overlays/a.jpg").read_bytes()


def test_json_holds_the_label_map_as_masks_with_shares(client, predictor, files, images):
    answer = client.post("/v1/segment", files=files, data={"output": "json", "maps": "true"}).json()
    prediction = predictor(images["rgb"], images["thermal"])
    labels = np.full(answer["size"], 255, np.uint8)
    for segment in answer["segments"]:
        mask = decode(segment["segmentation"]["counts"], tuple(answer["size"]))
        assert mask.sum() == segment["pixels"]
        assert segment["name"] == TINY.classes.names[segment["id"]]
        labels[mask] = segment["id"]
    np.testing.assert_array_equal(labels, prediction.labels)
    np.testing.assert_array_equal(
        read_label(Upload("label", base64.b64decode(answer["label_png"]))), labels
    )
    assert sum(segment["share"] for segment in answer["segments"]) == pytest.approx(1, abs=1e-4)
    confidence = pixels(base64.b64decode(answer["confidence_png"]))
    assert np.abs(confidence / 255 - prediction.confidence).max() <= 0.5 / 255 + 1e-3
    assert answer["confidence"] == pytest.approx(confidence.mean() / 255, abs=0.01)
    assert answer["modalities"] == ["rgb", "thermal"]


def test_json_says_which_camera_labels_rest_on_where_it_is_asked(client, predictor, files, images):
    plain = client.post("/v1/segment", files=files, data={"output": "json", "maps": "true"}).json()
    assert "trust" not in plain
    assert isinstance(plain["alarms"], list)
    data = {"output": "json", "maps": "true", "trust": "true"}
    answer = client.post("/v1/segment", files=files, data=data).json()
    prediction = predictor(images["rgb"], images["thermal"], trust=True)
    assert answer["trust"] == prediction.summary()["trust"]
    trust = pixels(base64.b64decode(answer["trust_png"])) / 127.5 - 1
    assert np.abs(trust - prediction.trust).max() <= 0.01
    alone = client.post("/v1/segment", files={"rgb": files["rgb"]}, data=data)
    assert alone.status_code == 200
    assert "trust" not in alone.json()


def test_json_lists_the_objects_and_which_pixel_is_of_which(client, files, predictor, images):
    def post(**data):
        return client.post("/v1/segment", files=files, data=data)

    fields = {"output": "json", "objects": "true", "min_area": "5", "maps": "true"}
    answer = post(**fields).json()
    numbers = cv2.imdecode(
        np.frombuffer(base64.b64decode(answer["objects_png"]), np.uint8), cv2.IMREAD_COLOR_RGB
    ).astype(int)
    owner = numbers[..., 0] + 256 * numbers[..., 1] + 65536 * numbers[..., 2]
    labels = predictor(images["rgb"], images["thermal"]).labels
    assert len(answer["objects"]) == owner.max() > 0
    for row in answer["objects"]:
        mask = owner == row["id"]
        assert mask.sum() == row["area"] >= 5
        assert predictor.classes.names[labels[mask][0]] == row["class"]
        assert "celsius_mean" not in row  # nobody said what the values are
    warm = post(**fields, degrees="0.1:0").json()["objects"]
    thermal = images["thermal"] * 0.1
    for row in warm:
        values = thermal[owner == row["id"]]
        assert row["celsius_mean"] == pytest.approx(values.mean(), abs=0.01)
        assert row["celsius_max"] == pytest.approx(values.max(), abs=0.01)
    assert "objects" not in post(output="json").json()
    refused = post(degrees="hot", objects="true")
    assert refused.status_code == 422
    assert "GAIN:OFFSET" in refused.json()["detail"]


def test_one_image_alone_and_one_modality_of_two_are_the_same(client, files):
    for kind in ("rgb", "thermal"):
        alone = client.post("/v1/segment", files={kind: files[kind]})
        chosen = client.post("/v1/segment", files=files, data={"modality": kind})
        assert alone.status_code == chosen.status_code == 200
        assert alone.content == chosen.content


def test_four_channels_in_one_file_are_both_modalities(client, files, images):
    both = np.dstack([images["rgb"][..., ::-1], images["thermal"]])
    one = {"rgb": cv2.imencode(".png", both)[1].tobytes()}
    answer = client.post("/v1/segment", files=one, data={"output": "json"}).json()
    assert answer["modalities"] == ["rgb", "thermal"]
    assert "thermal" in answer["note"]
    assert client.post("/v1/segment", files=one).content == (
        client.post("/v1/segment", files=files).content
    )
    shown = client.post("/v1/display", files={"image": one["rgb"]}, data={"view": "fourth"})
    assert np.abs(pixels(shown.content).astype(int) - images["thermal"]).mean() < 4


def test_sizes_that_differ_are_refused_until_resizing_is_asked_for(client, files, images):
    wide = {"rgb": files["rgb"], "thermal": png(cv2.resize(images["thermal"], (45, 30)))}
    assert "resize_thermal" in is_problem(client.post("/v1/segment", files=wide), 422)
    done = client.post("/v1/segment", files=wide, data={"resize_thermal": "true"})
    assert pixels(done.content).shape[:2] == (61, 90)


def test_counts_are_shown_with_contrast(client):
    counts = np.linspace(29000, 31000, 40 * 50).reshape(40, 50).astype(np.uint16)
    shown = client.post("/v1/display", files={"image": png(counts)}, data={"view": "thermal"})
    grey = pixels(shown.content)
    assert grey.min() < 10
    assert grey.max() > 245


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_thermal_values_come_as_they_are_stored(client, dtype):
    counts = np.linspace(20, 250 if dtype == np.uint8 else 31000, 40 * 50).reshape(40, 50)
    stored = np.ascontiguousarray(counts.astype(dtype))
    file = cv2.imencode(".tiff" if dtype == np.float32 else ".png", stored)[1].tobytes()
    answer = client.post("/v1/values", files={"image": file})
    found = np.load(io.BytesIO(answer.content), allow_pickle=False)
    assert found.dtype == stored.dtype
    np.testing.assert_array_equal(found, stored)
    assert answer.headers["x-thermal-unit"] == "raw"


@pytest.mark.slow
def test_thumbnails_show_the_scenes_that_are_drawn():
    """The examples are drawn, never photographed; their thumbnails are drawn from the same."""
    command = [sys.executable, STATIC.parents[3] / "scripts" / "make_thumbnails.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_radiometric_file_gives_degrees_to_look_at_and_to_label(client, tmp_path):
    celsius = draw_flir.field()
    file = draw_flir.write_flir(tmp_path / "flir.jpg", draw_flir.counts_of(celsius)).read_bytes()
    answer = client.post("/v1/values", files={"image": file})
    read = np.load(io.BytesIO(answer.content))
    assert answer.headers["x-thermal-unit"] == "celsius"
    np.testing.assert_allclose(read, celsius, atol=0.1)

    degrees = replace(TINY, thermal=ThermalRule("range", 0, 50))
    ranged = Predictor(build(degrees), device="cpu", precision="fp32")
    with TestClient(create_app({"degrees": ranged})) as other:
        sent = {"files": {"thermal": file}, "data": {"radiometric": "true"}}
        label = read_label(Upload("label", other.post("/v1/segment", **sent).content))
    np.testing.assert_array_equal(label, ranged(None, read).labels)


def test_values_keep_to_the_limits_and_name_what_is_none(predictor, client, files):
    small = Limits(pixels=2000)
    with TestClient(create_app({"tiny": predictor}, limits=small)) as limited:
        large = {"image": png(np.zeros((60, 50), np.uint8))}
        assert "million pixels" in is_problem(limited.post("/v1/values", files=large), 422)
    coloured = {"image": files["rgb"]}
    assert "false colour" in is_problem(client.post("/v1/values", files=coloured), 422)
    fourth = client.post("/v1/values", files=coloured, data={"view": "fourth"})
    assert "no thermal channel" in is_problem(fourth, 422)


def test_models_and_health_say_what_is_there(client):
    answer = client.get("/v1/models").json()
    (model,) = answer["models"]
    assert [one["name"] for one in model["classes"]] == list(TINY.classes.names)
    assert answer["limits"]["waiting"] == 32
    assert client.get("/healthz").json()["status"] == "ok"
    assert "no model" in is_problem(client.post("/v1/segment", data={"model": "x"}), 422)


# --- what is refused -----------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    code = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", code)


def bomb_png() -> bytes:
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6)))
    return b"\x89PNG\r\n\x1a\n" + data + chunk(b"IEND", b"")


def huge_jpeg() -> bytes:
    """A small JPEG whose header claims 10,000 x 10,000."""
    data = bytearray(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 10000, 10000)
    return bytes(data)


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("a.png", b"x")
    return stream.getvalue()


def text_array() -> bytes:
    """An .npy whose header promises a gigabyte per value."""
    stream = io.BytesIO()
    header = {"descr": "<U268435456", "fortran_order": False, "shape": (4, 4)}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def nan_tiff() -> bytes:
    heat = np.full((20, 30), 21.5, np.float32)
    heat[3, 4] = np.nan
    return cv2.imencode(".tiff", heat)[1].tobytes()


HOSTILE = {
    "bomb": (bomb_png, "million pixels"),
    "100 MP": (huge_jpeg, "million pixels"),
    "cut off": (lambda: png(np.zeros((50, 50, 3), np.uint8))[:-30], "cut off"),
    "svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    "zip": (zipped, "zip"),
    "empty": (lambda: b"", "0 bytes"),
    "text": (lambda: b"no image at all", "not an image"),
    "noise": (lambda: np.random.default_rng(0).bytes(5000), "not an image"),
    "text array": (text_array, "no pixels"),
    "damaged": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(300), "header cannot be read"),
}


@pytest.mark.parametrize("kind", ["rgb", "thermal"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_upload_is_named_and_refused(client, files, name, kind):
    make, word = HOSTILE[name]
    detail = is_problem(client.post("/v1/segment", files={**files, kind: make()}), 422)
    assert word in detail
    assert len(detail) < 400
    assert client.post("/v1/segment", files=files).status_code == 200


def test_thermal_without_values_is_refused(client):
    assert "NaN" in is_problem(client.post("/v1/segment", files={"thermal": nan_tiff()}), 422)


@pytest.mark.parametrize(
    "name", ["../../../tmp/x.png", "/etc/passwd", "..\\x", "a\x00b", "%2e%2e/x", "é" * 300]
)
def test_the_name_of_an_upload_means_nothing(client, files, name):
    named = {kind: (name, data, "text/html") for kind, data in files.items()}
    assert client.post("/v1/segment", files=named).content == (
        client.post("/v1/segment", files=files).content
    )


def test_wrong_options_are_refused_with_their_name(client, files):
    for field, value in (("modality", "sonar"), ("output", "gif"), ("opacity", "7")):
        answer = client.post("/v1/segment", files=files, data={field: value})
        assert field in is_problem(answer, 422)
    assert "no image" in is_problem(client.post("/v1/segment"), 422)
    broken = {"content-type": "multipart/form-data"}
    is_problem(client.post("/v1/segment", content=b"x", headers=broken), 400)


def test_a_body_beyond_the_limit_is_cut(predictor, files):
    limits = Limits(upload=20_000)
    with TestClient(create_app({"tiny": predictor}, limits=limits)) as client:
        large = {"rgb": bytes(30_000)}
        assert "MiB" in is_problem(client.post("/v1/segment", files=large), 413)

        def without_length():
            yield b'--x\r\nContent-Disposition: form-data; name="rgb"; filename="a"\r\n\r\n'
            for _ in range(30):
                yield bytes(1000)

        header = {"content-type": "multipart/form-data; boundary=x"}
        answer = client.post("/v1/segment", content=without_length(), headers=header)
        is_problem(answer, 413)


def test_paths_lead_nowhere(client):
    for path in ("/../pyproject.toml", "/static/app.js", "/..%2f..%2fetc/passwd", "/v1/examples/x"):
        is_problem(client.get(path), 404)
    is_problem(client.get("/v1/examples/..%2f..%2fx/rgb"), 404)


def test_a_bug_gives_no_trace_away(predictor, files, caplog):
    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    app = create_app({"tiny": predictor})
    with TestClient(app, raise_server_exceptions=False) as client:
        fault = register_module_forward_pre_hook(fail)  # in whichever layer comes first
        try:
            answer = client.post("/v1/segment", files=files)
        finally:
            fault.remove()
        assert "log" in is_problem(answer, 500)
        assert "secret" not in answer.text
        assert "secret" in caplog.text
        assert client.post("/v1/segment", files=files).status_code == 200


def test_what_curl_sends_by_mistake_is_answered_with_what_to_send(client, files):
    other = {"thermal": files["thermal"]}
    for path, name, sent in (
        ("/v1/segment", "rgb", other), ("/v1/scenes", "rgb", other), ("/v1/values", "image", {}),
    ):  # fmt: skip
        answer = client.post(path, files=sent, data={name: "night.jpg"})
        assert f"curl: -F {name}=@FILE" in is_problem(answer, 422)
    for kind in ({}, {"content-type": "application/x-www-form-urlencoded"}):
        answer = client.post("/v1/scenes/x/mask", content=b'{"points": [[1, 2]]}', headers=kind)
        assert "Content-Type: application/json" in is_problem(answer, 422)


# --- who may ask ---------------------------------------------------------------------------------


def test_a_token_is_needed_for_everything_but_the_page(predictor, files):
    with pytest.raises(InputError, match="ASCII"):  # browsers refuse to send it
        create_app({"tiny": predictor}, token="sésame")
    with TestClient(create_app({"tiny": predictor}, token="open sesame")) as client:
        for path in ("/", "/app.js", "/style.css", "/healthz"):
            assert client.get(path).status_code == 200
        for header in ({}, {"authorization": "Bearer x"}, {"authorization": "Basic sésame"}):
            encoded = {key: value.encode() for key, value in header.items()}
            answer = client.get("/v1/models", headers=encoded)
            assert "token" in is_problem(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
        right = {"authorization": "Bearer open sesame"}
        assert client.get("/v1/models", headers=right).status_code == 200
        assert client.post("/v1/segment", files=files, headers=right).status_code == 200


def test_other_sites_and_other_host_names_are_refused(predictor, files):
    app = create_app({"tiny": predictor}, hosts=("127.0.0.1", "localhost", "[::1]"))
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        assert client.get("/v1/models").status_code == 200
        for name in ("evil.example", "127.0.0.1.evil.example", ""):
            is_problem(client.get("/v1/models", headers={"host": name}), 421)
        for name in ("localhost:7860", "[::1]:7860", "LOCALHOST"):
            assert client.get("/v1/models", headers={"host": name}).status_code == 200
        for origin in ("http://evil.example", "null", "http://127.0.0.1:9"):
            answer = client.post("/v1/segment", files=files, headers={"origin": origin})
            is_problem(answer, 403)
        own = {"origin": "http://127.0.0.1:7860"}
        answer = client.post("/v1/segment", files=files, headers=own)
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_page_may_do_only_what_it_needs(client):
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for name in ("/", "/docs"):
        text = client.get(name).text
        assert not re.search(r"""<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=|javascript:""", text)
    for file in STATIC.iterdir():
        if file.suffix == ".webp":
            continue
        addresses = set(re.findall(r"https?://[^\"'\s)]+", file.read_text("utf-8")))
        assert addresses <= {"http://www.w3.org/2000/svg"}, file.name


def test_what_the_page_loads_is_served_and_its_modules_import_in_no_circle(client):
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    for example in client.get("/v1/examples").json():
        thumbnail = client.get(f"/example-{example['name']}.webp")
        assert thumbnail.headers["content-type"] == "image/webp"
    imports = {}
    waiting = ["/app.js", "/docs.js", "/style.css", "/icon.svg"]
    while waiting:
        path = waiting.pop()
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-type"].partition(";")[0] == kinds[Path(path).suffix]
        assert answer.headers["cache-control"] == "no-cache"
        imports[path] = {f"/{name}" for name in re.findall(r'from "\./(.+)";', answer.text)}
        waiting += imports[path] - imports.keys()
    files = {f"/{file.name}" for file in STATIC.iterdir() if file.suffix in kinds}
    assert files == imports.keys()  # none that nobody loads
    TopologicalSorter(imports).prepare()  # raises CycleError


# --- many at once --------------------------------------------------------------------------------


class Slow:
    """A predictor that begins when told to."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, self.model = predictor, predictor.model
        self.config, self.classes, self.facts = (
            predictor.config, predictor.classes, predictor.facts,
        )  # fmt: skip
        self.thermal_range, self.fix_levels = predictor.thermal_range, predictor.fix_levels
        self.begun, self.go = threading.Event(), threading.Event()
        self.calls = 0

    def predict(self, *arguments):
        self.calls += 1
        self.begun.set()
        assert self.go.wait(10)
        return self.predictor.predict(*arguments)


def in_thread(client: TestClient, files: dict[str, bytes], answers: list[int]) -> threading.Thread:
    def ask() -> None:
        answers.append(client.post("/v1/segment", files=files).status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def until(condition) -> None:
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_beyond_the_queue_there_is_429_and_then_room_again(predictor, files):
    slow = Slow(predictor)
    with TestClient(create_app({"tiny": slow}, limits=Limits(waiting=2))) as client:
        answers: list[int] = []
        threads = [in_thread(client, files, answers) for _ in range(3)]
        until(lambda: client.get("/healthz").json()["present"] == 3)
        full = client.post("/v1/segment", files=files)
        assert "2 requests" in is_problem(full, 429)
        assert full.headers["retry-after"]
        assert client.get("/v1/models").status_code == 200
        slow.go.set()
        for thread in threads:
            thread.join()
        assert answers == [200, 200, 200]
        assert client.post("/v1/segment", files=files).status_code == 200
        assert client.get("/healthz").json()["present"] == 0


def test_a_request_that_takes_too_long_is_given_up_and_not_begun_later(predictor, files):
    slow = Slow(predictor)
    with TestClient(create_app({"tiny": slow}, limits=Limits(seconds=0.3))) as client:
        answers: list[int] = []
        threads = [in_thread(client, files, answers) for _ in range(3)]
        for thread in threads:
            thread.join()
        assert answers == [503, 503, 503]
        slow.go.set()
        until(lambda: client.post("/v1/segment", files=files).status_code == 200)
        assert slow.calls <= 3  # the first one, the last one, and one that was picked up in between


# --- a real server -------------------------------------------------------------------------------


@pytest.fixture
def address(predictor) -> Iterator[tuple[Slow, tuple[str, int]]]:
    """A server in this process, whose predictor waits to be told."""
    slow = Slow(predictor)
    with serving(create_app({"tiny": slow})) as url:
        yield slow, ("127.0.0.1", int(url.rpartition(":")[2]))
        slow.go.set()


def request_bytes(files: dict[str, bytes], path: str = "/v1/segment") -> bytes:
    body = b"".join(
        f'--x\r\nContent-Disposition: form-data; name="{kind}"; filename="a"\r\n\r\n'.encode()
        + data
        + b"\r\n"
        for kind, data in files.items()
    )
    body += b"--x--\r\n"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def ask(address: tuple[str, int], data: bytes) -> bytes:
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_clients_that_go_away_leave_the_server_alive_and_cost_no_work(address, files):
    slow, where = address
    whole = request_bytes(files)
    first = socket.create_connection(where)
    first.sendall(whole)
    assert slow.begun.wait(10)
    for end in (len(whole), len(whole) - 50, 200, 20):  # computing, in the body, in the head
        with socket.create_connection(where) as connection:
            connection.sendall(whole[:end])
    first.close()
    health = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    until(lambda: b'"present":0' in ask(where, health))
    slow.go.set()
    assert b"200 OK" in ask(where, whole)[:20]
    assert slow.calls == 2  # the one that was computed when its client left, and the last


def test_an_address_in_use_is_said_in_a_line(predictor):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="--port"):
            serve(create_app({"tiny": predictor}), "127.0.0.1", taken.getsockname()[1])


def test_models_get_short_names(tmp_path):
    for folder in ("runs/street/best", "other/street/best"):
        save(build(TINY), tmp_path / folder, ModelFacts())
    sources = [str(tmp_path / "runs/street/best"), str(tmp_path / "other/street/best")]
    names = list(load_predictors(sources, device="cpu", precision="fp32"))
    assert names == ["street-best", "street-best-2"]


def test_the_command_refuses_what_it_cannot_serve(tmp_path, capsys):
    save(build(TINY), tmp_path / "tiny", ModelFacts())
    assert main(["app", "--model", str(tmp_path / "none")]) == 2
    command = ["app", "--model", str(tmp_path / "tiny"), "--precision", "fp32"]
    assert main([*command, "--annotate", str(tmp_path / "none")]) == 2
    assert "--annotate" in capsys.readouterr().err
    for name in ("https://service.lan", "service.lan/page", ""):
        assert main([*command, "--allow-host", name]) == 2
        assert "without http://" in " ".join(capsys.readouterr().err.split())


# --- annotation ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, files) -> Path:
    """Two unlabelled pairs, the second in a sub-folder and without RGB."""
    for kind, name in (("rgb", "a"), ("thermal", "a"), ("thermal", "night/b")):
        path = tmp_path / "mine" / kind / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[kind])
    return tmp_path / "mine"


def annotating(predictor: Predictor, folder: Path, out: Path | None = None) -> TestClient:
    annotation = open_annotation(folder, out, predictor.classes)
    return TestClient(create_app({"tiny": predictor}, annotation=annotation))


def test_labels_are_read_corrected_and_saved_beside_the_images(predictor, folder, images):
    with annotating(predictor, folder) as client:
        info = client.get("/v1/annotation").json()
        assert [(pair["name"], pair["rgb"], pair["saved"]) for pair in info["pairs"]] == [
            ("a", True, False), ("night/b", False, False),
        ]  # fmt: skip
        shown = client.get("/v1/annotation/1/thermal").content
        np.testing.assert_array_equal(pixels(shown), images["thermal"])
        is_problem(client.get("/v1/annotation/1/rgb"), 404)
        is_problem(client.get("/v1/annotation/1/label"), 404)

        label = np.zeros((61, 90), np.uint8)
        label[10:20, 30:40] = 3
        label[0, 0] = 255
        saved = client.put("/v1/annotation/1/label", content=png(label))
        assert saved.json() == {"name": "night/b"}
        written = folder / "labels" / "night" / "b.png"
        np.testing.assert_array_equal(read_label(written), label)
        assert pixels(written.read_bytes()).dtype == np.uint8
        assert client.get("/v1/annotation").json()["pairs"][1]["saved"]
        again = client.get("/v1/annotation/1/label").json()
        assert {one["id"]: one["pixels"] for one in again["segments"]} == {
            0: 61 * 90 - 101, 3: 100, 255: 1,
        }  # fmt: skip
    assert not list(folder.rglob("*.tmp"))


def test_a_label_that_does_not_fit_is_refused_and_the_old_one_stays(predictor, folder):
    good = np.full((61, 90), 2, np.uint8)
    with annotating(predictor, folder) as client:
        client.put("/v1/annotation/0/label", content=png(good))
        bad = (np.zeros((90, 61), np.uint8), np.full((61, 90), 77, np.uint8))
        words = ("61x90", "id 77")
        for label, word in zip(bad, words, strict=True):
            answer = client.put("/v1/annotation/0/label", content=png(label))
            assert word in is_problem(answer, 422)
        is_problem(client.put("/v1/annotation/0/label", content=b""), 422)
        for index in ("2", "-1", "a", "..%2f..%2fx"):
            answer = client.put(f"/v1/annotation/{index}/label", content=png(good))
            assert answer.status_code in (404, 422)
        is_problem(client.get("/v1/annotation/9/label"), 404)
    np.testing.assert_array_equal(read_label(folder / "labels" / "a.png"), good)
    assert [path.name for path in (folder / "labels").rglob("*.*")] == ["a.png"]


def test_a_data_set_keeps_its_classes_and_its_layout(predictor, folder, tmp_path):
    (folder / "dataset.toml").write_text(
        'name = "mine"\nclasses = ["rest", "dog"]\n[files]\nthermal = "thermal/{name}.png"\n'
        'label = "truth/{name}-ids.png"\n[splits]\ntrain = "*"\n[thermal]\nblack_hot = true\n'
    )
    with annotating(predictor, folder) as client:
        info = client.get("/v1/annotation").json()
        assert [one["name"] for one in info["classes"]] == ["rest", "dog"]
        label = np.ones((61, 90), np.uint8)
        assert client.put("/v1/annotation/0/label", content=png(label)).status_code == 200
        assert (folder / "truth" / "a-ids.png").is_file()
    with annotating(predictor, folder, tmp_path / "elsewhere") as client:
        label_there = client.get("/v1/annotation/0/label")
        assert [one["name"] for one in label_there.json()["segments"]] == ["dog"]
        seen = {"if-match": label_there.headers["etag"]}
        client.put("/v1/annotation/0/label", content=png(0 * label), headers=seen)
    assert (tmp_path / "elsewhere" / "a.png").is_file()
    assert read_label(folder / "truth" / "a-ids.png").max() == 1


def test_nothing_is_served_when_no_folder_was_named(client):
    for method, path in (("get", ""), ("get", "/0/rgb"), ("get", "/0/label"), ("put", "/0/label")):
        answer = getattr(client, method)(f"/v1/annotation{path}")
        assert "--annotate" in is_problem(answer, 404)


def test_two_pairs_never_share_a_file(tmp_path, files):
    for name in ("a.png", "a.jpg"):
        for kind in ("rgb", "thermal"):
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / kind / name).write_bytes(files[kind])
    with pytest.raises(InputError, match="rename"):
        open_annotation(tmp_path, None, Classes(("a", "b")))


def test_no_label_is_saved_over_what_is_read(folder, tmp_path):
    classes = Classes(("a", "b"))
    before = {path: path.read_bytes() for path in folder.rglob("*.png")}
    for images in (folder / "thermal", folder / "rgb", folder / "rgb" / ".." / "thermal"):
        with pytest.raises(InputError, match="--annotations"):
            open_annotation(folder, images, classes)
    (tmp_path / "link").symlink_to(folder / "thermal")
    with pytest.raises(InputError, match="replace the image"):
        open_annotation(folder, tmp_path / "link", classes)
    (folder / "labels").mkdir()
    (folder / "labels" / "a.png").symlink_to(folder / "rgb" / "a.png")
    with pytest.raises(InputError, match="replace the image"):
        open_annotation(folder, None, classes)
    open_annotation(folder, tmp_path / "labels", classes)
    assert before.items() <= {path: path.read_bytes() for path in folder.rglob("*.png")}.items()


def test_ids_are_not_mixed_into_labels_of_colours(folder):
    (folder / "dataset.toml").write_text(
        'name = "mine"\nclasses = ["rest", "dog"]\npalette = [[0, 0, 0], [255, 255, 255]]\n'
        'label_colours = true\n[files]\nrgb = "rgb/{name}.png"\nthermal = "thermal/{name}.png"\n'
        'label = "labels/{name}.png"\n[splits]\ntrain = "*"\n'
    )
    (folder / "labels").mkdir()
    cv2.imwrite(str(folder / "labels" / "a.png"), np.full((4, 4), 255, np.uint8))
    with pytest.raises(InputError, match="sartm data convert"):
        open_annotation(folder, None, Classes(("a", "b")))
    open_annotation(folder, folder / "ids", Classes(("a", "b")))


def test_a_label_stays_in_the_folder_that_was_named(folder, tmp_path):
    text = 'name = "mine"\nclasses = ["rest", "dog"]\n[files]\nlabel = "../out/{name}.png"\n'
    text += 'thermal = "thermal/{name}.png"\n[splits]\ntrain = "*"\n'
    (folder / "dataset.toml").write_text(text)
    with pytest.raises(InputError):
        open_annotation(folder, None, Classes(("a", "b")))
    shared = 'label = "thermal/{name}-x.png"'
    (folder / "dataset.toml").write_text(text.replace('label = "../out/{name}.png"', shared))
    open_annotation(folder, None, Classes(("a", "b")))


# --- the description -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_api_keeps_to_its_own_description(predictor, folder):
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, given, settings
    from schemathesis.checks import CHECKS

    models = {"tiny": Predictor(build(CLICKED), device="cpu", precision="fp32")}
    app = create_app(models, annotation=open_annotation(folder, None, predictor.classes))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    # Which bytes are an image no schema can say, so that data which fits it may still be refused.
    left_out = [check for check in CHECKS.get_all() if check.__name__ == "positive_data_acceptance"]

    for operation in schema.get_all_operations():
        case_of = operation.ok()

        @settings(
            max_examples=8, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=case_of.as_strategy())
        def check(case):
            case.call_and_validate(excluded_checks=left_out)

        check()
