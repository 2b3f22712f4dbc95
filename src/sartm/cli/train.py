"""`train`: a recipe and what the command line changes in it."""

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sartm.cli import options
from sartm.cli.options import command_line, print_json
from sartm.cli.printing import print_comparison, say
from sartm.errors import InputError
from sartm.outputs import check_json

if TYPE_CHECKING:
    from sartm.training.settings import TrainConfig

CLICKS = "clicks"
"""The recipe that teaches a model clicks instead of classes."""
RISING = 1.0
"""Points that the last third of a run has to add for more of it to be worth while."""


def train(
    recipe: Annotated[
        str, typer.Argument(help="mini, mfnet, pst900, fmb, clicks or a run's config.json")
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(help="Data set, or several, each with its weight in batches: D or D:0.5."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/latest"),
    init: Annotated[
        str | None, typer.Option(help="Model to start from; of mini mini-synthetic, '' for none.")
    ] = None,
    teacher: Annotated[
        list[str] | None, typer.Option(help="Larger model to learn from as well; repeatable.")
    ] = None,
    unlabelled: Annotated[
        list[str] | None, typer.Option(help="Pairs that the teacher labels: a dataset.toml.")
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="a.b=value")] = None,
    text_encoder: Annotated[
        str | None, typer.Option(help="For class names beyond the vocabulary.")
    ] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    resume: Annotated[bool, typer.Option(help="Continue the run in --out.")] = False,
    max_steps: Annotated[int | None, typer.Option(min=1)] = None,
    max_time: Annotated[
        float | None, typer.Option(help="Minutes; mini plans a new run to end in them.")
    ] = None,
    device: options.Device = "auto",
    precision: Annotated[
        options.NumberFormat | None, typer.Option(help="The recipe's if left out.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Pairs the network takes at a time; the recipe's.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, max=256, help="Readers of batches; 0: none; the recipe's.")
    ] = None,
    json_file: options.Json = "",
) -> int:
    """Train on a labelled data set; the best on its validation split is kept in OUT/best."""
    from dataclasses import replace

    from sartm.config import override
    from sartm.training.loop import Limits
    from sartm.training.loop import train as run_training
    from sartm.training.recipes import load_recipe

    check_json(json_file, [recipe, *(data or ()), init, *(teacher or ()), *(unlabelled or ())], out)
    if max_time is not None and not max_time > 0:
        raise InputError(f"--max-time is {max_time:g}; give minutes above 0")
    if seed is not None and not 0 <= seed < 2**32:
        raise InputError(f"--seed is {seed}; give 0 to {2**32 - 1}")
    if recipe == CLICKS:
        unused = {
            "--teacher": teacher, "--unlabelled": unlabelled, "--precision": precision,
            "--text-encoder": text_encoder is not None, "--workers": workers is not None,
        }  # fmt: skip
        return _train_clicks(
            data or [], out, init, settings or [], batch_size, seed, resume, max_steps, max_time,
            device, json_file, unused,
        )  # fmt: skip
    config = load_recipe(recipe)
    if resume and (out / "config.json").exists():
        named, config = config.recipe, load_recipe(str(out))
        if named != config.recipe:
            raise InputError(
                f"{out} holds a run of {config.recipe}, which {named} cannot continue: sartm train "
                f"{config.recipe} --resume, or choose another --out for {named}"
            )
    values = {
        "init": init, "teacher": tuple(teacher or ()), "unlabelled": tuple(unlabelled or ()),
        "text_encoder": text_encoder, "seed": seed, "workers": workers, "precision": precision,
    }  # fmt: skip
    changed = {key: value for key, value in values.items() if value not in ((), None)}
    if data:
        changed |= _name_data(data, config.data_weights if resume else ())
    optim = config.optim if batch_size is None else replace(config.optim, batch_size=batch_size)
    config = override(replace(config, **changed, optim=optim), settings or [])  # type: ignore[arg-type]
    limits = Limits(max_steps, None if max_time is None else 60 * max_time)
    result = run_training(
        config, out, resume=resume, limits=limits, device=device, command=command_line()
    )
    print_json(json_file, result)
    if json_file != "-":
        _print_result(result, config, out, max_time, device)
    return 130 if result["interrupted"] else 0


def _train_clicks(
    data: list[str],
    out: Path,
    init: str | None,
    settings: list[str],
    batch_size: int | None,
    seed: int | None,
    resume: bool,
    max_steps: int | None,
    max_time: float | None,
    device: str,
    json_file: str,
    unused: Mapping[str, object],
) -> int:
    """`train clicks`: a decoder for clicks beside the heads of a model, which stay as they are."""
    from dataclasses import replace

    from sartm.config import override
    from sartm.training.clicks import ClickConfig, read_click_run, train_clicks

    options.refuse_given(unused, "is not of sartm train clicks; leave it out")
    if batch_size is not None:
        settings = [*settings, f"clicks.images={batch_size}"]
    config = ClickConfig()
    if resume and (out / "config.json").exists():
        config = read_click_run(out)
    if data:
        named = [_split_weight(source) for source in data]
        weights = tuple(weight for _, weight in named)
        alike = len(set(weights)) == 1
        config = replace(
            config,
            data=tuple(name for name, _ in named),
            data_weights=() if alike else weights,
        )
    config = replace(
        config,
        init=config.init if init is None else init,
        seed=config.seed if seed is None else seed,
    )
    config = override(config, settings)
    result = train_clicks(
        config, out, resume=resume, max_steps=max_steps,
        max_seconds=None if max_time is None else 60 * max_time, device=device,
        command=command_line(),
    )  # fmt: skip
    print_json(json_file, result)
    if json_file != "-":
        run = quote(str(out))
        say(_describe_length(result, f"sartm train clicks --out {run} --resume"))
        best = result["best"]
        if best is not None and best["iou"]:
            ious = ", ".join(f"{value:.1f}" for value in best["iou"])
            say(f"best on validation: IoU {ious} % after 1, 2, ... clicks at step {best['step']}")
        if best is not None:
            say(f"model: {out / 'best'}")
    return 130 if result["interrupted"] else 0


def _name_data(sources: list[str], before: tuple[float, ...]) -> dict[str, Any]:
    """What --data says, once or several times: folders and their weights, else those of before."""
    named = [_split_weight(source) for source in sources]
    weights = tuple(weight for _, weight in named)
    return {
        "data": named[0][0],
        "pooled": tuple(name for name, _ in named[1:]),
        "data_weights": weights if len(set(weights)) > 1 else before,
    }


def _split_weight(source: str) -> tuple[str, float]:
    """D:0.5 as D and 0.5; a path that is there is one whatever it ends in."""
    name, colon, weight = source.rpartition(":")
    if not colon or Path(source).exists():
        return source, 1.0
    try:
        value = float(weight)
    except ValueError:
        return source, 1.0
    if not 0 < value < float("inf"):
        raise InputError(f"--data {source} has weight {weight}; give a number above 0")
    return name, value


def _print_result(
    result: dict[str, Any], config: "TrainConfig", out: Path, max_time: float | None, device: str
) -> None:
    """What a run came to: only what was measured, and only files that are there."""
    from sartm.config import from_dict
    from sartm.evaluation.modalities import Comparison
    from sartm.training.recipes import RECIPES

    run = quote(str(out))
    recipe = config.recipe if config.recipe in RECIPES else run  # the folder is one too
    on = "" if device == "auto" else f" --device {device}"
    say(_describe_length(result, f"sartm train {recipe} --out {run} --resume{on}"))
    if result["best"] is None:
        say("nothing was validated")
    else:
        say(_describe_best(result["best"]))
        if result["start"] is not None and result["start"]["present"] > result["best"]["present"]:
            say(_describe_start(result["start"], config.init))
    if result["finished"] and result["gain"] is not None:
        say(_describe_gain(result, out, max_time))
    if result["modalities"] is not None:
        print_comparison(from_dict(Comparison, result["modalities"]))
    model, page = out / "best", out / "report" / "report.html"
    if (model / "config.json").is_file():
        say(f"model: {model}")
    else:
        say("no model was kept: the run has not come to a validation")
    if page.is_file():
        say(f"curves: {page}")


def _describe_length(result: dict[str, Any], resume: str) -> str:
    minutes = f"{result['seconds'] / 60:.1f} minutes"
    if result["finished"]:
        return f"{result['step']} steps in {minutes}"
    why = "interrupted" if result["interrupted"] else "stopped"
    return f"{why} at step {result['step']} of {result['steps']}; to go on: {resume}"


def _describe_best(best: dict[str, Any]) -> str:
    name, score = best["headline"]
    rest = "" if score == best["present"] else f" (present mIoU {best['present']:.2f})"
    found = "undefined" if score is None else f"{score:.2f} %"
    return f"best on validation: {name} {found} at step {best['step']}{rest}"


def _describe_start(start: dict[str, Any], init: str) -> str:
    """That nothing was won, and what to do."""
    name, score = start["headline"]
    return (
        f"no step was better than the weights it started from, {name} {score:.2f} %: take {init} "
        f"as it is; more labelled pairs, or a lower rate (--set optim.lr), may win more"
    )


def _describe_gain(result: dict[str, Any], out: Path, max_time: float | None) -> str:
    """Whether more steps would help, and the command that takes them."""
    gain = f"the last third of the run added {result['gain']:.1f} points"
    if result["gain"] < RISING:
        return f"flat: {gain}; more steps would add little, more labelled pairs may"
    more = f"--set optim.steps={2 * result['steps']}"
    if max_time is not None:
        more = f"--max-time {2 * max_time:g}"
    run = quote(str(out))
    return (
        f"still rising: {gain}; to go on: sartm train {run} --init {quote(str(out / 'best'))} "
        f"--out {quote(f'{out}-2')} {more}"
    )
