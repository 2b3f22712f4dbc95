"""What users of the field reported stays right: a line of cases.toml each, with its own file."""

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from draw_files import FILES, image_files

from sartm.cli.main import main
from sartm.data.pairs import PairDataset
from sartm.errors import InputError
from sartm.io.decode import read_four_channel, read_rgb, read_thermal
from sartm.io.flir import read_radiometric
from sartm.io.labels import read_label

CASES = tomllib.loads(Path(__file__).with_name("cases.toml").read_text("utf-8"))["case"]


def read_four(path: Path) -> np.ndarray:
    return np.dstack(read_four_channel(path))


def read_first_pair(path: Path) -> Any:
    return PairDataset.open(path, "train")[0]


READERS = {
    "rgb": read_rgb, "thermal": read_thermal, "label": read_label, "four": read_four,
    "celsius": read_radiometric, "pair": read_first_pair,
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['file']}-{case['read']}")
def test_a_reported_file_is_read_as_it_is_meant(
    case: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path, report = FILES / case["file"], case.get("report", "")
    if case["read"] == "check":
        main(["data", "check", str(path)])
        said = "".join(capsys.readouterr())
        assert re.search(case["says"], said), report
        assert "Traceback" not in said
        return
    read = READERS[case["read"]]
    if "refused" in case:
        with pytest.raises(InputError, match=case["refused"]) as refusal:
            read(path)
        assert case["read"] == "pair" or case["file"] in str(refusal.value)
        return
    found = read(path)
    if "value" in case:
        wanted = np.array(case["value"])
        assert found.shape == wanted.shape, report
        assert np.allclose(found, wanted, rtol=1e-6, atol=case.get("within", 0)), report
        return
    assert list(found.shape) == case["shape"], report
    for place, value in case["at"].items():
        row, column = map(int, place.split(","))
        assert np.abs(found[row, column] - np.array(value)).max() <= case["within"], report


def test_every_file_has_a_case_and_what_is_drawn_is_what_is_stored() -> None:
    assert {case["file"] for case in CASES} == {path.name for path in FILES.iterdir()}
    for name, data in image_files().items():
        if name.endswith((".npy", ".ppm", ".bmp")) or name.startswith(("cut", "bomb", "lfs")):
            assert (FILES / name).read_bytes() == data  # others depend on versions of libraries
