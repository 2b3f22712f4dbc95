"""Pairs of several data sets in one order: each set's share of every batch, whatever its size."""

from collections.abc import Iterator, Sequence

import numpy as np

from sartm.errors import InputError

Key = tuple[int, int]
"""Epoch and index of a pair, for `TrainingSet`."""


class Mixture:
    """Which pair comes when, from (seed, epoch) alone.

    An epoch has so many places. Every set gets its share of them, evenly spread, so that batches
    are mixed; its pairs take turns in permutations of the set, which go on from epoch to epoch.
    """

    def __init__(
        self, sizes: Sequence[int], weights: Sequence[float], places: int, seed: int
    ) -> None:
        """Share out the places.

        Args:
            sizes: pairs of each set; indices count through all of them.
            weights: of each set; empty: all alike.
            places: pairs of an epoch.
            seed: of the run.

        Raises:
            InputError: there is no place for one of the sets.
        """
        self.sizes, self.seed = tuple(sizes), seed
        shares = np.asarray(weights or [1.0] * len(sizes), np.float64)
        wanted = places * shares / shares.sum()
        counts = np.floor(wanted).astype(int)
        most_cut = np.argsort(counts - wanted, kind="stable")
        counts[most_cut[: places - counts.sum()]] += 1
        if not counts.all():
            raise InputError(
                f"an epoch of {places} pairs has no place for one of data set "
                f"{int(np.argmin(counts)) + 1}; raise its weight: --data D:WEIGHT"
            )
        self.counts: list[int] = counts.tolist()

    def keys(self, epoch: int) -> list[Key]:
        """The pairs of an epoch, in order."""
        times: list[float] = []
        keys: list[Key] = []
        for place, count in enumerate(self.counts):
            start = np.random.default_rng((self.seed, epoch, 2, place)).random()
            times += ((np.arange(count) + start) / count).tolist()
            keys += self._turns(place, epoch * count, count)
        return [keys[index] for index in np.argsort(times, kind="stable")]

    def _turns(self, place: int, begun: int, count: int) -> Iterator[Key]:
        """What a set gives at its next `count` places of the run."""
        size, offset = self.sizes[place], sum(self.sizes[:place])
        turns = range(begun, begun + count)
        for epoch in range(turns[0] // size, turns[-1] // size + 1):
            order = np.random.default_rng((self.seed, epoch, 3, place)).permutation(size)
            for within in range(size):
                if epoch * size + within in turns:
                    yield epoch, offset + int(order[within])
