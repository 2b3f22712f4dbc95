"""`app`: the page and the REST API, with their limits."""

import os
from pathlib import Path
from typing import Annotated

import typer

from sartm.cli import options
from sartm.cli.printing import complain, say
from sartm.errors import InputError


def serve_app(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0: every one.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535)] = 7860,
    models: Annotated[
        list[str] | None, typer.Option("--model", help="Repeatable; all bundled ones if left out.")
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="Requests must bring it (bearer token). [env: SARTM_TOKEN]")
    ] = None,
    annotate: Annotated[
        Path | None, typer.Option(help="Folder of pairs to correct labels for.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="Folder for those labels, if not the data set's own.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Repeatable: a name under which it is reached.")
    ] = None,
    max_upload: Annotated[float, typer.Option(min=0.001, help="MiB of one request.")] = 32,
    max_pixels: Annotated[float, typer.Option(min=0.001, help="Million pixels of an image.")] = 16,
    max_waiting: Annotated[int, typer.Option(min=0, help="Further requests get 429.")] = 32,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Of one request.")] = 60,
    scene_memory: Annotated[
        float, typer.Option(min=1, help="MiB of encoded pairs that are kept for clicks.")
    ] = 512,
    classes: options.ClassNames = "",
    text_encoder: options.TextEncoder = "",
    thermal_range: options.ThermalRange = "auto",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
) -> int:
    """Serve the web page, the REST API and annotation in one process."""
    try:
        from sartm.app.guard import Limits, check_host, check_token
        from sartm.app.server import LOOPBACK, create_app, load_predictors, serve
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("sartm"):
            raise
        raise InputError(
            f"the page needs {error.name}, which is not installed: pip install 'sartm[app]'"
        ) from None
    from sartm.app.annotation import open_annotation

    if token is None:  # set but empty is a secret that was not found, no wish to serve without
        token = os.environ.get("SARTM_TOKEN")
    secret = "" if token is None else check_token(token)
    named_hosts = [check_host(name) for name in allow_host or ()]
    limits = Limits(
        round(max_upload * 2**20), round(max_pixels * 1e6), max_waiting, max_seconds,
        scene_bytes=round(scene_memory * 2**20),
    )  # fmt: skip
    predictors = load_predictors(
        models or [], device=device, precision=precision, thermal_range=thermal_range,
        classes=options.read_classes(classes), text_encoder=text_encoder,
    )  # fmt: skip
    table = next(iter(predictors.values())).classes
    folder = open_annotation(annotate, annotations, table) if annotate else None
    if folder is not None:
        say(folder.said)
    local = host in {"127.0.0.1", "localhost", "::1"}
    # Without a token a name that anybody can point here would open it to every web page.
    hosts = (*LOOPBACK, *named_hosts) if local or named_hosts or not secret else ()
    if not local and not secret:
        complain(f"everybody who reaches {host} may use this; --token T")
    service = create_app(predictors, limits=limits, token=secret, hosts=hosts, annotation=folder)
    serve(service, host, port)
    return 0
