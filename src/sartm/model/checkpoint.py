"""Our files: model.safetensors, config.json and README.md; written whole, read strictly.

A model with a frozen encoder is saved as adapters: everything but SAM 2's own trunk and neck, with
the id and the hash of the encoder they belong to. Nothing that is read is ever executed.
"""

import difflib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sartm import __version__
from sartm.config import ModelConfig, from_dict, to_dict
from sartm.errors import InputError
from sartm.model.sartm import SARTM

log = logging.getLogger("sartm")

FORMAT = 1
"""Raised when an older sartm could not read what this one writes."""
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
LARGEST_CONFIG = 64 * 2**20
"""Bytes; 100,000 hashes of training images need a sixth of it."""


@dataclass(frozen=True)
class ModelFacts:
    """Where a model comes from; travels with its weights and makes its card."""

    name: str = ""
    data: tuple[str, ...] = ()
    """Data sets it was trained on, those of the models it started from first."""
    selected_on: str | None = None
    """Split the checkpoint was chosen on; None when nothing was chosen."""
    licence: str = ""
    """What is known about using the weights; empty says what follows from the origin."""
    command: str = ""
    seed: int = 0
    steps: int = 0
    """Optimizer steps; 0: the heads were never trained."""
    results: dict[str, Any] = field(default_factory=dict)
    """Scores on the split `selected_on`, in percent."""
    training_images: dict[str, str] = field(default_factory=dict)
    """Name of each training pair to the SHA-256 of its pixels, inherited ones too."""
    text: dict[str, Any] | None = None
    """Text table the classes were related by: {encoder, prompts, cosines}."""
    encoder: str = ""
    """File, folder or hub id of the SAM 2 weights under the adapters; empty: trained here."""
    encoder_sha256: str = ""
    """Of trunk and neck without adapters; see `hash_encoder`."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """The whole training configuration."""


@dataclass(frozen=True)
class ModelFile:
    """config.json: everything needed to build the model again, apart from its weights."""

    format: int
    sartm: str
    """Version that wrote it."""
    weights: Literal["full", "adapters"]
    """`adapters` lacks the encoder that `facts.encoder` names."""
    model: ModelConfig
    facts: ModelFacts


def is_encoder(key: str) -> bool:
    """Whether a state-dict key belongs to SAM 2's trunk or neck itself, not to an adapter."""
    return key.startswith("image_encoder.") and ".lora_" not in key


def hash_encoder(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and float32 values of SAM 2's trunk and neck in a state dict."""
    digest = hashlib.sha256()
    for key in sorted(filter(is_encoder, tensors)):
        values = tensors[key].detach().cpu().float().contiguous()
        digest.update(f"{key} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def save(
    model: SARTM,
    folder: str | Path,
    facts: ModelFacts,
    *,
    full: bool = False,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a model folder, whole or not at all; one that is there already is replaced.

    Args:
        model: as built or loaded, not `merged()`.
        folder: written as a sibling with a temporary name first.
        facts: encoder and its hash are filled in here.
        full: the encoder too. Models that trained it, or whose encoder came from no file, are
            always full.
        dtype: float32 or float16, of the file; the model itself stays as it is.

    Raises:
        InputError: the folder holds something else, or cannot be written.
    """
    target = Path(folder)
    _require_replaceable(target)
    state = model.state_dict()
    source = facts.encoder or model.encoder_source
    full = full or not model.config.frozen_encoder or not source
    facts = replace(facts, encoder=source, encoder_sha256=hash_encoder(state))
    tensors = {
        key: value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous()
        for key, value in state.items()
        if full or not is_encoder(key)
    }
    content = ModelFile(FORMAT, __version__, "full" if full else "adapters", model.config, facts)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        (temporary / CONFIG).write_text(json.dumps(to_dict(content), indent=1) + "\n", "utf-8")
        (temporary / CARD).write_text(write_card(content, tensors), "utf-8")
        (temporary / WEIGHTS).chmod((temporary / CARD).stat().st_mode)  # else for its owner alone
        _swap(temporary, target)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot write the model {target}: {error}. Choose a folder that is writable and has "
            f"room; what was there is kept"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _require_replaceable(folder: Path) -> None:
    """Refuse to write over anything but a model of ours."""
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir() or folder.is_symlink():
        raise InputError(f"{folder} is there and is no folder; choose another name for the model")
    others = sorted({path.name for path in folder.iterdir()} - {WEIGHTS, CONFIG, CARD})
    if others:
        raise InputError(
            f"{folder} holds {others[0]!r}, which is no part of a model; choose another folder"
        )


def _swap(new: Path, target: Path) -> None:
    """Give `new` the name of `target` once it is on disk; at any moment one of both is whole."""
    for path in (*new.iterdir(), new):
        _sync(path)
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    shutil.rmtree(old, ignore_errors=True)
    replaces = target.exists()
    if replaces:
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if replaces:
            old.rename(target)
        raise
    _sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load(source: str | Path, *, encoder: str | Path | None = None) -> SARTM:
    """A model ready to predict, in eval mode on the CPU in float32.

    Args:
        source: a bundled name or a folder.
        encoder: SAM 2 weights for a model that was saved as adapters.

    Raises:
        InputError: nothing is there, or it is not whole, of a later format, or not what its
            config.json says. Nothing is half-loaded.
    """
    return load_folder(_locate(source), encoder)


def bundled_models() -> dict[str, Path]:
    """Name and folder of the models that come with the package."""
    home = Path(str(resources.files("sartm"))) / "assets" / "models"
    if not home.is_dir():
        return {}
    return {path.name: path for path in sorted(home.iterdir()) if (path / CONFIG).is_file()}


def _locate(source: str | Path) -> Path:
    bundled = bundled_models()
    if str(source) in bundled:
        return bundled[str(source)]
    path = Path(source)
    if (path / CONFIG).is_file():
        return path
    near = difflib.get_close_matches(str(source), bundled, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"bundled are: {', '.join(bundled) or 'none'}"
    raise InputError(f"no model {str(source)!r}: neither a bundled name nor a model folder; {hint}")


def load_folder(folder: Path, encoder: str | Path | None = None) -> SARTM:
    """The model in a folder that `save` wrote."""
    content = read_config(folder)
    tensors = read_safetensors(folder / WEIGHTS)
    if content.weights == "adapters":
        raise InputError(f"{folder} holds adapters; their encoder cannot be found")
    model = build(content.model, str(folder / CONFIG))
    fill(model, tensors, str(folder / WEIGHTS))
    model.facts, model.encoder_source = content.facts, content.facts.encoder
    return model.eval()


def read_config(folder: Path) -> ModelFile:
    """config.json of a model folder, checked key by key."""
    path = folder / CONFIG
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise InputError(f"{path} has more than {LARGEST_CONFIG >> 20} MB; it is no model's")
        values = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no valid JSON ({error}); copy the model again") from None
    version = values.get("format") if isinstance(values, dict) else None
    if type(version) is not int:
        raise InputError(f"{path} is not a sartm model's: it has no format number")
    if version > FORMAT:
        raise InputError(
            f"{path} has format {version}, this sartm reads up to {FORMAT}; upgrade sartm"
        )
    return from_dict(ModelFile, values, str(path))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, not yet checked for what they are."""
    try:
        with safe_open(path, framework="pt") as file:
            # copied: the file may change under a mapping, and kernels like aligned memory
            return {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"{path} is missing; copy the model again") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read: {error}. It is damaged or cut off; copy or download it again"
        ) from None


def build(config: ModelConfig, where: str) -> SARTM:
    """The model of `config` without storage (on the meta device), for `fill`."""
    if not 1 <= config.decoder.depth <= 64:
        raise InputError(f"{where}: decoder.depth is {config.decoder.depth}, expected 1 to 64")
    try:
        with torch.device("meta"):
            return SARTM(config)
    except (RuntimeError, ValueError, TypeError, ArithmeticError) as error:
        raise InputError(f"{where} describes no model that can be built: {error}") from None


def fill(model: SARTM, tensors: Mapping[str, Tensor], where: str) -> None:
    """Give a model all its weights, or raise InputError and leave it as it is.

    Args:
        model: its parameters may lie on the meta device.
        tensors: its whole state dict; floating point of any precision.
        where: file the tensors come from, for the message.
    """
    state = model.state_dict()
    require_same_keys(state, tensors, where)
    require_sound(tensors, where)
    with torch.no_grad():
        ready = {key: tensors[key].to(value.dtype) for key, value in state.items()}
    model.load_state_dict(ready, assign=True)


def require_same_keys(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], where: str
) -> None:
    """Raise InputError with a readable difference unless names, shapes and kinds are the same."""
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    changed = [
        f"{key} is {_describe(found[key])}, expected {_describe(expected[key])}"
        for key in expected
        if key in found and _describe(found[key]) != _describe(expected[key])
    ]
    parts = [
        f"{len(keys)} {word}: {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}"
        for word, keys in (("missing", missing), ("unexpected", unexpected), ("differ", changed))
        if keys
    ]
    if parts:
        raise InputError(f"{where} does not fit its model. {'; '.join(parts)}")


def _describe(tensor: Tensor) -> str:
    """Shape, and whether numbers are real or whole; precision may differ."""
    kind = "" if tensor.is_floating_point() else f" {str(tensor.dtype).removeprefix('torch.')}"
    return "x".join(map(str, tensor.shape)) + kind if tensor.ndim else f"one number{kind}"


def require_sound(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise InputError if a weight is NaN or infinite."""
    bad = [key for key, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise InputError(
            f"{where} holds NaN or infinite weights in {len(bad)} tensors ({', '.join(bad[:5])}): "
            f"the training diverged or the file is damaged; take an earlier checkpoint"
        )


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
        facts.licence or _licence_note(facts),
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


def _licence_note(facts: ModelFacts) -> str:
    sam2 = "Encoder and decoder started from SAM 2, Apache-2.0. " if facts.encoder else ""
    data = _plain(", ".join(facts.data))
    rest = f"The terms of the training data apply: {data}." if data else "No training data."
    return sam2 + rest


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
