"""PairLabeller: bytes in, bytes out, the same maps as `predict`, wherever it is unpickled."""

import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import TINY, build

import sartm
from fleet.conftest import maps_in
from fleet.test_labelling import reference
from sartm.inference.options import PredictOptions
from sartm.model.loading import load

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def row(name: str) -> dict[str, object]:
    images = {kind: Path(f"in/{kind}/{name}.png").read_bytes() for kind in ("rgb", "thermal")}
    return {"name": name, **images, "camera": 7}


def test_a_row_comes_back_with_the_map_that_predict_makes(place, tiny):
    whole = reference(tiny)
    labeller = pickle.loads(pickle.dumps(sartm.PairLabeller(tiny)))
    found = labeller(row("0003"))
    assert found.pop("label") == whole["0003"]
    entry = json.loads(found.pop("entry"))
    assert entry["size"] == [64, 96]
    assert found == {"name": "0003", "camera": 7, "overlay": b"", "error": ""}
    again = pickle.loads(pickle.dumps(labeller))  # after use it travels as lightly
    assert again(row("0003"))["label"] == whole["0003"]


def test_a_loaded_model_travels_along_and_options_hold(place):
    labeller = sartm.PairLabeller(build(TINY), options=PredictOptions(modality="rgb"))
    there = pickle.loads(pickle.dumps(labeller))
    assert there(row("0003"))["label"] == labeller(row("0003"))["label"]
    assert there(row("0003"))["overlay"].startswith(b"\xff\xd8")
    alone = there(row("0003") | {"thermal": None})
    assert alone["label"] == labeller(row("0003"))["label"]  # thermal was not seen


@pytest.mark.parametrize("rgb", [b"no image", b"", None])
def test_a_bad_pair_is_told_and_the_next_one_labelled(rgb, place, tiny):
    labeller = sartm.PairLabeller(tiny)
    found = labeller(row("0003") | {"rgb": rgb, "thermal": None})
    assert found["label"] == b""
    assert "pair '0003'" in found["error"] or "0003 rgb" in found["error"]
    assert labeller(row("0004"))["error"] == ""


@pytest.mark.parametrize("name", [{}, {"name": "camera"}])
def test_threads_label_rows_of_one_name_or_none_by_one_model(name, place, tiny, monkeypatch):
    loaded = []
    monkeypatch.setattr("sartm.fleet.labeller.load", lambda model: loaded.append(1) or load(model))
    labeller = sartm.PairLabeller(tiny)
    rows = [name | {k: row(n)[k] for k in ("rgb", "thermal")} for n in ("0000", "0001")] * 8
    rows[5] = rows[5] | {"rgb": b"no image"}  # its failure is its own
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(labeller, rows))
    assert loaded == [1]
    alone = [labeller(each) for each in rows]
    assert [each["error"] != "" for each in found] == [index == 5 for index in range(16)]
    assert found == alone


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ray", "processes"])
def test_the_examples_make_the_maps_of_predict(engine, place, tiny):
    if engine == "ray":
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'sartm[fleet]'")
    (place / "in/thermal/0004.png").write_bytes(b"no image")
    run = [sys.executable, EXAMPLES / f"label_with_{engine}.py", "in/rgb", "in/thermal", "made"]
    for kind in ("rgb", "thermal"):  # they take flat folders
        for file in (place / "in" / kind / "sub").iterdir():
            file.unlink()
        (place / "in" / kind / "sub").rmdir()
    alone = os.environ | {"RAY_ADDRESS": "local"}  # it would join the cluster of another test
    done = subprocess.run([*run, tiny], capture_output=True, text=True, env=alone)
    assert done.returncode == 0, done.stderr
    assert "0004: 0004 thermal: not an image" in done.stdout
    made = {file.stem: file.read_bytes() for file in (place / "made").iterdir()}
    inputs = ["--rgb", "in/rgb", "--thermal", "in/thermal", "--out", "whole", "--model", tiny]
    from sartm.cli.main import main

    assert main(["predict", *inputs]) == 3
    assert made == maps_in(place / "whole")
