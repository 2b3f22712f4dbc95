"""What all routes share: what they work with, how their answers are described."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, UploadFile

from sartm.app import schema
from sartm.app.annotation import Annotation
from sartm.app.guard import Limits
from sartm.app.scenes import Scenes
from sartm.app.worker import Worker
from sartm.errors import InputError
from sartm.inference.predictor import Predictor
from sartm.io.sources import Upload

PNG, JPEG = "image/png", "image/jpeg"
JSON, ARRAY = "application/json", "application/octet-stream"


@dataclass(frozen=True)
class Service:
    """What the routes work with."""

    predictors: dict[str, Predictor]
    """By the names that requests use; the first is the default."""
    limits: Limits
    worker: Worker
    annotation: Annotation | None
    scenes: Scenes

    def name_of(self, model: str) -> str:
        """The name of the model that a request asks for, the default where it asks for none.

        Raises:
            InputError: there is no such model.
        """
        if not model:
            return next(iter(self.predictors))
        if model not in self.predictors:
            known = ", ".join(self.predictors)
            raise InputError(f"no model {model[:50]!r}; there are: {known}")
        return model


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]


def describe_answers(*codes: int, **success: Any) -> dict[int | str, dict[str, Any]]:
    """Documentation of a route's answers: the good one, and problems for `codes`."""
    reasons = {
        400: "The body cannot be read.", 401: "No or a wrong token.", 403: "From another web site.",
        404: "There is no such thing.", 408: "The body came too slowly.",
        412: "Somebody else saved it in between.", 413: "Too many bytes.",
        421: "A host name that is not served.",
        422: "The input cannot be used; the detail says why and what to do.",
        428: "There is a label; If-Match is missing.", 429: "Too many requests wait.",
        503: "Not done in time.",
    }  # fmt: skip
    everywhere = (401, 403, 408, 413, 421, 422, 429, 503)
    problems: dict[int | str, dict[str, Any]] = {
        code: {"description": reasons[code], "content": schema.PROBLEM}
        for code in sorted({*everywhere, *codes})
    }
    return {**problems, 200: success} if success else problems


def binary(*kinds: str) -> dict[str, Any]:
    """Documentation of an answer that is a file of one of these content types."""
    return {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}


async def read_upload(name: str, upload: UploadFile | None) -> Upload | None:
    """The bytes; what the sender called the file is not used."""
    return None if upload is None else Upload(name, await upload.read())
