"""Who may import whom (docs/decisions/0001), and that light commands stay light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"

# A name covers its sub-modules unless they have a line of their own.
LEVELS = {
    "sartm": 0,  # for __version__; the names it lends are checked below
    "sartm.errors": 0, "sartm.config": 0, "sartm.classes": 0, "sartm.progress": 0,
    "sartm.io": 1, "sartm.registration": 1, "sartm.data": 1, "sartm.scenes": 1,
    "sartm.model": 1, "sartm.language": 1, "sartm.evaluation.metrics": 1, "sartm.evaluation": 1,
    "sartm.datatools": 2, "sartm.evaluation.report": 2, "sartm.inference.tiles": 2,
    "sartm.inference": 2, "sartm.training": 2, "sartm.inference.frames": 2,
    "sartm.inference.predictor": 3, "sartm.evaluation.scoring": 3,
    "sartm.evaluation.robustness": 3, "sartm.evaluation.views": 3, "sartm.training.loop": 3,
    "sartm.demo": 4, "sartm.export": 4, "sartm.benchmark": 4, "sartm.app": 4,
    "sartm.inference.video": 4,
    "sartm.cli": 5, "sartm.__main__": 6,
}  # fmt: skip
LIGHT = {"sartm", "sartm.errors", "sartm.config", "sartm.classes", "sartm.io",
         "sartm.registration", "sartm.data", "sartm.scenes", "sartm.datatools", "sartm.language",
         "sartm.evaluation.metrics", "sartm.cli"}  # fmt: skip
COMMAND_LINE = ("sartm.cli", "sartm.__main__")
FORBIDDEN = {"torchvision", "timm"}


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted((SOURCE / "sartm").rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def covers(prefix: str, name: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def level(name: str) -> int:
    homes = [home for home in LEVELS if home == name or (home != "sartm" and covers(home, name))]
    assert homes, f"{name} has no level: give it one in docs/decisions/0001 and here"
    return LEVELS[max(homes, key=len)]


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
def test_a_module_imports_only_from_its_level_or_below(name):
    if name == "sartm":
        return  # lends names of every level, on first use only: the subprocess test below
    upwards = [
        target
        for target in imports(name)
        if covers("sartm", target) and level(target) > level(name)
    ]
    assert not upwards
    assert not borrowed_names(name), "import from the module that defines it"


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
    assert level("sartm.classes") == 0
    assert level("sartm.data.pairs") == 1
    with pytest.raises(AssertionError, match="no level"):
        level("sartm.unheard_of")
