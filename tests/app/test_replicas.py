"""Several processes behind one address: what they tell Prometheus, and how one leaves."""

import re
import signal
import threading

import numpy as np
import pytest
from conftest import TINY, build
from test_hostile import form, png, started, until

from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("replicas") / "tiny"
    save(build(TINY), folder, ModelFacts())
    return str(folder)


def draw(height: int, width: int) -> dict[str, bytes]:
    random = np.random.default_rng(0)
    rgb, heat = (
        random.integers(0, 256, size, np.uint8) for size in ((height, width, 3), (height, width))
    )
    return {"rgb": png(rgb), "thermal": png(heat)}


def read_metrics(server) -> dict[str, float]:
    status, text = server.ask("GET", "/metrics")
    assert status == 200
    lines = (line.rpartition(" ") for line in text.decode().splitlines() if line[0] != "#")
    return {name: float(value) for name, _, value in lines}


@pytest.mark.slow
def test_metrics_count_requests_phases_places_and_memory(model):
    with started("--model", model, "--token", "secret") as server:
        for _ in range(3):
            assert server.post(draw(64, 96), authorization="Bearer secret")[0] == 200
        assert server.post(draw(64, 96))[0] == 401
        assert server.ask("GET", "/no/such/path/of/mine")[0] == 404
        found = read_metrics(server)
        segment = 'sartm_requests_total{method="POST",path="/v1/segment",status="200"}'
        assert found[segment] == 3
        assert found['sartm_requests_total{method="POST",path="refused",status="401"}'] == 1
        for phase in ("wait", "decode", "compute"):
            assert found[f'sartm_phase_seconds_count{{phase="{phase}"}}'] >= 3
        assert found["sartm_requests_present"] == 0
        assert found["sartm_requests_room"] == 33
        assert found["sartm_memory_bytes"] > 1e8
        assert not [name for name in found if "such" in name]  # nobody fills it with names


@pytest.mark.slow
def test_a_replica_that_is_told_to_stop_answers_whom_it_let_in(model):
    files = draw(900, 1200)
    kind = "multipart/form-data; boundary=x"
    with started("--model", model) as leaving, started("--model", model) as staying:
        assert leaving.post(draw(64, 96))[0] == staying.post(draw(64, 96))[0] == 200
        answers = []

        def ask() -> None:
            answers.append(leaving.ask("POST", "/v1/segment", form(files), content_type=kind)[0])

        asking = [threading.Thread(target=ask) for _ in range(3)]
        for thread in asking:
            thread.start()
        until(lambda: leaving.present() == 3, 20)
        leaving.process.send_signal(signal.SIGTERM)

        def is_closed() -> bool:
            try:
                leaving.connect().close()
            except ConnectionRefusedError:
                return True
            return False

        until(is_closed, 20)  # a proxy asks the other one from here on
        assert staying.post(draw(64, 96))[0] == 200
        for thread in asking:
            thread.join(60)
        assert answers == [200, 200, 200]
        assert leaving.process.wait(30) in (0, -signal.SIGTERM)
        assert re.match(r"\d", str(staying.present()))
