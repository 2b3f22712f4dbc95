"""FLIR's SEQ and CSQ: films drawn here, counts and degrees, times, and files that lie."""

import json

import numpy as np
import pytest
from conftest import TINY, build
from draw_flir import counts_of, field, file_of_records
from test_video import rgb_frame, write_video

from sartm.errors import InputError
from sartm.inference.options import VideoOptions
from sartm.inference.predictor import Predictor
from sartm.inference.streams import open_stream
from sartm.inference.video import predict_video
from sartm.io.cameras import Camera
from sartm.objects.measurement import Measuring

pytest.importorskip("av", reason="the extra `video` is not installed")

BEGIN = 1_780_000_000.25


def sequence(path, kind="plain", frames=5, moments=True):
    """Frames a tenth of a second apart, a degree warmer each."""
    parts = [
        file_of_records(
            counts_of(field() + index), kind, moment=BEGIN + index / 10 if moments else None
        )
        for index in range(frames)
    ]
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize(("kind", "name"), [("plain", "a.seq"), ("jpeg-ls", "a.csq"),
                                            ("png little", "a.SEQ")])  # fmt: skip
def test_frames_come_with_counts_or_degrees_and_their_times(kind, name, tmp_path):
    path = sequence(tmp_path / name, kind)
    counts = [frame.load().thermal for frame in open_stream(path, "thermal").frames]
    for index, image in enumerate(counts):
        assert image.dtype == np.uint16
        assert np.array_equal(image, counts_of(field() + index))
    stream = open_stream(path, "thermal", camera=Camera(radiometric=True))
    assert stream.count == 5
    assert float(stream.rate) == pytest.approx(10, abs=0.01)
    assert stream.begin == pytest.approx(BEGIN, abs=0.001)
    for index, frame in enumerate(stream.frames):
        assert frame.time == pytest.approx(index / 10, abs=0.002)
        assert np.abs(frame.load().thermal - field() - index).max() < 0.05


def test_a_sequence_without_times_has_its_usual_rate(tmp_path):
    stream = open_stream(sequence(tmp_path / "a.seq", moments=False), "thermal")
    assert [frame.time for frame in stream.frames] == pytest.approx(np.arange(5) / 30, abs=1e-6)
    assert stream.begin is None


def test_a_camera_whose_clock_was_never_set_keeps_its_pace(tmp_path):
    """Beside a source of today; --offset brings its times there."""
    stream = open_stream(sequence(tmp_path / "a.seq"), "thermal", begin=BEGIN + 1.2e9)
    times = [frame.time for frame in stream.frames]
    assert np.diff(times) == pytest.approx(np.full(4, 0.1), abs=0.002)


def test_a_sequence_beside_a_visible_film_gives_objects_in_degrees(tmp_path):
    rgb = write_video(tmp_path / "rgb.mkv", [rgb_frame(index) for index in range(5)], rate=10)
    path = sequence(tmp_path / "t.csq", "jpeg-ls")
    predictor = Predictor(build(TINY), device="cpu", precision="fp32")
    options = VideoOptions(camera=Camera(radiometric=True), objects=Measuring(min_area=4))
    outcome = predict_video(predictor, rgb, path, tmp_path / "a.webm", model="m", options=options)
    assert outcome.frames == 5
    lines = [json.loads(line) for line in (tmp_path / "a-objects.jsonl").read_text().splitlines()]
    assert lines
    assert all(5 < line["celsius_mean"] < 52 for line in lines)


def test_what_lies_or_is_cut_off_costs_its_frame_alone(tmp_path):
    data = sequence(tmp_path / "a.csq", "jpeg-ls").read_bytes()
    place = data.index(b"\xff\xd8\xff\xf7", len(data) // 2)
    lied = bytearray(data)
    lied[place + 7 : place + 11] = b"\xff\xff\xff\xff"
    (tmp_path / "lied.csq").write_bytes(lied)
    (tmp_path / "cut.csq").write_bytes(data[:-900])
    for name in ("lied.csq", "cut.csq"):
        frames = list(open_stream(tmp_path / name, "thermal").frames)
        said = [_refusal(frame) for frame in frames]
        assert sum(map(bool, said)) == 1
        assert all(name in words for words in said if words)


def _refusal(frame):
    """What is said of a frame; "" where it can be read."""
    try:
        frame.load()
    except InputError as error:
        return str(error)
    return ""


def test_what_is_no_sequence_is_said(tmp_path):
    path = sequence(tmp_path / "a.seq")
    with pytest.raises(InputError, match="--thermal"):
        open_stream(path, "rgb")
    (tmp_path / "b.seq").write_bytes(b"FFF\0" + bytes(500))
    with pytest.raises(InputError, match="not a FLIR sequence"):
        open_stream(tmp_path / "b.seq", "thermal")
    (tmp_path / "c.seq").write_bytes(b"")
    with pytest.raises(InputError):
        open_stream(tmp_path / "c.seq", "thermal")
