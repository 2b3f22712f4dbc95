"""README.md of a model folder: what it is, from what data, by which command, with what licence.

An export's card (sartm.export, sartm.click_export) is made of the same parts: title, table of two
columns, plain text.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sartm.model.exported import ClickFile, ExportFile
from sartm.model.facts import ModelFacts, ModelFile
from sartm.model.hub import CONFIG, IMAGES, MOST_IN_CONFIG
from sartm.model.lite import LITES
from sartm.terminal import as_markdown, clean_text


def write_card(content: ModelFile, tensors: Mapping[str, Tensor]) -> str:
    """README.md of a model folder."""
    facts, config = content.facts, content.model
    count = sum(value.numel() for value in tensors.values())
    rule = config.thermal
    limits = "" if rule.rule == "uint8" else f" {rule.low:g} to {rule.high:g}"
    images = len(facts.training_images)
    rows = {
        "size": f"{config.size}, {count / 1e6:.2f} M numbers in the file",
        "weights": _weights_note(content),
        "classes": f"{len(config.classes)}: {as_markdown(', '.join(config.classes.names))}",
        "thermal rule": f"{rule.rule}{limits}",
        "trained on": as_markdown(", ".join(facts.data)) or "nothing yet",
        "training images": f"{images}, hashes in {CONFIG if images <= MOST_IN_CONFIG else IMAGES}",
        "chosen on": as_markdown(facts.selected_on or "nothing: the last step"),
        "command": f"`{_code(facts.command) or 'not recorded'}`",
        "seed, steps": f"{facts.seed}, {facts.steps}",
        "text similarity": _text_note(facts),
    }
    if "clicks" in facts.results:
        rows["clicks"] = _clicks_note(facts.results["clicks"])
    lines = [
        f"# {title(facts)}",
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
        *table(rows, content),
        "",
        "## Licence",
        "",
        as_markdown(facts.licence) or _licence_note(content),
        "",
        "## Results",
        "",
    ]
    lines += _result_rows(facts.results) or ["None recorded."]
    lines += [
        "",
        "## Limits",
        "",
        "- Inputs must be pixel-aligned pairs; a missing modality costs accuracy.",
        "- Thermal values must mean what the thermal rule says; false colour is refused.",
        "- Other cameras, places or weather than those of the training data were not measured.",
        _confidence_line(facts),
    ]
    return "\n".join(lines) + "\n"


def renew_confidence(card: str, facts: ModelFacts) -> str:
    """A card, whatever else was written into it, with the line about confidence as it is now.

    "" where it has no such line.
    """
    line = _confidence_line(facts)
    found, count = re.subn(r"^- Confidence is .*$", lambda _: line, card, count=1, flags=re.M)
    return found if count else ""


def title(facts: ModelFacts) -> str:
    """What a model is called, as Markdown."""
    return as_markdown(facts.name) or "sartm model"


def table(rows: Mapping[str, str], content: ModelFile | ExportFile | ClickFile) -> list[str]:
    """A Markdown table of properties, the version that wrote the file last."""
    rows = {**rows, "written by": f"sartm {content.sartm}, format {content.format}"}
    return ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())]


def _code(text: str) -> str:
    """Text from outside on one line of a table, between backquotes."""
    return " ".join(clean_text(text).split()).replace("|", "\\|").replace("`", "'")


def _weights_note(content: ModelFile) -> str:
    facts = content.facts
    if content.weights == "full":
        return "complete" + (
            f", encoder from {as_markdown(facts.encoder)}" if facts.encoder else ""
        )
    return f"adapters on {as_markdown(facts.encoder)} (SHA-256 {facts.encoder_sha256[:16]}...)"


def _text_note(facts: ModelFacts) -> str:
    return "off" if facts.text is None else as_markdown(str(facts.text.get("encoder", "")))


def _clicks_note(found: Any) -> str:
    """What a run of `train clicks` wrote."""
    ious = ", ".join(map(_number, found.get("iou", ()))) or "not measured"
    how = _code(str(found.get("command", "")))
    return (
        f"IoU % on validation after 1, 2, ... of them: {ious}; learned from "
        f"{as_markdown(', '.join(found.get('data', ())))} in {found.get('step', 0)} steps"
        + (f" by `{how}`" if how else "")
    )


def _confidence_line(facts: ModelFacts) -> str:
    note = "is not calibrated"
    if facts.calibrated_on:
        on = as_markdown(", ".join(facts.calibrated_on))
        note = f"is calibrated on {on}, and holds for its like"
    return f"- Confidence {note}. Not for decisions about safety."


def _licence_note(content: ModelFile) -> str:
    facts = content.facts
    started = (
        "The trunk started from EfficientNet-Lite, Apache-2.0, which was trained on ImageNet. "
        if content.model.size in LITES
        else "Encoder and decoder started from SAM 2, Apache-2.0. "
    )
    data = as_markdown(", ".join(facts.data))
    rest = f"The terms of the training data apply: {data}." if data else "No training data."
    return (started if facts.encoder else "") + rest


def _result_rows(results: Mapping[str, Any]) -> list[str]:
    """A Markdown table of the means, or of whatever plain numbers there are."""
    means = results.get("means")
    if isinstance(means, dict) and all(isinstance(row, dict) for row in means.values()):
        rows = ["| protocol | mIoU % | mAcc % | classes |", "| --- | ---: | ---: | ---: |"]
        for name, row in means.items():
            cells = (_number(row.get(key)) for key in ("miou", "macc", "counted"))
            rows.append(f"| {as_markdown(str(name))} | {' | '.join(cells)} |")
        return rows
    plain = {key: value for key, value in results.items() if isinstance(value, int | float)}
    if not plain:
        return []
    body = [f"| {as_markdown(key)} | {_number(value)} |" for key, value in plain.items()]
    return ["| measure | value |", "| --- | ---: |", *body]


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return str(value) if isinstance(value, int) else "-"
