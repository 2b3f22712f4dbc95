"""Everybody else's weights: SAM 2 files of Meta and the hub, EfficientNet-Lite0, the authors' .pth.

What a file holds is told from its names and shapes, never from the file's name. No pickle is ever
executed: `.pt` and `.pth` go through torch's weights-only reader after a few cheap checks.
"""

import logging
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sartm.errors import InputError
from sartm.model.hiera import ENCODERS
from sartm.model.hub import SUFFIXES, find_weights, get_weights
from sartm.model.lite import from_efficientnet
from sartm.model.released import is_released, take
from sartm.model.sartm import SARTM

log = logging.getLogger("sartm")

Kind = Literal["SAM 2", "SAM 2.1", "EfficientNet", "released"]

TRUNK = "image_encoder.trunk."
PATCHES = "image_encoder.trunk.patch_embed.proj.weight"
"""A name that every SAM 2 file of Meta's has; it tells the width."""
STEM = "_conv_stem.weight"
"""One that every EfficientNet of PyTorch's ports has."""
HUB_PATCHES = "vision_encoder.backbone.patch_embed.projection.weight"

WRAPPERS = ("model", "model_state_dict", "state_dict")
"""Under which of these a training checkpoint keeps its weights."""


@dataclass(frozen=True)
class Weights:
    """What one file holds, recognised but not yet checked against a model."""

    kind: Kind
    size: str
    """A `ModelConfig.size`."""
    tensors: dict[str, Tensor]
    """Under Meta's names, or the authors' for `released`, or ours for EfficientNet."""
    where: str
    """The file, for messages."""


@dataclass(frozen=True)
class Loaded:
    """Which weights of a model come from a file and which do not; the names, in order."""

    loaded: tuple[str, ...]
    new: tuple[str, ...]
    """Of the model, not in the file: adapters, fusion, heads, one token per class."""
    ignored: tuple[str, ...]
    """In the file, not in the model: memory modules, heads that are not built, other tokens."""


# Files


def read_weights(source: str | Path) -> Weights:
    """The weights in a file, a folder, or a repository of the hub (fetched if not cached).

    Raises:
        InputError: nothing is there, it cannot be read without running code, or it is neither a
            SAM 2 nor a released SARTM.
    """
    path = Path(source)
    if not path.exists() and path.suffix not in SUFFIXES:
        path = get_weights(str(source))
    if path.is_dir():
        path = find_weights(path)
    return recognise(read_tensors(path), str(path))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict of a safetensors, .pt or .pth file, out of any wrapper."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if path.suffix == ".safetensors":
        return strip_prefix(read_safetensors(path))
    return strip_prefix(unwrap(read_pickle(path, head), path))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, mapped into memory; `fill` copies them."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError:
        raise InputError(f"{path} is missing; copy or download the model again") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read: {error}. It is damaged or cut off; copy or download it again"
        ) from None


def read_pickle(path: Path, head: bytes) -> object:
    """What torch's weights-only reader makes of a file; `head` is its beginning.

    Raises InputError for whatever holds more than plain tensors, lists and dicts.
    """
    mapped = head.startswith(b"PK\x03\x04")
    if mapped:
        _check_archive(path)
    elif head.startswith(b"version https://git-lfs"):
        raise InputError(f"{path} is a pointer of git-lfs, not the file: run `git lfs pull` there")
    elif head.lstrip()[:1] == b"<":
        raise InputError(f"{path} is a web page, not weights; download the file itself")
    elif head[:1] != b"\x80":
        raise InputError(f"{path} is neither a file of torch nor safetensors; is it complete?")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        wanted = f"it asks for {found[1]}" if found else "it holds more than tensors"
        raise InputError(
            f"{path} is refused: {wanted}, and reading that could run code. Save the plain state "
            f"dict, best as safetensors, where you trust the file"
        ) from None
    except Exception as error:  # a hostile or broken pickle can make the reader raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} cannot be read: {reason}. Copy or download it again") from None


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise InputError(f"{path} is damaged or cut off; copy or download it again") from None
    if packed:  # torch compresses nothing, so this would only serve to fill the memory
        raise InputError(f"{path} is a compressed archive, not a file of torch; unpack it first")


def unwrap(content: object, path: Path) -> dict[str, Tensor]:
    """The state dict inside what a .pt or .pth file holds: itself, or under a usual name."""
    candidates = [content]
    if isinstance(content, Mapping):
        candidates += [content[name] for name in WRAPPERS if name in content]
    for candidate in candidates:
        if not isinstance(candidate, Mapping) or not candidate:
            continue
        if all(isinstance(k, str) and isinstance(v, Tensor) for k, v in candidate.items()):
            odd = [k for k, v in candidate.items() if v.layout != torch.strided or v.is_quantized]
            if odd:
                raise InputError(f"{path}: {odd[0]} is sparse or quantised; save plain tensors")
            return dict(candidate)
    found = type(content).__name__
    if isinstance(content, Mapping):
        found = f"the entries {', '.join(map(repr, list(content)[:5]))}"
    raise InputError(
        f"{path} holds no state dict: expected tensors by name, alone or under "
        f"{', '.join(WRAPPERS)}, found {found}"
    )


def strip_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without the `module.` that data-parallel training puts before every one."""
    while tensors and all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def recognise(tensors: Mapping[str, Tensor], where: str) -> Weights:
    """Whose weights these are and of which size, by names and shapes."""
    if is_released(tensors):
        inner = {key.removeprefix("sam."): value for key, value in tensors.items()}
        return Weights("released", recognise_size(inner, where), dict(tensors), where)
    if STEM in tensors:
        gates = [key for key in tensors if "._se_" in key]
        if gates:
            raise InputError(
                f"{where} is an EfficientNet with squeeze-and-excitation ({gates[0]}): of that "
                f"family Lite0 alone can be a trunk. Nothing was loaded"
            )
        turned = {
            f"{TRUNK}{key}": value for key, value in from_efficientnet(tensors, where).items()
        }
        return Weights("EfficientNet", "lite", turned, where)
    if HUB_PATCHES in tensors:
        tensors = from_hub_names(tensors, where)
    if PATCHES not in tensors:
        raise InputError(
            f"{where} holds {len(tensors)} tensors ({', '.join(list(tensors)[:3])}, ...): neither "
            f"SAM 2 of Meta or the hub nor EfficientNet-Lite0 nor a released SARTM"
        )
    newer = "no_obj_embed_spatial" in tensors
    size = recognise_size(tensors, where)
    return Weights("SAM 2.1" if newer else "SAM 2", size, dict(tensors), where)


def recognise_size(tensors: Mapping[str, Tensor], where: str) -> str:
    """Which of `ENCODERS` has this width and this many blocks."""
    width = take(tensors, PATCHES, where).shape[0]
    found = (re.match(r"image_encoder\.trunk\.blocks\.(\d+)\.", key) for key in tensors)
    blocks = len({match[1] for match in found if match})
    for name, config in ENCODERS.items():
        if (config.embed_dim, sum(config.stages)) == (width, blocks):
            return name
    raise InputError(
        f"{where} has an encoder of width {width} with {blocks} blocks, which is none of "
        f"{', '.join(ENCODERS)}; it is not complete or not SAM 2's"
    )


# Names

HUB_NAMES = (
    (r"(vision_encoder\.backbone)\.(pos_embed|pos_embed_window)", r"image_encoder.trunk.\2"),
    (
        r"vision_encoder\.backbone\.patch_embed\.projection\.(.*)",
        r"image_encoder.trunk.patch_embed.proj.\1",
    ),
    (
        r"vision_encoder\.backbone\.blocks\.(\d+)\.layer_norm([12])\.(.*)",
        r"image_encoder.trunk.blocks.\1.norm\2.\3",
    ),
    (
        r"vision_encoder\.backbone\.blocks\.(\d+)\.((?:attn\.qkv|attn\.proj|proj)\..*)",
        r"image_encoder.trunk.blocks.\1.\2",
    ),
    (
        r"vision_encoder\.backbone\.blocks\.(\d+)\.mlp\.proj_in\.(.*)",
        r"image_encoder.trunk.blocks.\1.mlp.layers.0.\2",
    ),
    (
        r"vision_encoder\.backbone\.blocks\.(\d+)\.mlp\.proj_out\.(.*)",
        r"image_encoder.trunk.blocks.\1.mlp.layers.1.\2",
    ),
    (r"vision_encoder\.neck\.convs\.(\d+)\.(.*)", r"image_encoder.neck.convs.\1.conv.\2"),
    (r"no_memory_embedding", "no_mem_embed"),
    (
        r"(?:prompt_encoder\.shared_embedding|shared_image_embedding)\.positional_embedding",
        "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    (r"prompt_encoder\.(no_mask_embed\..*)", r"sam_prompt_encoder.\1"),
    (
        r"mask_decoder\.transformer\.layers\.(\d+)\.layer_norm([1-4])\.(.*)",
        r"sam_mask_decoder.transformer.layers.\1.norm\2.\3",
    ),
    (
        r"mask_decoder\.transformer\.layers\.(\d+)\.mlp\.proj_in\.(.*)",
        r"sam_mask_decoder.transformer.layers.\1.mlp.layers.0.\2",
    ),
    (
        r"mask_decoder\.transformer\.layers\.(\d+)\.mlp\.proj_out\.(.*)",
        r"sam_mask_decoder.transformer.layers.\1.mlp.layers.1.\2",
    ),
    (
        r"mask_decoder\.transformer\.(.*_(?:attn|image|token))\.o_proj\.(.*)",
        r"sam_mask_decoder.transformer.\1.out_proj.\2",
    ),
    (
        r"mask_decoder\.transformer\.(.*_(?:attn|image|token)\.[qkv]_proj\..*)",
        r"sam_mask_decoder.transformer.\1",
    ),
    (
        r"mask_decoder\.transformer\.layer_norm_final_attn\.(.*)",
        r"sam_mask_decoder.transformer.norm_final_attn.\1",
    ),
    (r"mask_decoder\.upscale_conv1\.(.*)", r"sam_mask_decoder.output_upscaling.0.\1"),
    (r"mask_decoder\.upscale_layer_norm\.(.*)", r"sam_mask_decoder.output_upscaling.1.\1"),
    (r"mask_decoder\.upscale_conv2\.(.*)", r"sam_mask_decoder.output_upscaling.3.\1"),
    (r"mask_decoder\.((?:iou_token|obj_score_token|conv_s0|conv_s1)\..*)", r"sam_mask_decoder.\1"),
    # what this model does not build keeps a name of Meta's too, so that one list leaves it out
    (
        r"mask_decoder\.((?:mask_tokens|output_hypernetworks_mlps|iou_prediction_head"
        r"|pred_obj_score_head)\..*)",
        r"sam_mask_decoder.\1",
    ),
    (r"prompt_encoder\.point_embed\.(.*)", r"sam_prompt_encoder.point_embeddings.\1"),
    (r"prompt_encoder\.(not_a_point_embed\..*)", r"sam_prompt_encoder.\1"),
    (r"prompt_encoder\.mask_embed\.(.*)", r"sam_prompt_encoder.mask_downscaling.\1"),
    (r"occlusion_spatial_embedding_parameter", "no_obj_embed_spatial"),
    (r"memory_temporal_positional_encoding", "maskmem_tpos_enc"),
    (r"no_memory_positional_encoding", "no_mem_pos_enc"),
    (r"no_object_pointer", "no_obj_ptr"),
    (r"object_pointer_proj\.(.*)", r"obj_ptr_proj.\1"),
    (r"temporal_positional_encoding_projection_layer\.(.*)", r"obj_ptr_tpos_proj.\1"),
    (r"((?:memory_attention|memory_encoder|mask_downsample)\..*)", r"\1"),
)
"""The hub's names, as regular expressions that match the whole key, and Meta's; first match."""

IGNORED = (
    "maskmem_tpos_enc",
    "no_mem_pos_enc",
    "no_obj_ptr",
    "no_obj_embed_spatial",
    "mask_downsample.",
    "memory_attention.",
    "memory_encoder.",
    "obj_ptr_proj.",
    "obj_ptr_tpos_proj.",
    "sam_prompt_encoder.point_embeddings.",
    "sam_prompt_encoder.not_a_point_embed.",
    "sam_prompt_encoder.mask_downscaling.",
    "sam_mask_decoder.mask_tokens.",
    "sam_mask_decoder.output_hypernetworks_mlps.",
    "sam_mask_decoder.iou_prediction_head.",
    "sam_mask_decoder.pred_obj_score_head.",
)
"""Of SAM 2 and not of the default model: memory, prompts, heads, tokens that mean no class."""


def from_hub_names(tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """A state dict with the hub's names under Meta's; InputError on a name that is not known."""
    renamed: dict[str, Tensor] = {}
    strange = []
    for key, value in tensors.items():
        for pattern, name in HUB_NAMES:
            if re.fullmatch(pattern, key):
                target = re.sub(pattern, name, key)
                break
        else:
            strange.append(key)
            continue
        if target in renamed and not torch.equal(renamed[target], value):
            raise InputError(f"{where} gives {target} twice, with different values; it is damaged")
        renamed[target] = value
    if strange:
        raise InputError(
            f"{where} has {len(strange)} weights that SAM 2 on the hub does not have: "
            f"{', '.join(strange[:5])}. Nothing was loaded"
        )
    return renamed


def is_sam2(key: str) -> bool:
    """Whether a key of our model is filled from SAM 2: trunk, neck, codes, and what stays the same
    in the decoder whatever the classes are."""
    if key.startswith("sam_mask_decoder."):
        return not key.startswith(IGNORED)
    return is_encoder(key) or key.startswith(("sam_prompt_encoder.", "no_mem_embed"))


def is_trunk(key: str) -> bool:
    """Whether a state-dict key belongs to the trunk itself, not to an adapter."""
    return key.startswith(TRUNK) and ".lora_" not in key


def is_encoder(key: str) -> bool:
    """Whether a state-dict key belongs to SAM 2's trunk or neck itself, not to an adapter."""
    return key.startswith("image_encoder.") and ".lora_" not in key


def load_encoder(model: SARTM, source: str | Path) -> Loaded:
    """Fill a model with SAM 2: trunk, neck, codes and decoder. What is per class stays new.

    EfficientNet-Lite0 fills the trunk only.

    Args:
        model: of the same size; changed only if everything fits.
        source: Meta's .pt, a folder or id of the hub; or EfficientNet-Lite0's .pth.

    Raises:
        InputError: as `read_weights`; another size; weights that SAM 2 does not have, or that are
            missing, of another shape, NaN or infinite.
    """
    loaded = fill_encoder(model, read_weights(source))
    model.encoder_source = str(source)
    return loaded


def fill_encoder(model: SARTM, weights: Weights) -> Loaded:
    """`load_encoder` for weights that are read already."""
    where = weights.where
    if weights.kind == "released":
        raise InputError(f"{where} is a released SARTM, not SAM 2; start from it with --init")
    if weights.size != model.config.size:
        raise InputError(
            f"{where} is {weights.kind} {weights.size} but the model is {model.config.size}; "
            f"use --set model.size={weights.size}, or weights of the other size"
        )
    state = model.state_dict()
    known = is_trunk if weights.kind == "EfficientNet" else is_sam2
    wanted = {key: value for key, value in state.items() if known(key)}
    found = {key: v for key, v in weights.tensors.items() if not key.startswith(IGNORED)}
    require_same_keys(wanted, found, where)
    require_sound(found, where)
    with torch.no_grad():
        for key, value in wanted.items():
            value.copy_(found[key])
    loaded = Loaded(
        loaded=tuple(wanted),
        new=tuple(key for key in state if key not in wanted),
        ignored=tuple(key for key in weights.tensors if key not in wanted),
    )
    log.info(
        "%s is %s %s: %d weights loaded; %d new: %s; %d ignored: %s",
        where,
        weights.kind,
        weights.size,
        len(loaded.loaded),
        len(loaded.new),
        summarise(loaded.new),
        len(loaded.ignored),
        summarise(loaded.ignored),
    )
    log.debug("loaded: %s", ", ".join(loaded.loaded))
    return loaded


def summarise(keys: Iterable[str]) -> str:
    """Names with their last parts, block numbers and counts folded away; none is left out."""
    counts: dict[str, int] = {}
    for key in keys:
        group = ".".join(key.split(".")[:2])
        if ".lora_" in key:
            group = "image_encoder.*.lora_*"
        counts[group] = counts.get(group, 0) + 1
    return ", ".join(f"{group} ({count})" for group, count in counts.items()) or "none"


# Checks


def fill(model: torch.nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Give a model all its weights, or raise InputError and leave it as it is.

    Args:
        model: its parameters may lie on the meta device.
        tensors: its whole state dict, floating point of any precision; copied.
        where: file the tensors come from, for the message.
    """
    state = model.state_dict()
    require_same_keys(state, tensors, where)
    require_sound(tensors, where)
    plain = torch.contiguous_format
    ready = {
        key: tensors[key].detach().to(value.dtype, copy=True, memory_format=plain)
        for key, value in state.items()
    }
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
        raise InputError(f"{where} does not fit the model. {'; '.join(parts)}")


def _describe(tensor: Tensor) -> str:
    """Shape, and whether numbers are real or whole; precision may differ."""
    kind = "" if tensor.is_floating_point() else f" {str(tensor.dtype).removeprefix('torch.')}"
    return ("x".join(map(str, tensor.shape)) or "one number") + kind


def require_sound(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise InputError if a weight is NaN or infinite."""
    bad = [
        key
        for key, value in tensors.items()
        if value.is_floating_point() and not bool(torch.isfinite(value.float()).all())
    ]
    if bad:
        raise InputError(
            f"{where} holds NaN or infinite weights in {len(bad)} tensors ({', '.join(bad[:5])}): "
            f"the training diverged or the file is damaged; take another checkpoint"
        )
