"""A disk that is full, really: each command on ten that are too small, of a few kB."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY, build

from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.scenes.dataset import SceneOptions, write_dataset

COMMANDS = {
    "predict": "--rgb {data}/rgb --thermal {data}/thermal --model {model} --out {out}",
    "video": "--rgb {data}/rgb --thermal {data}/thermal --model {model} --labels --out {out}.webm",
    "demo": "--model {model} --out {out}",
    "export": "--format onnx --model {model} --out {out}",
    "weights convert": "{model} --full --out {out}",
    "data convert": "{data} --to flat --out {out}",
    "data synth": "{out} --pairs 3 --size 96x128",
    "evaluate": "--data {data} --model {model} --out {out}",
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    save(build(TINY), folder / "model", ModelFacts("small"))
    scenes = SceneOptions(size=(96, 128))
    write_dataset(folder / "data", 6, options=scenes, validation=0.5, rgb_format="png")
    return {"model": folder / "model", "data": folder / "data"}


@pytest.fixture(scope="module")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What starts a process that may mount a disk of its own."""
    place = str(tmp_path_factory.mktemp("disk"))
    start = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    try:
        subprocess.run([*start, "mount", "-t", "tmpfs", "tmpfs", place], check=True,
                       capture_output=True)  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system lets no test mount a small disk")
    return start


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_ends_in_words_and_nothing_half_written(command, inputs, namespace, tmp_path):
    script = Path(__file__).with_name("full_disk.py")
    filled = COMMANDS[command].replace("{data}", str(inputs["data"]))
    filled = filled.replace("{model}", str(inputs["model"]))
    arguments = [*command.split(), *filled.split()]
    if "model" in COMMANDS[command] and command not in ("export", "weights convert"):
        arguments += ["--device", "cpu"]
    done = subprocess.run(
        [*namespace, sys.executable, str(script), str(tmp_path), *arguments],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == 10
    for row in rows:
        assert "Traceback" not in row["said"], row
        assert row["status"] in (2, 3), row
        assert "No space left" in row["said"] or "disk is full" in row["said"], row
        assert not row["wrong"], row
        assert not [name for name in row["left"] if "/." in f"/{name}"], row
    again = [row for row in rows if "again" in row]
    assert len(again) == 3
    for row in again:
        assert row["again"][0] == 0, row
        assert not row["differs"], row
