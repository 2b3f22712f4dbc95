"""Labelled video: pairs of frames in, the inputs beside the overlay out, in constant memory."""

import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sartm.config import Modality, to_dict
from sartm.data.pairs import RESIZE_OR_REGISTER, Sample, match_sizes
from sartm.errors import InputError
from sartm.files import remove_leftovers_of
from sartm.inference.ahead import prepare_next, write_behind
from sartm.inference.film import Film, Places, check_places, choose_encoder, find_places
from sartm.inference.frames import DATED, Frame, Stream, Unpaired
from sartm.inference.live import hide_password
from sartm.inference.objects import list_objects
from sartm.inference.options import VideoOptions
from sartm.inference.overlays import draw_grey
from sartm.inference.pipeline import label_ahead
from sartm.inference.prediction import Prediction
from sartm.inference.predictor import Predictor, label_map
from sartm.inference.rig import Paired, open_rig
from sartm.inference.slow_levels import SlowLevels
from sartm.inference.watch import Watch
from sartm.io.degrees import choose_scale
from sartm.io.thermal import format_range
from sartm.objects.table import table_files
from sartm.outputs import lock_beside, lock_folder
from sartm.progress import Meter

Array = npt.NDArray[Any]

_NAMED = 100  # failures that are listed; more are only counted


@dataclass(frozen=True)
class VideoOutcome:
    """What a run did; the summary beside the video holds the same."""

    video: Path
    summary: Path
    frames: int
    unpaired: Unpaired
    failures: dict[str, str]
    """Message per frame that could not be labelled, the first hundred."""
    failed: int
    damaged: int
    """Packets of the inputs that could not be decoded."""
    alarms: str = ""
    """What the frames say about the cameras, in a line."""
    objects: int = 0
    """In the table, over all frames."""
    losses: list[str] = field(default_factory=list)
    """A line for each live source that was lost, for a while or for good."""
    sync: dict[str, Any] = field(default_factory=dict)
    """What is known about the clocks of the sources, and how far partners are apart."""

    def complaints(self) -> list[str]:
        """A line for each kind of frame that is missing from the result, and why."""
        lines = [f"frame {name}: {message}" for name, message in self.failures.items()]
        for side, count in self.unpaired.counts.items():
            if count:
                times = [f"{moment:.2f} s" for moment in self.unpaired.times[side][:8]]
                shown = ", ".join(times or [Path(file).name for file in self.unpaired.files[:8]])
                more = ", ..." if count > 8 else ""
                lines.append(f"{count} {side} frames without a partner: {shown}{more}")
        if self.damaged:
            lines.append(f"{self.damaged} damaged packets of the inputs were left out")
        lines += self.losses
        if self.alarms:
            lines.append(self.alarms)
        return lines


def _word_losses(stream: Stream) -> Iterator[str]:
    if stream.lost:
        longest = max(seconds for _, seconds in stream.losses)
        yield f"{stream.name}: lost {stream.lost} times, for {longest:.1f} s at most"
    if stream.failed and stream.clock is not None:
        yield (
            f"{stream.name}: {stream.failed}, after {stream.clock.frames} frames; --allow-single "
            f"goes on with the other camera"
        )


def _describe_sync(streams: list[Stream], watch: Watch) -> dict[str, Any]:
    """For a summary and --sync-report."""
    found: dict[str, Any] = {"sources": {one.name: one.describe() for one in streams}}
    drifts = [one.clock.drift() for one in streams if one.clock is not None]
    if len(drifts) == 2 and drifts[0] is not None and drifts[1] is not None:
        found["drift_ms_per_hour"] = round((drifts[1] - drifts[0]) * 3.6e6, 1)
    told = watch.describe()
    return found | {name: told[name] for name in ("lag", "partner_seconds") if name in told}


class Smoother:
    """Running mean of class probabilities over time, at the resolution of the logits.

        d_t = 1/2 sum |softmax(logits_t) - p_{t-1}|     total variation, 0 to 1, of each pixel
        k_t = keep (1 - d_t)
        p_t = k_t p_{t-1} + (1 - k_t) softmax(logits_t)

    What is doubtful is settled by the frames before; what has clearly become something else, as
    where somebody has walked to, is so at once. The logarithm of p takes the place of the logits:
    with `keep` 0 label maps and confidences are those of single frames. A change of size begins
    anew. What it is worth: benchmarks/flicker.py.
    """

    def __init__(self, keep: float) -> None:
        self.keep = keep
        self.mean: Tensor | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """(K, h, w) logits of the next frame to those of the mean, same shape."""
        if self.keep == 0:
            return logits
        now = logits.softmax(0)
        if self.mean is None or self.mean.shape != now.shape:
            self.mean = now
        else:
            change = (now - self.mean).abs_().sum(0).div_(2)
            self.mean = torch.lerp(now, self.mean, self.keep * (1 - change).clamp_min(0))
        return self.mean.clamp_min(1e-12).log()


SMOOTH, _SLOWEST = 0.5, 5
"""What is kept where nobody says it, and the frames per second below which nothing is then."""


def choose_smoothing(options: VideoOptions, lead: Stream) -> float:
    """What is asked for; else `SMOOTH` of a film, and nothing of pictures that may be of anything.

    A folder is a film where its frames per second are given.
    """
    if options.smooth is not None:
        return options.smooth
    film = not lead.pictures or options.rate is not None
    return SMOOTH if film and lead.rate / options.every >= _SLOWEST else 0.0


def predict_video(
    predictor: Predictor,
    rgb: str | Path | None,
    thermal: str | Path | None,
    out: Path,
    *,
    model: str,
    options: VideoOptions = VideoOptions(),
    overwrite: bool = False,
) -> VideoOutcome:
    """Label a video and write it beside its inputs; what was finished plays after an interrupt.

    Time stamps are those of RGB (of thermal if there is no RGB), so the frame rate stays. A frame
    that cannot be labelled costs that frame only, unless it is the first.

    Args:
        predictor: the model.
        rgb: video, folder or glob of frames, `camera:N`, or None.
        thermal: likewise. None also where `options.one_file` says that `rgb` holds both.
        out: file ending in .webm (VP9) or .mp4 (H.264), with its summary and labels beside it; or
            a folder, for NAME.webm, summary.json and labels/.
        model: name of the model, for the summary.
        options: settings.
        overwrite: replace a video that exists.

    Raises:
        InputError: an input that cannot be read, options that it does not follow, no frame with a
            partner, sizes that differ, an encoder that is missing, or an output that exists.
    """
    places = find_places(out, rgb if rgb is not None else thermal)
    encoder = choose_encoder(places.video)
    with lock_folder(out) if places.in_folder else lock_beside(places.labels):
        for target in (places.video, places.summary, places.labels, *table_files(places.objects)):
            remove_leftovers_of(target)
        listed = options.objects is not None
        replaced = check_places(places, (rgb, thermal), options.labels, overwrite, listed)
        return _label_video(predictor, rgb, thermal, places, encoder, replaced, model, options)


def _label_video(
    predictor: Predictor,
    rgb: str | Path | None,
    thermal: str | Path | None,
    places: Places,
    encoder: str,
    replaced: list[Path],
    model: str,
    options: VideoOptions,
) -> VideoOutcome:
    unpaired = Unpaired()
    streams, pairs, options = open_rig(rgb, thermal, options, unpaired)
    lead = streams[0]
    tally = _Tally(predictor.classes.names)
    watch = Watch(options.on_misaligned, tuple(stream.rate for stream in streams))
    levels = SlowLevels(
        predictor.config.thermal, predictor.thermal_range, options.camera.radiometric
    )
    for stream in streams:
        for folder, reason in stream.unreadable.items():
            tally.fail(folder, reason)
    total = math.ceil(lead.count / options.every)
    total = min(total or options.limit or 0, options.limit or total)
    film = Film(
        places.video, encoder, lead.rate / options.every, opacity=options.opacity,
        width=options.width, labels=places.labels if options.labels else None,
        legend=options.legend, objects=places.objects if options.objects else None,
    )  # fmt: skip

    def publish() -> None:
        if tally.frames:
            content = _summarise(
                places, model, rgb, thermal, streams, unpaired, tally, options, levels
            )
            content |= watch.describe() | {"sync": _describe_sync(streams, watch)}
            film.publish(places.summary, json.dumps(content, indent=1).encode(), replaced)

    with contextlib.ExitStack() as stack:
        for stream in streams:
            stack.callback(stream.frames.close)  # type: ignore[attr-defined]
        stack.callback(film.discard)
        stack.callback(publish)  # of an interrupted run too
        stack.enter_context(film)
        meter = stack.enter_context(Meter("video", total, "frames"))
        samples = prepare_next(_read_samples(pairs, options, tally, levels, watch))
        stack.enter_context(contextlib.closing(samples))
        _label(predictor, samples, film, meter, tally, options, lead)
        tally.interrupted = False
    if not tally.frames:
        raise InputError(_explain_no_frames(unpaired, options))
    return VideoOutcome(
        places.video, places.summary, tally.frames, unpaired, tally.failures, tally.failed,
        sum(stream.damaged for stream in streams), watch.word(), sum(tally.objects.values()),
        [word for stream in streams for word in _word_losses(stream)],
        _describe_sync(streams, watch),
    )  # fmt: skip


@dataclass
class _Tally:
    """What happened so far."""

    classes: tuple[str, ...]
    frames: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    failed: int = 0
    seconds: float = 0.0
    """Spent in the model."""
    pixels: dict[str, int] = field(default_factory=dict)
    """Per class."""
    size: tuple[int, int] | None = None
    objects: Counter[str] = field(default_factory=Counter)
    """Per class, over all frames."""
    interrupted: bool = True

    def fail(self, name: str, message: str) -> None:
        self.failed += 1
        if len(self.failures) < _NAMED:
            self.failures[name] = message


def _read_samples(
    pairs: Paired,
    options: VideoOptions,
    tally: _Tally,
    levels: SlowLevels,
    watch: Watch,
) -> Generator[tuple[Frame, Sample]]:
    """Every N-th pair, converted; what cannot be is counted, except at the beginning."""
    taken = 0
    for frame, partner in pairs:
        if frame.index % options.every:
            continue
        name = frame.name or f"{frame.index:06d}"
        try:
            sample = _read_sample(name, frame, partner, options)
            if partner is None:
                sample = watch.see(sample)
            else:
                gap = partner.time + options.offset - frame.time
                sample = watch.see(sample, partner.index, gap)
            if sample.thermal is not None and options.modality != "rgb":
                sample = levels.fix(sample, frame.time)
        except InputError as error:
            if not taken:
                raise
            tally.fail(name, str(error))
            continue
        yield frame, sample
        taken += 1
        if taken == options.limit:
            return


def _read_sample(name: str, frame: Frame, partner: Frame | None, options: VideoOptions) -> Sample:
    images = frame.load()
    if partner is not None:
        images = replace(partner.load(), rgb=images.rgb)
    images = match_sizes(images, f"frame {name}", options.resize_thermal, RESIZE_OR_REGISTER)
    return images.as_sample(name)


class _Inferred(NamedTuple):
    """What a thread made of one frame."""

    rgb: Array | None
    display: npt.NDArray[np.float32] | None
    logits: Tensor


def _infer(predictor: Predictor, modality: Modality, batch: list[Sample]) -> list[_Inferred]:
    images = [predictor.inputs(sample, modality) for sample in batch]
    logits = predictor.batch_logits(images)
    return [_Inferred(*pair, each) for pair, each in zip(images, logits, strict=True)]


def _label(
    predictor: Predictor,
    samples: Iterator[tuple[Frame, Sample]],
    film: Film,
    meter: Meter,
    tally: _Tally,
    options: VideoOptions,
    lead: Stream,
) -> None:
    """The loop: label, hand over to the writer, which works at the same time."""
    infer = partial(_infer, predictor, options.modality)
    smoother = Smoother(choose_smoothing(options, lead))
    pixels = np.zeros(len(tally.classes), np.int64)
    how = options.objects
    scale = None if how is None else choose_scale(how.degrees, options.camera.radiometric)

    def finish(sample: Sample, moment: float, rgb: Any, grey: Any, prediction: Prediction) -> None:
        rows = [] if how is None else list_objects(sample, prediction, how, scale)[1]
        tally.objects.update(row["class"] for row in rows)
        if lead.begin is not None and lead.begin >= DATED:
            for row in rows:
                row["taken"] = _format_time(lead.begin + moment)
        film.write(sample.name, moment, rgb, grey, prediction, rows)

    with write_behind(finish) as write:
        for (frame, sample), inferred in label_ahead(
            predictor, samples, lambda item: item[1], infer
        ):
            try:
                _, (rgb, display, logits), seconds = inferred()
            except InputError as error:
                if not tally.frames:
                    raise
                tally.fail(sample.name, str(error))
                continue
            begun = time.perf_counter()
            logits = smoother(logits)
            labels = label_map(logits, sample.size, len(predictor.classes))
            tally.seconds += seconds + time.perf_counter() - begun
            grey = None
            if display is not None:
                grey = draw_grey((display * 255).astype(np.uint8), options.clahe)
            image = rgb if rgb is not None else grey
            assert image is not None
            prediction = Prediction(
                labels, predictor.classes, logits, image,
                calibration=predictor.calibration(rgb, display), cell=predictor.cell,
            )  # fmt: skip
            write(sample, frame.time, rgb, grey, prediction)
            pixels += np.bincount(labels.ravel(), minlength=len(pixels))
            tally.pixels = dict(zip(tally.classes, pixels.tolist(), strict=True))
            tally.frames, tally.size = tally.frames + 1, sample.size
            meter.total = max(meter.total, tally.frames)
            meter.advance()


def _format_time(seconds: float) -> str:
    """Unix time as ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _explain_no_frames(unpaired: Unpaired, options: VideoOptions) -> str:
    if unpaired:
        return (
            f"no RGB frame has a thermal partner ({unpaired.counts['rgb']} and "
            f"{unpaired.counts['thermal']} frames); sartm video shifts the times with --offset, "
            f"widens --tolerance, pairs by --match index, and labels frames alone with "
            f"--allow-single"
        )
    return "the input holds no frame that could be labelled; check that it plays"


def _summarise(
    places: Places,
    model: str,
    rgb: str | Path | None,
    thermal: str | Path | None,
    streams: list[Stream],
    unpaired: Unpaired,
    tally: _Tally,
    options: VideoOptions,
    levels: SlowLevels,
) -> dict[str, Any]:
    """What the file beside the film says."""
    whole = sum(tally.pixels.values())
    return {
        "model": model,
        "settings": to_dict(options) | {"thermal_range": format_range(levels.how),
                                        "smooth": choose_smoothing(options, streams[0])},
        "inputs": {"rgb": rgb and hide_password(str(rgb)),
                   "thermal": thermal and hide_password(str(thermal))},
        "video": places.video.name,
        "frames": tally.frames,
        "interrupted": tally.interrupted,
        "rate": round(float(streams[0].rate / options.every), 4),
        "size": list(tally.size or ()),
        "thermal_range": {which: asdict(used) for which, used in levels.used.items()},
        "seconds_per_frame": round(tally.seconds / tally.frames, 5),
        "shares": {name: round(n / whole, 6) for name, n in tally.pixels.items() if n},
        "unpaired": {
            "counts": unpaired.counts, "times": unpaired.times, "files": unpaired.files,
        },
        "damaged_packets": {stream.name: stream.damaged for stream in streams},
        "failures": tally.failures,
        "failed": tally.failed,
        "objects": dict(tally.objects),
    }  # fmt: skip
