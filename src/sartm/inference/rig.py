"""Two cameras of one rig, opened together: their frames in pairs, and what one does alone."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from sartm.data.finding import search_pairs
from sartm.data.names import read_name
from sartm.errors import InputError
from sartm.inference.frames import Frame, Stream, Unpaired, pair_frames
from sartm.inference.options import VideoOptions, as_described
from sartm.inference.streams import folder_stream, is_video, open_stream

Paired = Iterator[tuple[Frame, Frame | None]]

_LISTED = 100  # files without a partner; more are only counted


def open_rig(
    rgb: str | Path | None, thermal: str | Path | None, options: VideoOptions, unpaired: Unpaired
) -> tuple[list[Stream], Paired, VideoOptions]:
    """The sources, the leading one first, their frames in pairs, and how they are read.

    These are the options with what the dataset.toml of a folder says. Raises InputError where a
    source cannot be read, or options are given that these sources do not follow.
    """
    _require_effect(rgb, thermal, options)
    epoch = time.monotonic()

    def open_source(
        source: str | Path, role: Any, begin: float | None = None, shift: float | None = None
    ) -> Stream:
        return open_stream(
            source, role, rate=options.rate, resize_thermal=options.resize_thermal,
            camera=options.camera, epoch=epoch, begin=begin, shift=shift,
        )  # fmt: skip

    if options.one_file:
        if rgb is None or thermal is not None:
            raise InputError(
                f"--one-file {options.one_file} takes one video; give it as --rgb alone"
            )
        lead = open_source(rgb, options.one_file)
        return [lead], _alone(lead), options
    one = rgb is None or thermal is None
    if not is_video(rgb) and not is_video(thermal) and (one or options.match == "auto"):
        return _open_pictures(rgb, thermal, options, unpaired)
    if rgb is None or thermal is None:
        lead = open_source(rgb, "rgb") if rgb is not None else open_source(str(thermal), "thermal")
        return [lead], _alone(lead), options
    lead = open_source(rgb, "rgb")
    try:
        other = open_source(thermal, "thermal", lead.begin, lead.shift)
    except BaseException:
        lead.frames.close()  # type: ignore[attr-defined]
        raise
    paired = pair_frames(
        lead, other, unpaired, match=options.match, tolerance=options.tolerance,
        offset=options.offset,
    )  # fmt: skip
    if options.allow_single:
        return [lead, other], _go_on_alone(paired, lead, other, options.offset), options
    return [lead, other], _keep_whole(paired, other), options


def _require_effect(
    rgb: str | Path | None, thermal: str | Path | None, options: VideoOptions
) -> None:
    """Refuse --fps without a folder of frames, --offset and --tolerance without times."""
    films = [is_video(source) for source in (rgb, thermal) if source is not None]
    if options.rate is not None and all(films):
        raise InputError(
            "--fps is the rate of folders of frames, but what was given has times of its own; "
            "leave it out"
        )
    if options.tolerance is None and not options.offset:
        return
    given = "--offset" if options.offset else "--tolerance"
    if len(films) < 2:
        raise InputError(
            f"{given} is about the times of two sources, but one was given; leave it out, or give "
            f"--rgb and --thermal"
        )
    if options.match == "index":
        raise InputError(
            f"{given} is about times, but --match index pairs by position; choose --match time"
        )
    if options.match == "auto" and not any(films):
        raise InputError(
            f"{given} is about times, but pairs of folders are matched by name; add --match time"
        )


def _open_pictures(
    rgb: str | Path | None, thermal: str | Path | None, options: VideoOptions, unpaired: Unpaired
) -> tuple[list[Stream], Paired, VideoOptions]:
    """Of folders of frames, which are paired as `predict` does."""
    found = search_pairs(rgb, thermal, None, options.allow_single)
    for path in found.unpaired:
        unpaired.counts["thermal" if _is_thermal(path, rgb, thermal) else "rgb"] += 1
        unpaired.files.append(str(path))
    del unpaired.files[_LISTED:]
    if found.layout is not None:
        options = as_described(options, found.layout, found.pairs[0])
    lead = folder_stream(
        found, str(thermal if rgb is None else rgb), options.rate,
        resize_thermal=options.resize_thermal, camera=options.camera,
    )  # fmt: skip
    return [lead], _alone(lead), options


def _alone(stream: Stream) -> Paired:
    return ((frame, None) for frame in stream.frames)


def _keep_whole(paired: Paired, other: Stream) -> Paired:
    """What has a partner; ends where the other camera has failed, for nothing more would come."""
    for frame, partner in paired:
        if partner is not None:
            yield frame, partner
        elif other.failed:
            return


def _go_on_alone(paired: Paired, lead: Stream, other: Stream, offset: float) -> Paired:
    """All pairs, and what a live thermal camera sees once the RGB camera has failed."""
    yield from paired
    if lead.live and lead.failed and other.live:
        for frame in other.frames:
            name = f"thermal-{frame.index:06d}"
            yield replace(frame, time=frame.time + offset, name=name), None


def _is_thermal(path: Path, rgb: str | Path | None, thermal: str | Path | None) -> bool:
    """Whether a file without a partner is of thermal; its name says so in a folder of both."""
    if rgb is not None and (thermal is None or Path(thermal).absolute() == Path(rgb).absolute()):
        return read_name(PurePosixPath(path.relative_to(rgb).as_posix())).role == "thermal"
    return thermal is not None and Path(thermal).is_dir() and path.is_relative_to(thermal)
