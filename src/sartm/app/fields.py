"""Names of fields that nobody reads are said, not passed over: a misspelt option has no effect."""

import difflib
from collections.abc import Iterable, Iterator

from fastapi import Request, params
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from sartm.errors import InputError

MEANT = {"ir": "thermal", "infrared": "thermal", "lwir": "thermal", "tir": "thermal",
         "visible": "rgb", "vis": "rgb", "colour": "rgb", "color": "rgb"}  # fmt: skip
"""Words for the same that look like nothing here."""


async def refuse_unknown_fields(request: Request) -> None:
    """Refuse a request below /v1 with a query or a form field that its route does not have.

    And what clients send by mistake in their place: text for a file, a form for JSON.
    """
    route = request.scope["route"]
    if not isinstance(route, APIRoute) or not route.path.startswith("/v1/"):
        return  # whoever watches the service may add what keeps caches away
    parts = list(_walk(route.dependant))
    query = [field.alias for part in parts for field in part.query_params]
    _refuse(request.query_params, query, "query parameter")
    fields = {field.alias: field.field_info for part in parts for field in part.body_params}
    if any(isinstance(info, params.Form) for info in fields.values()):
        form = await request.form()
        _refuse(form, list(fields), "field")
        for name, info in fields.items():
            if isinstance(info, params.File) and isinstance(form.get(name), str):
                raise InputError(f"{name} is text, not a file; curl: -F {name}=@FILE")
    elif fields and not _is_json(request.headers.get("content-type", "")):
        raise InputError("the body has to be JSON, with the header Content-Type: application/json")


def _is_json(kind: str) -> bool:
    kind = kind.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


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
