"""Two cameras of one rig, opened together: their frames in pairs, and what one does alone."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sartm.data.finding import search_pairs
from sartm.errors import InputError
from sartm.inference.frames import Frame, Stream, Unpaired, pair_frames
from sartm.inference.options import VideoOptions
from sartm.inference.streams import folder_stream, is_video, open_stream

_LISTED = 100  # files without a partner; more are only counted


def open_rig(
    rgb: str | Path | None, thermal: str | Path | None, options: VideoOptions, unpaired: Unpaired
) -> tuple[list[Stream], Iterator[tuple[Frame, Frame | None]]]:
    """The sources, the leading one first, and their frames in pairs."""
    epoch = time.monotonic()

    def open_source(source: str | Path, role: Any, begin: float | None = None) -> Stream:
        return open_stream(
            source, role, rate=options.rate, camera=options.camera, epoch=epoch, begin=begin
        )

    if options.one_file:
        if rgb is None or thermal is not None:
            raise InputError(
                f"--one-file {options.one_file} takes one video; give it as --rgb alone"
            )
        lead = open_source(rgb, options.one_file)
        return [lead], ((frame, None) for frame in lead.frames)
    if rgb is None or thermal is None:
        lead = open_source(rgb, "rgb") if rgb is not None else open_source(str(thermal), "thermal")
        return [lead], ((frame, None) for frame in lead.frames)
    by_name = options.match == "auto" and not is_video(rgb) and not is_video(thermal)
    if by_name:
        found = search_pairs(rgb, thermal, None, options.allow_single)
        for path in found.unpaired:
            unpaired.counts["thermal" if _is_below(path, thermal) else "rgb"] += 1
            unpaired.files.append(str(path))
        del unpaired.files[_LISTED:]
        lead = folder_stream(
            found, str(rgb), options.rate, resize_thermal=options.resize_thermal,
            camera=options.camera,
        )  # fmt: skip
        return [lead], ((frame, None) for frame in lead.frames)
    lead = open_source(rgb, "rgb")
    try:
        other = open_source(thermal, "thermal", lead.begin)
    except BaseException:
        lead.frames.close()  # type: ignore[attr-defined]
        raise
    paired = pair_frames(
        lead, other, unpaired, match=options.match, tolerance=options.tolerance,
        offset=options.offset,
    )  # fmt: skip
    if options.allow_single:
        return [lead, other], _go_on_alone(paired, lead, other, options.offset)
    return [lead, other], _keep_whole(paired, other)


def _keep_whole(
    paired: Iterator[tuple[Frame, Frame | None]], other: Stream
) -> Iterator[tuple[Frame, Frame | None]]:
    """What has a partner; ends where the other camera has failed, for nothing more would come."""
    for frame, partner in paired:
        if partner is not None:
            yield frame, partner
        elif other.failed:
            return


def _go_on_alone(
    paired: Iterator[tuple[Frame, Frame | None]], lead: Stream, other: Stream, offset: float
) -> Iterator[tuple[Frame, Frame | None]]:
    """All pairs, and what a live thermal camera sees once the RGB camera has failed."""
    yield from paired
    if lead.live and lead.failed and other.live:
        for frame in other.frames:
            name = f"thermal-{frame.index:06d}"
            yield replace(frame, time=frame.time + offset, name=name), None


def _is_below(path: Path, source: str | Path) -> bool:
    return Path(source).is_dir() and path.is_relative_to(source)
