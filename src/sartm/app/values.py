"""The thermal values behind a picture, to read out and to choose the shown range from."""

from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Depends, File, Form, Request, UploadFile
from starlette.responses import Response

from sartm.app.encoding import encode_array
from sartm.app.fields import refuse_unknown_fields
from sartm.app.reading import read_values
from sartm.app.service import ARRAY, ServiceDep, binary, describe_answers
from sartm.io.sources import Upload

UNIT = {
    "X-Thermal-Unit": {
        "schema": {"type": "string", "enum": ["raw", "celsius"]},
        "description": "What the values are: celsius of a radiometric file, else as stored.",
    }
}
"""Documentation of the header that says what the values are."""

router = APIRouter(dependencies=[Depends(refuse_unknown_fields)])


@router.post(
    "/v1/values",
    response_class=Response,
    responses=describe_answers(
        400,
        description="NumPy array (H, W) of uint8, uint16 or float32, upright.",
        content=binary(ARRAY),
        headers=UNIT,
    ),
    tags=["segmentation"],
)
async def values(
    request: Request,
    service: ServiceDep,
    image: Annotated[UploadFile, File()],
    view: Annotated[
        Literal["thermal", "fourth"], Form(description="fourth: channel of an RGB file.")
    ] = "thermal",
) -> Response:
    """The thermal values of an image: as stored, or the degrees of a FLIR radiometric JPEG."""
    upload = Upload(view, await image.read())
    extent = service.limits.extent
    found, unit = await service.worker.read(request, read_values, upload, view, extent)
    return await service.worker.run(request, lambda: _answer(found, unit))


def _answer(found: npt.NDArray[Any], unit: str) -> Response:
    little = np.ascontiguousarray(found.astype(found.dtype.newbyteorder("<"), copy=False))
    return Response(encode_array(little), media_type=ARRAY, headers={"x-thermal-unit": unit})
