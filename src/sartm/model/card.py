"""README.md of a model folder: what it is, from what data, by which command, with what licence."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sartm.model.facts import ModelFacts, ModelFile


def write_card(content: ModelFile, tensors: Mapping[str, Tensor]) -> str:
    """README.md of a model folder."""
    facts, config = content.facts, content.model
    count = sum(value.numel() for value in tensors.values())
    rows = _result_rows(facts.results)
    lines = [
        f"# {facts.name or 'sartm model'}",
        "",
        "RGB-thermal semantic segmentation with `sartm`.",
        "",
        "```python",
        "import sartm",
        "",
        'model = sartm.load("this folder")',
        "prediction = sartm.Predictor(model)(rgb, thermal)",
        "```",
        "",
        "| | |",
        "| --- | --- |",
        f"| size | {config.size}, {count / 1e6:.2f} M numbers in the file |",
        f"| weights | {_weights_note(content)} |",
        f"| classes | {len(config.classes)}: {_plain(', '.join(config.classes.names))} |",
        f"| thermal rule | {config.thermal.rule}"
        + ("" if config.thermal.rule == "uint8" else f" {config.thermal.low:g} to ")
        + ("" if config.thermal.rule == "uint8" else f"{config.thermal.high:g}")
        + " |",
        f"| trained on | {_plain(', '.join(facts.data)) or 'nothing yet'} |",
        f"| training images | {len(facts.training_images)}, hashes in config.json |",
        f"| chosen on | {_plain(facts.selected_on or 'nothing: the last step')} |",
        f"| command | `{_plain(facts.command) or 'not recorded'}` |",
        f"| seed, steps | {facts.seed}, {facts.steps} |",
        f"| text similarity | {_text_note(facts)} |",
        f"| written by | sartm {content.sartm}, format {content.format} |",
        "",
        "## Licence",
        "",
        facts.licence or _licence_note(content),
        "",
        "## Results",
        "",
    ]
    lines += rows or ["None recorded."]
    lines += [
        "",
        "## Limits",
        "",
        "- Inputs must be pixel-aligned pairs; a missing modality costs accuracy.",
        "- Thermal values must mean what the thermal rule says; false colour is refused.",
        "- Other cameras, places or weather than those of the training data were not measured.",
        "- Confidence is not calibrated. Not for decisions about safety.",
    ]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text from outside on one line of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("`", "'").replace("<", "&lt;")


def _weights_note(content: ModelFile) -> str:
    facts = content.facts
    if content.weights == "full":
        return "complete" + (f", encoder from {_plain(facts.encoder)}" if facts.encoder else "")
    return f"adapters on {_plain(facts.encoder)} (SHA-256 {facts.encoder_sha256[:16]}...)"


def _text_note(facts: ModelFacts) -> str:
    return "off" if facts.text is None else _plain(str(facts.text.get("encoder", "")))


def _licence_note(content: ModelFile) -> str:
    facts = content.facts
    started = (
        "The trunk started from EfficientNet-Lite0, Apache-2.0, which was trained on ImageNet. "
        if content.model.size == "lite"
        else "Encoder and decoder started from SAM 2, Apache-2.0. "
    )
    data = _plain(", ".join(facts.data))
    rest = f"The terms of the training data apply: {data}." if data else "No training data."
    return (started if facts.encoder else "") + rest


def _result_rows(results: Mapping[str, Any]) -> list[str]:
    """A Markdown table of the means, or of whatever plain numbers there are."""
    means = results.get("means")
    if isinstance(means, dict) and all(isinstance(row, dict) for row in means.values()):
        rows = ["| protocol | mIoU % | mAcc % | classes |", "| --- | ---: | ---: | ---: |"]
        for name, row in means.items():
            cells = (_number(row.get(key)) for key in ("miou", "macc", "counted"))
            rows.append(f"| {_plain(str(name))} | {' | '.join(cells)} |")
        return rows
    plain = {key: value for key, value in results.items() if isinstance(value, int | float)}
    if not plain:
        return []
    body = [f"| {_plain(key)} | {_number(value)} |" for key, value in plain.items()]
    return ["| measure | value |", "| --- | ---: |", *body]


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return str(value) if isinstance(value, int) else "-"
