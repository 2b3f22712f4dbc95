"""A process of its own that decodes what strangers send, so that it can be killed."""

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, ParamSpec, TypeVar

from sartm.errors import InputError

P = ParamSpec("P")
Result = TypeVar("Result")

SECONDS = 10.0
"""Of decoding one request's images: the largest that are allowed take two on a slow machine."""
START_SECONDS = 60.0
"""Of starting the process, on a machine that is busy."""
# The isolated mode keeps modules out that lie in the folder the service is started from.
_PROGRAM = "import sys; sys.path[:] = sys.argv[2:]; from sartm.app.decoding import answer; answer()"


class Decoder:
    """Calls functions in one process, started at the first call and again after a call killed it.

    Safe to call from several threads; the calls follow one another.
    """

    def __init__(self, memory: int, seconds: float = SECONDS) -> None:
        """`memory` in bytes is what a call may take beyond what the process takes when idle."""
        self.memory, self.seconds = memory, seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, seconds: float, function: Callable[..., Result], *arguments: Any) -> Result:
        """What a function of a module returns.

        Raises:
            InputError: the function raised it, or took too much memory or time, or crashed.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._stop()
            process = self._process or self._start()
            allowed = min(seconds, self.seconds)
            try:
                done, value = _exchange(process, (function, arguments), allowed)
            except (EOFError, OSError, pickle.UnpicklingError):
                late = self._stop() == -signal.SIGKILL
                raise InputError(
                    f"decoding was stopped after {allowed:.3g} seconds; save the image again, "
                    f"plainly, or send a smaller one" if late else
                    "decoding crashed on this image; save it again with another program"
                ) from None  # fmt: skip
        if done:
            result: Result = value
            return result
        raise value

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", _PROGRAM, str(self.memory), *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._process = process
        try:
            _exchange(process, (os.getpid, ()), START_SECONDS)
        except (EOFError, OSError) as error:
            self._stop()
            raise RuntimeError("the process that decodes does not start") from error
        return process

    def _stop(self) -> int:
        """Kill the process if it lives; its exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        with suppress(subprocess.TimeoutExpired):  # one that crashed says so in its status
            process.wait(0.2)
        process.kill()
        with process:  # closes the pipes
            return process.wait()

    def close(self) -> None:
        """End the process, whatever it does."""
        process = self._process
        if process is not None:
            process.kill()  # which frees the lock from a call under way
        with self._lock:
            self._stop()


def _exchange(process: subprocess.Popen[bytes], message: Any, seconds: float) -> tuple[bool, Any]:
    """Send a call and wait for its answer; a killed process ends the stream: EOFError."""
    assert process.stdin is not None
    assert process.stdout is not None
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        pickle.dump(message, process.stdin, pickle.HIGHEST_PROTOCOL)
        process.stdin.flush()
        answer: tuple[bool, Any] = pickle.load(process.stdout)
        return answer
    finally:
        timer.cancel()


def answer() -> None:
    """In the process: answer calls until the service is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the service, which ends this
    # What a library prints must not lie between the answers.
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        _prepare()
        with suppress(EOFError, BrokenPipeError):
            _answer_calls(sys.stdin.buffer, answers)


def _prepare() -> None:
    """Import what reads images, then limit what is taken beyond that."""
    import cv2

    import sartm.app.reading  # noqa: F401

    cv2.setNumThreads(1)
    _limit_memory(int(sys.argv[1]))


def _limit_memory(memory: int) -> None:
    with suppress(ImportError, OSError, ValueError):  # systems without such limits: time is left
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        limit = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _answer_calls(calls: BinaryIO, answers: BinaryIO) -> None:
    while True:
        function, arguments = pickle.load(calls)
        message: tuple[bool, Any]
        try:
            message = True, function(*arguments)
        except InputError as error:
            message = False, error
        except MemoryError:
            message = False, InputError("decoding took too much memory; send a smaller image")
        except Exception as error:
            message = False, RuntimeError(f"decoding failed: {error!r}")
        del function, arguments
        pickle.dump(message, answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()
        del message
