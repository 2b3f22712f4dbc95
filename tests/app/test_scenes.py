"""Clicks over the REST API: the library's masks, what is kept and dropped, what nobody can mean."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from browser import serving
from conftest import CLICKED, TINY, build
from safetensors.torch import save_file
from small_weights import prompt_weights, small_model

pytest.importorskip("fastapi")
from starlette.testclient import TestClient
from test_app import decode, is_problem, png, slow_code
from test_hostile import form

from sartm.app.guard import CLICK_BYTES, Limits
from sartm.app.scenes import ANSWERS, Scenes
from sartm.app.server import create_app
from sartm.inference.clicks import MOST_POINTS, Promptable
from sartm.inference.predictor import Predictor
from sartm.io.run_lengths import decode_mask, encode_mask

SIZE = (60, 90)
POINT = [20.0, 30.0]


def images(seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    rgb = cv2.resize(draw.integers(0, 256, (6, 9, 3), np.uint8), SIZE[::-1])
    return {"rgb": rgb, "thermal": cv2.resize(draw.integers(0, 256, (6, 9), np.uint8), SIZE[::-1])}


def files(seed: int = 0) -> dict[str, bytes]:
    return {kind: png(image) for kind, image in images(seed).items()}


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(build(CLICKED, seed=2), device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def client(predictor) -> Iterator[TestClient]:
    with TestClient(create_app({"clicked": predictor})) as client:
        yield client


@pytest.fixture(scope="module")
def scene(client) -> str:
    return client.post("/v1/scenes", files=files()).json()["id"]


def ask(client: TestClient, scene: str, **prompt):
    return client.post(f"/v1/scenes/{scene}/mask", json=prompt)


def seen(answer) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    found = answer.json()
    mask = decode(found["segmentation"]["counts"], tuple(found["segmentation"]["size"]))
    assert mask.sum() == found["pixels"]
    assert 0 <= found["score"] <= 1
    return mask


# --- masks as codes ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (23, 31), (200, 300)])
def test_one_mask_is_coded_and_read_as_the_slow_definition_has_it(size):
    draw = np.random.default_rng(1)
    blobs = cv2.resize(draw.random((5, 5)), size[::-1]) > 0.5
    for mask in (blobs, ~blobs, draw.random(size) > 0.5, np.zeros(size, bool), np.ones(size, bool)):
        assert encode_mask(mask) == slow_code(mask)
        np.testing.assert_array_equal(decode_mask(encode_mask(mask), size), mask)


@pytest.mark.parametrize(
    "counts",
    ["", "0", "o", "\x00", "\u20ac", "oooooooooo0", "0" * 1000, encode_mask(np.ones((9, 9), bool)),
     "`P" + "`" * 6 + "1", "e0f0g0~"],
)  # fmt: skip
def test_what_is_no_code_of_this_size_is_refused(counts):
    with pytest.raises(ValueError, match="5400 pixels"):
        decode_mask(counts, SIZE)


# --- answers -------------------------------------------------------------------------------------


def test_a_click_gives_the_mask_of_the_library(client, predictor):
    prompt, pair = Promptable(predictor), images()
    for modality in ("both", "rgb", "thermal"):
        answer = client.post("/v1/scenes", files=files(), data={"modality": modality})
        found = answer.json()
        assert found["size"] == list(SIZE)
        assert found["modality"] == modality
        assert found["model"] == "clicked"
        kept = prompt.encode(*(pair[k] if modality in ("both", k) else None for k in pair))
        mask = prompt.mask(kept, [tuple(POINT)])
        answer = ask(client, found["id"], points=[POINT])
        np.testing.assert_array_equal(seen(answer), mask.mask)
        assert answer.json()["score"] == pytest.approx(mask.score, abs=1e-3)
        further = prompt.mask(
            kept, [tuple(POINT), (70, 10)], [1, 0], mask_input=mask.logits.astype(np.float16)
        )
        after = answer.json()["answer"]
        answer = ask(client, found["id"], points=[POINT, [70, 10]], labels=[1, 0], after=after)
        np.testing.assert_array_equal(seen(answer), further.mask)
        boxed = prompt.mask(kept, [tuple(POINT)], box=(5, 5.5, 60, 50))
        answer = ask(client, found["id"], points=[POINT], box=[5, 5.5, 60, 50])
        np.testing.assert_array_equal(seen(answer), boxed.mask)


def test_a_box_alone_is_a_prompt(client, scene):
    assert seen(ask(client, scene, box=[5, 5, 60, 50])).any()


def test_a_mask_of_another_tool_can_be_gone_on_from(client, scene, predictor):
    drawn = np.zeros(SIZE, bool)
    drawn[20:40, 10:50] = True
    code = {"size": SIZE, "counts": encode_mask(drawn)}
    found = seen(ask(client, scene, points=[POINT, [70, 10]], labels=[1, 0], mask=code))
    prompt = Promptable(predictor)
    expected = prompt.mask(
        prompt.encode(*images().values()), [tuple(POINT), (70, 10)], [1, 0], mask_input=drawn
    )
    np.testing.assert_array_equal(found, expected.mask)
    for wrong in ({"size": [5, 5], "counts": "i0"}, {"size": SIZE, "counts": "xx"}):
        is_problem(ask(client, scene, points=[POINT], mask=wrong), 422)
    both = ask(client, scene, points=[POINT], mask=code, after=1)
    assert "the one or the other" in is_problem(both, 422)


def test_answers_are_kept_for_a_while_and_then_the_mask_is_asked_for(client, scene):
    first = ask(client, scene, points=[POINT]).json()["answer"]
    assert ask(client, scene, points=[POINT, [70, 10]], after=first).status_code == 200
    for _ in range(ANSWERS):
        ask(client, scene, points=[POINT])
    gone = ask(client, scene, points=[POINT, [70, 10]], after=first)
    assert "send the mask" in is_problem(gone, 404)


@pytest.mark.slow
def test_one_of_sam2s_sizes_answers_with_the_weights_its_encoder_came_from(tmp_path):
    save_file(prompt_weights(), tmp_path / "sam2.safetensors")
    model = small_model()
    model.encoder_source = str(tmp_path / "sam2.safetensors")
    bare = Predictor(small_model(), device="cpu", precision="fp32")
    predictors = {"sam2": Predictor(model, device="cpu", precision="fp32"), "bare": bare}
    with TestClient(create_app(predictors)) as client:
        known = client.get("/v1/models").json()["models"]
        assert [row["clicks"] for row in known] == [True, False]
        scene = client.post("/v1/scenes", files=files()).json()["id"]
        assert seen(ask(client, scene, box=[5, 5, 60, 50])).shape == SIZE
        refused = client.post("/v1/scenes", files=files(), data={"model": "bare"})
        assert "clicks need the rest" in is_problem(refused, 422)


def test_a_model_without_a_prompt_half_says_so():
    predictors = {"tiny": Predictor(build(TINY), device="cpu", precision="fp32")}
    predictors["tiny"].model.encoder_source = ""
    with TestClient(create_app(predictors)) as client:
        assert [row["clicks"] for row in client.get("/v1/models").json()["models"]] == [False]
        is_problem(client.post("/v1/scenes", files=files()), 422)


# --- what is kept --------------------------------------------------------------------------------


def test_scenes_used_longest_ago_are_dropped_and_the_answer_says_what_to_do(predictor):
    with TestClient(create_app({"clicked": predictor}, limits=Limits(scenes=2))) as client:
        first, second = (
            client.post("/v1/scenes", files=files(seed)).json()["id"] for seed in (1, 2)
        )
        assert ask(client, first, points=[POINT]).status_code == 200  # used after the second
        third = client.post("/v1/scenes", files=files(3)).json()["id"]
        gone = is_problem(ask(client, second, points=[POINT]), 404)
        assert "send its images to /v1/scenes again" in gone
        for there in (first, third):
            assert ask(client, there, points=[POINT]).status_code == 200
        is_problem(ask(client, "no-such-scene", points=[POINT]), 404)


def test_a_pair_that_takes_more_memory_than_all_may_is_refused(predictor):
    with TestClient(create_app({"clicked": predictor}, limits=Limits(scene_bytes=1000))) as client:
        refused = client.post("/v1/scenes", files=files())
        assert "--scene-memory" in is_problem(refused, 422)


@pytest.fixture
def held(monkeypatch) -> list[int]:
    """Bytes of all scenes after each change, on the thread that computes, which alone may look."""
    weighed, drop = [], Scenes._drop

    def drop_and_weigh(scenes: Scenes) -> None:
        drop(scenes)
        weighed.append(scenes.nbytes)

    monkeypatch.setattr(Scenes, "_drop", drop_and_weigh)
    return weighed


@pytest.mark.slow
@pytest.mark.parametrize("room", [16, 5])
def test_sixteen_clients_click_on_sixteen_scenes_within_the_memory(predictor, room, held):
    """With room for all nobody sends a pair twice; with less everybody still gets all answers."""
    prompt = Promptable(predictor)
    one = prompt.encode(*images().values()).nbytes + ANSWERS * 2 * SIZE[0] * SIZE[1]
    limits = Limits(scene_bytes=room * one)
    app = create_app({"clicked": predictor}, limits=limits)
    expected = {
        seed: prompt.mask(prompt.encode(*images(seed).values()), [tuple(POINT)]).mask
        for seed in range(16)
    }
    sent, failures = [0] * 16, []

    with serving(app) as address:

        def post(connection: HTTPConnection, path: str, body, kind: str):
            connection.request("POST", path, body, {"Content-Type": kind})
            answer = connection.getresponse()
            return Answer(answer.status, answer.read())

        def encode(connection: HTTPConnection, seed: int) -> str:
            sent[seed] += 1
            answer = post(
                connection, "/v1/scenes", form(files(seed)), "multipart/form-data; boundary=x"
            )
            assert answer.status_code == 200, answer.text
            return answer.json()["id"]

        def work(seed: int) -> None:
            try:
                with closing(HTTPConnection(urlsplit(address).netloc, timeout=120)) as connection:
                    scene = encode(connection, seed)
                    for _ in range(2):
                        while True:
                            answer = post(
                                connection, f"/v1/scenes/{scene}/mask",
                                json.dumps({"points": [POINT]}), "application/json",
                            )  # fmt: skip
                            if answer.status_code != 404:
                                break
                            scene = encode(connection, seed)
                        np.testing.assert_array_equal(seen(answer), expected[seed])
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert max(held) <= limits.scene_bytes
    assert (max(sent) == 1) == (room == 16)


class Answer:
    """What a bare client got, read as TestClient's answers are."""

    def __init__(self, status_code: int, content: bytes) -> None:
        self.status_code, self.text = status_code, content.decode()

    def json(self):
        return json.loads(self.text)


# --- what nobody can mean ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("{}", "give a point"),
        ('{"points": [[20, 30]], "labels": [0]}', "give a point"),
        ('{"points": [[20, 30]], "labels": [1, 1]}', "2 labels for 1 points"),
        ('{"points": [[20, 30]], "labels": [true]}', "labels"),
        ('{"points": [[20, 30]], "labels": [7]}', "labels"),
        ('{"points": [[NaN, 30]]}', "points"),
        ('{"points": [[Infinity, 30]]}', "points"),
        ('{"points": [[1e999, 30]]}', "points"),
        ('{"points": [["20", 30]]}', "points"),
        ('{"points": [[20, 30, 40]]}', "points"),
        ('{"points": [20, 30]}', "points"),
        ('{"points": [[90, 30]]}', "lies outside"),
        ('{"points": [[-1e300, 30]]}', "lies outside"),
        (f'{{"points": [{",".join(["[1, 2]"] * (MOST_POINTS + 1))}]}}', "points"),
        (f'{{"points": [{",".join(["[1, 2]"] * 10_000)}]}}', "points"),
        ('{"box": [50, 50, 20, 20]}', "upper left"),
        ('{"box": [200, 200, 300, 300]}', "holds nothing"),
        ('{"box": [1, 2, 3]}', "box"),
        ('{"box": [1, 2, 3, NaN]}', "box"),
        ('{"points": [[20, 30]], "after": 0}', "after"),
        ('{"points": [[20, 30]], "point": [[20, 30]]}', "point"),
        ("[]", ""),
        ("null", ""),
        ("", ""),
    ],
)
def test_hostile_coordinates_are_named_and_refused(client, scene, prompt, says):
    answer = client.post(
        f"/v1/scenes/{scene}/mask", content=prompt, headers={"content-type": "application/json"}
    )
    assert says in is_problem(answer, 422)


@pytest.mark.parametrize("body", ["{", "[" * 100_000, '{"points": [[' + "9" * 10_000 + ", 1]]}"])
def test_a_body_that_is_no_json_is_refused(client, scene, body):
    answer = client.post(
        f"/v1/scenes/{scene}/mask", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code in (400, 422)
    is_problem(answer, answer.status_code)


def test_a_prompt_is_no_way_to_fill_memory(client, scene):
    body = b'{"points": [' + b"[1,1]," * (CLICK_BYTES // 6 + 1) + b"[1,1]]}"
    kind = {"content-type": "application/json"}
    is_problem(client.post(f"/v1/scenes/{scene}/mask", content=body, headers=kind), 413)
    parts = iter([body[:100], body[100:]])  # without saying how long it is
    is_problem(client.post(f"/v1/scenes/{scene}/mask", content=parts, headers=kind), 413)


def test_the_fields_are_those_of_segment(client):
    wrong = client.post("/v1/scenes", files=files(), data={"modalty": "rgb"})
    assert "did you mean modality" in is_problem(wrong, 422)
    is_problem(client.post("/v1/scenes", files=files(), data={"model": "none"}), 422)
    is_problem(client.post("/v1/scenes", data={"modality": "rgb"}), 422)
    is_problem(client.post("/v1/scenes", files={"rgb": b"no image"}), 422)
