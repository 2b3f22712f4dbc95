"""What it is worth that a class is its word: the questions of docs/words.md, compared by seed.

    python benchmarks/words.py --data msrs268 --data mfnet182 --data drawn --data crack90
        --out DIR [--parts apart,pooled,variants,cmkd,rename,new] [--seeds 0,1,2] [--steps 660]
        [--init mini-synthetic] [--new bike] [--held D]... [--set a.b=c]... [--docs PAGE]

Every run is the recipe `mini` for `--steps` steps, from the encoder and fusion of `--init`: heads
are new, since with heads of its own a start would spare fixed classes what words have to learn. It
is scored at its last step, on the validation split of each set, in the classes of that set:
`present` mIoU.

    apart     a model for each set, with fixed classes and with words
    pooled    one model for all sets, with fixed classes and with words, of as many steps as the
              models apart have together
    variants  pooled words, in `--steps` alone: as they are; linear, not centred, adapted, the rest
              alone
    cmkd      likewise with CMKD, and with random vectors in the names' place
    rename    the first set's words under other names, and under random vectors: nothing is trained
    new       the first set without labels of one class, then with 5, 10 and 20 pairs of it, which
              begins at its name or at another word

Differences are of equal seeds: their mean and its 95 % interval by Student's t. `--held` names sets
on which pooled models are scored too. What is done is not repeated: results lie in OUT. The last
line is one JSON object.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from ablation import interval, write_docs

from sartm.classes import Classes
from sartm.config import override
from sartm.data.layouts import open_layout
from sartm.data.pairs import PairDataset
from sartm.errors import InputError
from sartm.evaluation.metrics import ConfusionMatrix, means, percent
from sartm.evaluation.scoring import score_pairs
from sartm.files import read_json, write_atomic
from sartm.inference.predictor import Predictor
from sartm.language import word_vectors
from sartm.model.checkpoint import save
from sartm.model.loading import choose_known, load
from sartm.model.sartm import SARTM
from sartm.spaces import text_of
from sartm.training.loop import train
from sartm.training.recipes import mini
from sartm.vocabulary import words

TEXT = "model.classes_from=text"
SHORT_POOLED = "text-short"
VARIANTS = {
    "linear": ("model.words.map=linear",),
    "uncentred": ("model.words.centre=false",),
    "adapted": ("model.words.adapted=true",),
    "rest-alone": ("model.rest=alone",),
}
CMKD = {
    "cmkd": ("loss.language=0.5",),
    "cmkd-random": ("loss.language=0.5", "loss.target=random"),
}
RENAMED = {
    "car": "automobile", "person": "pedestrian", "bicycle": "push bike", "road curb": "kerb",
    "car stop": "bollard", "traffic cone": "road cone", "speed bump": "speed hump",
    "guardrail": "crash barrier",
}  # fmt: skip
"""By their own vectors: what the vocabulary calls synonyms is not looked up here."""
PARTS = ("apart", "pooled", "variants", "cmkd", "rename", "new")
FEW = (5, 10, 20)
FEWER = 4
"""Runs on a few pairs take this part of the steps."""

Scores = dict[str, float]
"""What was scored -> percent."""


@dataclass(frozen=True)
class Plan:
    """What all runs have in common."""

    data: tuple[Path, ...]
    held: tuple[Path, ...]
    out: Path
    steps: int
    init: str
    settings: tuple[str, ...]
    new: str
    """Class of the first set that part `new` leaves out."""


def run(plan: Plan, name: str, data: Sequence[Path], seed: int, *settings: str) -> Path:
    """Train a model, or go on with it; its folder."""
    folder = plan.out / name / str(seed)
    asked = [f"optim.steps={plan.steps}", *plan.settings, *settings]
    base = replace(
        mini(), data=str(data[0]), pooled=tuple(map(str, data[1:])), init=plan.init, seed=seed,
        workers=0, precision="fp32", validate_every=0, keep=1,
    )  # fmt: skip
    if not (folder / "done").exists():
        resume = (folder / "config.json").exists()
        result = train(override(base, asked), folder, resume=resume, device="cpu")
        if result["interrupted"]:
            raise KeyboardInterrupt
        write_atomic(folder / "done", b"")
    return folder / "best"


def write_headless(source: str, folder: Path) -> Path:
    """A model whose classes nobody has, so that what starts from it keeps no head; once."""
    if not (folder / "config.json").exists():
        model = open_model(source)
        assert model.facts is not None
        names = tuple(f"none {index}" for index in range(len(model.config.classes)))
        model.config = replace(model.config, classes=Classes(names))
        save(model, folder, model.facts, full=True)
    return folder


def open_model(folder: str | Path) -> SARTM:
    """A model with weights."""
    model = load(folder)
    assert isinstance(model, SARTM)
    return model


def score(model: SARTM, data: Path, only: str = "", mean: str = "present") -> float:
    """A mean IoU in percent on the validation split, or the IoU of one class."""
    val = PairDataset.open(data, "val")
    predictor = Predictor(choose_known(model, val.classes), device="cpu", precision="fp32")
    matrix = ConfusionMatrix(len(val.classes))
    for scored in score_pairs(predictor, val):
        matrix.counts += scored.counts
    if only:
        return percent(float(matrix.iou()[val.classes.names.index(only)])) or 0.0
    return means(matrix, val.classes, mean)[mean]["miou"] or 0.0


def score_all(plan: Plan, model: SARTM, held: bool = False) -> Scores:
    """A model of all sets on each of them."""
    sets = (*plan.data, *(plan.held if held else ()))
    return {open_layout(data).name: score(model, data) for data in sets}


def measure_apart(plan: Plan, seed: int) -> Iterator[tuple[str, Scores]]:
    for kind, settings in (("fixed-apart", ()), ("text-apart", (TEXT,))):
        found = {}
        for data in plan.data:
            name = open_layout(data).name
            model = open_model(run(plan, f"{kind}-{name}", [data], seed, *settings))
            found[name] = score(model, data)
        yield kind, found


def measure_pooled(plan: Plan, seed: int) -> Iterator[tuple[str, Scores]]:
    together = f"optim.steps={plan.steps * len(plan.data)}"
    for name, kind in (("fixed-pooled", ()), ("text-pooled", (TEXT,))):
        model = open_model(run(plan, name, plan.data, seed, together, *kind))
        yield name, score_all(plan, model, held=kind == (TEXT,))


def measure_variants(
    plan: Plan, seed: int, variants: dict[str, tuple[str, ...]]
) -> Iterator[tuple[str, Scores]]:
    rows = {SHORT_POOLED: (), **{f"{SHORT_POOLED}-{name}": them for name, them in variants.items()}}
    for row, settings in rows.items():
        folder = run(plan, row, plan.data, seed, TEXT, *settings)
        yield row, score_all(plan, open_model(folder), held=True)


def measure_renamed(plan: Plan, seed: int) -> Iterator[tuple[str, Scores]]:
    """The first set's model under its words, other words, and vectors that mean nothing."""
    data = plan.data[0]
    name = open_layout(data).name
    model = open_model(run(plan, f"text-apart-{name}", [data], seed, TEXT))
    table, held = model.config.classes, model.words
    assert held is not None
    texts = [text_of(table, index) for index in range(len(table)) if index != table.rest]
    other = tuple(RENAMED.get(text, text) for text in texts)
    renamed = word_vectors(other, centre=model.config.words.centre).values
    noise = torch.randn(held.vectors.shape, generator=torch.Generator().manual_seed(seed))
    for row, vectors in (
        ("named", held.vectors.clone()),
        ("renamed", torch.from_numpy(renamed)),
        ("renamed-random", torch.nn.functional.normalize(noise, dim=1)),
    ):
        held.vectors.copy_(vectors)
        yield row, {name: score(model, data)}


def measure_new(plan: Plan, seed: int) -> Iterator[tuple[str, Scores]]:
    """A class that begins at its name, or at a word that has nothing to do with it."""
    data, target = plan.data[0], plan.out / "new" / "data"
    name = open_layout(data).name
    without = copy_set(data, target / "without", leave_out=plan.new)
    start = str(run(plan, f"new-without-{plan.new}", [without], seed, TEXT))
    draw = np.random.default_rng(seed)
    wrong = str(draw.choice(words()))
    for count in FEW:
        few = copy_set(data, target / f"{count}-{seed}", only=plan.new, most=count, seed=seed)
        other = copy_set(
            data, target / f"{count}-{seed}-other", only=plan.new, most=count, seed=seed,
            word=wrong,
        )  # fmt: skip
        short = f"optim.steps={max(1, plan.steps // FEWER)}"
        for kind, source in (("name", few), ("other", other)):
            folder = run(
                replace(plan, init=start), f"new-{count}-{kind}", [source], seed, TEXT, short
            )
            model = open_model(folder)
            key = f"{name}: {plan.new}"
            yield f"new-{count}-{kind}", {key: score(model, source, plan.new)}


def copy_set(
    data: Path,
    target: Path,
    *,
    leave_out: str = "",
    only: str = "",
    most: int = 0,
    seed: int = 0,
    word: str = "",
) -> Path:
    """A copy of a data set, once: without a class, or with a few training pairs that show it.

    Args:
        data: what is copied, with its val split.
        target: the new folder.
        leave_out: class that becomes part of the rest.
        only: class that every training pair has.
        most: training pairs.
        seed: which of them.
        word: prompt of `only` instead of its own.
    """
    if (target / "dataset.toml").exists():
        return target
    layout = open_layout(data)
    table = layout.classes
    kept = [index for index, name in enumerate(table.names) if name != leave_out]
    if len(kept) == len(table) and leave_out:
        raise InputError(f"{layout.name} has no class {leave_out!r}; choose one with --new")
    ids = np.full(table.ignore + 1, table.rest or 0, np.uint8)
    ids[kept], ids[table.ignore] = range(len(kept)), table.ignore
    chosen = table.names.index(only) if only else None
    for split in ("train", "val"):
        dataset, names = PairDataset.of(layout, split), []
        order = np.random.default_rng(seed).permutation(len(dataset))
        for index in order if split == "train" else range(len(dataset)):
            sample = dataset[int(index)]
            assert sample.rgb is not None
            assert sample.thermal is not None
            assert sample.label is not None
            if split == "train" and chosen is not None and not (sample.label == chosen).any():
                continue
            names.append(f"{split}-{index:05d}")
            images = {
                "rgb": sample.rgb[..., ::-1], "thermal": sample.thermal,
                "labels": ids[sample.label],
            }  # fmt: skip
            for kind, image in images.items():
                (target / kind).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(target / kind / f"{names[-1]}.png"), image)
            if split == "train" and most and len(names) == most:
                break
        write_atomic(target / f"{split}.txt", "\n".join(names).encode())
    write_atomic(target / "dataset.toml", _describe(layout.name, table, kept, only, word).encode())
    return target


def _describe(name: str, table: Classes, kept: Sequence[int], only: str, word: str) -> str:
    names = [table.names[index] for index in kept]
    prompts = [
        word if word and table.names[index] == only else table.prompts[index] for index in kept
    ]
    return (
        f'name = "{name}"\nclasses = {json.dumps(names)}\nprompts = {json.dumps(prompts)}\n'
        f'ignore = {table.ignore}\n[files]\nrgb = "rgb/{{name}}.png"\n'
        'thermal = "thermal/{name}.png"\nlabel = "labels/{name}.png"\n'
        '[splits]\ntrain = "train.txt"\nval = "val.txt"\n'
    )


COMPARED = {
    "text-apart": "fixed-apart", "fixed-pooled": "fixed-apart", "text-pooled": "fixed-apart",
    **{f"{SHORT_POOLED}-{name}": SHORT_POOLED for name in (*VARIANTS, *CMKD)},
    "renamed": "named", "renamed-random": "named",
    **{f"new-{count}-name": f"new-{count}-other" for count in FEW},
}  # fmt: skip
"""Row -> the row it is compared with."""

Results = dict[str, dict[int, Scores]]
"""row -> seed -> what was scored -> percent"""


def to_markdown(results: Results) -> str:
    """A table for rows that are scored on the same sets: means, differences from another row."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for row, seeds in results.items():
        alike.setdefault(tuple(next(iter(seeds.values()))), []).append(row)
    lines = ["**Bold**: the interval excludes 0."]
    for sets, rows in alike.items():
        lines += ["", f"| row | {' | '.join(sets)} | against | seeds |"]
        lines.append(f"| --- |{' ---: |' * len(sets)} --- | ---: |")
        for row in rows:
            against = COMPARED.get(row, "")
            cells = [_cell(results[row], results.get(against, {}), on) for on in sets]
            lines.append(f"| {row} | {' | '.join(cells)} | {against} | {len(results[row])} |")
    return "\n".join(lines) + "\n"


def _cell(seeds: dict[int, Scores], other: dict[int, Scores], on: str) -> str:
    """Mean over seeds; with the difference from another row's, its interval where there is one."""
    mean = f"{np.mean([found[on] for found in seeds.values()]):.1f}"
    gains = [found[on] - other[seed][on] for seed, found in seeds.items() if seed in other]
    if not gains:
        return mean
    gain, low, high = interval(gains)
    if len(gains) == 1:
        return f"{mean} ({gain:+.1f})"
    text = f"{gain:+.1f}, {low:+.1f} to {high:+.1f}"
    return f"{mean} (**{text}**)" if low > 0 or high < 0 else f"{mean} ({text})"


def _rows(plan: Plan, part: str, seed: int) -> Iterator[tuple[str, Scores]]:
    match part:
        case "apart":
            return measure_apart(plan, seed)
        case "pooled":
            return measure_pooled(plan, seed)
        case "rename":
            return measure_renamed(plan, seed)
        case "new":
            return measure_new(plan, seed)
    return measure_variants(plan, seed, VARIANTS if part == "variants" else CMKD)


def measure(plan: Plan, parts: Sequence[str], seeds: Sequence[int]) -> Results:
    """Every part for every seed; the table is written anew after each part."""
    results: Results = {}
    for seed in seeds:
        for part in parts:
            done = plan.out / f"{part}-{seed}.json"
            if not done.exists():
                rows = {}
                for row, found in _rows(plan, part, seed):
                    print(f"{row}, seed {seed}: {found}", file=sys.stderr, flush=True)
                    rows[row] = found
                write_atomic(done, json.dumps(rows).encode())
            for row, found in read_json(done).items():
                results.setdefault(row, {})[seed] = found
            write_atomic(plan.out / "table.md", to_markdown(results).encode())
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--data", type=Path, action="append", required=True, help="with a val split"
    )
    parser.add_argument("--held", type=Path, action="append", default=[], help="only scored")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=660)
    parser.add_argument("--init", default="mini-synthetic")
    parser.add_argument("--new", default="bike", help="class of the first set, for part new")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="of every run")
    parser.add_argument("--docs", type=Path, help="page with the marks of the table")
    given = parser.parse_args(arguments)
    parts = [part.strip() for part in given.parts.split(",")]
    try:
        unknown = [part for part in parts if part not in PARTS]
        if unknown:
            raise InputError(f"unknown part {unknown[0]!r}; choose from {', '.join(PARTS)}")
        plan = Plan(
            tuple(given.data), tuple(given.held), given.out, given.steps,
            str(write_headless(given.init, given.out / "start")),
            tuple(given.set), given.new,
        )  # fmt: skip
        results = measure(plan, parts, [int(seed) for seed in given.seeds.split(",")])
    except InputError as error:
        print(f"words: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("words: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    print(to_markdown(results))
    if given.docs:
        write_docs(given.docs, to_markdown(results), "words")
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
