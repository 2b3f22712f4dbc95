"""Every option that a message names is one of the command that says so, or names its command."""

import ast
import re
from collections.abc import Iterator
from typing import Any

import typer
from calls import DEFINITIONS, Place, body_of, reach

from sartm.cli.main import app

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
OTHERS = {("pip", "--no-deps"), ("dji_irp", "--measurefmt"), ("torchrun", "--nproc-per-node")}
"""Options of other programs, which a message names before them."""


def find_commands() -> dict[str, Any]:
    """`data check` and its like -> click's command."""
    groups: Any = typer.main.get_command(app)
    found = {}
    for name, command in groups.commands.items():
        below = getattr(command, "commands", None)
        parts = {f"{name} {key}": part for key, part in below.items()} if below else {}
        found |= parts or {name: command}
    return found


ONLY_WHEN_GIVEN = {
    ("sartm.data.manifest._as_parquet", "--out"): "data merge writes no manifest",
    ("sartm.data.manifest.write_manifest", "--out"): "likewise",
    ("sartm.inference.alarm.WORDS", "--black-hot"): "data merge sees no images",
    ("sartm.inference.alarm.handle_misaligned", "--on-misaligned"): "evaluate keeps the default",
    **{
        ("sartm.datatools.listing._options_of", option): "said behind the word predict"
        for option in ("--radiometric", "--black-hot", "--holes", "--resize-thermal")
    },
    ("sartm.data.finding._find_keys", "--pair"): "only predict has an expression",
    ("sartm.data.finding.search_pairs", "--rgb"): "app and data sets name a folder",
    ("sartm.data.finding.search_pairs", "--thermal"): "likewise",
    ("sartm.evaluation.protocols.require_size", "--protocol"): "train and demo take what fits",
    ("sartm.evaluation.views.Views.__post_init__", "--window"): "train has no stride",
    ("sartm.export._check_options", "--format"): "bench wants no int8",
    ("sartm.export._check_options", "--data"): "likewise",
    ("sartm.inference.devices.choose_device", "--device"): "export takes the CPU",
    ("sartm.inference.predictor.Predictor.__init__", "--device"): "likewise",
    ("sartm.inference.predictor.Predictor.__init__", "--compile"): "the option itself is refused",
    ("sartm.inference.predictor.Predictor._apart", "--trust"): "the option itself is refused",
    **{
        (place, "--text-encoder"): "the others choose no words, or have none to choose from"
        for place in ("sartm.language.word_vectors", "sartm.model.words.vectors_for")
    },
    **{
        (place, "--text-encoder"): "the option itself is refused"
        for place in (
            "sartm.model.checkpoint.load_folder",
            "sartm.model.loading._load_weights",
            "sartm.model.sartm.SARTM.choose",
        )
    },
    ("sartm.model.checkpoint.load_folder", "--classes"): "--text-encoder goes with --classes",
    ("sartm.inference.predictor._compile", "--compile"): "likewise",
    ("sartm.inference.predictor._select_modality", "--modality"): "the others take both",
    ("sartm.inference.pictures._split_channels", "--one-file"): "predict has no arrangement",
    ("sartm.inference.pictures.convert_camera_picture", "--one-file"): "likewise",
    ("sartm.inference.streams.open_stream", "--one-file"): "likewise",
    ("sartm.inference.rig.open_rig", "--one-file"): "likewise",
    ("sartm.inference.bags.open_bag", "--one-file"): "likewise",
    **{
        ("sartm.inference.rig._require_effect", option): "predict keeps the default"
        for option in ("--fps", "--offset", "--tolerance", "--match")
    },
    **{
        ("sartm.inference.options.VideoOptions.__post_init__", option): "predict keeps the default"
        for option in ("--smooth", "--every", "--limit", "--tolerance", "--fps", "--width")
    },
    ("sartm.io.decode.read_rgb_alone", "--four-channel"): "the option itself is refused",
    ("sartm.io.decode.read_rgb_alone", "--thermal"): "likewise",
    ("sartm.model.checkpoint._require_range", "--half"): "train keeps float32",
    **{
        ("sartm.model.checkpoint.refuse_options", option): "the option itself is refused"
        for option in ("--encoder", "--classes", "--canvas")
    },
    ("sartm.model.exported.ExportedModel.prepare", "--precision"): "demo and export keep auto",
}
"""Definition and option -> why commands without the option never say so: nobody can give it."""

COMMANDS = find_commands()
OPTIONS = {
    name: {text for option in command.params for text in (*option.opts, *option.secondary_opts)}
    for name, command in COMMANDS.items()
}


REACHED = {
    command: reach(parsed.callback.__module__, parsed.callback.__name__)
    for command, parsed in COMMANDS.items()
}


def texts(place: Place) -> Iterator[str]:
    """Every string of a definition but docstrings; {} stands for what is filled in."""
    parts: set[int] = set()
    for node in body_of(place):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            parts.add(id(node.value))
        elif isinstance(node, ast.JoinedStr):
            parts |= {id(part) for part in node.values}
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
            )
        elif isinstance(node, ast.Constant) and id(node) not in parts:
            yield str(node.value)


def named_commands(before: str) -> set[str]:
    """The command that a text names last; `convert` is one of two."""
    places: dict[int, set[str]] = {}
    for name in COMMANDS:
        for match in re.finditer(rf"(?<!-)\b{name.split()[-1]}\b(?!=)", before):
            places.setdefault(match.start(), set()).add(name)
    return places[max(places)] if places else set()


def complaints() -> list[str]:
    found = []
    for place in sorted(DEFINITIONS):
        if place[0].startswith(("sartm.cli", "sartm.evaluation.report.page")):
            continue
        for text in texts(place):
            for match in OPTION.finditer(text):
                option, before = match[0], text[: match.start()]
                if any(program in before and option == name for program, name in OTHERS):
                    continue
                if any(option in OPTIONS[name] for name in named_commands(before)):
                    continue
                saying = [command for command in COMMANDS if place in REACHED[command]]
                lacking = [command for command in saying if option not in OPTIONS[command]]
                if (lacking or not saying) and (".".join(place), option) not in ONLY_WHEN_GIVEN:
                    found.append(f"{'.'.join(place)}: {option}, not of {lacking}: {text}")
    return found


def test_messages_name_options_that_their_commands_have() -> None:
    assert complaints() == []
