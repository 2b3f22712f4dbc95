"""Pairs in a bucket, label maps into one: faults of the network are outlived, a missing object
costs its pair. The bucket is moto's S3 server on loopback."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.conftest import draw_pairs, maps_in
from fleet.test_labelling import reference
from sartm.cli.main import main
from sartm.data.manifest import write_manifest

s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'sartm[fleet]'")
pytest.importorskip("moto.server", reason="the S3 server of the tests, moto, is not installed")
pytestmark = pytest.mark.slow


class Faulty:
    """moto behind faults: the first requests of a key, as it is told."""

    def __init__(self, application):
        self.application = application
        self.busy: Counter[str] = Counter()
        """Part of a path -> how many more requests of it are answered 503."""
        self.cut: Counter[str] = Counter()
        """Likewise, how many are broken off in the middle of what they get."""
        self.asked: Counter[str] = Counter()

    def __call__(self, environ, start_response):
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        self.asked[f"{method} {path}"] += 1
        for part in self.busy:
            if part in path and self.busy[part] > 0:
                self.busy[part] -= 1
                start_response("503 Slow Down", [("Content-Length", "0")])
                return [b""]
        body = b"".join(self.application(environ, start_response))
        for part in self.cut:
            if part in path and method == "GET" and self.cut[part] > 0:
                self.cut[part] -= 1
                return self._break_off(body)
        return [body]

    def _break_off(self, body: bytes) -> Iterator[bytes]:
        yield body[: len(body) // 2]
        raise ConnectionError("broken off")


@pytest.fixture
def bucket(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """s3://pairs with the images of `place` below in/; their manifest lies here and there."""
    from moto.backends import get_backend
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    for region in get_backend("s3").values():  # it is one for all servers of a process
        for backend in region.values():
            backend.reset()
    faulty = Faulty(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, faulty, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr("sartm.io.remote.FIRST_PAUSE", 0.01)
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdir("pairs")
    system.put(str(place / "in"), "pairs/in", recursive=True)
    yield faulty
    s3fs.S3FileSystem.clear_instance_cache()
    server.shutdown()
    thread.join()
    server.server_close()


def command(tiny: str, *options: str) -> list[str]:
    files = ["--manifest", "s3://pairs/in/pairs.csv", "--out", "s3://pairs/out"]
    return ["predict", *files, "--model", tiny, *options]


def maps_in_bucket() -> dict[str, bytes]:
    system = s3fs.S3FileSystem(skip_instance_cache=True)
    names = system.find("pairs/out/labels")
    return {name.removeprefix("pairs/out/labels/")[:-4]: system.cat_file(name) for name in names}


def test_from_and_to_a_bucket_the_maps_are_the_same(bucket, place, tiny, capsys):
    assert main(command(tiny)) == 0
    assert maps_in_bucket() == reference(tiny)
    system = s3fs.S3FileSystem(skip_instance_cache=True)
    entries = json.loads(system.cat_file("pairs/out/summary.json"))["pairs"]
    assert entries["0000"]["inputs"]["rgb"] == "s3://pairs/in/rgb/0000.png"
    system.rm_file("pairs/out/labels/0004.png")
    capsys.readouterr()
    bucket.asked.clear()
    assert main(command(tiny)) == 0
    assert "1 label map in s3://pairs/out/labels, 6 were there" in capsys.readouterr().out
    assert [key for key in bucket.asked if key.startswith("GET /pairs/in/rgb")] == [
        "GET /pairs/in/rgb/0004.png"
    ]
    assert maps_in_bucket() == maps_in(place / "whole")


def test_busy_answers_and_cut_connections_are_outlived(bucket, tiny):
    bucket.busy.update({"in/rgb/0001": 2, "in/thermal/0003": 1, "out/labels/0000": 2})
    bucket.cut.update({"in/rgb/0004": 2, "in/thermal/0006": 1})
    assert main(command(tiny)) == 0
    assert maps_in_bucket() == reference(tiny)
    assert not any((+bucket.busy + +bucket.cut).values())  # all of them happened


def test_a_missing_object_costs_its_pair_only(bucket, place, tiny, capsys):
    s3fs.S3FileSystem(skip_instance_cache=True).rm_file("pairs/in/thermal/0003.png")
    assert main(command(tiny)) == 3
    assert "0003: s3://pairs/in/thermal/0003.png: nothing is there" in capsys.readouterr().err
    whole = reference(tiny)
    assert maps_in_bucket() == {name: data for name, data in whole.items() if name != "0003"}


def test_shards_go_into_a_bucket_and_merge_there(bucket, place, tiny, capsys):
    for number in (1, 2):
        sink = ["--sink", "tar", "--shard", f"{number}/2", "--no-overlay"]
        assert main(command(tiny, *sink)) == 0
    manifest = ["--manifest", "s3://pairs/in/pairs.csv"]
    assert main(["data", "merge", "s3://pairs/out", *manifest]) == 0
    assert "7 label maps in s3://pairs/out" in capsys.readouterr().out
    assert main(command(tiny, "--sink", "tar", "--no-overlay")) == 0
    assert "nothing to do, 7 label maps" in capsys.readouterr().out


def test_shards_that_are_overwritten_leave_the_bucket(bucket, tiny, capsys):
    sink = ["--sink", "tar", "--no-overlay"]
    assert main(command(tiny, *sink)) == 0
    assert list(maps_in_bucket()) == ["part-000000"]
    anew = [*sink, "--modality", "rgb"]
    assert main(command(tiny, *anew, "--overwrite")) == 0
    assert list(maps_in_bucket()) == ["part-000001"]
    capsys.readouterr()
    assert main(command(tiny, *anew)) == 0
    assert "nothing to do, 7 label maps" in capsys.readouterr().out


def test_what_is_scored_may_lie_in_a_bucket(bucket, place, tiny, capsys):
    assert main(command(tiny, "--no-overlay")) == 0
    assert main(["predict", "--manifest", "in/pairs.csv", "--model", tiny, "--no-overlay"]) == 0
    score = ["score", "--data", "mfnet", "--json", "-"]
    figures = []
    for top, out in (("s3://pairs/", "s3://pairs/out"), ("", "out")):
        capsys.readouterr()
        assert main([*score, "--manifest", f"{top}in/pairs.csv", "--predictions", out]) == 0
        figures.append(json.loads(capsys.readouterr().out)["confusion"])
    assert figures[0] == figures[1]


def test_no_such_bucket_or_protocol_is_told(bucket, tiny, capsys, place):
    assert main(["predict", "--manifest", "s3://nobody/p.csv", "--model", tiny]) == 2
    assert "s3://nobody/p.csv: nothing is there" in capsys.readouterr().err
    write_manifest(draw_pairs(place / "in", 1), place / "one.csv")
    (place / "one.csv").write_text("name,rgb\na,zip::s3://pairs/x.zip\nb,nonsense://x/y.png\n")
    assert main(["predict", "--manifest", "one.csv", "--model", tiny]) == 3
    told = capsys.readouterr().err
    assert "nonsense" in told
    assert "Traceback" not in told
