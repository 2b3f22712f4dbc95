"""Weights by name: bundled with the package, in the hub's cache, or fetched and verified."""

import difflib
import hashlib
import json
import math
import os
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import cast

from safetensors import safe_open

from sartm.errors import InputError

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
"""What a model folder holds, ours and the hub's."""
IMAGES = "training_images.json"
"""Hashes of training images, of models that have seen more than `MOST_IN_CONFIG`."""
MOST_IN_CONFIG = 20_000
"""Hashes of training images that config.json holds."""

SUFFIXES = {".safetensors", ".pt", ".pth"}
"""Of files of weights; a name that ends so is never looked up on the hub."""

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

_RESEARCH = (
    "research only",
    "MSRS/MFNet (no licence text) and others, drawn scenes, ImageNet",
    "no",
)
_DRAWN = ("Apache-2.0", "drawn scenes; ImageNet under the trunk", "yes")
_BUNDLED_TERMS = {
    "mini": _RESEARCH, "mini-words": _RESEARCH, "small": _RESEARCH, "mini-synthetic": _DRAWN,
}  # fmt: skip
_SAM2_TERMS = ("Apache-2.0", "SA-1B, SA-V and Meta's own", "yes")
"""Licence, data, commercial use; the whole sentence is in each model's card."""

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


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
    """Of the weights."""
    data: str
    """What they were trained on."""
    commercial: str
    """Whether they may be used commercially, in a word or two; no legal advice."""
    here: bool
    """Bundled, or complete in the hub's cache."""


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
            *_SAM2_TERMS,
            cached_weights(name, cache) is not None,
        )
        for name, (kind, size) in SAM2_NAMES.items()
    ]
    return bundled + sam2


def _describe_bundled(name: str, folder: Path) -> KnownWeights:
    values = json.loads((folder / CONFIG).read_text("utf-8"))
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118
    count = sum(math.prod(shape) for shape in shapes)
    terms = _BUNDLED_TERMS.get(name, ("see its README.md", ", ".join(values["facts"]["data"]), "?"))
    return KnownWeights(name, "sartm", values["model"]["size"], count, *terms, True)


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
    return [name for name in (CONFIG, CARD, IMAGES) if name in top] + weights


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
