"""The REST API: what each address takes, does and answers."""

import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Depends, File, Form, Header, Request, UploadFile
from fastapi import Path as PathParameter
from starlette.exceptions import HTTPException
from starlette.responses import Response

from sartm import __version__
from sartm.app import schema
from sartm.app.annotation import Annotation, is_coloured, label_file, save_label, tagged_label
from sartm.app.encoding import (
    as_text,
    describe_prediction,
    encode_array,
    encode_confidence,
    encode_jpeg,
    encode_numbers,
    encode_png,
    list_segments,
    stretch,
)
from sartm.app.fields import refuse_unknown_fields
from sartm.app.pairs import PairDep
from sartm.app.reading import View, read_correction, read_ids, read_inputs, read_view
from sartm.app.scenes import answers_clicks
from sartm.app.service import ARRAY, JPEG, JSON, PNG, Service, ServiceDep, binary, describe_answers
from sartm.inference.alarm import WORDS, check_pair
from sartm.inference.objects import describe_place, list_objects
from sartm.inference.prediction import Prediction
from sartm.inference.predictor import Predictor
from sartm.io.degrees import choose_scale
from sartm.io.labels import encode_label
from sartm.io.sources import Upload
from sartm.io.thermal import describe_levels, format_range
from sartm.objects.measurement import Measuring
from sartm.objects.places import locate
from sartm.spaces import classes_of_words
from sartm.vocabulary import things
from sartm.vocabulary import words as vocabulary

Array = npt.NDArray[Any]
Output = Literal["label", "overlay", "confidence", "json"]
PairIndex = Annotated[int, PathParameter(ge=0, le=10**9)]

TAG = {"ETag": {"schema": {"type": "string"}, "description": "Of the label, for If-Match."}}
"""Documentation of the header that tells one version of a label from another."""

router = APIRouter(dependencies=[Depends(refuse_unknown_fields)])


@router.get("/healthz", responses=describe_answers(), tags=["service"])
async def healthz(service: ServiceDep) -> schema.Health:
    """Whether the service answers."""
    return schema.Health(status="ok", version=__version__, present=service.worker.present)


@router.get("/v1/models", responses=describe_answers(), tags=["segmentation"])
async def models(service: ServiceDep) -> schema.Models:
    """The models that requests can name, the default first, and the limits."""
    limits = service.limits
    return schema.Models(
        models=[_describe_model(name, predictor) for name, predictor in service.predictors.items()],
        limits=schema.Limits(
            upload_bytes=limits.upload,
            pixels=limits.pixels,
            side=limits.side,
            waiting=limits.waiting,
            seconds=limits.seconds,
            scenes=limits.scenes,
            scene_bytes=limits.scene_bytes,
        ),
        annotation=service.annotation is not None,
    )


def _describe_model(name: str, predictor: Predictor) -> schema.ModelInfo:
    facts = predictor.facts
    return schema.ModelInfo(
        name=name,
        size=predictor.config.size,
        classes=schema.describe_classes(predictor.classes),
        ignore=predictor.classes.ignore,
        thermal_rule=predictor.config.thermal.rule,
        thermal_range=format_range(predictor.thermal_range),
        trained_on=[Path(data).name for data in facts.data] if facts else [],
        words=predictor.config.classes_from == "text",
        clicks=answers_clicks(predictor),
    )


@router.get("/v1/words", tags=["service"])
async def words() -> schema.Words:
    """What `classes` may name where a model knows words (`words` of /v1/models)."""
    usual = [names[0] for names in things()]
    return schema.Words(words=[*usual, *sorted(set(vocabulary()) - set(usual))])


@router.post(
    "/v1/segment",
    response_model=schema.Segmentation,
    responses=describe_answers(
        400,
        description="The label PNG (as `sartm predict` writes it), the overlay, the confidence as "
        "8-bit PNG, or JSON: what `output` says.",
        content=binary(PNG, JPEG),
    ),
    tags=["segmentation"],
)
async def segment(
    request: Request,
    service: ServiceDep,
    pair: PairDep,
    output: Annotated[Output, Form()] = "label",
    opacity: Annotated[float, Form(ge=0, le=1, description="Of the overlay.")] = 0.5,
    maps: Annotated[bool, Form(description="JSON with both PNGs in base64.")] = False,
    classes: Annotated[str, Form(max_length=10_000, description="As car, road; empty: all.")] = "",
    trust: Annotated[bool, Form(description="JSON: which camera labels rest on.")] = False,
    objects: Annotated[bool, Form(description="JSON with a list of objects.")] = False,
    min_area: Annotated[int, Form(ge=1, le=2**31, description="Pixels of an object.")] = 20,
    degrees: Annotated[
        str, Form(max_length=100, description="Raw values: celsius, kelvin, tlinear, GAIN:OFFSET.")
    ] = "",
    accuracy: Annotated[float, Form(ge=0, le=1000, description="Degrees, of the camera.")] = 2.0,
    height: Annotated[
        float | None, Form(gt=0, lt=1e6, description="Metres above ground, if no file says it.")
    ] = None,
) -> Response:
    """Label one pair, or one image of either kind."""
    model, modality = service.name_of(pair.model), pair.modality
    predictor = service.predictors[model]
    if classes:
        predictor = predictor.choose(classes_of_words(classes))
    how = pair.range_for(predictor)
    measuring = Measuring(min_area, accuracy, degrees, height)
    scale = choose_scale(degrees, pair.radiometric)
    begun = time.perf_counter()
    sample, place, odd = await pair.read(request, service)

    def job() -> Response:
        fixed = predictor.fix_levels(sample, modality, how)
        prediction = predictor.predict(fixed, modality, trust and output == "json")
        if output == "json":
            seen = [
                kind
                for kind, image in (("rgb", sample.rgb), ("thermal", sample.thermal))
                if image is not None and modality in ("both", kind)
            ]
            answer = describe_prediction(prediction, maps)
            answer.model, answer.modalities = model, seen
            answer.note = "; ".join(filter(None, (sample.note, predictor.untaught)))
            if objects:
                located = locate(place, prediction.labels.shape, height)
                parts, rows = list_objects(sample, prediction, measuring, scale, place, located)
                answer.objects = [schema.Object(**row) for row in rows]
                described = describe_place(place, located, odd)
                answer.place = schema.Place(**described) if described else None
                if maps:
                    answer.objects_png = as_text(encode_numbers(parts.where))
            answer.alarms = [WORDS[alarm] for alarm in check_pair(sample).alarms]
            if prediction.levels is not None and sample.thermal is not None:
                rule = predictor.config.thermal
                used = describe_levels(prediction.levels, sample.thermal, rule, how)
                answer.thermal_range = schema.UsedRange(**asdict(used))
            answer.seconds = round(time.perf_counter() - begun, 3)
            return Response(answer.model_dump_json(exclude_none=True), media_type=JSON)
        return _as_image(prediction, output, opacity)

    return await service.worker.run(request, job)


def _as_image(prediction: Prediction, output: Output, opacity: float) -> Response:
    if output == "label":
        label = encode_label(prediction.labels, palette=prediction.classes.palette)
        return Response(label, media_type=PNG)
    if output == "confidence":
        return Response(encode_confidence(prediction.confidence), media_type=PNG)
    return Response(encode_jpeg(prediction.overlay(opacity)), media_type=JPEG)


@router.post(
    "/v1/display",
    response_class=Response,
    responses=describe_answers(
        400,
        description="What browsers can show of any image that is readable.",
        content=binary(JPEG),
    ),
    tags=["segmentation"],
)
async def display(
    request: Request,
    service: ServiceDep,
    image: Annotated[UploadFile, File()],
    view: Annotated[View, Form(description="fourth: the thermal channel of an RGB file.")] = "rgb",
) -> Response:
    """An RGB or thermal image as JPEG, upright; raw thermal values are stretched."""
    upload = Upload(view, await image.read())
    shown = await service.worker.read(request, read_view, upload, view, service.limits.extent)
    return await service.worker.run(request, partial(_show, shown))


def _show(shown: Array) -> Response:
    picture = stretch(shown) if shown.ndim == 2 else shown
    return Response(encode_jpeg(picture, 92), media_type=JPEG)


def _annotation(service: Service, index: int = 0) -> Annotation:
    annotation = service.annotation
    if annotation is None:
        raise HTTPException(404, "no folder to annotate; start with: sartm app --annotate FOLDER")
    if index >= len(annotation.pairs):
        raise HTTPException(404, f"no pair {index}; there are {len(annotation.pairs)}")
    return annotation


@router.get("/v1/annotation", responses=describe_answers(404), tags=["annotation"])
async def annotation_info(request: Request, service: ServiceDep) -> schema.AnnotationInfo:
    """The folder to annotate: class table and pairs."""
    annotation = _annotation(service)

    def look() -> schema.AnnotationInfo:
        pairs = [
            schema.AnnotationPair(
                index=index,
                name=pair.name,
                saved=target.is_file(),
                labelled=label_file(annotation, index) is not None,
                rgb=pair.rgb is not None or pair.four_channel is not None,
                thermal=pair.thermal is not None or pair.four_channel is not None,
            )
            for index, (pair, target) in enumerate(
                zip(annotation.pairs, annotation.targets, strict=True)
            )
        ]
        return schema.AnnotationInfo(
            name=annotation.name,
            classes=schema.describe_classes(annotation.classes),
            ignore=annotation.classes.ignore,
            pairs=pairs,
        )

    return await service.worker.run(request, look)


@router.get(
    "/v1/annotation/{index}/label",
    responses=describe_answers(
        404,
        description="The label's masks.",
        headers=TAG,
    ),
    tags=["annotation"],
)
async def annotation_label(
    request: Request, response: Response, service: ServiceDep, index: PairIndex
) -> schema.SavedLabel:
    """The label of a pair as it was saved, or as the data set has it."""
    annotation, worker = _annotation(service, index), service.worker
    # Together, and by the thread that saves: the tag of one file never goes with another's masks.
    path, tag = await worker.run(request, partial(tagged_label, annotation, index))
    if path is None:
        raise HTTPException(404, "this pair has no label yet")
    coloured = is_coloured(annotation, index, path)
    extent = service.limits.extent
    labels = await worker.read(request, read_ids, path, annotation.classes, coloured, extent)
    segments = await worker.run(request, partial(list_segments, labels, annotation.classes))
    # Of before it was read: where it was saved in between, the next save is refused, not lost.
    response.headers["etag"] = tag
    return schema.SavedLabel(size=labels.shape, segments=segments)


@router.get(
    "/v1/annotation/{index}/{kind}",
    response_class=Response,
    responses=describe_answers(
        404,
        description="PNG; thermal values that are no whole numbers as NumPy array.",
        content=binary(PNG, ARRAY),
    ),
    tags=["annotation"],
)
async def annotation_image(
    request: Request, service: ServiceDep, index: PairIndex, kind: Literal["rgb", "thermal"]
) -> Response:
    """One image of a pair, as `/v1/segment` takes it."""
    annotation = _annotation(service, index)

    sample = await service.worker.read(
        request,
        read_inputs,
        annotation.pairs[index],
        annotation.cameras[index],
        service.limits.extent,
        annotation.resize_thermal,
    )
    image = sample.rgb if kind == "rgb" else sample.thermal
    if image is None:
        raise HTTPException(404, f"this pair has no {kind} image")
    celsius = kind == "thermal" and annotation.cameras[index].radiometric
    return await service.worker.run(request, partial(_encode_image, image, celsius))


def _encode_image(image: Array, celsius: bool) -> Response:
    if image.dtype in (np.uint8, np.uint16):
        return Response(encode_png(image), media_type=PNG)
    unit = {"x-thermal-unit": "celsius" if celsius else "raw"}
    return Response(encode_array(image), media_type=ARRAY, headers=unit)


@router.put(
    "/v1/annotation/{index}/label",
    responses=describe_answers(404, 412, 428, description="It is saved.", headers=TAG),
    openapi_extra={"requestBody": {"required": True, "content": binary(PNG)}},
    tags=["annotation"],
)
async def annotation_save(
    request: Request,
    response: Response,
    service: ServiceDep,
    index: PairIndex,
    if_match: Annotated[
        str, Header(description="ETag of the label that this replaces; none if there is none.")
    ] = "",
) -> schema.Saved:
    """Save a pair's label: a PNG of class ids, of the pair's size."""
    annotation, worker = _annotation(service, index), service.worker
    pair, classes = annotation.pairs[index], annotation.classes
    upload = Upload("label", await request.body())
    labels = await worker.read(
        request,
        read_correction,
        upload,
        pair,
        annotation.cameras[index],
        classes,
        service.limits.extent,
        annotation.resize_thermal,
    )

    def save() -> str:  # by the one thread that saves, so that nobody comes between
        _refuse_lost_update(if_match, tagged_label(annotation, index)[1])
        return save_label(annotation, index, labels)

    response.headers["etag"] = await worker.run(request, save)
    return schema.Saved(name=pair.name)


def _refuse_lost_update(expected: str, found: str) -> None:
    """Refuse to replace a label that the sender has not seen."""
    if found and not expected:
        raise HTTPException(
            428,
            "this pair has a label already; load it, and send its ETag as If-Match to replace it",
        )
    # Weak ones too: a proxy that packs answers marks their tags so.
    known = {tag.strip().removeprefix("W/") for tag in expected.split(",")} - {""}
    if known and found not in known and not (found and "*" in known):
        raise HTTPException(
            412,
            "somebody else saved this label after you loaded it; load it again and repeat your "
            "corrections on it",
        )
