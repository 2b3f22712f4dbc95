"""The commands end to end, and what they say about bad input."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import cv2
import numpy as np
import pytest
from conftest import SHARED, TINY, build

from sartm.benchmark import Runtime
from sartm.classes import MFNET
from sartm.cli.main import app, main
from sartm.config import Modality
from sartm.datatools.writing import Target
from sartm.inference.devices import Precision
from sartm.inference.frames import Match
from sartm.inference.pictures import Arrangement
from sartm.io.decode import FourChannel
from sartm.io.labels import read_label
from sartm.model.checkpoint import save
from sartm.model.exported import Format
from sartm.model.facts import ModelFacts

RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "small"
    save(build(TINY), folder, ModelFacts(name="small", selected_on="val"))
    return str(folder)


def write_pair(root: Path, name: str, size: tuple[int, int] = (64, 96)) -> None:
    for kind in ("rgb", "thermal"):
        (root / kind / name).parent.mkdir(parents=True, exist_ok=True)
    rgb = RNG.integers(0, 255, (*size, 3), np.uint8)
    cv2.imwrite(str(root / "rgb" / f"{name}.png"), rgb)
    cv2.imwrite(str(root / "thermal" / f"{name}.png"), RNG.integers(0, 255, size, np.uint8))


def write_data(root: Path, pairs: int = 3) -> Path:
    (root / "labels").mkdir(parents=True)
    names = [f"scene{index}{'DN'[index % 2]}" for index in range(pairs)]
    for name in names:
        write_pair(root, name)
        label = np.repeat(np.repeat(RNG.integers(0, 9, (4, 6)), 16, 0), 16, 1)
        cv2.imwrite(str(root / "labels" / f"{name}.png"), label.astype(np.uint8))
    classes = list(MFNET.names)
    (root / "dataset.toml").write_text(
        f"name = 'drawn'\nclasses = {classes}\n[files]\nrgb = 'rgb/{{name}}.png'\n"
        f"thermal = 'thermal/{{name}}.png'\nlabel = 'labels/{{name}}.png'\n"
        f"[splits]\ntrain = 'names.txt'\nval = 'names.txt'\n"
        f"[subsets]\nday = 'D$'\nnight = 'N$'\n"
    )
    (root / "names.txt").write_text("\n".join(names) + "\n")
    return root


def test_predict_labels_a_folder_at_the_size_of_every_image(tmp_path: Path, model: str) -> None:
    write_pair(tmp_path / "in", "a", (64, 96))
    write_pair(tmp_path / "in", "night/b", (50, 71))
    out = tmp_path / "out"
    rgb, thermal = str(tmp_path / "in/rgb"), str(tmp_path / "in/thermal")
    args = ["predict", "--rgb", rgb, "--thermal", thermal, "--out", str(out), "--model", model]
    assert main(args) == 0
    assert read_label(out / "labels/a.png").shape == (64, 96)
    assert read_label(out / "labels/night/b.png").shape == (50, 71)
    assert (out / "overlays/night/b.jpg").stat().st_size > 0
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["pairs"]) == {"a", "night/b"}
    for pair in summary["pairs"].values():
        assert sum(pair["shares"].values()) == pytest.approx(1, abs=1e-4)
        assert 1 / 9 < pair["confidence"] <= 1


def test_predict_keeps_what_is_there_and_refuses_other_settings(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pair(tmp_path / "in", "a")
    write_pair(tmp_path / "in", "b")
    out = tmp_path / "out"
    args = ["predict", "--rgb", str(tmp_path / "in/rgb"), "--thermal", str(tmp_path / "in/thermal")]
    args += ["--out", str(out), "--model", model]
    assert main(args) == 0
    first = (out / "labels/a.png").stat().st_mtime_ns
    (out / "labels/b.png").unlink()
    assert main(args) == 0
    assert (out / "labels/a.png").stat().st_mtime_ns == first
    assert (out / "labels/b.png").exists()
    assert set(json.loads((out / "summary.json").read_text())["pairs"]) == {"a", "b"}
    assert main([*args, "--modality", "rgb"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*args, "--modality", "rgb", "--overwrite"]) == 0


def test_one_bad_pair_costs_that_pair_only(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c"):
        write_pair(tmp_path / "in", name)
    whole = (tmp_path / "in/rgb/b.png").read_bytes()
    (tmp_path / "in/rgb/b.png").write_bytes(whole[: len(whole) // 2])
    write_pair(tmp_path / "alone", "d")
    (tmp_path / "in/rgb/d.png").write_bytes((tmp_path / "alone/rgb/d.png").read_bytes())
    out = tmp_path / "out"
    args = ["predict", "--rgb", str(tmp_path / "in/rgb"), "--thermal", str(tmp_path / "in/thermal")]
    assert main([*args, "--out", str(out), "--model", model]) == 3
    assert sorted(path.stem for path in (out / "labels").glob("*.png")) == ["a", "c"]
    said = capsys.readouterr().err
    assert "b.png" in said
    assert "d.png" in said
    failures = json.loads((out / "summary.json").read_text())["failures"]
    assert len(failures) == 2


def _exits_2(args: list[str], capsys: pytest.CaptureFixture[str], *words: str) -> None:
    assert main(args) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    for word in words:
        assert word in said, said


def test_bad_images_exit_2_naming_the_file_and_the_remedy(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pair(tmp_path, "ok")
    write_pair(tmp_path / "other", "ok", (32, 32))
    rgb, thermal = str(tmp_path / "rgb/ok.png"), str(tmp_path / "thermal/ok.png")
    end = ["--out", str(tmp_path / "out"), "--model", model]
    _exits_2(["predict", "--rgb", str(tmp_path / "no.png"), *end], capsys, "no.png")
    _exits_2(["predict", *end], capsys, "--rgb", "--thermal")
    wrong = tmp_path / "text.png"
    wrong.write_text("hello")
    small = str(tmp_path / "other/thermal/ok.png")
    heat = np.arange(64 * 96, dtype=np.uint16).reshape(64, 96) * 7
    cv2.imwrite(str(tmp_path / "wide.png"), heat)
    colour = cv2.applyColorMap(cv2.imread(thermal, 0), cv2.COLORMAP_JET)
    cv2.imwrite(str(tmp_path / "jet.png"), colour)
    cut = tmp_path / "cut.png"
    cut.write_bytes(Path(rgb).read_bytes()[:2000])
    cases = [
        ([str(wrong), thermal], ["text.png"]),
        ([str(cut), thermal], ["cut.png"]),
        ([rgb, small], ["64x96", "32x32", "--resize-thermal", "data align"]),
        ([rgb, str(tmp_path / "jet.png")], ["jet.png", "colour"]),
        ([rgb, str(tmp_path / "wide.png"), "--thermal-range", "model"], ["uint16", "auto"]),
    ]
    for (first, second, *more), words in cases:
        _exits_2(["predict", "--rgb", first, "--thermal", second, *more, *end], capsys, *words)


def test_bad_options_exit_2(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(write_data(tmp_path / "data"))
    write_pair(tmp_path, "ok")
    rgb = str(tmp_path / "rgb/ok.png")
    run = str(tmp_path / "run")
    _exits_2(["predict", "--rgb", rgb, "--model", "minni"], capsys, "minni", "mini")
    _exits_2(["train", "mini", "--data", data, "--out", run, "--set", "optim.lrr=1"], capsys,
             "optim.lrr", "did you mean 'lr'")  # fmt: skip
    _exits_2(["train", "minni", "--data", data, "--out", run], capsys, "minni", "mini, ")
    _exits_2(["predict", "--rbg", rgb], capsys, "--rbg", "--rgb")
    _exits_2(["predict", "--rgb"], capsys, "--rgb", "argument")
    _exits_2(["bench", "--rounds", "some"], capsys, "--rounds", "integer")
    _exits_2(["predcit"], capsys, "predcit")
    _exits_2(
        ["evaluate", "--data", data, "--split", "test", "--model", model], capsys, "train, val"
    )
    _exits_2(["predict", "--rgb", rgb, "--device", "cuda:9", "--model", model], capsys, "cuda:9")
    (tmp_path / "data/names.txt").rename(tmp_path / "data/kept.txt")
    (tmp_path / "data/names.txt").write_text("")
    _exits_2(["evaluate", "--data", data, "--model", model], capsys, "names.txt", "empty")
    (tmp_path / "data/kept.txt").replace(tmp_path / "data/names.txt")
    label = cv2.imread(str(tmp_path / "data/labels/scene0D.png"), 0)
    label[0, :5] = 77
    cv2.imwrite(str(tmp_path / "data/labels/scene0D.png"), label)
    args = ["evaluate", "--data", data, "--model", model, "--out", str(tmp_path / "r")]
    _exits_2(args, capsys, "77", "scene0D.png")


def test_a_folder_that_cannot_be_written_exits_2(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pair(tmp_path, "ok")
    (tmp_path / "file").write_text("in the way")
    out = str(tmp_path / "file" / "out")
    _exits_2(["predict", "--rgb", str(tmp_path / "rgb/ok.png"), "--out", out, "--model", model],
             capsys, "file", "choose another place")  # fmt: skip


def test_evaluate_and_score_agree(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path / "data")
    out = tmp_path / "report"
    args = ["evaluate", "--data", str(data), "--model", model, "--out", str(out)]
    assert main(args) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["pairs"] == 3
    assert set(report["subsets"]) == {"day", "night"}
    assert {"mfnet-9", "present"} <= set(report["means"])
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    maps = tmp_path / "maps"
    assert main(["predict", "--rgb", str(data / "rgb"), "--thermal", str(data / "thermal"),
                 "--out", str(maps), "--model", model]) == 0  # fmt: skip
    args = ["score", "--predictions", str(maps), "--data", str(data), "--out", str(tmp_path / "s")]
    assert main(args) == 0
    scored = json.loads((tmp_path / "s/report.json").read_text())
    assert scored["confusion"] == report["confusion"]
    assert scored["means"] == report["means"]
    (maps / "labels/scene1N.png").unlink()
    _exits_2(args, capsys, "scene1N")


@pytest.mark.slow
def test_train_evaluate_predict_on_an_own_data_set(tmp_path: Path) -> None:
    data, run = str(write_data(tmp_path / "data", 4)), tmp_path / "run"
    toml, names = tmp_path / "data/dataset.toml", tmp_path / "data/names.txt"
    toml.write_text(toml.read_text().replace("val = 'names.txt'", "val = 'val.txt'"))
    *train, val = names.read_text().split()
    names.write_text("\n".join(train))
    (tmp_path / "data/val.txt").write_text(val)
    small = ["model.size=test", "model.width=32", "model.decoder.mlp_dim=64"]
    small += ["init=", "augmentation.crop=[64,96]"]
    args = ["train", "mini", "--data", data, "--out", str(run), "--max-steps", "3",
            "--batch-size", "2", "--workers", "0", "--precision", "fp32"]  # fmt: skip
    for setting in small:
        args += ["--set", setting]
    assert main([*args, "--device", "cpu"]) == 0
    config = json.loads((run / "config.json").read_text())
    assert (config["optim"]["batch_size"], config["workers"], config["precision"]) == (2, 0, "fp32")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "total" in line] == [1, 2, 3]
    assert main(["train", "mini", "--out", str(run), "--resume", "--max-steps", "4"]) == 0
    report = tmp_path / "report"
    assert main(["evaluate", "--data", data, "--split", "train", "--model", str(run / "best"),
                 "--out", str(report)]) == 0  # fmt: skip
    assert len(json.loads((report / "report.json").read_text())["contaminated"]) == 3


@pytest.mark.slow
def test_real_pairs_of_every_source_are_labelled(tmp_path: Path, model: str) -> None:
    if not (SHARED / "data").is_dir():
        pytest.skip("the real pairs are not beside this checkout")
    four = str(SHARED / "data/mfnet_raw")
    assert main(["predict", "--rgb", four, "--out", str(tmp_path / "m"), "--model", model]) == 0
    summary = json.loads((tmp_path / "m/summary.json").read_text())
    assert {pair["inputs"]["thermal"] for pair in summary["pairs"].values()} != {None}
    rgb, thermal = (
        str(SHARED / f"data/roadscene/{kind}/FLIR_000*.jpg") for kind in ("rgb", "thermal")
    )
    out = tmp_path / "r"
    assert main(["predict", "--rgb", rgb, "--thermal", thermal, "--out", str(out),
                 "--model", model, "--no-overlay"]) == 0  # fmt: skip
    assert len(list((out / "labels").glob("*.png"))) >= 3


def commands() -> dict[str, Callable[..., int]]:
    """`data check` and its like, with the functions behind them."""
    groups = {"": app} | {f"{group.name} ": group.typer_instance for group in app.registered_groups}
    return {
        prefix + (command.name or command.callback.__name__): command.callback
        for prefix, group in groups.items()
        for command in group.registered_commands
    }


@pytest.mark.slow
def test_help_of_every_command_loads_no_torch() -> None:
    code = (
        "import sys, sartm\n"
        "from sartm.cli.main import main\n"
        f"for name in {['', 'data', 'weights', *commands()]}:\n"
        "    assert main([*name.split(), '--help']) == 0, name\n"
        "assert 'torch' not in sys.modules and 'cv2' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: ") == 3 + len(commands())


def test_help_groups_options_and_cuts_no_sentence(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    def words(*command: str) -> str:
        assert main([*command, "--help"]) == 0
        return " ".join(capsys.readouterr().out.replace("│", " ").split())

    whole = words()
    for name, function in commands().items():
        if " " not in name:
            assert function.__doc__
            assert " ".join(function.__doc__.split("\n\n")[0].split()) in whole, name
    shown = words("predict")
    groups = ["Input", "Thermal", "Output", "Model", "Device and speed"]
    places = [shown.index(f"╭─ {group} ") for group in groups]
    assert places == sorted(places)
    assert places[1] < shown.index("--thermal-range") < places[2]
    assert places[2] < shown.index("--legend") < places[3]


def test_a_shell_completes_commands_and_options() -> None:
    code = "import sys; from sartm.cli.main import run; sys.argv = ['sartm']; run()"
    for typed, expected in (("sartm pre", "predict"), ("sartm predict --thermal-r", "-range")):
        env = dict(os.environ, _SARTM_COMPLETE="complete_bash", COMP_WORDS=typed,
                   COMP_CWORD=str(typed.count(" ")))  # fmt: skip
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
        assert expected in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("command", "option", "kind"),
    [
        *((name, "modality", Modality) for name in ("predict", "video", "export", "bench")),
        *((name, "precision", Precision) for name in ("predict", "train", "app", "bench")),
        ("predict", "four_channel", FourChannel),
        ("video", "one_file", Arrangement),
        ("video", "match", Match),
        ("export", "format", Format),
        ("bench", "runtime", Runtime),
        ("data convert", "to", Literal[(*get_args(Target), "coco", "yolo")]),
    ],
)
def test_a_choice_has_the_values_of_the_library(command: str, option: str, kind: Any) -> None:
    """The command line cannot import these types: they lie where torch or OpenCV are imported."""
    choices = get_type_hints(commands()[command])[option]
    assert choices in (kind, kind | None)
