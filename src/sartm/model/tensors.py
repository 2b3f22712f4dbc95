"""State dicts out of files, and no pickle ever executed.

`.pt` and `.pth` go through torch's weights-only reader after a few cheap checks.
"""

import pickle
import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sartm.errors import InputError, unreadable
from sartm.files import require_plain

WRAPPERS = ("model", "model_state_dict", "state_dict")
"""Under which of these a training checkpoint keeps its weights."""
WITHIN = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts that torch puts into names wherever it wraps a module, as torch.compile does."""
HOMES = ("image_encoder", "vision_encoder", "sam")
"""Parts that mean something though every name of a file may begin with one."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict of a safetensors, .pt or .pth file, out of any wrapper."""
    if path.suffix == ".safetensors":
        return strip_prefix(read_safetensors(path), str(path))
    try:
        require_plain(path)
        with path.open("rb") as file:
            head = file.read(512)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    return strip_prefix(unwrap(read_pickle(path, head), path), str(path))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, mapped into memory; `fill` copies them."""
    try:
        require_plain(path)
        str(path).encode()
        with path.open("rb"):  # safetensors calls everything missing that it cannot open
            pass
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError:
        raise InputError(f"{path} is missing; copy or download the model again") from None
    except (OSError, UnicodeEncodeError) as error:  # safetensors takes names in UTF-8 alone
        raise unreadable(path, error) from None
    except (SafetensorError, ValueError) as error:
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
    except OSError as error:
        raise unreadable(path, error) from None
    except Exception as error:  # a hostile or broken pickle can make the reader raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} cannot be read: {reason}. Copy or download it again") from None


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
    except OSError as error:
        raise unreadable(path, error) from None
    except (zipfile.BadZipFile, ValueError, NotImplementedError):  # the last: a method it lacks
        raise InputError(f"{path} is damaged or cut off; copy or download it again") from None
    if packed:  # torch compresses nothing, so this would only serve to fill the memory
        raise InputError(f"{path} is a compressed archive, not a file of torch; unpack it first")


def unwrap(content: object, path: Path) -> dict[str, Tensor]:
    """The state dict inside what a .pt or .pth file holds: itself, or under a usual name."""
    candidates = [content]
    for candidate in candidates:
        if isinstance(candidate, Mapping) and len(candidates) < 10:  # usual names in usual names
            candidates += [candidate[name] for name in WRAPPERS if name in candidate]
        if not isinstance(candidate, Mapping) or not candidate:
            continue
        if all(isinstance(k, str) and isinstance(v, Tensor) for k, v in candidate.items()):
            _require_stored(candidate, path)
            return dict(candidate)
    found = type(content).__name__
    if isinstance(content, Mapping):
        found = f"the entries {', '.join(map(repr, list(content)[:5]))}"
    raise InputError(
        f"{path} holds no state dict: expected tensors by name, alone or under "
        f"{', '.join(WRAPPERS)}, found {found}"
    )


def _require_stored(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse what would grow where it is copied: one number that is said to stand for millions."""
    for key, value in tensors.items():
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise InputError(f"{path}: {key} is sparse, quantised or empty; save plain tensors")
        stored = value.untyped_storage().nbytes()
        if value.numel() * value.element_size() > stored:
            shape = "x".join(map(str, value.shape))
            raise InputError(
                f"{path}: {key} is said to be {shape}, but the file has {stored} bytes for it; "
                f"save plain tensors, each with all its numbers (contiguous())"
            )


def strip_prefix(tensors: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Names without what wrappers put into them, and without what all of them begin with.

    So `module.` of data-parallel training, `model.` of a trainer and `_orig_mod.` of torch.compile
    are gone in whatever order they stand.
    """
    split = [[part for part in key.split(".") if part not in WITHIN] for key in tensors]
    depth = 0
    if split:  # what the first and the last in order begin with, all between do too
        for one, other in zip(min(split)[:-1], max(split)[:-1], strict=False):
            if one != other or one in HOMES:
                break
            depth += 1
    names = [".".join(parts[depth:]) for parts in split]
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise InputError(f"{where} holds {twice} twice, wrapped and not; save the model once")
    return dict(zip(names, tensors.values(), strict=True))
