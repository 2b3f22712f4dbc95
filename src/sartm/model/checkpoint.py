"""Our files: model.safetensors, config.json and README.md; written whole, read strictly.

A model with a frozen encoder is saved as adapters: everything but SAM 2's own trunk and neck, with
the id and the hash of the encoder they belong to. Nothing that is read is ever executed.
"""

import hashlib
import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from sartm import __version__
from sartm.classes import Classes
from sartm.config import Calibrations, ModelConfig, from_dict, to_dict
from sartm.errors import InputError
from sartm.files import contents, read_json, replacing_folder, write_atomic
from sartm.model.card import renew_confidence, write_card
from sartm.model.facts import FORMAT, ModelFacts, ModelFile, as_trained
from sartm.model.filling import build, fill
from sartm.model.hub import CARD, CONFIG, IMAGES, MOST_IN_CONFIG, SAM2_NAMES, WEIGHTS, is_hub_id
from sartm.model.lite import LITES
from sartm.model.released import Released, is_unnamed, name_classes
from sartm.model.sartm import SARTM
from sartm.model.sources import is_encoder, read_weights
from sartm.model.tensors import read_tensors

log = logging.getLogger("sartm")

_LARGEST_IMAGES = 2**31
"""Bytes of the file of training images: 20 million pairs."""


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
    if model.known is not None:
        raise InputError(
            "classes were chosen from this model; save the model as it was loaded, or export it"
        )
    state = model.state_dict()
    source = facts.encoder or model.encoder_source
    released = isinstance(model, Released)
    lite = model.config.size in LITES
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
    try:
        require_replaceable(target, {WEIGHTS, CONFIG, CARD, IMAGES})
        short, images = _set_apart(content)
        with replacing_folder(target) as new:
            save_file(tensors, new / WEIGHTS, metadata={"format": "pt"})
            if images:
                (new / IMAGES).write_bytes(images)
            (new / CONFIG).write_text(json.dumps(to_dict(short), indent=1) + "\n", "utf-8")
            (new / CARD).write_text(write_card(content, tensors), "utf-8")
            (new / WEIGHTS).chmod((new / CARD).stat().st_mode)  # else for its owner alone
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"cannot write the model {target}: {error}. Choose a folder that is writable and has "
            f"room; what was there is kept"
        ) from None


def save_calibration(folder: Path, calibration: Calibrations, data: Collection[str]) -> None:
    """Store how the confidence is set right in a folder that `save` wrote; weights stay.

    Args:
        folder: the model.
        calibration: of its confidence.
        data: data sets and splits it was fitted on, for its card.

    Raises:
        InputError: no such model, or a folder that cannot be written.
    """
    content = read_config(folder)
    content = replace(
        content,
        model=replace(content.model, calibration=calibration),
        facts=replace(content.facts, calibrated_on=tuple(data)),
    )
    card = folder / CARD
    try:
        text = card.read_text("utf-8") if card.exists() else ""
        text = renew_confidence(text, content.facts) or write_card(
            content, read_tensors(folder / WEIGHTS)
        )
        short, _ = _set_apart(content)  # the file beside it stays
        write_atomic(folder / CONFIG, (json.dumps(to_dict(short), indent=1) + "\n").encode())
        write_atomic(card, text.encode())
    except OSError as error:
        raise InputError(
            f"cannot write to the model {folder}: {error.strerror}; copy it to a folder of your "
            f"own with `sartm weights convert`"
        ) from None


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
    others = sorted({path.name for path in contents(folder)} - set(parts))
    if others:
        raise InputError(
            f"{folder} holds {others[0]!r}, which is no part of a model; choose another folder"
        )


def refuse_options(
    why: str,
    encoder: str | Path | None = None,
    classes: Classes | None = None,
    canvas: int | None = None,
) -> None:
    """Raise InputError if an option of `load` is set that means nothing to this kind of model."""
    options = {"--encoder": encoder, "--classes": classes, "--canvas": canvas}
    useless = [option for option, value in options.items() if value is not None]
    if useless:
        raise InputError(f"{why}; leave {' and '.join(useless)} out")


def is_model_folder(folder: Path) -> bool:
    """Whether a folder is one of ours, whole or not; the hub's own models have a `model_type`."""
    return (folder / CONFIG).is_file() and "model_type" not in read_json(folder / CONFIG)


def load_folder(
    folder: Path,
    encoder: str | Path | None = None,
    classes: Classes | None = None,
    canvas: int | None = None,
    text_encoder: str = "",
) -> SARTM:
    """The model in a folder that `save` wrote; arguments and errors as `load`."""
    content = read_config(folder)
    config = _adjust(content, classes, canvas, folder)
    model = build(config, str(folder / CONFIG), content.kind)
    tensors, facts = read_tensors(folder / WEIGHTS), content.facts
    if content.weights == "adapters":
        tensors |= _read_encoder(content, encoder, folder, model.state_dict())
        if encoder is not None and not is_hub_id(facts.encoder):
            facts = replace(facts, encoder=str(encoder))  # where it lies now
    elif encoder is not None:
        log.warning("%s is complete; the encoder %s is not used", folder, encoder)
    fill(model, tensors, str(folder / WEIGHTS))
    model.facts, model.encoder_source = facts, facts.encoder
    if classes is None and text_encoder:
        raise InputError("--text-encoder gives words to --classes; name some, or leave it out")
    named = classes is not None and not is_unnamed(content.model.classes)
    return model.choose(classes, text_encoder).eval() if named and classes else model.eval()


def _adjust(
    content: ModelFile, classes: Classes | None, canvas: int | None, folder: Path
) -> ModelConfig:
    """A folder's configuration with what may be added to it: to released weights only."""
    config = content.model
    if classes is not None and is_unnamed(config.classes):  # else chosen from, once it is filled
        config = replace(config, classes=name_classes(len(config.classes), classes, str(folder)))
    if canvas is not None:
        if content.kind != "released":
            refuse_options(
                f"{folder} is no released SARTM and takes images of any size", canvas=canvas
            )
        config = replace(config, fusion=replace(config.fusion, crop=(canvas, canvas)))
    return config


def _read_encoder(
    content: ModelFile, encoder: str | Path | None, folder: Path, state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Trunk and neck that adapters belong to, by name; InputError unless they are the very same."""
    facts = content.facts
    source = encoder or facts.encoder
    try:
        weights = read_weights(source)
    except InputError as error:
        raise InputError(
            f"{folder} holds adapters for the encoder {facts.encoder}, which is not to be had: "
            f"{error}. {_ways_to_encoder(content, folder)}"
        ) from None
    found = {key: value for key, value in weights.tensors.items() if is_encoder(key)}
    wanted = {key: value.shape for key, value in state.items() if is_encoder(key)}
    fits = {key: value.shape for key, value in found.items()} == wanted
    digest = hash_encoder(found) if fits else ""  # nothing is copied that is of another shape
    if digest != facts.encoder_sha256:
        theirs = f"is {digest[:16]}..." if fits else "has other shapes"
        raise InputError(
            f"{folder} holds adapters for the encoder {facts.encoder} with SHA-256 "
            f"{facts.encoder_sha256[:16]}..., but that of {source} {theirs}; give the file "
            f"they were trained on: predict --encoder, or for good {_make_whole(folder)}"
        )
    return found


def _ways_to_encoder(content: ModelFile, folder: Path) -> str:
    """The commands that bring the encoder of adapters."""
    name, size = content.facts.encoder, content.model.size
    give = f"give its file: predict --encoder, or for good {_make_whole(folder)}"
    if is_hub_id(name):
        return f"Fetch it with `sartm weights get {name}`, or {give}"
    ids = [known for known, (_, of) in SAM2_NAMES.items() if of == size]
    if ids:
        give += f". If it is SAM 2.1's, `sartm weights get {ids[0]}` has it (SAM 2's: {ids[1]})"
    return give[0].upper() + give[1:]


def _make_whole(folder: Path) -> str:
    """The command after which every command can use a model, without an option."""
    return f"`sartm weights convert {folder} --encoder FILE --full --out DIR`"


@dataclass(frozen=True)
class _Images:
    images: dict[str, str]


def read_config(folder: Path) -> ModelFile:
    """config.json of a model folder, checked key by key."""
    path = folder / CONFIG
    values = read_json(path)
    version = values.get("format")
    if type(version) is not int:
        raise InputError(f"{path} is not a sartm model's: it has no format number")
    if version > FORMAT:
        raise InputError(
            f"{path} has format {version}, this sartm reads up to {FORMAT}; upgrade sartm"
        )
    if version < 2 and "model" in values:
        values["model"] = as_trained(values["model"])
    content = from_dict(ModelFile, values, str(path))
    images = content.facts.training_images
    if set(images) == {IMAGES}:
        found = _read_images(folder, images[IMAGES])
        content = replace(content, facts=replace(content.facts, training_images=found))
    return content


def _set_apart(content: ModelFile) -> tuple[ModelFile, bytes]:
    """What config.json says, and the hashes of training images that are too many for it."""
    images = content.facts.training_images
    if len(images) <= MOST_IN_CONFIG:
        return content, b""
    data = json.dumps(images).encode()
    told = {IMAGES: hashlib.sha256(data).hexdigest()}
    return replace(content, facts=replace(content.facts, training_images=told)), data


def _read_images(folder: Path, digest: str) -> dict[str, str]:
    """The hashes that config.json says lie beside it."""
    path = folder / IMAGES
    if not path.is_file():
        raise InputError(
            f"{folder} lacks {IMAGES}, which says what it was trained on; copy the whole folder"
        )
    found = read_json(path, _LARGEST_IMAGES)
    if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise InputError(f"{path} is not the one that {CONFIG} names; copy the whole folder")
    return from_dict(_Images, {"images": found}, str(path)).images
