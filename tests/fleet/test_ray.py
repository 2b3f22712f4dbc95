"""A Ray cluster makes the same label maps as one process, and loses none when a node dies."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from fleet.conftest import draw_pairs, maps_in
from fleet.test_labelling import pairs_recorded, reference
from sartm.cli.main import main
from sartm.data.manifest import write_manifest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'sartm[fleet]'")
pytestmark = pytest.mark.slow


def command(tiny: str, address: str, *options: str) -> list[str]:
    files = ["--manifest", "in/pairs.csv", "--out", "out", "--model", tiny]
    return ["predict", *files, "--engine", "ray", "--address", address, *options]


def wait_for_lines(out: Path, count: int) -> None:
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        if len(pairs_recorded(out)) >= count:
            return
        time.sleep(0.05)
    raise AssertionError("nothing is labelled")


def test_a_node_that_dies_half_way_costs_nothing(cluster, place, tiny):
    write_manifest(draw_pairs(place / "in", 120), place / "in/pairs.csv")
    whole = reference(tiny)

    def kill() -> None:
        wait_for_lines(place / "out", 40)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    assert main(command(tiny, cluster.address)) == 0
    killer.join()
    until = time.monotonic() + 60
    while sum(node["Alive"] for node in ray.nodes()) > 2:  # the head and one, as soon as Ray knows
        assert time.monotonic() < until
        time.sleep(0.2)
    assert maps_in(place / "out") == whole
    assert max(Counter(pairs_recorded(place / "out")).values()) == 1


def test_after_a_killed_driver_the_rest_alone_is_made(cluster, place, tiny, capsys):
    write_manifest(draw_pairs(place / "in", 120), place / "in/pairs.csv")
    run = [sys.executable, "-m", "sartm", *command(tiny, cluster.address)]
    driver = subprocess.Popen(run, stderr=subprocess.DEVNULL)
    wait_for_lines(place / "out", 30)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    there = maps_in(place / "out")
    assert 20 < len(there) < 120
    assert main(command(tiny, cluster.address, "--json", "-")) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == len(there)
    assert maps_in(place / "out") == reference(tiny)
    assert max(Counter(pairs_recorded(place / "out")).values()) <= 2  # a line without its map


def test_on_this_machine_it_needs_no_cluster_and_a_bad_pair_costs_itself(place, tiny, capsys):
    (place / "in/rgb/0001.png").write_bytes(b"no image")
    try:
        assert main(command(tiny, "", "--workers", "1", "--sink", "tar")) == 3
    finally:
        ray.shutdown()
    assert "0001.png: not an image" in capsys.readouterr().err
    assert sorted(pairs_recorded(place / "out")) == sorted(maps_in_tar(place / "out"))
    assert len(maps_in_tar(place / "out")) == 6


def maps_in_tar(out: Path) -> list[str]:
    import tarfile

    names = []
    for part in (out / "labels").glob("*.tar"):
        with tarfile.open(part) as tar:
            names += [name[:-4] for name in tar.getnames() if name.endswith(".png")]
    return names


def test_an_address_where_nobody_answers_is_told(place, tiny, capsys):
    assert main(command(tiny, "127.0.0.1:1")) == 2
    assert "no Ray cluster at 127.0.0.1:1" in capsys.readouterr().err
