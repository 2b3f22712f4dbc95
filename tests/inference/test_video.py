"""Labelled video: partners, formats, memory, interruption, and a browser that plays the result."""

import json
import threading
import tracemalloc
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from browser import CHROMIUM, DRIVER, Browser
from conftest import TINY, build

from sartm.cli.main import main
from sartm.config import ThermalRule
from sartm.errors import InputError
from sartm.inference.film import choose_encoder
from sartm.inference.folders import label_folder
from sartm.inference.frames import Frame, Stream, Unpaired, pair_frames
from sartm.inference.options import PredictOptions
from sartm.inference.predictor import Predictor
from sartm.inference.streams import is_video, open_stream
from sartm.inference.video import Smoother, VideoOptions, predict_video
from sartm.io.cameras import Camera
from sartm.io.labels import read_label
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts

av = pytest.importorskip("av", reason="the extra `video` is not installed")

HEIGHT, WIDTH = 48, 64


@pytest.fixture(scope="module")
def predictor():
    return Predictor(build(TINY), device="cpu", precision="fp32")


def rgb_frame(index, height=HEIGHT, width=WIDTH):
    """A box that moves over a gradient."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 200, width, dtype=np.uint8)
    left = 2 * index % (width - 12)
    image[height // 3 : height // 2, left : left + 12] = (30, 220, 90)
    return image


def thermal_frame(index, height=HEIGHT, width=WIDTH):
    """The same box, warm on cold."""
    image = np.full((height, width), 40, np.uint8)
    left = 2 * index % (width - 12)
    image[height // 3 : height // 2, left : left + 12] = 210
    return image


def write_video(path, frames, codec="ffv1", pixels="", rate=25, times=None):
    """Frames (H, W, 3), (H, W, 4) or grey (H, W) of 8 or 16 bits to a file."""
    first = frames[0]
    kind = {(2, 1): "gray", (2, 2): "gray16le", (3, 1): "rgb24"}[first.ndim, first.itemsize]
    kind = "rgba" if first.ndim == 3 and first.shape[2] == 4 else kind
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = pixels or {"gray": "gray", "gray16le": "gray16le"}.get(kind, "bgra")
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=kind)
            moment = index / rate if times is None else times[index]
            frame.pts, frame.time_base = round(1000 * moment), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_video(path):
    """(times, frames (H, W, 3)) of a result."""
    with av.open(str(path)) as container:
        pictures = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode()]
    return [time for time, _ in pictures], [picture for _, picture in pictures]


@pytest.fixture
def videos(tmp_path):
    """Twelve frames of both, without loss."""
    write_video(tmp_path / "rgb.mkv", [rgb_frame(i) for i in range(12)])
    write_video(tmp_path / "thermal.mkv", [thermal_frame(i) for i in range(12)])
    return tmp_path / "rgb.mkv", tmp_path / "thermal.mkv"


def label_of(path):
    return read_label(path)


@pytest.mark.parametrize("suffix", [".webm", ".mp4"])
def test_label_maps_are_those_of_the_single_pairs_and_the_video_shows_both_inputs(
    suffix, predictor, videos, tmp_path
):
    out = tmp_path / f"out{suffix}"
    options = VideoOptions(labels=True, smooth=0)
    outcome = predict_video(predictor, *videos, out, model="tiny", options=options)
    assert outcome.frames == 12
    assert not outcome.unpaired
    for index in range(12):
        expected = predictor(rgb_frame(index), thermal_frame(index)).labels
        found = label_of(tmp_path / "out-labels" / f"{index:06d}.png")
        assert np.array_equal(found, expected)
    times, pictures = read_video(out)
    assert np.allclose(times, np.arange(12) / 25, atol=0.002)
    assert pictures[0].shape == (HEIGHT, 3 * WIDTH, 3)
    panels = np.split(pictures[5].astype(int), 3, axis=1)
    assert np.abs(panels[0] - rgb_frame(5)).mean() < 12
    assert np.abs(panels[1] - thermal_frame(5)[..., None]).mean() < 12
    overlay = predictor(rgb_frame(5), thermal_frame(5)).overlay()
    assert np.abs(panels[2] - overlay).mean() < 15
    summary = json.loads((tmp_path / "out.json").read_text())
    assert summary["frames"] == 12
    assert summary["interrupted"] is False
    assert sum(summary["shares"].values()) == pytest.approx(1, abs=1e-4)


def test_a_folder_as_output_gets_the_names_of_predict(predictor, videos, tmp_path):
    out = tmp_path / "out"
    options = VideoOptions(labels=True, limit=2)
    assert predict_video(predictor, *videos, out, model="m", options=options).frames == 2
    assert sorted(path.name for path in out.iterdir()) == ["labels", "rgb.webm", "summary.json"]
    with pytest.raises(InputError, match="--overwrite"):
        predict_video(predictor, *videos, out, model="m", options=options)
    assert predict_video(predictor, *videos, out, model="m", overwrite=True).frames == 12


def test_every_third_frame_keeps_its_time(predictor, videos, tmp_path):
    options = VideoOptions(every=3, labels=True)
    predict_video(predictor, *videos, tmp_path / "a.webm", model="m", options=options)
    times, _ = read_video(tmp_path / "a.webm")
    assert np.allclose(times, [0, 0.12, 0.24, 0.36], atol=0.002)
    names = sorted(path.stem for path in (tmp_path / "a-labels").iterdir())
    assert names == ["000000", "000003", "000006", "000009"]


def stream(times, rate):
    frames = (Frame(i, t, lambda: (None, None)) for i, t in enumerate(times))
    return Stream("drawn", frames, Fraction(rate))


def partners(rgb, thermal, rates, **options):
    unpaired = Unpaired()
    paired = pair_frames(stream(rgb, rates[0]), stream(thermal, rates[1]), unpaired, **options)
    return [(a.time, None if b is None else b.time) for a, b in paired], unpaired


def test_partners_are_the_nearest_in_time():
    rgb = [i / 30 for i in range(30)]
    thermal = [i / 9 for i in range(9)]
    found, unpaired = partners(rgb, thermal, (30, 9))
    for moment, partner in found[:27]:
        assert partner == min(thermal, key=lambda t: abs(t - moment))
    assert not unpaired.counts["thermal"]


def test_the_window_agrees_with_looking_at_everything():
    draw = np.random.default_rng(3)
    for _ in range(200):
        rgb, thermal = (np.sort(draw.uniform(0, 2, draw.integers(1, 15))) for _ in range(2))
        tolerance, offset = float(draw.uniform(0.01, 0.3)), float(draw.uniform(-0.5, 0.5))
        found, unpaired = partners(
            rgb, thermal, (10, 10), match="time", tolerance=tolerance, offset=offset
        )
        gaps = np.abs(thermal + offset - rgb[:, None])
        for (_, partner), row in zip(found, gaps, strict=True):
            assert (partner is None) == (row.min() > tolerance)
            if partner is not None:
                assert abs(row.min() - row[thermal == partner][0]) < 1e-12
        assert unpaired.counts["rgb"] == (gaps.min(1) > tolerance).sum()
        assert unpaired.counts["thermal"] == (gaps.min(0) > tolerance).sum()


def test_frames_without_a_partner_are_reported_with_their_times(predictor, tmp_path):
    rgb = write_video(tmp_path / "rgb.mkv", [rgb_frame(i) for i in range(10)], rate=10)
    times = [0.0, 0.1, 0.2, 0.6, 0.7, 0.8, 0.9, 1.4]  # three are missing, one is too late
    thermal = write_video(
        tmp_path / "t.mkv", [thermal_frame(i) for i in range(8)], rate=10, times=times
    )
    options = VideoOptions(tolerance=0.04)
    outcome = predict_video(
        predictor, rgb, thermal, tmp_path / "a.webm", model="m", options=options
    )
    assert outcome.frames == 7
    assert outcome.unpaired.times == {"rgb": [0.3, 0.4, 0.5], "thermal": [1.4]}
    assert json.loads(outcome.summary.read_text())["unpaired"]["counts"] == {
        "rgb": 3, "thermal": 1,
    }  # fmt: skip
    alone = replace(options, allow_single=True)
    outcome = predict_video(predictor, rgb, thermal, tmp_path / "b.webm", model="m", options=alone)
    assert outcome.frames == 10
    by_index = VideoOptions(match="index")
    outcome = predict_video(
        predictor, rgb, thermal, tmp_path / "c.webm", model="m", options=by_index
    )
    assert outcome.frames == 8
    assert outcome.unpaired.counts == {"rgb": 2, "thermal": 0}
    with pytest.raises(InputError, match="--offset"):
        predict_video(
            predictor, rgb, thermal, tmp_path / "d.webm", model="m",
            options=VideoOptions(offset=100),
        )  # fmt: skip


def images_of(source, role, **options):
    opened = open_stream(source, role, **options)
    loaded = [frame.load() for frame in opened.frames]
    found = [(images.rgb, images.thermal) for images in loaded]
    opened.frames.close()
    return found


@pytest.mark.parametrize(("codec", "pixels"), [("ffv1", "gray"), ("libx264", "yuv420p")])
def test_thermal_video_gives_grey_at_full_range(codec, pixels, tmp_path):
    ramp = np.tile(np.arange(256, dtype=np.uint8), (64, 1))
    path = write_video(tmp_path / "t.mkv", [ramp] * 3, codec, pixels)
    (_, thermal), *_ = images_of(path, "thermal")
    assert thermal.dtype == np.uint8
    assert np.abs(thermal.astype(int) - ramp).max() <= (0 if codec == "ffv1" else 6)
    turned = images_of(path, "thermal", camera=Camera(black_hot=True))[0][1]
    assert np.array_equal(turned, 255 - thermal)


def test_16_bit_video_keeps_its_counts_to_the_label(tmp_path):
    counts = [30000 + 7 * thermal_frame(i).astype(np.uint16) for i in range(3)]
    path = write_video(tmp_path / "t.mkv", counts)
    assert np.array_equal(images_of(path, "thermal")[2][1], counts[2])
    rule = ThermalRule("range", 30000.0, 32000.0)
    fine = Predictor(build(replace(TINY, thermal=rule)), device="cpu", precision="fp32")
    options = VideoOptions(labels=True, smooth=0)
    predict_video(fine, None, path, tmp_path / "a.webm", model="m", options=options)
    found = label_of(tmp_path / "a-labels" / "000002.png")
    assert np.array_equal(found, fine(None, counts[2]).labels)


def test_holes_of_a_film_are_filled_and_known(tmp_path):
    counts = 30000 + 7 * thermal_frame(0).astype(np.uint16)
    counts[:, :20] = 0
    opened = open_stream(
        write_video(tmp_path / "t.mkv", [counts]), "thermal", camera=Camera(holes=0)
    )
    images = next(iter(opened.frames)).load()
    opened.frames.close()
    assert np.array_equal(images.unseen, counts == 0)
    assert images.thermal.min() > 30000


def test_a_film_that_is_turned_by_a_quarter_is_not_squeezed(predictor, videos, tmp_path):
    lying = [np.ascontiguousarray(thermal_frame(i).T) for i in range(12)]
    turned = write_video(tmp_path / "s.mkv", lying)
    with pytest.raises(InputError, match="turned by a quarter"):
        predict_video(
            predictor, videos[0], turned, tmp_path / "a.webm", model="m",
            options=VideoOptions(resize_thermal=True),
        )  # fmt: skip


def test_one_video_can_hold_both(tmp_path):
    rgb, thermal = rgb_frame(3), thermal_frame(3)
    grey = np.repeat(thermal[..., None], 3, axis=2)
    for name, parts, axis in (
        ("left-right", (rgb, grey), 1), ("right-left", (grey, rgb), 1),
        ("top-bottom", (rgb, grey), 0), ("bottom-top", (grey, rgb), 0),
    ):  # fmt: skip
        path = write_video(tmp_path / f"{name}.mkv", [np.concatenate(parts, axis)])
        found = images_of(path, name)[0]
        assert np.array_equal(found[0], rgb)
        assert np.array_equal(found[1], thermal)
    path = write_video(tmp_path / "four.mkv", [np.dstack([rgb, thermal])])
    found = images_of(path, "four-channel")[0]
    assert np.array_equal(found[0], rgb)
    assert np.array_equal(found[1], thermal)


def test_false_colour_and_exchanged_videos_are_refused(predictor, tmp_path):
    path = write_video(tmp_path / "a.mkv", [rgb_frame(i) for i in range(3)])
    lossy = write_video(tmp_path / "a.mp4", [rgb_frame(i) for i in range(3)], "libx264", "yuv420p")
    for source in (path, lossy):
        with pytest.raises(InputError, match="false colour"):
            predict_video(predictor, None, source, tmp_path / "o.webm", model="m")
    with pytest.raises(InputError, match="4th channel"):
        images_of(lossy, "four-channel")


def test_different_sizes_name_the_remedy_and_are_fitted_on_request(predictor, videos, tmp_path):
    small = write_video(tmp_path / "s.mkv", [thermal_frame(i, 24, 32) for i in range(12)])
    with pytest.raises(InputError, match="--resize-thermal"):
        predict_video(predictor, videos[0], small, tmp_path / "a.webm", model="m")
    options = VideoOptions(resize_thermal=True)
    outcome = predict_video(
        predictor, videos[0], small, tmp_path / "a.webm", model="m", options=options
    )
    assert outcome.frames == 12


def test_folders_of_frames_are_paired_by_name(predictor, tmp_path):
    for index in range(8, 12):  # 9 comes before 10
        for kind, image in (("rgb", rgb_frame(index)), ("thermal", thermal_frame(index))):
            (tmp_path / kind).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / kind / f"f{index}.png"), image[..., ::-1] if image.ndim > 2
                        else image)  # fmt: skip
    (tmp_path / "thermal" / "f10.png").unlink()
    options = VideoOptions(labels=True, rate=5, smooth=0)
    outcome = predict_video(
        predictor, tmp_path / "rgb", tmp_path / "thermal", tmp_path / "a.webm", model="m",
        options=options,
    )  # fmt: skip
    assert outcome.frames == 3
    assert outcome.unpaired.counts["rgb"] == 1
    assert outcome.unpaired.files == [str(tmp_path / "rgb" / "f10.png")]
    times, _ = read_video(outcome.video)
    assert np.allclose(times, [0, 0.2, 0.4], atol=0.002)
    expected = predictor(rgb_frame(9), thermal_frame(9)).labels
    assert np.array_equal(label_of(tmp_path / "a-labels" / "f9.png"), expected)


def draw_folder_of_both(root, toml=""):
    """Three pairs with thermal of half the size, a corner of which was not measured."""
    for index in range(3):
        half = np.ascontiguousarray(thermal_frame(index)[::2, ::2])
        half[:4] = 0
        for kind, image in (("rgb", rgb_frame(index)[..., ::-1]), ("thermal", half)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / kind / f"f{index}.png"), image)
    if toml:
        (root / "dataset.toml").write_text(
            'name = "s"\nclasses = ["a", "b"]\n[files]\nrgb = "rgb/{name}.png"\n'
            f'thermal = "thermal/{{name}}.png"\n[splits]\nall = "f*"\n[thermal]\n{toml}'
        )
    return root


@pytest.mark.parametrize("again", [False, True])
def test_a_data_set_is_a_film_as_its_toml_says(again, predictor, tmp_path):
    root = draw_folder_of_both(tmp_path / "set", "resize = true\nholes = 0\nblack_hot = true\n")
    thermal = root if again else None  # named once or twice
    options = VideoOptions(labels=True, smooth=0, camera=Camera(repair=True))
    outcome = predict_video(
        predictor, root, thermal, tmp_path / "a.webm", model="m", options=options
    )
    assert outcome.frames == 3
    same = PredictOptions(camera=Camera(repair=True), overlay=False)
    label_folder(predictor, root, thermal, tmp_path / "out", model="m", options=same)
    for index in range(3):
        pair = (tmp_path / f"a-labels/f{index}.png", tmp_path / f"out/labels/f{index}.png")
        assert np.array_equal(*map(label_of, pair))
    settings = json.loads(outcome.summary.read_text())["settings"]
    assert settings["camera"] == {
        "radiometric": False, "black_hot": True, "repair": True, "holes": 0,
    }  # fmt: skip
    assert settings["resize_thermal"]


def test_a_folder_of_both_is_a_film_of_its_pairs(predictor, tmp_path):
    root = draw_folder_of_both(tmp_path / "both")
    (root / "rgb/f1.png").unlink()
    options = VideoOptions(labels=True, smooth=0, resize_thermal=True)
    outcome = predict_video(predictor, root, None, tmp_path / "a.webm", model="m", options=options)
    assert outcome.frames == 2
    assert outcome.unpaired.counts == {"rgb": 0, "thermal": 1}
    assert outcome.unpaired.files == [str(root / "thermal/f1.png")]
    alone = replace(options, allow_single=True)
    outcome = predict_video(predictor, root, None, tmp_path / "b.webm", model="m", options=alone)
    assert outcome.frames == 3
    with pytest.raises(InputError, match="--resize-thermal"):
        predict_video(predictor, root, None, tmp_path / "c.webm", model="m")


def test_a_folder_of_both_beside_a_film_is_refused_rather_than_half_used(predictor, tmp_path):
    root = draw_folder_of_both(tmp_path / "both")
    film = write_video(tmp_path / "thermal.mkv", [thermal_frame(i) for i in range(3)])
    with pytest.raises(InputError, match=r"both cameras.*give this folder alone"):
        predict_video(predictor, root, film, tmp_path / "a.webm", model="m")
    options = VideoOptions(labels=True, smooth=0)
    outcome = predict_video(
        predictor, root / "rgb", film, tmp_path / "a.webm", model="m", options=options
    )
    assert outcome.frames == 3


@pytest.mark.parametrize(
    ("sources", "asked", "message"),
    [
        ("two folders", {"offset": 0.1}, "--offset.*by name; add --match time"),
        ("two folders", {"tolerance": 0.1}, "--tolerance.*by name; add --match time"),
        ("a folder", {"tolerance": 0.1}, "--tolerance.*one was given"),
        ("a film", {"offset": 0.1}, "--offset.*one was given"),
        ("two films", {"offset": 0.1, "match": "index"}, "--offset.*--match index"),
        ("two films", {"rate": 10.0}, "--fps.*leave it out"),
        ("a film", {"rate": 10.0}, "--fps.*leave it out"),
        ("two folders", {"offset": 0.04, "tolerance": 0.01, "match": "time"}, ""),
        ("two folders", {"rate": 10.0}, ""),
        ("a film and a folder", {"rate": 25.0, "tolerance": 0.01}, ""),
    ],
)
def test_options_that_the_sources_do_not_follow_are_refused(
    sources, asked, message, predictor, tmp_path
):
    root = draw_folder_of_both(tmp_path / "both")
    film = write_video(tmp_path / "rgb.mkv", [rgb_frame(i) for i in range(3)])
    other = write_video(tmp_path / "t.mkv", [thermal_frame(i) for i in range(3)])
    folders = root / "rgb", root / "thermal"
    given = {
        "two folders": folders, "a folder": (root, None), "two films": (film, other),
        "a film": (film, None), "a film and a folder": (film, folders[1]),
    }[sources]  # fmt: skip
    options = VideoOptions(resize_thermal=True, **asked)
    out = tmp_path / "a.webm"
    if message:
        with pytest.raises(InputError, match=message):
            predict_video(predictor, *given, out, model="m", options=options)
        assert not out.exists()
    else:
        outcome = predict_video(predictor, *given, out, model="m", options=options)
        assert outcome.frames == 3 - (options.offset > 0)


def test_smoothing_keeps_of_before_as_far_as_it_agrees_with_now():
    draw = torch.Generator().manual_seed(0)
    frames = [torch.randn(4, 3, 5, generator=draw) for _ in range(5)]
    smoother, mean = Smoother(0.7), None
    for logits in frames:
        now = logits.softmax(0)
        if mean is None:
            mean = now
        else:
            keep = 0.7 * (1 - (now - mean).abs().sum(0) / 2)
            mean = keep * mean + (1 - keep) * now
        torch.testing.assert_close(smoother(logits).softmax(0), mean)
    assert Smoother(0.0)(frames[0]) is frames[0]
    assert smoother(torch.zeros(4, 2, 2)).shape == (4, 2, 2)


def test_what_is_doubtful_stays_and_what_has_changed_for_sure_changes_at_once():
    smoother = Smoother(0.7)
    sure = torch.tensor([4.0, 0.0]).view(2, 1, 1)
    doubtful = torch.tensor([0.0, 0.2]).view(2, 1, 1)
    smoother(sure)
    assert smoother(doubtful).argmax(0).item() == 0
    assert smoother(sure).argmax(0).item() == 0
    assert smoother(sure.flip(0)).argmax(0).item() == 1


@pytest.mark.parametrize(
    ("asked", "source", "every", "found"),
    [
        ({}, "film", 1, 0.5), ({"smooth": 0.2}, "film", 1, 0.2), ({}, "film", 10, 0.0),
        ({}, "folder", 1, 0.0), ({"rate": 10}, "folder", 1, 0.5),
        ({"smooth": 0.5}, "folder", 1, 0.5),
    ],
)  # fmt: skip
def test_films_are_smoothed_and_pictures_that_may_be_of_anything_are_not(
    asked, source, every, found, predictor, videos, tmp_path
):
    if source == "folder":
        for kind, image in (("rgb", rgb_frame(0)), ("thermal", thermal_frame(0))):
            (tmp_path / kind).mkdir()
            cv2.imwrite(str(tmp_path / kind / "a.png"), image)
        videos = tmp_path / "rgb", tmp_path / "thermal"
    options = VideoOptions(every=every, limit=1, **asked)
    outcome = predict_video(predictor, *videos, tmp_path / "a.webm", model="m", options=options)
    assert json.loads(outcome.summary.read_text())["settings"]["smooth"] == found


def test_an_interrupted_run_leaves_a_video_that_plays(predictor, videos, tmp_path, monkeypatch):
    calls = []

    class Stopped(Predictor):
        def __init__(self):
            self.__dict__.update(predictor.__dict__)
            self.workers = 1

        def batch_logits(self, pairs):
            calls.append(1)
            if len(calls) > 7:
                raise KeyboardInterrupt
            return super().batch_logits(pairs)

    for suffix in (".webm", ".mp4"):
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            predict_video(Stopped(), *videos, tmp_path / f"a{suffix}", model="m")
        summary = json.loads((tmp_path / "a.json").read_text())
        assert summary["interrupted"] is True
        # 7, or 6 where the eighth frame was labelled before the seventh
        assert len(read_video(tmp_path / f"a{suffix}")[0]) == summary["frames"] in (6, 7)
    assert not list(tmp_path.glob("*.tmp*"))
    assert not list(tmp_path.glob(".*"))


def test_damaged_inputs_cost_frames_or_a_message(predictor, videos, tmp_path):
    data = bytearray(videos[0].read_bytes())
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(data[: len(data) * 2 // 3])
    outcome = predict_video(predictor, cut, videos[1], tmp_path / "a.webm", model="m")
    assert 4 <= outcome.frames < 12
    assert outcome.unpaired.counts["thermal"] >= 12 - outcome.frames - 1
    draw = np.random.default_rng(0)
    for place in draw.integers(len(data) // 4, len(data), 40):
        data[place] = int(draw.integers(256))
    (tmp_path / "b.mkv").write_bytes(data)
    opened = open_stream(tmp_path / "b.mkv", "rgb")
    assert len(list(opened.frames)) <= 12
    for name, content in (("c.mp4", b""), ("d.mp4", b"hello"), ("e.mkv", bytes(data[:300]))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError):
            predict_video(predictor, tmp_path / name, None, tmp_path / "x.webm", model="m")
    with pytest.raises(InputError, match="no such video"):
        open_stream(tmp_path / "none.mp4", "rgb")
    with pytest.raises(InputError, match="limit"):
        open_stream(videos[0], "rgb", max_pixels=100)
    assert not (tmp_path / "x.webm").exists()


def test_a_play_list_cannot_open_other_files(videos, tmp_path):
    for text in (
        f"ffconcat version 1.0\nfile {videos[0].name}\n",
        f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1,\n{videos[0].name}\n#EXT-X-ENDLIST\n",
    ):
        (tmp_path / "list.mp4").write_text(text)
        with pytest.raises(InputError, match="not a readable video"):
            open_stream(tmp_path / "list.mp4", "rgb")


def test_a_turned_recording_is_turned_upright(tmp_path):
    path = write_video(tmp_path / "a.mp4", [rgb_frame(0)] * 3, "libx264", "yuv420p")
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    quarter = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)  # clockwise, as phones write it
    data[matrix : matrix + 36] = np.array(quarter, ">i4").tobytes()
    path.write_bytes(data)
    found = images_of(path, "rgb")[0][0]
    assert found.shape == (WIDTH, HEIGHT, 3)
    assert np.abs(found.astype(int) - np.rot90(rgb_frame(0), -1)).mean() < 15


def test_what_cannot_be_written_or_opened_is_said_beforehand(predictor, videos, tmp_path):
    with pytest.raises(InputError, match=r"\.webm .* or \.mp4"):
        predict_video(predictor, *videos, tmp_path / "a.avi", model="m")
    with pytest.raises(InputError, match="camera:97 cannot be opened"):
        predict_video(predictor, "camera:97", None, tmp_path / "a.webm", model="m")
    for wrong in ({"smooth": 1.0}, {"every": 0}, {"rate": 0.0}, {"tolerance": -1.0}):
        with pytest.raises(InputError):
            VideoOptions(**wrong)
    assert is_video("a.MP4")
    assert is_video("camera:0")
    assert not is_video("a.png")
    assert not is_video(tmp_path)


def test_a_missing_encoder_is_named_with_what_there_is(monkeypatch):
    """As where PyAV was built against an FFmpeg that has H.264 alone."""
    codec = av.codec.Codec

    def built_in(name, mode):
        return codec(name if name == "libx264" else f"no-{name}", mode)

    monkeypatch.setattr(av.codec, "Codec", built_in)
    assert choose_encoder(Path("a.mp4")) == "libx264"
    with pytest.raises(InputError, match=r"libvpx-vp9.*it can write: \.mp4"):
        choose_encoder(Path("a.webm"))


class DrawnCamera:
    """Stands in for the device: six frames; waits after the first and before the end, if asked."""

    def __init__(self, number):
        self.given = 0
        self.taken, self.all_given, self.may_end = (threading.Event() for _ in range(3))

    def isOpened(self):
        return True

    def get(self, what):
        return 20.0

    def set(self, what, value):
        return True

    def read(self):
        if self.given == 1:
            self.taken.wait(60)
        if self.given == 6:
            self.all_given.set()
            self.may_end.wait(60)
            return False, None
        self.given += 1
        return True, rgb_frame(self.given - 1)

    def release(self):
        self.given = 6


def test_a_camera_gives_its_newest_frames(monkeypatch):
    camera = DrawnCamera(0)
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: camera)
    frames = open_stream("camera:0", "rgb").frames
    first = next(frames)
    camera.taken.set()
    assert camera.all_given.wait(60)
    second = next(frames)
    camera.may_end.set()
    assert next(frames, None) is None
    shown = [cv2.cvtColor(rgb_frame(i), cv2.COLOR_BGR2RGB) for i in (0, 5)]
    for frame, image in zip((first, second), shown, strict=True):
        np.testing.assert_array_equal(frame.load().rgb, image)
    assert (first.index, second.index) == (0, 1)
    assert first.time < second.time


def test_the_last_frame_of_a_camera_is_labelled(predictor, tmp_path, monkeypatch):
    """However late it is asked for."""
    camera = DrawnCamera(0)
    camera.taken.set()
    camera.may_end.set()
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: camera)
    outcome = predict_video(predictor, "camera:0", None, tmp_path, model="m")
    assert 1 <= outcome.frames <= 6
    assert outcome.video.name == "camera-0.webm"


@pytest.mark.slow
def test_the_commands_label_videos_and_report_what_is_missing(videos, tmp_path, capsys):
    save(build(TINY), tmp_path / "model", ModelFacts("drawn"))
    both = ["--rgb", str(videos[0]), "--thermal", str(videos[1])]
    both += ["--model", str(tmp_path / "model"), "--device", "cpu"]
    assert main(["predict", *both, "--out", str(tmp_path / "out")]) == 0
    assert len(read_video(tmp_path / "out" / "rgb.webm")[0]) == 12
    film = str(tmp_path / "a.mp4")
    assert main(["video", *both, "--out", film, "--offset", "0.12", "--json", "-"]) == 3
    output = capsys.readouterr()
    summary = json.loads(output.out[output.out.index("{") :])
    assert summary["unpaired"]["counts"] == {"rgb": 3, "thermal": 3}
    assert "3 rgb frames without a partner: 0.00 s, 0.04 s, 0.08 s" in output.err
    assert main(["video", *both, "--out", film]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["video", *both, "--out", film, "--smooth", "1"]) == 2


def test_a_long_video_is_read_in_the_memory_of_a_few_frames(tmp_path):
    """Of labelling and writing as well: test_memory.py."""
    frames = [rgb_frame(index % 12, 240, 320) for index in range(60)]
    stream = open_stream(write_video(tmp_path / "a.mp4", frames, "libx264", "yuv420p"), "rgb")
    del frames
    tracemalloc.start()
    try:
        sizes = [frame.load().rgb.nbytes for frame in stream.frames]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(sizes) == 60
    assert peak < sum(sizes) / 6


def test_frames_that_pass_together_give_the_same_film(predictor, videos, tmp_path):
    """Also where the last batch is smaller; smoothing still goes from frame to frame."""
    options, films = VideoOptions(labels=True, smooth=0.5), {}
    for batch_size in (1, 5):
        shapes = []

        class Batched(Predictor):
            def __init__(self, size, seen):
                self.__dict__.update(predictor.__dict__)
                self.batch_size, self.seen = size, seen

            def batch_logits(self, pairs):
                self.seen.append(len(pairs))
                return super().batch_logits(pairs)

        out = tmp_path / str(batch_size)
        outcome = predict_video(Batched(batch_size, shapes), *videos, out, model="m",
                                options=options)  # fmt: skip
        assert outcome.frames == 12
        assert max(shapes) == batch_size
        films[batch_size] = [read_label(path) for path in sorted(out.glob("labels/*.png"))]
    assert len(films[1]) == len(films[5]) == 12
    for alone, together in zip(films[1], films[5], strict=True):
        assert (alone == together).mean() > 0.999


@pytest.mark.slow
@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromedriver are not installed")
def test_a_browser_plays_a_result_of_300_frames_to_its_end(predictor, tmp_path):
    videos = [
        write_video(tmp_path / f"{name}.mp4", [draw(i % 12) for i in range(300)])
        for name, draw in (("rgb", rgb_frame), ("thermal", thermal_frame))
    ]
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><title>video</title>")
    lengths = {".webm": 300, ".mp4": 60}
    for suffix, frames in lengths.items():
        options = VideoOptions(limit=frames)
        predict_video(predictor, *videos, tmp_path / f"a{suffix}", model="m", options=options)
    browser = Browser()
    try:
        browser.go(page.as_uri())
        for suffix, frames in lengths.items():
            found = browser.js(
                """const video = document.createElement("video");
                video.muted = true; video.src = arguments[0]; document.body.append(video);
                await new Promise((done, failed) => {
                  video.oncanplaythrough = done;
                  video.onerror = () => failed(new Error(video.error.message));
                });
                video.playbackRate = 8;
                await video.play();
                await new Promise((done) => { video.onended = done; });
                return [video.duration, video.videoWidth, video.videoHeight,
                        video.currentTime];""",
                (tmp_path / f"a{suffix}").as_uri(),
            )
            assert found[0] == pytest.approx(frames / 25, abs=0.05)
            assert found[1:3] == [3 * WIDTH, HEIGHT]
            assert found[3] == pytest.approx(found[0], abs=0.05)
    finally:
        browser.close()


def test_a_film_of_sixteen_bits_has_one_range_and_a_legend(predictor, tmp_path):
    frames = [thermal_frame(i).astype(np.uint16) * 12 + 7000 for i in range(6)]
    thermal = write_video(tmp_path / "t.mkv", frames, codec="ffv1")
    out = tmp_path / "out.webm"
    options = VideoOptions(labels=True, legend=True)
    outcome = predict_video(predictor, None, thermal, out, model="tiny", options=options)
    assert outcome.frames == 6
    summary = json.loads((tmp_path / "out.json").read_text())
    assert summary["settings"]["thermal_range"] == "auto"
    first, last = (summary["thermal_range"][which] for which in ("first", "last"))
    assert (first["unit"], first["by"]) == ("counts", "film")
    assert 7000 <= first["low"] < first["high"] <= 7000 + 12 * 255
    assert abs(last["high"] - first["high"]) < 0.12 * (first["high"] - first["low"])
    _, pictures = read_video(out)
    assert pictures[0].shape[0] > HEIGHT
    assert pictures[0][-2:].mean() > 200  # white below the names
