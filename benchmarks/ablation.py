"""What each part of the method is worth: short runs on a frozen encoder, compared pair by seed.

    python benchmarks/ablation.py --init MODEL --data DIR --out DIR [--rows a,b,c] [--seeds 0,1,2]
        [--steps 300] [--batch 4] [--crop 192x288] [--set loss.tau=1]... [--fresh]
        [--docs docs/ablation.md [--table NAME]]

A small model stands for SAM 2: `--init` is a `mini` trained on other data, RGB alone or drawn
pairs, whose encoder as RGB sees it is then frozen; every row adapts it for the same number of steps
with all else equal, and is scored on the validation split at its last step (nothing is selected).
The network works at `mini`'s share of the images' size in training and in scoring; label maps have
the images' size. `--set` holds for `base` and with it for every row. `--fresh` keeps no more than
the encoder: fusion and heads begin anew with each seed, so that no row inherits what was learned
together with `base`'s. Rows are judged by the decoder's map alone, where `mini` blends it with the
auxiliary head's, so that the heads can be told apart. A row is compared with `base` by the
differences of equal seeds: their mean and its 95 % interval by Student's t. Rows of inference only
score the trained `base` in another way. What is done is not repeated: results lie in OUT/ROW/SEED,
and a run that was broken off is resumed. The last line is one JSON object.
"""

import argparse
import copy
import functools
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch

from sartm.config import RGB_MEAN, override
from sartm.data.layouts import open_layout
from sartm.data.pairs import PairDataset, Sample
from sartm.errors import InputError
from sartm.evaluation.metrics import ConfusionMatrix, means
from sartm.files import write_atomic
from sartm.inference.predictor import Predictor, label_map
from sartm.language import SENTENCE_ENCODER
from sartm.model.checkpoint import read_config, save
from sartm.model.facts import ModelFacts
from sartm.model.lite import AdaptedConv
from sartm.model.loading import load
from sartm.model.lora import AdaptedQKV
from sartm.model.sartm import SARTM
from sartm.progress import Meter
from sartm.training.loop import Limits, train
from sartm.training.recipes import mini
from sartm.training.settings import AugmentationConfig, LossConfig, OptimConfig, TrainConfig

PHRASE = "a street at night with a {}, seen by a thermal camera"
"""What row `cmkd-phrases` says of a class, where the class table has its bare name."""
NO_DROP = ("augmentation.drop_rgb=0", "augmentation.drop_thermal=0")


@dataclass(frozen=True)
class Row:
    """One line of the table: what is set, and what it asks."""

    group: str
    about: str
    settings: tuple[str, ...] = ()
    """As for `sartm train --set`."""
    inputs: Literal["two", "early", "phrases"] = "two"
    """`early`: RGB is replaced by the mean of RGB and thermal, and is all the model sees;
    `phrases`: the classes' words are put into PHRASE."""


ROWS = {
    "base": Row("base", "defaults: FRM and FFM, adapters per modality, CMKD at 0.5"),
    "rgb": Row("modality", "RGB alone", ("model.fusion.kind=rgb", *NO_DROP)),
    "thermal": Row("modality", "thermal alone", ("model.fusion.kind=thermal", *NO_DROP)),
    "early": Row(
        "fusion", "mean of the two images, one encoder pass",
        ("model.fusion.kind=rgb", *NO_DROP), "early",
    ),
    "mean": Row("fusion", "mean of the features, no FRM and FFM", ("model.fusion.kind=mean",)),
    "lora-none": Row("LoRA", "no adapters", ("model.lora.sets=none",)),
    "lora-shared": Row("LoRA", "one set for both modalities", ("model.lora.sets=shared",)),
    "no-cmkd": Row("language", "no CMKD", ("loss.language=0",)),
    "cmkd-random": Row("language", "control: random names", ("loss.target=random",)),
    "cmkd-released": Row(
        "language", "as released: diagonal, not centred, tau 1",
        ("loss.diagonal=true", "loss.centre=false", "loss.tau=1"),
    ),
    "cmkd-diagonal": Row("language", "with the diagonal", ("loss.diagonal=true",)),
    "cmkd-modality": Row("language", "per modality too", ("loss.per_modality=true",)),
    "cmkd-tau": Row("language", "tau 1, a tenth as sharp", ("loss.tau=1",)),
    "cmkd-uncentred": Row("language", "not centred", ("loss.centre=false",)),
    "cmkd-weak": Row("language", "a tenth of the weight", ("loss.language=0.05",)),
    "cmkd-late": Row("language", "only in the second half", ("loss.language_start=1",)),
    "cmkd-phrases": Row(
        "language", "names within a sentence", (f"text_encoder={SENTENCE_ENCODER}",), "phrases"
    ),
    "no-memory": Row("memory", "no memory, no prototype term", ("loss.memory=false",)),
    "decode-two": Row(
        "decoder", "one decode per modality, logits averaged", ("model.decode=per_modality",)
    ),
    "no-dropout": Row("training", "no modality dropout", NO_DROP),
    "no-lovasz": Row("training", "no Lovasz-softmax", ("loss.lovasz=0",)),
    "sqrt-weights": Row(
        "training", "class weights (1/sqrt of the share) instead of Lovasz-softmax",
        ("loss.class_weights=sqrt", "loss.lovasz=0"),
    ),
}  # fmt: skip

INFERENCE = {
    "auxiliary": "the auxiliary head's map",
    "blend": "mean of both heads' logits",
    "rgb": "RGB only, features fused with themselves",
    "rgb pass": "RGB only, features past the fusion",
    "rgb blank": "RGB only, a blank thermal image",
    "thermal": "thermal only, features fused with themselves",
    "thermal pass": "thermal only, features past the fusion",
    "thermal blank": "thermal only, a blank RGB image",
}
"""Ways to use the trained `base`, each compared with the decoder's map of both modalities, or of
the same single modality fused with itself."""


@dataclass(frozen=True)
class Plan:
    """What all rows have in common."""

    data: Path
    out: Path
    start: Path
    steps: int
    batch: int
    crop: tuple[int, int]
    """Height and width of what the network sees in training."""
    settings: tuple[str, ...] = ()
    """As for `sartm train --set`; a row's own come after."""
    fresh: bool = False
    """Whether `start` holds a model per seed, of which only the encoder has learned."""

    def asked(self) -> dict[str, Any]:
        """What a result must have been made with to be taken over."""
        scale = mini().model.scale
        return {
            "steps": self.steps, "batch": self.batch, "crop": list(self.crop), "scale": scale,
            "settings": list(self.settings), "fresh": self.fresh,
        }  # fmt: skip

    def start_for(self, seed: int) -> Path:
        """The model that a run of this seed begins with."""
        return self.start / str(seed) if self.fresh else self.start


def start_of(source: str, target: Path, seed: int | None = None) -> Path:
    """A model with the encoder of `source` as RGB sees it and no adapters, written to `target`.

    Adapters of RGB are folded in: they are part of what was learned before. With a seed, all but
    the encoder is drawn anew.
    """
    if (target / "config.json").exists():
        return target
    trained = load(source)
    if not isinstance(trained, SARTM):
        raise InputError(f"{source} cannot be trained further; give a folder of `sartm train`")
    lora = replace(trained.config.lora, sets="none")
    torch.manual_seed(seed or 0)
    plain = SARTM(replace(trained.config, lora=lora))
    weights = plain.state_dict() if seed is not None else {}
    for name, tensor in trained.state_dict().items():
        if ".lora_" not in name and (seed is None or name.startswith("image_encoder.")):
            weights[name] = tensor
    for name, module in trained.named_modules():
        if isinstance(module, AdaptedQKV) and module.adapted:
            weights[f"{name}.weight"] = module.merged().weight[0]  # set 0 is RGB's, or shared
        elif isinstance(module, AdaptedConv):
            weights[f"{name}.weight"] = module.weight_of(0).detach()
    plain.load_state_dict(weights)
    facts = trained.facts or ModelFacts()
    save(plain, target, replace(facts, name="start"), full=True)
    return target


def configure(row: Row, seed: int, data: Path, plan: Plan) -> TrainConfig:
    """The run of one row and seed: `mini` with the encoder of the start, frozen."""
    base, model = mini(), read_config(plan.start_for(seed)).model
    pairs = len(PairDataset.open(data, "train"))
    per_epoch = max(1, pairs // plan.batch)
    epochs = math.ceil(plan.steps / per_epoch)
    config = replace(
        base,
        model=replace(
            model,
            frozen_encoder=True,
            lora=base.model.lora,
            fusion=replace(base.model.fusion, crop=plan.crop),
            output="decoder",  # `mini` blends, and would hide which head a row changes
            scale=base.model.scale,
        ),
        optim=OptimConfig(
            lr=base.optim.lr, weight_decay=base.optim.weight_decay, epochs=epochs,
            warmup_epochs=plan.steps / per_epoch / 10, batch_size=plan.batch, clip=1.0, ema=0.99,
        ),
        loss=LossConfig(tau=0.1, lovasz=1.0, every=2),  # as specified; docs/ablation.md says why
        augmentation=AugmentationConfig(crop=plan.crop, scale=(0.7, 1.6)),
        data=str(data),
        init=str(plan.start_for(seed)),
        seed=seed,
        workers=0,
        precision="fp32",
        validate_every=0,
        checkpoint_every=100,
        keep=1,
    )  # fmt: skip
    return override(config, (*plan.settings, *row.settings))


def vary(data: Path, inputs: str, out: Path) -> Path:
    """A copy of a data set as the rows of these inputs see it; written once."""
    target = out / f"{inputs}-data"
    if (target / "dataset.toml").exists():
        return target
    layout = open_layout(data)
    lists = {}
    for split in ("train", "val"):
        dataset = PairDataset.of(layout, split)
        names = []
        for index in range(len(dataset)):
            sample = dataset[index]
            name = f"{split}-{index:05d}"
            names.append(name)
            _write_pair(_mix(sample) if inputs == "early" else sample, target, name)
        lists[split] = names
    for split, names in lists.items():
        write_atomic(target / f"{split}.txt", "\n".join(names).encode())
    classes = dataset.classes
    words = [PHRASE.format(x) if x and inputs == "phrases" else x for x in classes.prompts]
    text = (
        f'name = "{layout.name} {inputs}"\nclasses = {json.dumps(list(classes.names))}\n'
        f"prompts = {json.dumps(words)}\nignore = {classes.ignore}\n"
        '[files]\nrgb = "rgb/{name}.png"\nthermal = "thermal/{name}.png"\n'
        'label = "labels/{name}.png"\n[splits]\ntrain = "train.txt"\nval = "val.txt"\n'
    )
    write_atomic(target / "dataset.toml", text.encode())
    return target


def _mix(sample: Sample) -> Sample:
    if sample.rgb is None or sample.thermal is None or sample.thermal.dtype != np.uint8:
        raise InputError(
            f"row early needs RGB and 8-bit thermal, pair {sample.name!r} lacks one; leave the "
            f"row out with --rows"
        )
    grey = np.repeat(sample.thermal[..., None], 3, axis=2)
    mixed = cv2.addWeighted(sample.rgb, 0.5, grey, 0.5, 0)
    return replace(sample, rgb=mixed.astype(np.uint8))


def _write_pair(sample: Sample, target: Path, name: str) -> None:
    assert sample.rgb is not None
    images = {"rgb": sample.rgb[..., ::-1], "thermal": sample.thermal, "labels": sample.label}
    for kind, image in images.items():
        assert image is not None
        (target / kind).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target / kind / f"{name}.png"), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def run_row(name: str, seed: int, plan: Plan) -> dict[str, float]:
    """Train and score one row and seed, or read what was found before: `present` mIoU by use."""
    folder = plan.out / name / str(seed)
    kept = folder / "result.json"
    if kept.exists():
        found = json.loads(kept.read_text())
        if found["asked"] != plan.asked():
            raise InputError(
                f"{folder} was run with {found['asked']}, now {plan.asked()} is asked for; choose "
                f"another --out"
            )
        return dict(found["scores"])
    row = ROWS[name]
    used = plan.data if row.inputs == "two" else vary(plan.data, row.inputs, plan.out)
    config = configure(row, seed, used, plan)
    run = folder / "run"
    resume = (run / "config.json").exists()
    limits = Limits(steps=plan.steps)
    result = train(config, run, resume=resume, limits=limits, device="cpu")
    if result["interrupted"]:
        raise KeyboardInterrupt
    model = load(run / "best")
    assert isinstance(model, SARTM)
    uses = TWO if config.model.fusion.kind in ("frm_ffm", "mean") else ("decoder",)
    extra = tuple(use for use in INFERENCE if use not in uses) if name == "base" else ()
    scores = score(model, PairDataset.open(used, "val"), (*uses, *extra))
    write_atomic(
        kept,
        json.dumps(
            {"asked": plan.asked(), "scores": scores, "seconds": result["seconds"]}
        ).encode(),
    )
    return scores


HEADS = ("decoder", "auxiliary", "blend")
"""Uses that are a value of `model.output`."""

TWO = ("decoder", "rgb", "thermal")
"""What is scored of every row that sees two modalities."""


@torch.inference_mode()
def score(model: SARTM, dataset: PairDataset, uses: Sequence[str]) -> dict[str, float]:
    """`present` mIoU in percent over the split, for each use."""
    predictor = Predictor(model, device="cpu", precision="fp32")
    matrices = {use: ConfusionMatrix(len(dataset.classes)) for use in uses}
    with Meter("score", len(dataset)) as meter:
        for index in range(len(dataset)):
            sample = dataset[index]
            assert sample.label is not None
            for use, logits in label_ways(predictor, sample, uses):
                labels = label_map(logits, sample.size, len(dataset.classes))
                matrices[use].update(labels, sample.label, dataset.classes.ignore)
            meter.advance()
    return {
        use: means(matrix, dataset.classes, "present")["present"]["miou"] or 0.0
        for use, matrix in matrices.items()
    }


def label_ways(
    predictor: Predictor, sample: Sample, uses: Sequence[str]
) -> Iterator[tuple[str, torch.Tensor]]:
    """(use, (K, h/4, w/4) logits) of a pair, each as a model set to that use would predict it."""
    model = predictor.model
    assert isinstance(model, SARTM)
    rgb, thermal = _tensors(predictor, sample)
    for use in uses:
        kind, _, how = use.partition(" ")
        seen: tuple[torch.Tensor | None, torch.Tensor | None] = (rgb, thermal)
        if how == "blank" and kind == "rgb":
            seen = rgb, torch.full_like(thermal, model.config.thermal.mean)
        elif how == "blank":
            seen = torch.tensor(RGB_MEAN).view(1, 3, 1, 1).expand_as(rgb), thermal
        elif kind in ("rgb", "thermal"):
            seen = (rgb, None) if kind == "rgb" else (None, thermal)
        settings = [f"output={kind if kind in HEADS else 'decoder'}"]
        if how == "pass":  # a model of this kind decodes the modality's features as they are
            settings.append(f"fusion.kind={kind}")
        view = copy.copy(model)  # shares the weights
        view.config = override(model.config, settings)
        yield use, view.predict_logits(*seen)[0]


def _tensors(predictor: Predictor, sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    """RGB (1, 3, H, W) and thermal (1, 1, H, W) in [0, 1]."""
    rgb, thermal = predictor.inputs(sample)
    if rgb is None or thermal is None:
        raise InputError(f"pair {sample.name!r} lacks RGB or thermal; every row needs both")
    x = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
    return x, torch.from_numpy(thermal)[None, None]


@functools.cache
def student_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t: bisection on the integral of its density."""
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2))
    scale /= math.sqrt(freedom * math.pi)

    def half(x: float) -> float:  # of t, from 0 to x; t = tan(a) makes the range finite
        a = np.linspace(0, math.atan(x / math.sqrt(freedom)), 2001)
        density = scale * math.sqrt(freedom) * np.cos(a) ** (freedom - 1)
        return float(np.trapezoid(density, a))

    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if half(middle) < 0.475 else (low, middle)
    return (low + high) / 2


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Mean of paired differences and its 95 % interval; an open one for fewer than two."""
    mean = float(np.mean(differences))
    if len(differences) < 2:
        return mean, -math.inf, math.inf
    spread = float(np.std(differences, ddof=1)) / math.sqrt(len(differences))
    reach = student_quantile(len(differences) - 1) * spread
    return mean, mean - reach, mean + reach


Scores = dict[str, dict[int, dict[str, float]]]
"""row -> seed -> use -> percent"""


def compare(scores: Scores) -> list[dict[str, Any]]:
    """A record per row of the table, against `base` or, for inference only, within it."""
    base = scores.get("base", {})
    records = []
    for name, seeds in scores.items():
        record: dict[str, Any] = {"group": ROWS[name].group, "row": name, "about": ROWS[name].about}
        record |= {"seeds": sorted(seeds)}
        for use in TWO:
            found = [values[use] for values in seeds.values() if use in values]
            record[use] = float(np.mean(found)) if found else None
        shared = sorted(set(seeds) & set(base))
        if name != "base" and shared:
            pairs = [seeds[s]["decoder"] - base[s]["decoder"] for s in shared]
            record["difference"] = interval(pairs)
        records.append(record)
    for use, about in INFERENCE.items():
        against = use.split()[0] if " " in use else "decoder"
        pairs = [v[use] - v[against] for v in base.values() if use in v]
        if not pairs:
            continue
        mean = float(np.mean([v[use] for v in base.values()]))
        records.append({
            "group": "inference", "row": use, "about": about, "seeds": sorted(base),
            "decoder": mean, "against": against, "difference": interval(pairs),
        })  # fmt: skip
    return records


def to_markdown(records: Sequence[dict[str, Any]], facts: str) -> str:
    """The tables of docs/ablation.md."""
    head = "| row | what | both | RGB only | thermal only | difference (95 %) | seeds |\n"
    lines = [facts, "", head + "| --- | --- | --- | --- | --- | --- | --- |"]
    for record in records:
        if record["group"] == "inference":
            continue
        cells = [_number(record[use]) for use in TWO]
        words = [record["row"], f"{record['group']}: {record['about']}", *cells]
        lines.append(f"| {' | '.join(words)} | {_difference(record)} | {len(record['seeds'])} |")
    extra = [record for record in records if record["group"] == "inference"]
    if extra:
        lines += ["", "The trained `base`, used otherwise:", ""]
        lines.append("| use | what | mIoU | against | difference (95 %) | seeds |\n"
                     "| --- | --- | --- | --- | --- | --- |")  # fmt: skip
    for record in extra:
        against = "decoder, both" if record["against"] == "decoder" else record["against"]
        words = [record["row"], record["about"], _number(record["decoder"]), against]
        lines.append(f"| {' | '.join(words)} | {_difference(record)} | {len(record['seeds'])} |")
    lines += ["", "**Bold**: the interval excludes 0."]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.2f}"


def _difference(record: dict[str, Any]) -> str:
    if "difference" not in record:
        return "\N{EN DASH}"
    mean, low, high = record["difference"]
    if not math.isfinite(low):
        return f"{mean:+.2f} (one seed)"
    text = f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"
    return f"**{text}**" if low > 0 or high < 0 else text


def write_docs(page: Path, table: str, name: str = "ablation") -> None:
    """Put the tables between the page's two marks of that name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = page.read_text()
    if text.count(begin) != 1 or text.count(end) != 1:
        raise InputError(f"{page} lacks the marks {begin} and {end}; put them where tables go")
    before, rest = text.split(begin)
    write_atomic(page, f"{before}{begin}\n{table}{end}{rest.split(end)[1]}".encode())


def choose_rows(wanted: str) -> list[str]:
    """Names of the rows, `base` first: every other one is compared with it."""
    names = [name.strip() for name in wanted.split(",") if name.strip()] or list(ROWS)
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise InputError(f"unknown row {unknown[0]!r}; choose from {', '.join(ROWS)}")
    return list(dict.fromkeys(["base", *names]))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--init", required=True, help="model of other data; its encoder is frozen")
    parser.add_argument("--data", type=Path, required=True, help="data set with train and val")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", default="", help=", ".join(ROWS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crop", default="192x288", help="of what the network sees")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="of base, and so of every row"
    )
    parser.add_argument("--fresh", action="store_true", help="fusion and heads begin anew")
    parser.add_argument("--docs", type=Path, help="page whose tables are written anew")
    parser.add_argument("--table", default="ablation", help="the page's marks between which")
    given = parser.parse_args(arguments)
    try:
        records = measure(given)
    except InputError as error:
        print(f"ablation: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ablation: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    print(json.dumps(records))
    return 0


def measure(given: argparse.Namespace) -> list[dict[str, Any]]:
    rows, seeds = choose_rows(given.rows), [int(seed) for seed in given.seeds.split(",")]
    height, _, width = given.crop.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise InputError(f"--crop is {given.crop!r}; write HxW in pixels, as in 192x288")
    start = given.out / "start"
    if given.fresh:
        for seed in seeds:
            start_of(given.init, start / str(seed), seed)
    else:
        start_of(given.init, start)
    plan = Plan(
        given.data, given.out, start, given.steps, given.batch, (int(height), int(width)),
        tuple(given.set), given.fresh,
    )  # fmt: skip
    scores: Scores = {name: {} for name in rows}
    for seed in seeds:  # seeds outside: after each there is a table of all rows
        for name in rows:
            print(f"row {name}, seed {seed}", file=sys.stderr, flush=True)
            scores[name][seed] = run_row(name, seed, plan)
        known = {name: found for name, found in scores.items() if found}
        table = to_markdown(compare(known), describe(given))
        write_atomic(given.out / "table.md", table.encode())
    if given.docs:
        write_docs(given.docs, table, given.table)
    print(table)
    return compare(scores)


def describe(given: argparse.Namespace) -> str:
    """What was run, without where it lies."""
    data = open_layout(given.data).name
    return (
        f"`present` mIoU in percent on `val` of {data}, of the decoder's map; the network works at "
        f"{mini().model.scale:g} of the images' size; encoder of {Path(given.init).name}, frozen"
        f"{', fusion and heads anew' if given.fresh else ''}; "
        f"{given.steps} steps of {given.batch} crops of {given.crop}; the mean of the weights at "
        f"the last step, nothing selected{_also(given.set)}."
    )


def _also(settings: Sequence[str]) -> str:
    return f"; every row with {', '.join(f'`{text}`' for text in settings)}" if settings else ""


if __name__ == "__main__":
    sys.exit(main())
