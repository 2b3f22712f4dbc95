"""ROS bags as films of pairs: written by rosbags here, read topic by topic, partners by time."""

import json
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import TINY, build

from sartm.cli.main import main
from sartm.errors import InputError
from sartm.inference.frames import Unpaired
from sartm.inference.options import VideoOptions
from sartm.inference.predictor import Predictor
from sartm.inference.rig import open_rig
from sartm.inference.streams import open_stream
from sartm.inference.video import predict_video
from sartm.io.cameras import Camera
from sartm.io.labels import read_label
from sartm.model.checkpoint import save
from sartm.model.facts import ModelFacts
from sartm.objects.measurement import Measuring

pytest.importorskip("rosbags", reason="the extra `bags` is not installed")
pytest.importorskip("av", reason="the extra `video` is not installed")
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

HEIGHT, WIDTH = 48, 64
BEGIN = 1_800_000_000


def rgb(index):
    image = np.full((HEIGHT, WIDTH, 3), (40, 80, 120), np.uint8)
    image[10:30, 2 * index : 2 * index + 12] = (250, 30, 60)
    return image


def heat(index):
    counts = np.full((HEIGHT, WIDTH), 29_000, np.uint16)
    counts[10:30, 2 * index : 2 * index + 12] = 31_000
    return counts


class Bag:
    """A bag being written, of either version; `clock` is second 0 of the headers."""

    def __init__(self, path: Path, kind: str, clock: int = BEGIN, recorded: int = BEGIN) -> None:
        self.clock, self.recorded = clock, recorded
        self.one = kind == "bag"
        self.store = get_typestore(Stores.ROS1_NOETIC if self.one else Stores.ROS2_HUMBLE)
        plugin = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}.get(kind)
        self.writer = Writer1(path) if self.one else Writer2(path, version=9, storage_plugin=plugin)
        self.writer.open()
        self.topics = {}

    def _send(self, topic, message, seconds):
        if topic not in self.topics:
            self.topics[topic] = self.writer.add_connection(
                topic, message.__msgtype__, typestore=self.store
            )
        pack = self.store.serialize_ros1 if self.one else self.store.serialize_cdr
        stamp = round((self.recorded + seconds) * 1e9)
        self.writer.write(self.topics[topic], stamp, pack(message, message.__msgtype__))

    def _header(self, seconds):
        types = self.store.types
        whole = int(seconds)
        time = types["builtin_interfaces/msg/Time"](
            sec=self.clock + whole, nanosec=round((seconds - whole) * 1e9)
        )
        more = {"seq": 0} if self.one else {}
        return types["std_msgs/msg/Header"](stamp=time, frame_id="", **more)

    def image(self, topic, pixels, encoding, seconds, delay=0.0, bigendian=0):
        pad = np.zeros((len(pixels), 6), np.uint8)  # rows may be longer than their pixels
        lines = np.concatenate([pixels.reshape(len(pixels), -1).view(np.uint8), pad], axis=1)
        message = self.store.types["sensor_msgs/msg/Image"](
            header=self._header(seconds), height=pixels.shape[0], width=pixels.shape[1],
            encoding=encoding, is_bigendian=bigendian, step=lines.shape[1], data=lines.ravel(),
        )  # fmt: skip
        self._send(topic, message, seconds + delay)

    def compressed(self, topic, data, form, seconds):
        message = self.store.types["sensor_msgs/msg/CompressedImage"](
            header=self._header(seconds), format=form, data=np.frombuffer(data, np.uint8)
        )
        self._send(topic, message, seconds)

    def text(self, topic, seconds):
        message = self.store.types["std_msgs/msg/String"](data="hello")
        self._send(topic, message, seconds)

    def close(self):
        self.writer.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save(build(TINY, seed=2), folder, ModelFacts())
    return folder


def street(path: Path, kind: str, **clocks: int) -> Path:
    """RGB at 10 frames a second, thermal at 5, written late and in another order than taken."""
    bag = Bag(path, kind, **clocks)
    for index in range(10):
        bag.image("/camera/image", rgb(index), "rgb8", index / 10)
        if index % 2 == 0 and index != 6:  # one thermal frame was lost
            bag.image("/thermal/image", heat(index), "mono16", index / 10 + 0.01, delay=0.07)
        bag.text("/chatter", index / 10)
    bag.close()
    return path


@pytest.mark.parametrize("kind", ["bag", "mcap", "sqlite3"])
def test_two_topics_are_a_film_of_pairs_by_the_times_of_their_headers(kind, model, tmp_path):
    path = street(tmp_path / ("street.bag" if kind == "bag" else "street"), kind)
    command = ["video", "--rgb", f"{path}:/camera/image", "--thermal", f"{path}:/thermal/image"]
    command += [
        "--tolerance",
        "0.06",
        "--smooth",
        "0",
        "--labels",
        "--objects",
        "--min-area",
        "4",
        "--model",
    ]
    command += [str(model), "--device", "cpu", "--precision", "fp32", "--out"]
    assert main([*command, f"{tmp_path}/out"]) == 3  # frames without a partner are told
    name = "street-camera-image"
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    # Thermal is of 0.01, 0.21, 0.41 and 0.81 s: too far from 0.1, 0.3, 0.5, 0.6, 0.7 and 0.9.
    assert summary["unpaired"]["counts"] == {"rgb": 6, "thermal": 0}
    assert summary["frames"] == 4
    assert (tmp_path / f"out/{name}.webm").is_file()
    one = Predictor(build(TINY, seed=2), device="cpu", precision="fp32")
    levels = summary["thermal_range"]["first"]
    one.thermal_range = (levels["low"], levels["high"])
    found = read_label(tmp_path / "out/labels/000002.png")
    assert (found != one(rgb(2), heat(2)).labels).mean() < 0.02  # the range follows slowly
    lines = [json.loads(line) for line in (tmp_path / "out/objects.jsonl").read_text().splitlines()]
    for line in lines:
        assert line["taken"].startswith("2027-01-15T08:00:00")
        assert float(line["taken"][17:23]) == pytest.approx(line["seconds"], abs=0.002)


def find_partners(path, tolerance=0.06):
    """The times of a film of both topics, each with that of its thermal frame, and its sources."""
    unpaired, options = Unpaired(), VideoOptions(tolerance=tolerance)
    streams, paired, _ = open_rig(
        f"{path}:/camera/image", f"{path}:/thermal/image", options, unpaired
    )
    return [(frame.time, partner.time) for frame, partner in paired], streams


@pytest.mark.parametrize(
    ("clock", "recorded", "begin"),
    [
        (1_000, BEGIN, BEGIN),  # since a computer was started
        (0, BEGIN, BEGIN),  # of a simulation, from its first moment
        (1_000, 1_000, 1_000),  # of a simulation that recorded itself
        (BEGIN - 10**8, BEGIN, BEGIN - 10**8),  # recorded anew, years later
        (BEGIN - 7_200, BEGIN, BEGIN - 7_200),  # of another time zone
    ],
)
def test_headers_of_another_clock_than_the_recording_pair_as_they_are(
    clock, recorded, begin, tmp_path
):
    path = street(tmp_path / "a", "mcap", clock=clock, recorded=recorded)
    found, (lead, _) = find_partners(path)
    expected = [(0.0, 0.01), (0.2, 0.21), (0.4, 0.41), (0.8, 0.81)]
    assert np.allclose(found, expected, atol=1e-5)
    assert lead.begin == pytest.approx(begin, abs=1e-5)


def test_one_camera_alone_may_count_from_its_start(tmp_path):
    bag = Bag(tmp_path / "a", "mcap")
    for index in range(5):
        bag.clock = BEGIN
        bag.image("/camera/image", rgb(index), "rgb8", index / 10)
        bag.clock = 1_000
        bag.image("/thermal/image", heat(index), "mono16", index / 10, delay=0.02)
    bag.close()
    found, _ = find_partners(tmp_path / "a")
    assert np.allclose(found, [(index / 10, index / 10 + 0.02) for index in range(5)], atol=1e-5)


@pytest.mark.parametrize(("clocks", "taken"), [
    ({"clock": 1_000}, "2027-01-15T08:00:00"), ({"clock": 1_000, "recorded": 1_000}, None),
])  # fmt: skip
def test_objects_are_dated_by_a_recording_that_knows_the_date(clocks, taken, tmp_path):
    path = street(tmp_path / "a", "mcap", **clocks)
    predictor = Predictor(build(TINY, seed=2), device="cpu", precision="fp32")
    options = VideoOptions(objects=Measuring(min_area=4))
    predict_video(
        predictor, f"{path}:/camera/image", None, tmp_path / "o", model="m", options=options
    )
    lines = [json.loads(line) for line in (tmp_path / "o/objects.jsonl").read_text().splitlines()]
    assert max(line["seconds"] for line in lines) > 0.5
    assert {(line["taken"] or "")[:19] or None for line in lines} == {taken}


def test_a_thermal_frame_that_is_no_numbers_costs_that_frame_alone(tmp_path):
    bag = Bag(tmp_path / "a", "mcap")
    for index in range(6):
        degrees = (heat(index) / 1000).astype(np.float32)
        degrees[:2] = np.nan if index == 2 else degrees[:2]
        bag.image("/t", degrees, "32FC1", index / 10)
    bag.close()
    predictor = Predictor(build(TINY), device="cpu", precision="fp32")
    out = tmp_path / "out"
    options = VideoOptions(labels=True, smooth=0)
    outcome = predict_video(predictor, None, f"{tmp_path}/a:/t", out, model="m", options=options)
    assert outcome.frames == 5
    assert "NaN or infinite" in outcome.failures["000002"]

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    summary = json.loads(outcome.summary.read_text(), parse_constant=refuse)
    assert summary["thermal_range"]["last"]["high"] == pytest.approx(31, abs=0.1)
    levels = summary["thermal_range"]["first"]
    predictor.thermal_range = (levels["low"], levels["high"])
    expected = predictor(None, (heat(5) / 1000).astype(np.float32)).labels
    assert (read_label(out / "labels/000005.png") != expected).mean() < 0.02
    assert "--holes -9999" in outcome.failures["000002"]


def images(path, role, **camera):
    stream = open_stream(path, role, camera=Camera(**camera))
    loaded = [(frame.time, frame.load()) for frame in stream.frames]
    return loaded, stream


@pytest.mark.parametrize(("encoding", "channels"), [
    ("rgb8", lambda image: image), ("bgr8", lambda image: image[..., ::-1]),
    ("rgba8", lambda image: np.dstack([image, image[..., :1]])),
    ("rgb16", lambda image: image.astype(np.uint16) * 257),
])  # fmt: skip
def test_colours_come_as_they_were_taken(encoding, channels, tmp_path):
    bag = Bag(tmp_path / "a", "mcap")
    for index in range(3):
        bag.image("/image", np.ascontiguousarray(channels(rgb(index))), encoding, index)
    bag.close()
    loaded, stream = images(f"{tmp_path}/a:/image", "rgb")
    assert stream.count == 3
    assert [moment for moment, _ in loaded] == pytest.approx([0, 1, 2])
    for index, (_, found) in enumerate(loaded):
        assert np.array_equal(found.rgb, rgb(index))


def test_a_colour_filter_is_filled_in(tmp_path):
    even = np.full((HEIGHT, WIDTH, 3), (200, 100, 50), np.uint8)
    mosaic = even[..., 1].copy()
    mosaic[::2, ::2], mosaic[1::2, 1::2] = 200, 50  # RGGB
    bag = Bag(tmp_path / "a", "mcap")
    bag.image("/image", mosaic, "bayer_rggb8", 0)
    bag.close()
    ((_, found),), _ = images(f"{tmp_path}/a:/image", "rgb")
    assert np.array_equal(found.rgb[2:-2, 2:-2], even[2:-2, 2:-2])


@pytest.mark.parametrize("bigendian", [0, 1])
def test_counts_stay_counts_and_holes_are_known(bigendian, tmp_path):
    counts = heat(1)
    counts[:4] = 0
    stored = counts.byteswap() if bigendian else counts
    bag = Bag(tmp_path / "a", "sqlite3")
    bag.image("/t", stored, "16UC1", 0, bigendian=bigendian)
    bag.close()
    ((_, found),), _ = images(f"{tmp_path}/a:/t", "thermal", holes=0)
    assert np.array_equal(found.thermal[4:], counts[4:])
    assert np.array_equal(found.unseen, counts == 0)


def test_compressed_images_are_read_as_their_files(tmp_path):
    bag = Bag(tmp_path / "a", "mcap")
    bag.compressed("/t", cv2.imencode(".png", heat(3))[1].tobytes(), "16UC1; png compressed", 0)
    bag.compressed("/c", cv2.imencode(".png", rgb(3)[..., ::-1])[1].tobytes(), "bgr8; png", 0)
    bag.close()
    assert np.array_equal(images(f"{tmp_path}/a:/t", "thermal")[0][0][1].thermal, heat(3))
    assert np.array_equal(images(f"{tmp_path}/a:/c", "rgb")[0][0][1].rgb, rgb(3))


def test_what_cannot_be_read_is_said_with_the_topics_there_are(tmp_path):
    path = street(tmp_path / "street", "mcap")
    (file,) = path.glob("*.mcap")
    for source, message in (
        (f"{file}", "name a topic"), (f"{file}:/none", "no topic /none"),
        (f"{file}:/chatter", "no images"), (f"{tmp_path}/gone.bag:/a", "no such bag"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message) as raised:
            open_stream(source, "rgb")
        assert "gone" in source or "/thermal/image" in str(raised.value)
    damaged = tmp_path / "cut.mcap"
    damaged.write_bytes(file.read_bytes()[:300])
    with pytest.raises(InputError, match="not a readable bag"):
        open_stream(f"{damaged}:/camera/image", "rgb")


def test_an_image_that_lies_about_its_size_costs_that_frame_alone(tmp_path):
    bag = Bag(tmp_path / "a", "mcap")
    message = bag.store.types["sensor_msgs/msg/Image"](
        header=bag._header(0), height=5000, width=5000, encoding="rgb8", is_bigendian=0,
        step=15000, data=np.zeros(12, np.uint8),
    )  # fmt: skip
    bag._send("/image", message, 0)
    bag.image("/image", rgb(1), "rgb8", 1)
    bag.image("/image", rgb(1), "h264", 2)
    bag.close()
    first, second, third = open_stream(f"{tmp_path}/a:/image", "rgb").frames
    with pytest.raises(InputError, match="less than its 5000x5000"):
        first.load()
    assert second.load().rgb.shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(InputError, match="h264"):
        third.load()


@pytest.mark.parametrize("kind", ["bag", "mcap", "sqlite3"])
def test_a_long_bag_takes_the_memory_of_a_few_frames(kind, tmp_path):
    path = tmp_path / ("long.bag" if kind == "bag" else "long")
    bag, picture = Bag(path, kind), np.zeros((240, 320, 3), np.uint8)
    for index in range(60):
        bag.image("/camera/image", picture, "rgb8", index / 10)
    bag.close()
    stream = open_stream(f"{path}:/camera/image", "rgb")
    tracemalloc.start()
    try:
        sizes = [frame.load().rgb.nbytes for frame in stream.frames]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(sizes) == 60
    assert peak < sum(sizes) / 2
