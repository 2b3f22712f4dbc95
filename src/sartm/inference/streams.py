"""Videos and folders of frames, and all other sources of frames, opened and read one at a time."""

import math
import re
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt

from sartm.data.finding import Found, search_pairs
from sartm.data.pairs import RESIZE_OR_REGISTER, RawImages, read_pair
from sartm.data.sets import Pair
from sartm.errors import InputError
from sartm.inference import sequences
from sartm.inference.bags import open_bag, split_bag
from sartm.inference.frames import Frame, Stream
from sartm.inference.live import camera_index, network_scheme, open_live
from sartm.inference.pictures import Role, convert_picture
from sartm.inference.playback import RATE, import_av
from sartm.io.cameras import Camera
from sartm.io.header import MAX_PIXELS

Array = npt.NDArray[Any]

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".wmv",
     ".flv", ".ogv", ".3gp", ".y4m", ".nut", *sequences.SUFFIXES}
)  # fmt: skip


# Demuxers that read the file they are given and nothing else: play lists could name other files.
_FORMATS = "mov,mp4,matroska,webm,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg,yuv4mpegpipe,nut"


def is_video(source: str | Path | None) -> bool:
    """Whether an input of predict is a video, a bag, a camera or a stream, not images."""
    if source is None:
        return False
    return (
        is_live(source)
        or split_bag(source) is not None
        or (Path(source).suffix.lower() in VIDEO_SUFFIXES and not Path(source).is_dir())
    )


def is_live(source: str | Path) -> bool:
    """Whether a source has no end: a camera of this computer or of the network."""
    return camera_index(str(source)) is not None or network_scheme(str(source)) is not None


def open_stream(
    source: str | Path,
    role: Role,
    *,
    rate: float | None = None,
    resize_thermal: bool = False,
    camera: Camera = Camera(),
    epoch: float = 0.0,
    begin: float | None = None,
    shift: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Stream:
    """Open a video file, a topic of a bag, `camera:N`, an address, or a folder or glob of frames.

    Args:
        source: what to read.
        role: what its pictures are.
        rate: frames per second of a folder; 25 where left out.
        resize_thermal: of a folder of both, thermal that shows the same view in another size.
        camera: how thermal values are read.
        epoch: `time.monotonic()` that is second 0 of a live camera.
        begin: Unix time that is second 0 of a bag or sequence; None: its first frame's.
        shift: that of the bag whose partners are wanted.
        max_pixels: largest height x width of a frame.

    Raises:
        InputError: no such file or camera, nothing readable in it, or PyAV is not installed.
    """
    if is_live(source):
        return open_live(str(source), role, camera, epoch)
    if split_bag(source) is not None:
        return open_bag(source, role, camera, max_pixels, begin, shift)
    if is_video(source) and Path(source).suffix.lower() in sequences.SUFFIXES:
        return sequences.open_sequence(Path(source), role, camera, max_pixels, begin)
    if is_video(source):
        return _open_video(Path(source), role, camera, max_pixels)
    if role not in ("rgb", "thermal"):
        raise InputError(f"{source}: --one-file is for one video, found a folder or image")
    found = search_pairs(*((source, None) if role == "rgb" else (None, source)))
    if any(pair.rgb and pair.thermal for pair in found.pairs):
        raise InputError(
            f"{source}: holds images of both cameras, and another source was given beside it; "
            f"give this folder alone, or of its folders the one of {role}"
        )
    return folder_stream(
        found, str(source), rate, resize_thermal=resize_thermal, camera=camera,
        max_pixels=max_pixels,
    )  # fmt: skip


def folder_stream(
    found: Found,
    name: str,
    rate: float | None = None,
    *,
    resize_thermal: bool = False,
    camera: Camera = Camera(),
    max_pixels: int = MAX_PIXELS,
) -> Stream:
    """Pairs of image files, in the order of their names, as frames `rate` to the second."""
    every = RATE if rate is None else Fraction(rate).limit_denominator(10000)

    def load(pair: Pair) -> RawImages:
        sample = read_pair(
            pair,
            resize_thermal=resize_thermal,
            camera=camera,
            max_pixels=max_pixels,
            remedy=RESIZE_OR_REGISTER,
        )
        return RawImages(sample.rgb, sample.thermal, sample.unseen, black_hot=sample.black_hot)

    def frames() -> Iterator[Frame]:
        # Frame 10 comes after frame 9, however many digits were written.
        ordered = sorted(found.pairs, key=lambda pair: _natural_order(pair.name))
        for index, pair in enumerate(ordered):
            yield Frame(index, float(index / every), partial(load, pair), pair.name)

    return Stream(
        name, frames(), every, len(found.pairs), pictures=True, unreadable=found.unreadable
    )


def _open_video(path: Path, role: Role, camera: Camera, max_pixels: int) -> Stream:
    av = import_av()
    if not path.is_file():
        raise InputError(f"{path}: no such video file; check the path")
    # Probing goes by content, so a play list under the name of a video must not open others.
    only = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
    try:
        container = av.open(str(path.resolve()), options=only, metadata_errors="replace")
    except (av.error.FFmpegError, OSError):
        raise InputError(
            f"{path}: not a readable video, or cut off before its index; copy it again, or convert "
            f"it to MP4, MKV or WebM"
        ) from None
    if not container.streams.video:
        container.close()
        raise InputError(f"{path}: holds no pictures; give a video file")
    source = container.streams.video[0]
    height, width = source.codec_context.height, source.codec_context.width
    if height * width > max_pixels:
        container.close()
        raise InputError(
            f"{path}: frames of {height}x{width} exceed the limit of {max_pixels / 1e6:g} million "
            f"pixels; scale the video down"
        )
    source.thread_type = "AUTO"
    rate = source.average_rate or source.guessed_rate or RATE
    seconds = (container.duration or 0) / av.time_base
    count = source.frames or round(seconds * float(rate))
    stream = Stream(str(path), iter(()), Fraction(rate), count)
    stream.frames = _video_frames(container, source, stream, role, camera, max_pixels)
    return stream


def _video_frames(
    container: Any, source: Any, stream: Stream, role: Role, camera: Camera, max_pixels: int
) -> Iterator[Frame]:
    begin = Fraction(container.start_time or 0, 1_000_000)
    last, interval = -math.inf, float(1 / stream.rate)
    try:
        for index, picture in enumerate(_decode_packets(container, source, stream)):
            if picture.height * picture.width > max_pixels:
                raise InputError(f"{stream.name}: frames grow beyond the limit of pixels")
            moment = last + interval if last > -math.inf else 0.0
            if picture.pts is not None:
                stated = float(picture.pts * picture.time_base - begin)
                moment = stated if stated > last else moment
            last = moment

            def load(picture: Any = picture, index: int = index) -> RawImages:
                return convert_picture(picture, role, camera, f"{stream.name}, frame {index}")

            yield Frame(index, moment, load)
    finally:
        container.close()


def _decode_packets(container: Any, source: Any, stream: Stream) -> Iterator[Any]:
    """Pictures in the order they are shown; what is damaged is counted and left out."""
    failure = import_av().error.FFmpegError
    packets = container.demux(source)
    while True:
        try:
            packet = next(packets, None)
        except failure:  # the rest of the file cannot be read
            stream.damaged += 1
            return
        if packet is None:
            return
        try:
            pictures = packet.decode()
        except failure:
            stream.damaged += 1
            continue
        yield from pictures


def _natural_order(name: str) -> list[tuple[int, str]]:
    """Sort key: numbers in a name by their value."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if odd % 2 else (-1, part) for odd, part in enumerate(parts)]
