"""The `sartm` command: its table of commands, and what an error makes of the exit status."""

import gc
import logging
import os
import sys
import warnings
from typing import cast

import typer
from rich.console import Console
from rich.logging import RichHandler

from sartm.cli import data, weights
from sartm.cli.evaluate import bench, demo, evaluate, score
from sartm.cli.predict import predict, video
from sartm.cli.serve import serve_app
from sartm.cli.train import train
from sartm.cli.weights import export
from sartm.errors import InputError

app = typer.Typer(
    name="sartm",
    help="RGB-thermal semantic segmentation: label, train, evaluate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
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


# Of whichever click typer brings: newer ones have a copy of their own.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status: 0, 2 for user errors, 3 for failed items, 130."""
    _prepare_messages()
    try:
        status = app(argv, standalone_mode=False)
    except InputError as error:
        print(f"sartm: {error}", file=sys.stderr)
        return 2
    except typer.Abort:
        return 130
    except UsageError as error:
        cast(typer.BadParameter, error).show()
        return 2
    except KeyboardInterrupt:
        print("sartm: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    return status if isinstance(status, int) else 0


def _prepare_messages() -> None:
    """Log lines and warnings of ours reach the terminal; those of libraries do not double them."""
    # Damaged files are described by our own messages; the decoders' would double them.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    logging.basicConfig(
        level=logging.INFO,
        format="%(message)s",
        handlers=[RichHandler(console=Console(stderr=True), show_path=False, show_time=False)],
    )
    logging.getLogger("sartm").setLevel(logging.INFO)
    for noisy in ("httpx", "httpx2", "huggingface_hub", "accelerate"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").propagate = False  # it prints its warnings itself


def run() -> None:
    """Console script."""
    status = main()
    gc.freeze()  # the process ends: nothing is left to be looked through
    sys.exit(status)
