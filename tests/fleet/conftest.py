"""What the tests of manifests share: drawn pairs and a small model."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import TINY, build

from sartm.data.manifest import Row, write_manifest
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts


def draw_pairs(root: Path, count: int, size: tuple[int, int] = (64, 96)) -> list[Row]:
    """Rows, in order, of drawn pairs with labels; every third lies in a folder of its own."""
    rows = []
    for index in range(count):
        draw = np.random.default_rng(index)
        name = f"{'sub/' * (index % 3 == 2)}{index:04d}"
        label = draw.integers(0, 9, (8, 12), np.uint8).repeat(8, 0).repeat(8, 1)
        images = {
            "rgb": draw.integers(0, 255, (*size, 3), np.uint8),
            "thermal": draw.integers(0, 255, size, np.uint8),
            "label": label,
        }
        for kind, image in images.items():
            file = root / kind / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(cv2.imencode(".png", image)[1])
        rows.append(Row(name, *(f"{kind}/{name}.png" for kind in ("rgb", "thermal", "label"))))
    return rows


def describe_set(root: Path, names: tuple[str, ...], more: str = "") -> None:
    """Write a dataset.toml for what `draw_pairs` drew, and make of thermal what it says: half the
    size, warm is dark, and 0 where nothing was measured."""
    for file in (root / "thermal").rglob("*.png"):
        image = 255 - cv2.imread(str(file), cv2.IMREAD_UNCHANGED)[::2, ::2]
        image[:5] = 0
        cv2.imwrite(str(file), image)
    files = "".join(f'{kind} = "{kind}/{{name}}.png"\n' for kind in ("rgb", "thermal", "label"))
    (root / "dataset.toml").write_text(
        f'name = "drawn"\nclasses = {list(names)}\n{more}[files]\n{files}[splits]\nval = "*"\n'
        "[thermal]\nblack_hot = true\nholes = 0\nresize = true\n"
    )


def maps_in(out: Path) -> dict[str, bytes]:
    """Label maps of an output folder, by name."""
    labels = out / "labels"
    return {
        file.relative_to(labels).with_suffix("").as_posix(): file.read_bytes()
        for file in sorted(labels.rglob("*.png"))
    }


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a small model."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save(build(TINY), folder, ModelFacts("tiny"))
    return str(folder)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: seven pairs below `in`, and a manifest of them, in/pairs.csv."""
    monkeypatch.chdir(tmp_path)
    write_manifest(draw_pairs(tmp_path / "in", 7), tmp_path / "in/pairs.csv")
    return tmp_path


@pytest.fixture
def cluster():
    """A Ray cluster of two nodes of one core each, which a test may kill, beside a head without
    any. Of each test anew: a process that comes back to a cluster is at times taken for dead."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'sartm[fleet]'")
    from ray.cluster_utils import Cluster

    soon = {"health_check_period_ms": 1000, "health_check_failure_threshold": 8}
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": soon})
    for _ in range(2):
        found.add_node(num_cpus=1)
    yield found
    ray.shutdown()
    found.shutdown()
