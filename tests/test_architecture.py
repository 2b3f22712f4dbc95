"""Who may import whom (docs/decisions/0001), and that light commands stay light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"

# From the ground up. A file imports only what stands on a line above its own: no circle can be.
FLOORS = """
terminal errors
progress
vocabulary
classes files
colours
outputs spaces
config
language
objects.parts
objects.measurement
objects.table
io.streams io.remote io.run_lengths
io.tiff
io.sources
io.header
io.decode
io.thermal io.labels io.holes io.opened io.flir
io.cameras io.places
io.degrees objects.places
registration.edge_fields
registration.calibration
registration.search
registration.estimate registration.offset registration.displacement
data.listing data.lists data.coverage data.names data.tables data.targets
data.shards
data.sets
data.dataset_file
data.layouts
data.matching
data.pairs data.finding data.gaps data.manifest
scenes.things
scenes.canvas
scenes.persons scenes.objects scenes.street scenes.light
scenes.vehicles scenes.surroundings scenes.sensors
scenes.bikes scenes.conditions
scenes.composition
scenes.dataset
model.lora model.hub model.tensors
model.hiera
model.lite
model.encoder model.facts
model.decoder model.words
model.fusion model.clicks
model.sartm
model.released
model.sources model.exported
model.filling model.card
model.prompts model.looking
model.click_graphs model.checkpoint
model.look_graph
model.loading
inference.ahead inference.devices inference.tiles inference.schedule inference.pictures
inference.stopping inference.overlays inference.confidence inference.clocks inference.alarm
inference.playback inference.samples
inference.trust inference.frames
inference.bags inference.live inference.sequences
inference.prediction
inference.predictor inference.streams inference.slow_levels
inference.clicks
inference.pipeline inference.film inference.objects
inference.record inference.watch
inference.options
inference.products
inference.folders inference.rig
inference.video
evaluation.protocols evaluation.reliability
evaluation.metrics
evaluation.modalities
evaluation.report.scores
evaluation.report.published
evaluation.report.tables
evaluation.report.rendering evaluation.report.texts
evaluation.report.charts evaluation.report.pictures
evaluation.report.page
evaluation.report.files evaluation.report.run evaluation.report.clicks
evaluation.views evaluation.conditions
evaluation.scoring
evaluation.robustness evaluation.calibration evaluation.clicks
fleet.store fleet.ray_engine
fleet.record fleet.labeller fleet.counting
fleet.sink fleet.evaluating
fleet.labelling
fleet.merging
training.settings training.losses training.runs training.mixture training.stopping
training.splits
training.photometry training.criterion training.recipes training.journal
training.augmentation training.optimizer training.checks
training.workers training.budget
training.clicking
training.teaching training.batches training.processes training.recompute training.wording
training.failures training.sharding
training.parts
training.start
training.validation training.clicks
training.loop
datatools.survey datatools.words
datatools.stats datatools.sheet datatools.writing datatools.legend
datatools.splitting datatools.thermal
datatools.init datatools.shapes datatools.listing datatools.sharding
datatools.annotations datatools.instances
datatools.tool_exports
datatools.importing
datatools.check datatools.convert datatools.align
graphs
export demo
click_export benchmark
app.problems app.fields app.connections app.reading
app.bodies app.decoding
app.worker
app.schema app.guard app.annotation app.metrics app.scenes
app.service app.encoding
app.pairs
app.routes app.values app.clicks app.examples
app.server
cli.printing
cli.options
cli.video
cli.predict cli.train cli.evaluate cli.bench cli.data cli.weights cli.serve
cli.main
__main__
"""
FLOOR = {
    f"sartm.{name}": number
    for number, line in enumerate(FLOORS.split("\n"))
    for name in line.split()
}
LIGHT = {"sartm", "sartm.errors", "sartm.config", "sartm.classes", "sartm.io",
         "sartm.registration", "sartm.objects", "sartm.data", "sartm.scenes", "sartm.datatools",
         "sartm.language", "sartm.evaluation.metrics", "sartm.cli"}  # fmt: skip
COMMAND_LINE = ("sartm.cli", "sartm.__main__")
FORBIDDEN = {"torchvision", "timm"}


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted((SOURCE / "sartm").rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def covers(prefix: str, name: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def floor(name: str) -> int:
    if FILES[name].name == "__init__.py":
        return 0  # says what the package is for, and lends `__version__`
    assert name in FLOOR, f"{name} has no floor: give it one here"
    return FLOOR[name]


def imports(name: str) -> Iterator[str]:
    """Modules that `name` imports anywhere in its file; `from a import b` counts as a.b if one."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                package = parts if FILES[name].name == "__init__.py" else parts[:-1]
                base = ".".join([*package[: len(package) + 1 - node.level], *base.split(".")])
            base = base.strip(".")
            for alias in node.names:
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in FILES else base


def borrowed_names(name: str) -> list[str]:
    """What `name` takes from the top package other than modules and the version."""
    return [
        alias.name
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.ImportFrom) and node.module == "sartm"
        for alias in node.names
        if alias.name != "__version__" and f"sartm.{alias.name}" not in FILES
    ]


@pytest.mark.parametrize("name", FILES)
def test_a_file_imports_only_from_floors_below(name):
    if name == "sartm":
        return  # lends names of every floor, on first use only: the subprocess test below
    upwards = [
        target for target in imports(name) if target in FILES and floor(target) >= floor(name) > 0
    ]
    assert not upwards
    assert not borrowed_names(name), "import from the module that defines it"


def test_packages_say_what_they_are_for_and_nothing_else():
    inits = [name for name, path in FILES.items() if path.name == "__init__.py" and name != "sartm"]
    assert [name for name in inits if len(TREES[name].body) > 1] == []


def test_floors_name_only_files_that_exist():
    assert set(FLOOR) <= set(FILES)


def test_data_knows_no_model_and_nobody_knows_the_command_line():
    for name in FILES:
        targets = set(imports(name))
        if covers("sartm.data", name):
            assert not [target for target in targets if covers("sartm.model", target)], name
        if not any(covers(home, name) for home in COMMAND_LINE):
            assert not [target for target in targets if covers("sartm.cli", target)], name


def test_only_language_knows_transformers_and_nobody_torchvision_or_timm():
    for name in FILES:
        packages = {target.split(".")[0] for target in imports(name)}
        assert not packages & FORBIDDEN, name
        assert name == "sartm.language" or "transformers" not in packages, name


def test_every_module_says_why_it_exists():
    assert not [name for name, tree in TREES.items() if not ast.get_docstring(tree)]


def test_light_modules_load_no_torch():
    light = [
        name
        for name in FILES
        if name == "sartm" or any(covers(prefix, name) for prefix in LIGHT - {"sartm"})
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {light!r}:\n"
        "    importlib.import_module(name)\n"
        "    assert not {'torch', 'transformers'} & set(sys.modules), name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_rules_above_see_what_they_forbid(monkeypatch):
    """Guards the guard: a planted import in each form is found."""
    path = SOURCE / "sartm" / "data" / "planted.py"
    forms = [
        ("from sartm import cli", "sartm.cli"),
        ("from sartm.cli.main import main", "sartm.cli.main"),
        ("import sartm.cli.main", "sartm.cli.main"),
        ("from .. import cli", "sartm.cli"),
        ("def use():\n    from ..cli import main", "sartm.cli.main"),
        ("from .layouts import Layout", "sartm.data.layouts"),
    ]
    monkeypatch.setitem(FILES, "sartm.data.planted", path)
    for code, target in forms:
        monkeypatch.setitem(TREES, "sartm.data.planted", ast.parse(code))
        assert set(imports("sartm.data.planted")) == {target}, code
    monkeypatch.setitem(
        TREES, "sartm.data.planted", ast.parse("from sartm import load, __version__")
    )
    assert borrowed_names("sartm.data.planted") == ["load"]
    assert floor("sartm.data.pairs") > floor("sartm.classes")
    monkeypatch.setitem(FILES, "sartm.unheard_of", SOURCE / "sartm" / "unheard_of.py")
    with pytest.raises(AssertionError, match="no floor"):
        floor("sartm.unheard_of")
