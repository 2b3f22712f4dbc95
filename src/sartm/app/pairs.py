"""The fields of a form that say what a pair is and who is to look at it, as several routes take
them."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, File, Form, Request, UploadFile

from sartm.app.reading import read_placed
from sartm.app.service import Service, read_upload
from sartm.config import Modality
from sartm.data.pairs import Sample
from sartm.inference.predictor import Predictor
from sartm.io.cameras import Camera
from sartm.io.decode import FourChannel
from sartm.io.places import Place
from sartm.io.thermal import ThermalRange, read_range


@dataclass(frozen=True)
class PairForm:
    """One pair, or one image of either kind."""

    rgb: Annotated[UploadFile | None, File(description="RGB, or RGB + thermal in one.")] = None
    thermal: Annotated[UploadFile | None, File(description="8 or 16 bits, or float.")] = None
    model: Annotated[str, Form(max_length=200, description="Empty: the default.")] = ""
    modality: Annotated[Modality, Form(description="What the model may see.")] = "both"
    resize_thermal: Annotated[bool, Form(description="Both show the same view.")] = False
    four_channel: Annotated[FourChannel, Form(description="Is RGB's 4th thermal?")] = "auto"
    radiometric: Annotated[bool, Form(description="Thermal is FLIR's JPEG: degrees.")] = False
    thermal_range: Annotated[
        str, Form(max_length=100, description="auto, LOW:HIGH or model; empty: the service's.")
    ] = ""

    def range_for(self, predictor: Predictor) -> ThermalRange:
        """How raw values become [0, 1]; InputError where it is said in no way that is known."""
        return read_range(self.thermal_range) if self.thermal_range else predictor.thermal_range

    async def read(self, request: Request, service: Service) -> tuple[Sample, Place, str]:
        """The images, where and when they say it was, and what is odd about that; InputError as
        `read_placed`."""
        return await service.worker.read(
            request,
            read_placed,
            await read_upload("rgb", self.rgb),
            await read_upload("thermal", self.thermal),
            self.resize_thermal,
            self.four_channel,
            service.limits.extent,
            Camera(radiometric=self.radiometric),
        )


PairDep = Annotated[PairForm, Depends()]
