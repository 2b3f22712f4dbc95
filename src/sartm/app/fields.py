"""Names of fields that nobody reads are said, not passed over: a misspelt option has no effect."""

import difflib
from collections.abc import Iterable, Iterator

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from sartm.errors import InputError

MEANT = {"ir": "thermal", "infrared": "thermal", "lwir": "thermal", "tir": "thermal",
         "visible": "rgb", "vis": "rgb", "colour": "rgb", "color": "rgb"}  # fmt: skip
"""Words for the same that look like nothing here."""


async def refuse_unknown_fields(request: Request) -> None:
    """Refuse a request below /v1 with a query or a form field that its route does not have."""
    route = request.scope["route"]
    if not isinstance(route, APIRoute) or not route.path.startswith("/v1/"):
        return  # whoever watches the service may add what keeps caches away
    parts = list(_walk(route.dependant))
    query = [field.alias for part in parts for field in part.query_params]
    _refuse(request.query_params, query, "query parameter")
    fields = [field.alias for part in parts for field in part.body_params]
    if fields:
        _refuse(await request.form(), fields, "field")


def _walk(dependant: Dependant) -> Iterator[Dependant]:
    """What a route takes by itself, and by what it depends on."""
    for part in dependant.dependencies:
        yield from _walk(part)
    yield dependant


def _refuse(sent: Iterable[str], known: list[str], kind: str) -> None:
    unknown = next((name for name in sent if name not in known), None)
    if unknown is None:
        return
    near = [MEANT[unknown.lower()]] if unknown.lower() in MEANT else (
        difflib.get_close_matches(unknown, known, 1)
    )  # fmt: skip
    meant = f"; did you mean {near[0]}?" if near and near[0] in known else ""
    there = f"there are {', '.join(known)}" if known else "there is none here"
    raise InputError(f"no {kind} {unknown[:50]!r}{meant} ({there})")
