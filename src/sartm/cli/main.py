"""The `sartm` command: its table of commands, and what an error makes of the exit status."""

import gc
import io
import logging
import os
import sys
import warnings
from typing import Annotated, cast

import typer

from sartm import __version__
from sartm.cli import data, weights
from sartm.cli.bench import bench
from sartm.cli.evaluate import demo, evaluate, score
from sartm.cli.predict import predict
from sartm.cli.printing import complain, drop_unwritable, log_handler, prepare_streams
from sartm.cli.serve import serve_app
from sartm.cli.train import train
from sartm.cli.video import video
from sartm.cli.weights import export
from sartm.errors import InputError, explain_refusal
from sartm.terminal import printable

app = typer.Typer(
    name="sartm",
    help="RGB-thermal semantic segmentation: label, train, evaluate.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(predict)
app.command()(video)
app.command()(train)
app.command()(evaluate)
app.command()(score)
app.command()(demo)
app.command("app")(serve_app)
app.command()(export)
app.command()(bench)
app.add_typer(data.app, name="data")
app.add_typer(weights.app, name="weights")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"sartm {__version__}")
        raise typer.Exit


@app.callback()
def _of_all(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Say it and exit."),
    ] = False,
) -> None:
    """RGB-thermal semantic segmentation: label, train, evaluate."""


# Of whichever click typer brings: newer ones have a copy of their own.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, 2 for user errors, 3 for failed items, 130."""
    _prepare_messages()
    try:
        status = app(argv, standalone_mode=False)
        sys.stdout.flush()  # at exit nobody could tell that it is full
    except InputError as error:
        complain(str(error))
        return 2
    except typer.Abort:
        return 130
    except UsageError as error:
        _show_usage(cast(typer.BadParameter, error))
        return 2
    except KeyboardInterrupt:
        complain("interrupted; what was finished is kept")
        return 130
    except BrokenPipeError:
        drop_unwritable()
        return 0
    except (OSError, ValueError, MemoryError) as error:
        refusal = explain_refusal(error)
        if refusal is None:
            raise
        complain(refusal)
        drop_unwritable()
        return 2
    return status if isinstance(status, int) else 0


def _show_usage(error: typer.BadParameter) -> None:
    """What typer says of an option, in which a word may come from a file's name."""
    said = io.StringIO()
    error.show(said)
    for line in said.getvalue().splitlines():
        print(printable(line), file=sys.stderr)


def _prepare_messages() -> None:
    """Log lines and warnings of ours reach the terminal; those of libraries do not double them."""
    # Damaged files are described by our own messages; the decoders' would double them.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    prepare_streams()
    logging.basicConfig(level=logging.INFO, handlers=[log_handler()])
    logging.getLogger("sartm").setLevel(logging.INFO)
    for noisy in ("httpx", "httpx2", "huggingface_hub", "accelerate"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").propagate = False  # it prints its warnings itself


def run() -> None:
    """Console script."""
    status = main()
    gc.freeze()  # the process ends: nothing is left to be looked through
    sys.exit(status)
