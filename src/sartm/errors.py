"""What a user can act on: the one exception for it, and what the system refuses, in words."""

import errno


class InputError(ValueError):
    """Wrong data, option, config or file: something the user can put right.

    The message says what is wrong, what was found and what to do, in one or two lines. Commands
    print it alone and exit with 2; any other exception keeps its traceback.
    """


_REFUSALS = {
    errno.ENOSPC: "the disk is full; make room, or choose another place",
    errno.EDQUOT: "the quota is used up; make room, or choose another place",
    errno.EFBIG: "the file would be larger than the system allows (ulimit -f); raise the limit, or "
    "choose another place",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.EACCES: "permission denied; check who may read and write there",
    errno.EPERM: "not permitted; check who may read and write there",
    errno.ENOENT: "no such file or folder; check the path",
    errno.ENOTDIR: "a part of the path is a file, not a folder; check the path",
    errno.EISDIR: "is a folder, not a file; check the path",
    errno.EEXIST: "is there already; choose another name, or take it away",
    errno.ENOTEMPTY: "is not empty; choose another name, or take away what is there",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ELOOP: "links lead round in a circle; correct them",
    errno.EMFILE: "too many files are open at once; raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this system; close other programs",
    errno.EIO: "the device fails; check it, or copy the file again",
    errno.ENOMEM: "not enough memory; close other programs",
}
"""Error number of the system -> what was found, what to do."""


def explain_refusal(error: BaseException) -> str | None:
    """What the system refused, where, and what to do; None for an error that tells of a bug.

    Beside errors of the system these are paths that no system knows, and too little memory.
    """
    if isinstance(error, MemoryError):
        return "not enough memory; use smaller images, or close other programs"
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object!r:.200} is no text of {error.encoding}; rename what is called so"
    if isinstance(error, ValueError) and "null " in str(error):  # byte or character
        return "a path holds a NUL character, which no file name can; correct it"
    if not isinstance(error, OSError) or error.errno is None:
        return None
    places = [str(name) for name in (error.filename, error.filename2) if name is not None]
    said = _REFUSALS.get(error.errno, f"{error.strerror}; check the path and the device")
    return f"{' to '.join(places)}: {said}" if places else said


def unreadable(path: object, error: BaseException) -> InputError:
    """That a file cannot be read, for `error` that `explain_refusal` knows."""
    if isinstance(error, OSError):
        error.filename = error.filename2 = None
    return InputError(f"{path} cannot be read: {explain_refusal(error) or error}")
