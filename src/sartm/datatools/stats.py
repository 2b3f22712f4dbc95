"""`sartm data stats`: class shares per split and subset, and the range of thermal values."""

import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sartm.classes import Classes
from sartm.data.layouts import open_layout
from sartm.data.manifest import Manifest, Row, Shard, fetch_pair, survey
from sartm.data.sets import Layout
from sartm.datatools.survey import Facts, inspect_pair, over_all, splits_of_pairs, write_output
from sartm.errors import InputError
from sartm.evaluation.report.charts import Shares, class_shares
from sartm.inference.ahead import read_ahead
from sartm.progress import Meter


@dataclass(frozen=True)
class ClassShare:
    """How much of a group of pairs one class covers."""

    id: int
    name: str
    pixels: int
    share: float
    """Percent of the labelled pixels that are not ignored; 0 where there are none."""
    pairs: int
    """Pairs that contain the class."""


@dataclass(frozen=True)
class GroupStats:
    """A split, or a subset of one."""

    split: str
    subset: str
    """Empty for the whole split."""
    pairs: int
    labelled: int
    """Pairs with a label."""
    pixels: int
    """Labelled pixels that are not ignored."""
    ignored: int
    classes: tuple[ClassShare, ...]
    thermal: tuple[float, float, float] | None
    """Smallest value, mean over all measured pixels, largest value; raw, in the set's unit."""

    @property
    def title(self) -> str:
        """Split, or split/subset."""
        return f"{self.split}/{self.subset}" if self.subset else self.split


@dataclass(frozen=True)
class Stats:
    """What `stats_dataset` counted."""

    name: str
    root: str
    groups: tuple[GroupStats, ...]
    failures: dict[str, str]
    """Pairs that are left out of every count, and why."""


def stats_dataset(path: str | Path, out: str | Path | None = None) -> Stats:
    """Count what a data set holds: class shares per split and subset, range of thermal values.

    Pairs with unreadable files, mismatched sizes or unknown ids are left out and named.

    Args:
        path: folder in a known layout, or a dataset.toml.
        out: folder to write the chart `classes.svg` into.

    Raises:
        InputError: the layout is not recognised, or `out` cannot be written.
    """
    layout = open_layout(path)
    pairs = list(splits_of_pairs(layout))
    facts = over_all(pairs, lambda pair: inspect_pair(pair, layout), f"count {layout.name}")
    good = {one.pair: one for one in facts if not one.problems}
    groups = []
    for split, members in layout.splits.items():
        kept = [good[pair] for pair in members if pair in good]
        groups.append(_group(split, "", kept, layout.classes))
        for subset, rule in layout.subsets.items():
            some = [one for one in kept if re.search(rule, one.pair.name)]
            if some:
                groups.append(_group(split, subset, some, layout.classes))
    failures = {one.pair.name: one.problems[0][1] for one in facts if one.problems}
    stats = Stats(layout.name, str(layout.root), tuple(groups), failures)
    return _finish(stats, layout.classes, out)


def _finish(stats: Stats, classes: Classes, out: str | Path | None) -> Stats:
    """Draw the chart, where one is wanted."""
    if out is not None:
        shares = [
            Shares(g.split, g.labelled, tuple((c.share, c.pairs) for c in g.classes))
            for g in stats.groups
            if not g.subset and g.pixels
        ]
        chart = class_shares(stats.name, classes, shares)
        write_output(Path(out) / "classes.svg", chart.encode())
    return stats


def _group(split: str, subset: str, facts: Sequence[Facts], classes: Classes) -> GroupStats:
    tally = _Tally()
    for one in facts:
        tally.add(one)
    return tally.group(split, subset, classes)


class _Tally:
    """What a group of pairs holds, pair by pair."""

    def __init__(self) -> None:
        self.pixels: Counter[int] = Counter()
        self.pairs: Counter[int] = Counter()
        self.all = self.labelled = self.measured = 0
        self.heat = 0.0
        self.low, self.high = math.inf, -math.inf

    def add(self, one: Facts) -> None:
        self.all += 1
        if one.ids is not None:
            self.labelled += 1
            self.pixels.update(one.ids)
            self.pairs.update(one.ids.keys())
        if one.heat:
            self.heat += one.heat.mean * one.heat.pixels
            self.measured += one.heat.pixels
            self.low, self.high = min(self.low, one.heat.low), max(self.high, one.heat.high)

    def group(self, split: str, subset: str, classes: Classes) -> GroupStats:
        ignored = self.pixels.pop(classes.ignore, 0)
        total = sum(self.pixels.values())
        shares = tuple(
            ClassShare(
                id_, name, self.pixels[id_], 100 * self.pixels[id_] / max(total, 1),
                self.pairs[id_],
            )
            for id_, name in enumerate(classes.names)
        )  # fmt: skip
        thermal = None
        if self.measured:
            thermal = (self.low, self.heat / self.measured, self.high)
        return GroupStats(split, subset, self.all, self.labelled, total, ignored, shares, thermal)


def stats_manifest(
    manifest: Manifest,
    classes: Classes,
    out: str | Path | None = None,
    layout: Layout | None = None,
) -> Stats:
    """As `stats_dataset`, of the pairs of a manifest, which are read one after another.

    Args:
        manifest: the pairs.
        classes: what the ids of labels mean.
        out: folder to write the chart `classes.svg` into.
        layout: the data set that the pairs are of, which says how their files are read.

    Raises:
        InputError: a wrong manifest, or `out` cannot be written.
    """
    total = survey(manifest, Shard())
    described = layout or Layout(manifest.place, Path(), classes, {})
    tally, failures = _Tally(), dict[str, str]()

    def inspect(row: Row) -> Facts:
        return inspect_pair(fetch_pair(row, classes, layout), described)

    with Meter(f"count {manifest.place}", total) as meter:
        for row, inspected in read_ahead(manifest, inspect, os.cpu_count() or 1):
            try:
                facts = inspected()
                if facts.problems:
                    raise InputError(facts.problems[0][1])
                tally.add(facts)
            except InputError as error:
                failures[row.name] = str(error)
            meter.advance()
    group = tally.group("manifest", "", classes)
    return _finish(Stats(manifest.place, manifest.place, (group,), failures), classes, out)
