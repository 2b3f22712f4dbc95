"""State dicts out of files, and no pickle ever executed.

`.pt` and `.pth` go through torch's weights-only reader after a few cheap checks.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sartm.errors import InputError, unreadable
from sartm.files import require_plain

WRAPPERS = ("model", "model_state_dict", "state_dict")
"""Under which of these a training checkpoint keeps its weights."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The state dict of a safetensors, .pt or .pth file, out of any wrapper."""
    try:
        require_plain(path)
        with path.open("rb") as file:
            head = file.read(512)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if path.suffix == ".safetensors":
        return strip_prefix(read_safetensors(path))
    return strip_prefix(unwrap(read_pickle(path, head), path))


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
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
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
