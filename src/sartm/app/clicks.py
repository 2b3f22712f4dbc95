"""Clicks: a pair is encoded once, then every request for a mask is an object of it."""

import time
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Depends, Request
from fastapi import Path as PathParameter

from sartm.app import schema
from sartm.app.fields import refuse_unknown_fields
from sartm.app.pairs import PairDep
from sartm.app.scenes import Kept
from sartm.app.service import ServiceDep, describe_answers
from sartm.errors import InputError
from sartm.io.run_lengths import decode_mask, encode_mask

SceneId = Annotated[str, PathParameter(max_length=100)]

router = APIRouter(dependencies=[Depends(refuse_unknown_fields)])


@router.post(
    "/v1/scenes",
    responses=describe_answers(400, description="It is encoded; masks are asked for by its id."),
    tags=["clicks"],
)
async def encode(request: Request, service: ServiceDep, pair: PairDep) -> schema.Scene:
    """Encode one pair, or one image of either kind, to click on.

    The fields are those of /v1/segment that say what the pair is and who looks at it.
    Scenes that were used longest ago are dropped, where there are too many or they take too much
    memory; send the images again then.
    """
    name = service.name_of(pair.model)
    predictor = service.predictors[name]
    how = pair.range_for(predictor)
    begun = time.perf_counter()
    sample, _, _ = await pair.read(request, service)

    def job() -> schema.Scene:
        prompt = service.scenes.prompt_of(name, predictor)
        fixed = predictor.fix_levels(sample, pair.modality, how)
        scene = prompt.encode_sample(fixed, pair.modality)
        return schema.Scene(
            id=service.scenes.add(prompt, scene),
            model=name,
            modality=scene.modality,
            size=scene.size,
            note=sample.note,
            seconds=round(time.perf_counter() - begun, 3),
        )

    return await service.worker.run(request, job)


@router.post(
    "/v1/scenes/{scene}/mask",
    responses=describe_answers(404, description="The mask that is meant, as far as it is known."),
    tags=["clicks"],
)
async def mask(
    request: Request, service: ServiceDep, scene: SceneId, prompt: schema.Prompt
) -> schema.FoundMask:
    """The object that points, a box or a mask stand for."""
    begun = time.perf_counter()

    def job() -> schema.FoundMask:
        kept = service.scenes.find(scene)
        start = _start(prompt, kept)
        found = kept.prompt.mask(kept.scene, prompt.points, prompt.labels, prompt.box, start)
        return schema.FoundMask(
            answer=service.scenes.keep(kept, found),
            score=round(found.score, 4),
            pixels=int(np.count_nonzero(found.mask)),
            segmentation=schema.Mask(size=kept.scene.size, counts=encode_mask(found.mask)),
            seconds=round(time.perf_counter() - begun, 3),
        )

    return await service.worker.run(request, job)


def _start(prompt: schema.Prompt, kept: Kept) -> npt.NDArray[Any] | None:
    """The mask that a prompt is to improve: logits, or true and false; None: there is none."""
    if prompt.after is not None and prompt.mask is not None:
        raise InputError("both after and mask; send the one or the other to go on from")
    if prompt.after is not None:
        return kept.before(prompt.after)
    if prompt.mask is None:
        return None
    if prompt.mask.size != kept.scene.size:
        height, width = kept.scene.size
        raise InputError(f"the mask is {prompt.mask.size}, but the scene is {(height, width)}")
    try:
        return decode_mask(prompt.mask.counts, kept.scene.size)
    except ValueError as error:
        raise InputError(
            f"mask: {error}; send COCO's compressed run lengths, as answers have them"
        ) from None
