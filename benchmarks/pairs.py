"""How many labelled pairs are enough: the recipe `mini` on few, many, all training pairs of a set.

    python benchmarks/pairs.py --data msrs268 --out DIR [--counts 5,10,20,50,100,220]
        [--seeds 0,1,2] [--steps 330] [--starts mini-synthetic,nothing] [--set a.b=c]...
        [--docs docs/own-data.md --table NAME] [--chart docs/pairs.svg]

Every run has the same number of steps, so that only the pairs differ; what a seed trains on is
among what it trains on with more pairs. It is scored at its last step on the whole validation
split, which chooses nothing: `present`, or `foreground` of few classes. A start is a model or
`nothing`: random weights. What is done is not repeated: results lie in OUT. `--chart` needs
matplotlib. The last line is one JSON object.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from ablation import write_docs
from words import copy_set, open_model, score

from sartm.config import override
from sartm.data.layouts import open_layout
from sartm.errors import InputError
from sartm.evaluation.protocols import default_protocols, name_mean
from sartm.files import read_json, write_atomic
from sartm.training.loop import train
from sartm.training.recipes import mini

NOTHING = "nothing"

Curve = dict[int, list[float]]
"""pairs -> percent, of one seed after another"""


def write_subset(data: Path, count: int, seed: int) -> Path:
    """A dataset.toml beside that of `data` whose training split is `count` of its pairs."""
    target, names = data / f"{count}-{seed}.toml", (data / "train.txt").read_text().split()
    if count > len(names):
        raise InputError(f"{data} has {len(names)} training pairs, not {count}; see --counts")
    chosen = np.random.default_rng(seed).permutation(len(names))[:count]
    listed = "\n".join(names[index] for index in sorted(chosen))
    write_atomic(data / f"train-{count}-{seed}.txt", listed.encode())
    text = (data / "dataset.toml").read_text()
    write_atomic(target, text.replace('"train.txt"', f'"train-{count}-{seed}.txt"').encode())
    return target


def measure_one(
    data: Path, count: int, seed: int, start: str, out: Path, settings: Sequence[str], mean: str
) -> float:
    """Train and score, or what was found before, in percent."""
    folder = out / f"{Path(start).name}-{count}-{seed}"
    done = folder / "score.json"
    if not done.exists():
        subset = write_subset(data, count, seed)
        base = replace(
            mini(), data=str(subset), init="" if start == NOTHING else start, seed=seed, workers=0,
            precision="fp32", validate_every=0, keep=1,
        )  # fmt: skip
        resume = (folder / "config.json").exists()
        result = train(override(base, settings), folder, resume=resume, device="cpu")
        if result["interrupted"]:
            raise KeyboardInterrupt
        found = score(open_model(folder / "best"), subset, mean=mean)
        write_atomic(done, json.dumps({mean: found}).encode())
    return float(read_json(done)[mean])


def to_markdown(curves: dict[str, Curve]) -> str:
    """A row per start, a column per number of pairs: mean and deviation of the seeds."""
    counts = sorted({count for curve in curves.values() for count in curve})
    lines = [f"| start | {' | '.join(map(str, counts))} |"]
    lines.append(f"| --- |{' ---: |' * len(counts)}")
    for start, curve in curves.items():
        cells = [_spread(curve.get(count, [])) for count in counts]
        lines.append(f"| {Path(start).name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(scores: Sequence[float]) -> str:
    if len(scores) < 2:
        return f"{scores[0]:.1f}" if scores else ""
    return f"{np.mean(scores):.1f} ± {np.std(scores, ddof=1):.1f}"


def draw(curves: dict[str, Curve], name: str, mean: str, path: Path) -> None:
    """The curves with the range of their seeds, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "sartm"  # the same file from the same figures
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.4), layout="constrained")
    for start, curve in curves.items():
        counts = sorted(curve)
        means = [np.mean(curve[count]) for count in counts]
        axes.plot(counts, means, marker="o", label=f"from {Path(start).name}")
        low, high = ([end(curve[count]) for count in counts] for end in (min, max))
        axes.fill_between(counts, low, high, alpha=0.2)
    axes.set(xscale="log", xlabel="labelled pairs", ylabel=f"{mean}, %", title=name)
    axes.set_xticks(counts, map(str, counts))
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="with a val split")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--counts", default="5,10,20,50,100,220")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--steps", type=int, default=330)
    parser.add_argument("--starts", default=f"mini-synthetic,{NOTHING}")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="of every run")
    parser.add_argument("--docs", type=Path, help="page with the marks of the table")
    parser.add_argument("--table", default="pairs")
    parser.add_argument("--chart", type=Path)
    given = parser.parse_args(arguments)
    settings = [f"optim.steps={given.steps}", *given.set]
    curves: dict[str, Curve] = {}
    try:
        layout = open_layout(given.data)
        classes = layout.classes
        mean = next(p for p in default_protocols(classes) if p in ("foreground", "present"))
        data = copy_set(given.data, given.out / "data")
        for seed in map(int, given.seeds.split(",")):
            for count in map(int, given.counts.split(",")):
                for start in given.starts.split(","):
                    found = measure_one(data, count, seed, start, given.out, settings, mean)
                    print(f"{start}, {count} pairs, seed {seed}: {found:.2f}", file=sys.stderr)
                    curves.setdefault(start, {}).setdefault(count, []).append(found)
                    write_atomic(given.out / "table.md", to_markdown(curves).encode())
        if given.docs:
            write_docs(given.docs, to_markdown(curves), given.table)
        if given.chart:
            draw(curves, layout.name, name_mean(mean, classes.names), given.chart)
    except InputError as error:
        print(f"pairs: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pairs: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    print(to_markdown(curves))
    print(json.dumps(curves))
    return 0


if __name__ == "__main__":
    sys.exit(main())
