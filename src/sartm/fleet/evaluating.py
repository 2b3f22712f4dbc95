"""A model scored on a manifest, by this process or a cluster: counts are summed."""

from copy import copy
from dataclasses import replace

from sartm.classes import Classes
from sartm.config import Modality, to_dict
from sartm.data.manifest import Manifest, Row, fetch_pair
from sartm.data.pairs import Sample, read_pair
from sartm.data.sets import Layout, outline
from sartm.errors import InputError
from sartm.evaluation.metrics import count_pixels
from sartm.evaluation.reliability import Reliability
from sartm.evaluation.report.scores import Report
from sartm.evaluation.scoring import was_seen
from sartm.evaluation.views import Views
from sartm.fleet.counting import About, Counted, Numbered, require_label, sum_counts
from sartm.fleet.labeller import PairLabeller
from sartm.fleet.ray_engine import Cluster
from sartm.inference.pipeline import label_ahead


class ModelCounter:
    """Labels pairs and counts; travels with its labeller."""

    def __init__(
        self, labeller: PairLabeller, classes: Classes, layout: Layout | None = None
    ) -> None:
        self.labeller, self.classes = labeller, classes
        self.layout = None if layout is None else outline(layout)

    def __call__(self, chunk: list[Numbered]) -> Counted:
        workshop, classes = self.labeller.workshop(), self.classes
        counted, facts = Counted(reliability=Reliability()), workshop.predictor.facts
        assert counted.reliability is not None
        label = workshop.label
        for (place, row), labelled in label_ahead(workshop.predictor, chunk, self._read, label):
            try:
                sample, prediction, _ = labelled()
            except InputError as error:
                counted.failures[row.name] = str(error)
                continue
            assert sample.label is not None
            counts = count_pixels(prediction.labels, sample.label, classes)
            counted.pairs.append((place, counts))
            counted.sizes.add(sample.size)
            counted.reliability.add(prediction.confidence, prediction.labels, sample.label, classes)
            if facts is not None and was_seen(sample, classes, facts):
                counted.contaminated.append(sample.name)
        return counted

    def _read(self, numbered: tuple[int, Row]) -> Sample:
        row, layout = numbered[1], self.layout
        require_label(row)
        pair = fetch_pair(row, self.classes, layout)
        if layout is None:
            return read_pair(pair, self.classes, four_channel="auto")
        return read_pair(
            pair, self.classes, four_channel="auto", camera=layout.camera_of(pair),
            resize_thermal=layout.resize_thermal,
        )  # fmt: skip


def evaluate_manifest(
    labeller: PairLabeller,
    manifest: Manifest,
    classes: Classes,
    cluster: Cluster | None = None,
    *,
    modality: Modality = "both",
    layout: Layout | None = None,
    protocol: str | None = None,
    command: str = "",
) -> tuple[Report, dict[str, str]]:
    """Score a model on the labelled pairs of a manifest, whole images, as `evaluate` does.

    Args:
        labeller: the model; what labels are is not touched by its options but `modality`.
        manifest: the pairs.
        classes: what the ids of labels mean, which must be the model's.
        cluster: labels and counts instead of this process.
        modality: what the model may see.
        layout: the data set that the pairs are of, which says how their files are read.
        protocol: a name of docs/protocols.md.
        command: what the user typed, for the report.

    Returns:
        The report, and the reason per pair that is not in it.

    Raises:
        InputError: other classes than the model's; else as `sum_counts`.
    """
    options = replace(labeller.options, modality=modality, overlay=False)
    if options != labeller.options:  # by those that it has it may be at work already
        labeller = copy(labeller)
        labeller.options = options
    labeller.classes().require_same(classes)
    views = to_dict(Views()) | {"stride": Views().step()}
    about = About(modality, labeller.name, command, protocol, labeller.selected_on(), views)
    return sum_counts(ModelCounter(labeller, classes, layout), manifest, classes, cluster, about)
