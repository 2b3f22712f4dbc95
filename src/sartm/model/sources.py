"""Everybody else's weights: Meta's SAM 2 files, the hub's, the authors' .pth; and fetching them.

What a file holds is told from its names and shapes, never from the file's name. No pickle is ever
executed: `.pt` and `.pth` go through torch's weights-only reader after a few cheap checks.
"""

import difflib
import hashlib
import json
import logging
import math
import os
import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sartm.errors import InputError
from sartm.model.released import is_released, take
from sartm.model.sam2 import ENCODERS
from sartm.model.sartm import SARTM

log = logging.getLogger("sartm")

Kind = Literal["SAM 2", "SAM 2.1", "released"]

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
"""What a model folder holds, ours and the hub's."""

SUFFIXES = {".safetensors", ".pt", ".pth"}
"""Of files of weights; a name that ends so is never looked up on the hub."""

PATCHES = "image_encoder.trunk.patch_embed.proj.weight"
"""A name that every SAM 2 file of Meta's has; it tells the width."""
HUB_PATCHES = "vision_encoder.backbone.patch_embed.projection.weight"

WRAPPERS = ("model", "model_state_dict", "state_dict")
"""Under which of these a training checkpoint keeps its weights."""


@dataclass(frozen=True)
class Weights:
    """What one file holds, recognised but not yet checked against a model."""

    kind: Kind
    size: str
    """A name of `ENCODERS`."""
    tensors: dict[str, Tensor]
    """Under Meta's names, or the authors' for `released`."""
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


def find_weights(folder: Path) -> Path:
    """The one file of weights in a folder; model.safetensors wins."""
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    if len(files) != 1:
        found = ", ".join(path.name for path in files[:5]) or "none"
        raise InputError(
            f"{folder} must hold {WEIGHTS} or a single .pt, .pth or .safetensors file, found "
            f"{found}; name the file itself"
        )
    return files[0]


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
    if HUB_PATCHES in tensors:
        tensors = from_hub_names(tensors, where)
    if PATCHES not in tensors:
        raise InputError(
            f"{where} holds {len(tensors)} tensors ({', '.join(list(tensors)[:3])}, ...): neither "
            f"SAM 2 of Meta or the hub nor a released SARTM"
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


def is_encoder(key: str) -> bool:
    """Whether a state-dict key belongs to SAM 2's trunk or neck itself, not to an adapter."""
    return key.startswith("image_encoder.") and ".lora_" not in key


def load_encoder(model: SARTM, source: str | Path) -> Loaded:
    """Fill a model with SAM 2: trunk, neck, codes and decoder. What is per class stays new.

    Args:
        model: of the same size; changed only if everything fits.
        source: Meta's .pt, a folder or id of the hub.

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
    wanted = {key: value for key, value in state.items() if is_sam2(key)}
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


# Fetching


@dataclass(frozen=True)
class KnownWeights:
    """A row of `sartm weights list`."""

    name: str
    """What `sartm.load`, `--encoder` and `sartm weights get` take."""
    kind: str
    size: str
    parameters: int
    """Of the image encoder; of the whole model for a bundled one."""
    licence: str
    here: bool
    """Bundled, or complete in the hub's cache."""


ENCODER_PARAMETERS = {
    "tiny": 27_219_136,
    "small": 34_316_992,
    "base_plus": 69_106_816,
    "large": 212_703_280,
}
SAM2_NAMES = {
    f"facebook/{version}-hiera-{size.replace('_', '-')}": (kind, size)
    for version, kind in (("sam2.1", "SAM 2.1"), ("sam2", "SAM 2"))
    for size in ENCODER_PARAMETERS
}
"""Hub id to version and size, for `list`; files are recognised by what they hold."""

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def is_hub_id(name: str) -> bool:
    """Whether a name has the form `org/name` and is not that of a file of weights."""
    fits = HUB_ID.fullmatch(name) is not None and ".." not in name
    return fits and Path(name).suffix not in SUFFIXES


def bundled_models() -> dict[str, Path]:
    """Name and folder of the models that come with the package."""
    home = Path(str(resources.files("sartm"))) / "assets" / "models"
    if not home.is_dir():
        return {}
    return {path.name: path for path in sorted(home.iterdir()) if (path / CONFIG).is_file()}


def list_weights(cache: Path | None = None) -> list[KnownWeights]:
    """Weights that are known by name: bundled models, and SAM 2 on the hub."""
    bundled = [_describe_bundled(name, folder) for name, folder in bundled_models().items()]
    sam2 = [
        KnownWeights(
            name,
            kind,
            size,
            ENCODER_PARAMETERS[size],
            "Apache-2.0",
            cached_weights(name, cache) is not None,
        )
        for name, (kind, size) in SAM2_NAMES.items()
    ]
    return bundled + sam2


def _describe_bundled(name: str, folder: Path) -> KnownWeights:
    values = json.loads((folder / CONFIG).read_text("utf-8"))
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118
    licence = values["facts"]["licence"] or "see its README.md"
    count = sum(math.prod(shape) for shape in shapes)
    return KnownWeights(name, "sartm", values["model"]["size"], count, licence, True)


def cached_weights(
    name: str, cache: Path | None = None, revision: str | None = None
) -> Path | None:
    """The folder of a hub repository in the cache, if its weights are there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(name, revision=revision, cache_dir=cache, local_files_only=True)
        )
        find_weights(folder)
    except (LocalEntryNotFoundError, InputError):
        return None
    return folder


def get_weights(
    name: str, *, revision: str | None = None, cache: Path | None = None, verify: bool = False
) -> Path:
    """Fetch the weights of a hub repository into its cache; nothing is fetched twice.

    Progress is shown, a cut connection is resumed, HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE are
    obeyed, and each new file's SHA-256 is compared with the hub's.

    Args:
        name: `org/name`, or a name of `list_weights` without its organisation.
        revision: branch, tag or commit.
        cache: folder of the cache, the hub's default when None.
        verify: also compare the SHA-256 of files that were cached already.

    Returns:
        The folder with the files; that of a bundled model for its name.

    Raises:
        InputError: no such name or repository, no network and not cached, a file that is not what
            the hub says it is.
    """
    if name in bundled_models():
        return bundled_models()[name]
    name = _full_name(name)
    folder = cached_weights(name, cache, revision)
    if folder is not None:
        if verify:
            for path in sorted(folder.iterdir()):
                _verify(path)
        return folder
    return _download(name, revision, cache)


def _full_name(name: str) -> str:
    short = {full.split("/")[1]: full for full in SAM2_NAMES}
    if name in short:
        return short[name]
    if not is_hub_id(name):
        known = [*bundled_models(), *SAM2_NAMES, *short]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`sartm weights list` shows what is known"
        raise InputError(f"no weights {name!r}: no file, folder, known name or org/name; {hint}")
    return name


def _download(name: str, revision: str | None, cache: Path | None) -> Path:
    from huggingface_hub import HfApi, constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    home = cache or Path(constants.HF_HUB_CACHE)
    endpoint = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    http_error = cast(type[Exception], HfHubHTTPError.__bases__[0])  # of whichever HTTP library
    try:
        info = HfApi(endpoint=endpoint).model_info(name, revision=revision, files_metadata=True)
        hashes = {
            file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id
            for file in info.siblings or []
        }
        for file in _choose_files(list(hashes), name):
            path = Path(
                hf_hub_download(name, file, revision=revision, cache_dir=cache, endpoint=endpoint)
            )
            _verify(path, hashes[file])
    except InputError:
        raise
    except (http_error, OSError, ValueError) as error:
        raise InputError(_explain(error, name, home, endpoint)) from None
    return path.parent


def _choose_files(names: list[str], repository: str) -> list[str]:
    """What to fetch of a repository, the weights last: where they are, the rest is too."""
    top = [name for name in names if "/" not in name]
    weights = [WEIGHTS] if WEIGHTS in top else [n for n in top if n.endswith((".pt", ".pth"))]
    if len(weights) != 1:
        raise InputError(
            f"{repository} on the hub holds {len(weights)} files of weights, expected {WEIGHTS} "
            f"or a single .pt; fetch the one you mean and give the file"
        )
    return [name for name in (CONFIG, CARD) if name in top] + weights


def _verify(path: Path, expected: str | None = None) -> None:
    """Compare a cached file with its hash on the hub, and drop it if it differs.

    The hash is a SHA-256 (64 digits) or git's of a small file (40); the cache names blobs by it.
    """
    blob = path.resolve()
    expected = expected or blob.name
    if len(expected) == 64:
        digest = hashlib.sha256()
    elif len(expected) == 40:
        digest = hashlib.sha1(f"blob {blob.stat().st_size}\0".encode())
    else:
        return  # a cache without links keeps no hash
    with blob.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    if digest.hexdigest() != expected:
        path.unlink()
        blob.unlink(missing_ok=True)
        raise InputError(
            f"{path.name} arrived damaged: its hash is {digest.hexdigest()[:16]}..., the hub says "
            f"{expected[:16]}.... It was deleted; run the same command again"
        )


def _explain(error: Exception, name: str, cache: Path, endpoint: str) -> str:
    """What went wrong while fetching, and what to do."""
    from huggingface_hub import errors

    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    if isinstance(error, errors.GatedRepoError):
        return f"{name} asks to accept its terms on {endpoint}/{name}; then set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{name} is no file or folder here, and {endpoint} has no repository {name}, or shows "
            f"it only with a login (HF_TOKEN); `sartm weights list` shows names that are known"
        )
    if isinstance(error, errors.HfHubHTTPError) and error.response is not None:
        code = error.response.status_code
        return f"{endpoint} answered {code} for {name} ({reason}); try again later"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot write {name} to the cache {cache}: {error.strerror}; see HF_HOME"
    if "onsistency check" in reason:
        return f"{name} was cut off on the way; run the same command again"
    offline = isinstance(error, errors.OfflineModeIsEnabled)
    why = (
        "HF_HUB_OFFLINE is set"
        if offline
        else f"{endpoint} cannot be reached, or broke off ({reason})"
    )
    return (
        f"{name} is not here nor in the cache {cache}, and {why}. On a machine with network run "
        f"`sartm weights get {name}`, then copy {cache_folder(name)} from its cache into this one"
    )


def cache_folder(name: str) -> str:
    """Name of the folder that the hub's cache keeps a repository in."""
    return f"models--{name.replace('/', '--')}"
