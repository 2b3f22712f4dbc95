"""The one way from what a user names to a model: bundled, a folder, a hub id, a .pth, an export."""

import difflib
import logging
from dataclasses import replace
from pathlib import Path

import torch

from sartm.classes import Classes
from sartm.config import ModelConfig
from sartm.errors import InputError
from sartm.model.checkpoint import is_model_folder, load_folder, refuse_options, save
from sartm.model.exported import ExportedModel, find_export, open_export
from sartm.model.facts import ModelFacts
from sartm.model.filling import build, fill, fill_encoder, match_encoder, summarise
from sartm.model.hub import WEIGHTS, bundled_models, get_weights, is_hub_id
from sartm.model.lite import LITES
from sartm.model.released import (
    CANVAS,
    Released,
    is_ignored,
    is_unnamed,
    released_config,
    released_state,
    to_default_model,
)
from sartm.model.sartm import SARTM
from sartm.model.sources import Weights, read_weights
from sartm.outputs import check_targets, lock_target
from sartm.spaces import describe_untaught, place_classes

log = logging.getLogger("sartm")


def load(
    source: str | Path,
    *,
    encoder: str | Path | None = None,
    classes: Classes | None = None,
    canvas: int | None = None,
    text_encoder: str = "",
) -> SARTM | ExportedModel:
    """A model ready to predict, in eval mode on the CPU in float32.

    Args:
        source: a bundled name, a folder that `save` wrote, a hub id, the authors' .pth, SAM 2's
            own weights, whose class heads are then new, or what `sartm export` wrote: the folder,
            the .onnx or the .xml.
        encoder: SAM 2 weights for a model that was saved as adapters; by default those it names.
        classes: names for the classes of a .pth, or those of the new heads; of other models the
            label space, among the classes and words that they know (`SARTM.choose`).
        canvas: side in pixels of the square that a released model pads its inputs to; 1280, or
            what it was converted with, when None.
        text_encoder: for words in `classes` that no vocabulary has (`SARTM.choose`).

    Raises:
        InputError: nothing is there, or it is not whole, of a later format, or not what its
            config.json says; an argument that this kind of model has no use for. Nothing is
            half-loaded.
    """
    path = _locate(source)
    exported = find_export(path)
    if exported is not None:
        refuse_options(f"{source} is an export, which is complete", encoder, classes, canvas)
        return open_export(exported)
    model = _load_weights(path, str(source), encoder, classes, canvas, text_encoder)
    if classes is not None and model.known is not None:
        untaught = describe_untaught(model.known, classes)
        if untaught:
            log.warning("%s", untaught)
    return model


def choose_known(model: SARTM | ExportedModel, classes: Classes) -> SARTM | ExportedModel:
    """The model with these classes as its label space, where it knows all of them; else as it is.

    An export stays as it is too: its classes are constants.
    """
    known = model.config.classes
    if isinstance(model, Released | ExportedModel) or known.names == classes.names:
        return model
    places = place_classes(known, classes)
    if any(place is None for index, place in enumerate(places) if index != classes.rest):
        return model
    return model.choose(classes)


def find_folder(source: str | Path) -> Path:
    """The folder of a model of ours, by bundled name or path; InputError for anything else."""
    path = _locate(source)
    if not path.is_dir() or not is_model_folder(path) or find_export(path) is not None:
        raise InputError(
            f"{source} is no model folder: an export is made again from a calibrated model, and "
            f"other weights become a folder by `sartm weights convert`"
        )
    return path


def _load_weights(
    path: Path,
    source: str,
    encoder: str | Path | None,
    classes: Classes | None,
    canvas: int | None,
    text_encoder: str,
) -> SARTM:
    """`load` of anything but an export."""
    if path.is_dir() and is_model_folder(path):
        return load_folder(path, encoder, classes, canvas, text_encoder)
    if text_encoder:
        raise InputError(f"{source} has fixed classes; leave --text-encoder out")
    weights = read_weights(path)
    if weights.kind == "released":
        refuse_options(f"{source} is a released SARTM with an encoder of its own", encoder=encoder)
        return _build_released(weights, classes, CANVAS if canvas is None else canvas)
    refuse_options(
        f"{source} is {weights.kind} itself and takes any size", encoder=encoder, canvas=canvas
    )
    return _build_on_sam2(weights, classes, source)


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
    if weights.size in LITES:
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
    match_encoder(build(config, source), weights)  # before there is memory for what it says
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

    Arguments and errors as `load` and `save`; an input is not written over. What was adapters stays
    so unless `full`; weights of other kinds become a folder that needs nothing else. Returns the
    model.
    """
    path, target = _locate(source), Path(out)
    check_targets(target.parent, [target, target / WEIGHTS], [path, encoder])
    model = _with_weights(load(source, encoder=encoder, classes=classes, canvas=canvas), source)
    full = full or not (path.is_dir() and is_model_folder(path))
    with lock_target(target):
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


def _with_weights(model: SARTM | ExportedModel, source: str | Path) -> SARTM:
    if isinstance(model, SARTM):
        return model
    raise InputError(
        f"{source} is an exported model, whose weights cannot be taken out; give the model that "
        f"`sartm export` made it from"
    )
