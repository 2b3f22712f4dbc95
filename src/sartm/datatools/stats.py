"""`sartm data stats`: class shares per split and subset, and the range of thermal values."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sartm.classes import Classes
from sartm.data.layouts import open_layout
from sartm.datatools.survey import Facts, inspect_pair, over_all, splits_of_pairs, write_output
from sartm.evaluation.report.charts import Shares, class_shares


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
    if out is not None:
        shares = [
            Shares(g.split, g.labelled, tuple((c.share, c.pairs) for c in g.classes))
            for g in groups
            if not g.subset and g.pixels
        ]
        chart = class_shares(stats.name, layout.classes, shares)
        write_output(Path(out) / "classes.svg", chart.encode())
    return stats


def _group(split: str, subset: str, facts: Sequence[Facts], classes: Classes) -> GroupStats:
    pixels: Counter[int] = Counter()
    pairs: Counter[int] = Counter()
    for one in facts:
        pixels.update(one.ids or {})
        pairs.update((one.ids or {}).keys())
    ignored = pixels.pop(classes.ignore, 0)
    total = sum(pixels.values())
    shares = tuple(
        ClassShare(id_, name, pixels[id_], 100 * pixels[id_] / max(total, 1), pairs[id_])
        for id_, name in enumerate(classes.names)
    )
    heats = [one.heat for one in facts if one.heat]
    thermal = None
    if heats:
        mean = sum(heat.mean * heat.pixels for heat in heats) / sum(heat.pixels for heat in heats)
        thermal = (min(heat.low for heat in heats), mean, max(heat.high for heat in heats))
    labelled = sum(one.ids is not None for one in facts)
    return GroupStats(split, subset, len(facts), labelled, total, ignored, shares, thermal)
