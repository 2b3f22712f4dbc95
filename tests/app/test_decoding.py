"""The process that decodes: what kills it costs one request, and the next one finds it there."""

import os
import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from sartm.app.decoding import Decoder
from sartm.app.reading import Extent, read_uploads
from sartm.errors import InputError
from sartm.io.sources import Upload

EXTENT = Extent(1_000_000, 16_384)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    decoder = Decoder(2**28)
    yield decoder
    decoder.close()


@pytest.fixture(autouse=True)
def _works_afterwards(decoder: Decoder) -> Iterator[None]:
    yield
    image = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    upload = Upload("thermal", cv2.imencode(".png", image)[1].tobytes())
    sample = decoder.call(10, read_uploads, None, upload, False, "auto", EXTENT)
    np.testing.assert_array_equal(sample.thermal, image)


def test_it_is_another_process_that_stays(decoder):
    first = decoder.call(10, os.getpid)
    assert first == decoder.call(10, os.getpid) != os.getpid()


def test_a_call_without_end_is_killed(decoder):
    decoder.call(10, os.getpid)
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"0\.5 seconds"):
        decoder.call(0.5, time.sleep, 60)
    assert time.monotonic() - begun < 5


def test_a_call_that_takes_too_much_memory_is_refused(decoder):
    with pytest.raises(InputError, match="memory"):
        decoder.call(10, bytearray, 2**29)


def test_a_crash_is_one_request_s(decoder):
    with pytest.raises(InputError, match="crashed"):
        decoder.call(10, os.abort)


def test_the_words_of_a_refusal_arrive(decoder):
    with pytest.raises(InputError, match="no image"):
        decoder.call(10, read_uploads, None, None, False, "auto", EXTENT)


def test_a_bug_is_no_refusal(decoder):
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        decoder.call(10, divmod, 1, 0)


def test_it_needs_neither_torch_nor_the_web(decoder):
    loaded = decoder.call(10, eval, "sorted(__import__('sys').modules)")
    assert not {"torch", "fastapi", "uvicorn", "pydantic"} & set(loaded)
