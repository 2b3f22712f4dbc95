"""Killed at any moment (SIGKILL), a command that writes a whole folder is simply run again.

What is labelled pair by pair has tests of its own: inference/test_folders.py and test_film.py.
"""

import random
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from conftest import TINY, build
from processes import start_command, wait

from sartm.cli.main import main
from sartm.files import HIDDEN, contents, recover_folder
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.scenes.dataset import SceneOptions, write_dataset

COMMANDS = {
    "synth": ["data", "synth", "{out}", "--pairs", "8", "--size", "96x128"],
    "export": ["export", "--format", "onnx", "--model", "model", "--out", "{out}"],
    "convert": ["data", "convert", "data", "--to", "flat", "--out", "{out}"],
}
WEIGHTS = ["weights", "convert", "model", "--full", "--out", "{out}"]


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def hidden(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith(HIDDEN)}


def start_writing(command: list[str]) -> BaseProcess:
    """The process, once it is at work on its output."""
    Path("there").mkdir(exist_ok=True)
    before = hidden(Path("there"))
    process = start_command(command)
    while process.is_alive():
        if {name for name in hidden(Path("there")) - before if name.endswith(".tmp")}:
            break
        time.sleep(0.001)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_any_moment_a_rerun_is_as_undisturbed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(build(TINY), "model", ModelFacts("small"))
    if name == "convert":
        write_dataset("data", 40, options=SceneOptions(size=(64, 64)))
    command = [part.format(out="there/it") for part in COMMANDS[name]]
    process = start_writing(command)
    begun = time.monotonic()
    assert wait(process) == 0
    duration = time.monotonic() - begun
    whole = files_in(Path("there/it"))
    assert hidden(Path("there")) == set()
    draw, killed = random.Random(0), 0
    while killed < 8:
        if name in ("synth", "convert") and Path("there/it").exists():
            Path("there/it").rename(f"finished-{time.monotonic_ns()}")  # it is refused otherwise
        process = start_writing(command)
        time.sleep(draw.random() * duration)
        process.kill()
        if (status := wait(process)) == -signal.SIGKILL:
            killed += 1
        else:
            assert status == 0
            duration *= 0.8  # it was over: this machine has become faster
        if Path("there/it").exists():  # at no moment is anything but a whole one there
            assert files_in(Path("there/it")) == whole
    if name in ("synth", "convert") and Path("there/it").exists():
        Path("there/it").rename("finished")
    assert main(command) == 0
    assert files_in(Path("there/it")) == whole
    assert hidden(Path("there")) == set()


REPLACE = """
import os, signal, sys
from pathlib import Path
from sartm import files, outputs
with outputs.lock_target(Path("target")):
    with files.replacing_folder(Path("target")) as new:
        (new / "a").write_text("new")
        (new / "b").write_text("new")
        left, rename = [int(sys.argv[1])], Path.rename
        def dying(self, *more):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(self, *more)
        Path.rename = dying
"""


@pytest.mark.parametrize("renames", range(7))
@pytest.mark.parametrize("fixed", [False, True])
def test_a_folder_is_replaced_or_kept_wherever_the_process_dies(
    renames, fixed, tmp_path, monkeypatch
):
    """`fixed`: a folder that cannot change its name, as the current one or a mount."""
    target = tmp_path / "target"
    target.mkdir()
    for name in ("a", "old"):
        (target / name).write_text("old")
    monkeypatch.chdir(target if fixed else tmp_path)
    script = REPLACE.replace('Path("target")', f'Path("{target}")')
    done = subprocess.run([sys.executable, "-c", script, str(renames)], check=False)
    assert done.returncode in (0, -signal.SIGKILL)
    recover_folder(target)
    assert not [path for path in tmp_path.rglob(f"{HIDDEN}*") if path.suffix != ".lock"]
    left = {path.name: path.read_text() for path in contents(target)}
    old, new = {"a": "old", "old": "old"}, {"a": "new", "b": "new"}
    assert left == (new if renames or not fixed else old)


def test_the_current_folder_is_filled_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    number = tmp_path.stat().st_ino
    assert main(["data", "synth", ".", "--pairs", "1", "--size", "64x64"]) == 0
    assert tmp_path.stat().st_ino == number
    assert sorted(path.name for path in Path().iterdir()) == [
        "dataset.toml", "instances", "labels", "rgb", "thermal", "train.txt", "val.txt",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_folder_that_is_in_use_is_not_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_dataset("data", 4, options=SceneOptions(size=(64, 64)))
    save(build(TINY), "model", ModelFacts("small"))
    hold = (
        "import sys, time; from pathlib import Path; from sartm import outputs\n"
        "with getattr(outputs, sys.argv[1])(Path('it')):\n"
        "    print('', flush=True); time.sleep(600)"
    )
    for lock, commands in (
        ("lock_beside", [*COMMANDS.values(), WEIGHTS, ["data", "align", "data", "--out", "{out}"]]),
        ("lock_folder", [
            ["demo", "--model", "model", "--out", "{out}"],
            ["evaluate", "--data", "data", "--model", "model", "--out", "{out}"],
            ["score", "--predictions", "data/labels", "--data", "data", "--out", "{out}"],
            ["data", "check", "data", "--out", "{out}"],
        ]),
    ):  # fmt: skip
        process = subprocess.Popen([sys.executable, "-c", hold, lock], stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            process.stdout.readline()
            for command in commands:
                assert main([part.format(out="it") for part in command]) == 2, command
                assert f"it is in use by process {process.pid}" in capsys.readouterr().err
        finally:
            process.kill()
            process.wait()
    assert not Path("it").exists() or hidden(Path("it")) == {".sartm.lock"}
