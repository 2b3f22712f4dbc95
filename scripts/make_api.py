"""Write docs/api.md from the code, so that signatures there are those that exist."""

import dataclasses
import importlib
import inspect
import sys
import typing
from pathlib import Path
from types import ModuleType

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"

MODULES = {
    "sartm.inference.predictor": "Label pairs",
    "sartm.inference.prediction": "What a label map comes with",
    "sartm.inference.clicks": "Clicks",
    "sartm.inference.trust": "Which camera to trust",
    "sartm.inference.alarm": "Cameras that are not in order",
    "sartm.inference.options": "Options of labelling",
    "sartm.inference.folders": "Label folders",
    "sartm.inference.products": "What is made of a pair",
    "sartm.fleet.labeller": "Label pairs by any engine",
    "sartm.fleet.labelling": "Label manifests",
    "sartm.fleet.evaluating": "Evaluate on manifests",
    "sartm.fleet.counting": "Score label maps of manifests",
    "sartm.data.manifest": "Manifests",
    "sartm.inference.video": "Label videos",
    "sartm.data.sets": "Data sets",
    "sartm.data.layouts": "Data sets on disk",
    "sartm.data.dataset_file": "dataset.toml",
    "sartm.data.pairs": "Pairs in memory",
    "sartm.data.finding": "Pairs of loose files",
    "sartm.io.sources": "What readers take",
    "sartm.io.decode": "Files to arrays",
    "sartm.io.thermal": "Raw thermal to [0, 1]",
    "sartm.io.labels": "Label maps in files",
    "sartm.io.cameras": "Thermal cameras",
    "sartm.io.flir": "FLIR files",
    "sartm.objects.measurement": "Objects",
    "sartm.io.holes": "Pixels without a measurement",
    "sartm.datatools.check": "What is wrong with a data set",
    "sartm.datatools.convert": "Layouts to layouts",
    "sartm.registration.estimate": "Registration",
    "sartm.registration.displacement": "Whether a pair is registered",
    "sartm.registration.calibration": "Calibrations",
    "sartm.scenes.dataset": "Drawn scenes",
    "sartm.classes": "Class tables",
    "sartm.config": "Settings of a model",
    "sartm.training.recipes": "Settings of a training",
    "sartm.training.loop": "Training",
    "sartm.evaluation.scoring": "Evaluation",
    "sartm.evaluation.modalities": "Does thermal pay",
    "sartm.evaluation.views": "Windows, sizes and mirror images",
    "sartm.evaluation.protocols": "Means by name",
    "sartm.evaluation.metrics": "Metrics",
    "sartm.evaluation.reliability": "Whether confidence comes true",
    "sartm.evaluation.calibration": "Fitting the confidence",
    "sartm.evaluation.clicks": "What clicks are worth",
    "sartm.training.clicks": "Learning clicks",
    "sartm.evaluation.robustness": "Robustness",
    "sartm.evaluation.conditions": "Bad conditions",
    "sartm.model.loading": "Models from anywhere",
    "sartm.model.facts": "What a model says about itself",
    "sartm.model.checkpoint": "Models on disk",
    "sartm.model.hub": "Models by name",
    "sartm.export": "ONNX and OpenVINO",
    "sartm.click_export": "Clicks as ONNX",
    "sartm.benchmark": "Speed and memory",
    "sartm.app.server": "Page and REST API",
    "sartm.demo": "The demo",
    "sartm.errors": "Errors",
}  # fmt: skip
INTRO = """# Python

The names of `import sartm` first, then every public function and class of the modules that people
use, with signature and purpose; the docstrings say more (`help(sartm.Predictor)`). Images are NumPy
arrays, sizes (height, width). What a user can put right is raised as `sartm.InputError`. Until 1.0
only the first list is promised to stay.

Written by `python scripts/make_api.py`.
"""


def public_names(module: ModuleType) -> list[str]:
    """Functions and classes that a module defines, in the order of its file."""
    if module.__name__ == "sartm":
        return [name for name in module.__all__ if not name.startswith("_")]
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    ]


def describe(name: str, value: typing.Any) -> str:
    """`name(parameters)` with the first line of the docstring."""
    purpose = (inspect.getdoc(value) or "").partition("\n")[0]
    if inspect.isclass(value) and issubclass(value, Exception):
        shown = name
    else:
        shown = f"{name}{_parameters(value)}"
    return f"* `{shown}`: {purpose}"


def _parameters(value: typing.Any) -> str:
    """The parameters' names, `*` before those by name alone and `=` behind what may be left out."""
    if dataclasses.is_dataclass(value):
        fields = [one for one in dataclasses.fields(value) if one.init]
        required = dataclasses.MISSING
        names = [
            one.name
            + ("" if one.default is required and one.default_factory is required else "=...")
            for one in fields
        ]
        return f"({', '.join(names)})"
    names, starred = [], False
    for one in inspect.signature(value).parameters.values():
        if one.kind is one.KEYWORD_ONLY and not starred:
            names.append("*")
            starred = True
        names.append(one.name + ("" if one.default is one.empty else "=..."))
    return f"({', '.join(names)})"


def write_page() -> str:
    """The whole page."""
    top = importlib.import_module("sartm")
    parts = [INTRO, "## `sartm`\n", *_rows(top), ""]
    for name, title in MODULES.items():
        module = importlib.import_module(name)
        parts += [f"## {title}: `{name}`\n", *_rows(module), ""]
    return "\n".join(parts).rstrip() + "\n"


def _rows(module: ModuleType) -> list[str]:
    return [describe(name, getattr(module, name)) for name in public_names(module)]


if __name__ == "__main__":
    PAGE.write_text(write_page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
