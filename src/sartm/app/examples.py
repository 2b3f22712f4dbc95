"""The example scenes that come with the service: drawn, never photographed."""

from functools import lru_cache, partial
from typing import Literal

from fastapi import APIRouter, Depends, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from sartm.app import schema
from sartm.app.encoding import encode_png
from sartm.app.fields import refuse_unknown_fields
from sartm.app.service import PNG, ServiceDep, binary, describe_answers
from sartm.scenes.dataset import Scene, SceneOptions, draw_scene

EXAMPLES = {"day": "Day", "night": "Night", "glare": "Glare", "fog": "Fog"}
"""Condition of a drawn scene and what people call it."""
EXAMPLE_SIZE = (480, 640)
"""Height and width in pixels."""

router = APIRouter(dependencies=[Depends(refuse_unknown_fields)])


@router.get("/v1/examples", responses=describe_answers(), tags=["examples"])
async def examples() -> list[schema.Example]:
    """Drawn scenes to try, one per condition."""
    return [schema.Example(name=name, title=title) for name, title in EXAMPLES.items()]


@router.get(
    "/v1/examples/{name}/{kind}",
    response_class=Response,
    responses=describe_answers(404, description="An image.", content=binary(PNG)),
    tags=["examples"],
)
async def example(
    request: Request, service: ServiceDep, name: str, kind: Literal["rgb", "thermal"]
) -> Response:
    """One image of a drawn scene."""
    if name not in EXAMPLES:
        raise HTTPException(404, f"no such example; there are: {', '.join(EXAMPLES)}")
    images = await service.worker.run(request, partial(_draw, name))
    return Response(images[kind], media_type=PNG)


def draw_example(name: str) -> Scene:
    """The drawn scene of an example; its thumbnail in `static` shows the same."""
    return draw_scene(7, SceneOptions(name, EXAMPLE_SIZE))


@lru_cache(maxsize=len(EXAMPLES))
def _draw(name: str) -> dict[str, bytes]:
    scene = draw_example(name)
    return {"rgb": encode_png(scene.rgb), "thermal": encode_png(scene.thermal)}
