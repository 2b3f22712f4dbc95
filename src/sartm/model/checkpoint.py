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
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sartm import __version__
from sartm.classes import Classes
from sartm.config import ModelConfig, from_dict, to_dict
from sartm.errors import InputError
from sartm.model.hub import (
    CARD,
    CONFIG,
    SAM2_NAMES,
    WEIGHTS,
    bundled_models,
    get_weights,
    is_hub_id,
)
from sartm.model.released import (
    CANVAS,
    Released,
    is_ignored,
    is_unnamed,
    name_classes,
    released_config,
    released_state,
    to_default_model,
)
from sartm.model.sartm import SARTM
from sartm.model.sources import (
    Weights,
    fill,
    fill_encoder,
    is_encoder,
    read_safetensors,
    read_weights,
    summarise,
)

if TYPE_CHECKING:
    from sartm.model.exported import ExportedModel

log = logging.getLogger("sartm")

FORMAT = 1
"""Raised when an older sartm could not read what this one writes."""
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
    """File, folder or hub id of the SAM 2 (or EfficientNet-Lite0) weights that the encoder started
    from; empty: trained here."""
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
    kind: Literal["sartm", "released"] = "sartm"
    """`released` computes as the authors' code does; its canvas is `model.fusion.crop`."""


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
        full: the encoder too. Models that trained it, whose encoder came from no file, or of size
            `lite`, where a file brings the trunk alone, are always full.
        dtype: float32 or float16, of the file; the model itself stays as it is.

    Raises:
        InputError: the folder holds something else, or cannot be written; a weight is too large
            for float16.
    """
    target = Path(folder)
    state = model.state_dict()
    source = facts.encoder or model.encoder_source
    released = isinstance(model, Released)
    lite = model.config.size == "lite"
    full = full or released or lite or not model.config.frozen_encoder or not source
    facts = replace(facts, encoder=source, encoder_sha256=hash_encoder(state))
    tensors = {
        key: value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous()
        for key, value in state.items()
        if full or not is_encoder(key)
    }
    _require_range(tensors, dtype, target)
    kind: Literal["sartm", "released"] = "released" if released else "sartm"
    weights: Literal["full", "adapters"] = "full" if full else "adapters"
    content = ModelFile(FORMAT, __version__, weights, model.config, facts, kind)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        require_replaceable(target, {WEIGHTS, CONFIG, CARD})
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        (temporary / CONFIG).write_text(json.dumps(to_dict(content), indent=1) + "\n", "utf-8")
        (temporary / CARD).write_text(write_card(content, tensors), "utf-8")
        (temporary / WEIGHTS).chmod((temporary / CARD).stat().st_mode)  # else for its owner alone
        swap(temporary, target)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot write the model {target}: {error}. Choose a folder that is writable and has "
            f"room; what was there is kept"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _require_range(tensors: Mapping[str, Tensor], dtype: torch.dtype, target: Path) -> None:
    """Refuse to write numbers that became infinite on the way to float16."""
    if dtype == torch.float32:
        return
    large = [key for key, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if large:
        raise InputError(
            f"cannot write {target} in {str(dtype).removeprefix('torch.')}: {large[0]} holds "
            f"numbers beyond its range; write float32, without --half"
        )


def require_replaceable(folder: Path, parts: Collection[str]) -> None:
    """Refuse to write over anything but a model of ours, whose files are called `parts`."""
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir() or folder.is_symlink():
        raise InputError(f"{folder} is there and is no folder; choose another name for the model")
    others = sorted({path.name for path in folder.iterdir()} - set(parts))
    if others:
        raise InputError(
            f"{folder} holds {others[0]!r}, which is no part of a model; choose another folder"
        )


def swap(new: Path, target: Path) -> None:
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
    except BaseException:  # an interrupt too
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


def load(
    source: str | Path,
    *,
    encoder: str | Path | None = None,
    classes: Classes | None = None,
    canvas: int | None = None,
) -> "SARTM | ExportedModel":
    """A model ready to predict, in eval mode on the CPU in float32.

    Args:
        source: a bundled name, a folder that `save` wrote, a hub id, the authors' .pth, SAM 2's
            own weights, whose class heads are then new, or what `sartm export` wrote: the folder,
            the .onnx or the .xml.
        encoder: SAM 2 weights for a model that was saved as adapters; by default those it names.
        classes: names for the classes of a .pth, or those of the new heads; other models know
            theirs.
        canvas: side in pixels of the square that a released model pads its inputs to; 1280, or
            what it was converted with, when None.

    Raises:
        InputError: nothing is there, or it is not whole, of a later format, or not what its
            config.json says; an argument that this kind of model has no use for. Nothing is
            half-loaded.
    """
    from sartm.model.exported import find_export, open_export  # it needs this module's facts

    path = _locate(source)
    exported = find_export(path)
    if exported is not None:
        _refuse(f"{source} is an export, which is complete", encoder, classes, canvas)
        return open_export(exported)
    return _load_weights(path, str(source), encoder, classes, canvas)


def _load_weights(
    path: Path,
    source: str,
    encoder: str | Path | None,
    classes: Classes | None,
    canvas: int | None,
) -> SARTM:
    """`load` of anything but an export."""
    if path.is_dir() and is_model_folder(path):
        return load_folder(path, encoder, classes, canvas)
    weights = read_weights(path)
    if weights.kind == "released":
        _refuse(f"{source} is a released SARTM with an encoder of its own", encoder=encoder)
        return _build_released(weights, classes, CANVAS if canvas is None else canvas)
    _refuse(f"{source} is {weights.kind} itself and takes any size", encoder=encoder, canvas=canvas)
    return _build_on_sam2(weights, classes, source)


def _refuse(
    why: str,
    encoder: str | Path | None = None,
    classes: Classes | None = None,
    canvas: int | None = None,
) -> None:
    """Raise InputError if any of what `load` may be given is given where it means nothing."""
    options = {"--encoder": encoder, "--classes": classes, "--canvas": canvas}
    given = [option for option, value in options.items() if value is not None]
    if given:
        raise InputError(f"{why}; leave {' and '.join(given)} out")


def _locate(source: str | Path) -> Path:
    """The file or folder that a user means."""
    name, path = str(source), Path(source)
    bundled = bundled_models()
    if name in bundled:
        return bundled[name]
    if path.exists() or path.suffix in {".onnx", ".xml"}:
        return path.parent if path.name == WEIGHTS and is_model_folder(path.parent) else path
    if is_hub_id(name):
        return get_weights(name)
    near = difflib.get_close_matches(name, bundled, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"bundled are: {', '.join(bundled) or 'none'}"
    raise InputError(f"no model {name!r}: no bundled name, file, folder or hub id; {hint}")


def is_model_folder(folder: Path) -> bool:
    """Whether a folder is one of ours, whole or not; the hub's own models have a `model_type`."""
    return (folder / CONFIG).is_file() and "model_type" not in _read_json(folder / CONFIG)


def load_folder(
    folder: Path,
    encoder: str | Path | None = None,
    classes: Classes | None = None,
    canvas: int | None = None,
) -> SARTM:
    """The model in a folder that `save` wrote; arguments and errors as `load`."""
    content = read_config(folder)
    config = _adjust(content, classes, canvas, folder)
    tensors, facts = read_safetensors(folder / WEIGHTS), content.facts
    if content.weights == "adapters":
        tensors |= _read_encoder(content, encoder, folder)
        if encoder is not None and not is_hub_id(facts.encoder):
            facts = replace(facts, encoder=str(encoder))  # where it lies now
    elif encoder is not None:
        log.warning("%s is complete; the encoder %s is not used", folder, encoder)
    model = build(config, str(folder / CONFIG), content.kind)
    fill(model, tensors, str(folder / WEIGHTS))
    model.facts, model.encoder_source = facts, facts.encoder
    return model.eval()


def _adjust(
    content: ModelFile, classes: Classes | None, canvas: int | None, folder: Path
) -> ModelConfig:
    """A folder's configuration with what may be added to it: to released weights only."""
    config = content.model
    if classes is not None:
        if not is_unnamed(config.classes):
            _refuse(f"{folder} has its own classes in {CONFIG}", classes=classes)
        config = replace(config, classes=name_classes(len(config.classes), classes, str(folder)))
    if canvas is not None:
        if content.kind != "released":
            _refuse(f"{folder} is no released SARTM and takes images of any size", canvas=canvas)
        config = replace(config, fusion=replace(config.fusion, crop=(canvas, canvas)))
    return config


def _read_encoder(
    content: ModelFile, encoder: str | Path | None, folder: Path
) -> dict[str, Tensor]:
    """Trunk and neck that adapters belong to, by name; InputError unless they are the very same."""
    facts = content.facts
    source = encoder or facts.encoder
    try:
        weights = read_weights(source)
    except InputError as error:
        raise InputError(
            f"{folder} holds adapters for the encoder {facts.encoder}, which is not to be had: "
            f"{error}\n{_ways_to_encoder(content)}"
        ) from None
    found = {key: value for key, value in weights.tensors.items() if is_encoder(key)}
    digest = hash_encoder(found)
    if digest != facts.encoder_sha256:
        raise InputError(
            f"{folder} holds adapters for the encoder {facts.encoder} with SHA-256 "
            f"{facts.encoder_sha256[:16]}..., but that of {source} is {digest[:16]}...; give the "
            f"file they were trained on with encoder= or --encoder"
        )
    return found


def _ways_to_encoder(content: ModelFile) -> str:
    """The commands that bring the encoder of adapters."""
    name, size = content.facts.encoder, content.model.size
    if is_hub_id(name):
        return f"Fetch it with `sartm weights get {name}`, or give its file with --encoder"
    ids = [known for known, (_, of) in SAM2_NAMES.items() if of == size]
    if not ids:
        return "Give its file with --encoder"
    return (
        f"Give its file with --encoder, or if it is SAM 2.1's: `sartm weights get {ids[0]}` and "
        f"--encoder {ids[0]} (SAM 2's: {ids[1]})"
    )


def _build_released(weights: Weights, classes: Classes | None, canvas: int) -> Released:
    state = released_state(weights.tensors, weights.where)
    config = released_config(state, weights.size, classes, canvas, weights.where)
    model = build(config, weights.where, "released")
    fill(model, state, weights.where)
    ignored = [key for key in weights.tensors if is_ignored(key)]
    log.info(
        "%s is a released SARTM on SAM 2 %s, %d classes, LoRA of 3 x rank %d: %d weights loaded; "
        "%d ignored: %s",
        weights.where,
        weights.size,
        len(config.classes),
        config.lora.rank // 3,
        len(weights.tensors) - len(ignored),
        len(ignored),
        summarise(ignored),
    )
    model.facts = ModelFacts(
        name=Path(weights.where).stem,
        selected_on="test",
        licence="The authors published these weights without a licence; ask them before you pass "
        "them on. The parts from SAM 2 are Apache-2.0.",
    )
    assert isinstance(model, Released)
    return model.eval()


def _build_on_sam2(weights: Weights, classes: Classes | None, source: str) -> SARTM:
    if weights.size == "lite":
        raise InputError(
            f"{source} is {weights.kind}, a trunk without neck and decoder; train on it: sartm "
            f"train mini --set init= --set encoder={source}"
        )
    log.warning(
        "%s is %s: the heads for classes are new and know nothing yet", source, weights.kind
    )
    defaults = ModelConfig()
    mlp = weights.tensors.get("sam_mask_decoder.transformer.layers.0.mlp.layers.0.weight")
    neck = weights.tensors.get("image_encoder.neck.convs.0.conv.bias")
    config = replace(
        defaults,
        classes=classes or defaults.classes,
        size=weights.size,  # type: ignore[arg-type]
        width=defaults.width if neck is None else len(neck),
        decoder=replace(defaults.decoder, mlp_dim=2048 if mlp is None else len(mlp)),
    )
    model = SARTM(config)
    fill_encoder(model, weights)
    model.encoder_source = source
    model.facts = ModelFacts(name=Path(source).stem)
    return model.eval()


def convert_weights(
    source: str | Path,
    out: str | Path,
    *,
    classes: Classes | None = None,
    canvas: int | None = None,
    encoder: str | Path | None = None,
    full: bool = False,
    dtype: torch.dtype = torch.float32,
) -> SARTM:
    """Write any weights that `load` takes as a model folder of ours.

    Arguments and errors as `load` and `save`. What was adapters stays so unless `full`; weights of
    other kinds become a folder that needs nothing else. Returns the model.
    """
    model = _with_weights(load(source, encoder=encoder, classes=classes, canvas=canvas), source)
    path = _locate(source)
    full = full or not (path.is_dir() and is_model_folder(path))
    save(model, out, model.facts or ModelFacts(), full=full, dtype=dtype)
    return model


def load_for_training(source: str | Path, *, classes: Classes | None = None) -> SARTM:
    """What `train --init` starts from: `load`, a released model as a default one.

    Args:
        source: anything with weights.
        classes: of the data set; a released model of as many takes their names if it has none, so
            that its heads are kept.
    """
    model = _with_weights(load(source), source)
    if not isinstance(model, Released):
        return model
    known = model.config.classes
    if classes is not None and is_unnamed(known) and len(known) == len(classes):
        log.info("%s names no classes: its %d are taken for the data's", source, len(classes))
        model.config = replace(model.config, classes=classes)
    started = to_default_model(model)
    started.facts = model.facts
    return started


def _with_weights(model: "SARTM | ExportedModel", source: str | Path) -> SARTM:
    if isinstance(model, SARTM):
        return model
    raise InputError(
        f"{source} is an exported model, whose weights cannot be taken out; give the model that "
        f"`sartm export` made it from"
    )


def read_config(folder: Path) -> ModelFile:
    """config.json of a model folder, checked key by key."""
    path = folder / CONFIG
    values = _read_json(path)
    version = values.get("format")
    if type(version) is not int:
        raise InputError(f"{path} is not a sartm model's: it has no format number")
    if version > FORMAT:
        raise InputError(
            f"{path} has format {version}, this sartm reads up to {FORMAT}; upgrade sartm"
        )
    return from_dict(ModelFile, values, str(path))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise InputError(f"{path} has more than {LARGEST_CONFIG >> 20} MB; it is no model's")
        values = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is no valid JSON ({error}); copy the model again") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no table of settings; copy the model again")
    return values


class _WithoutNumbers(TorchFunctionMode):
    """No normal random numbers: on the meta device torch loads sympy for them, which takes seconds.

    Nobody would read them; `fill` follows.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func in (Tensor.normal_, nn.init.normal_):
            return given["tensor"] if "tensor" in given else args[0]
        return (torch.empty if func is torch.randn else func)(*args, **given)


def build(config: ModelConfig, where: str, kind: str = "sartm") -> SARTM:
    """The model of `config` without storage (on the meta device), for `fill`.

    Building costs nothing, so a config.json that lies about its weights is found out before any
    memory is taken.
    """
    if not 1 <= config.decoder.depth <= 64:
        raise InputError(f"{where}: decoder.depth is {config.decoder.depth}, expected 1 to 64")
    try:
        with torch.device("meta"), _WithoutNumbers():
            return Released(config) if kind == "released" else SARTM(config)
    except InputError:
        raise
    except (RuntimeError, ValueError, TypeError, ArithmeticError) as error:
        raise InputError(f"{where} describes no model that can be built: {error}") from None


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
