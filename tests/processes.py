"""Commands in processes of their own, to be killed; forked: importing torch anew takes seconds."""

import multiprocessing
import os
import sys
from multiprocessing.process import BaseProcess

import torch

from sartm.cli.main import main


def run_command(arguments: list[str], silent: bool = False) -> None:
    """The command, and the end of the process with its exit status."""
    torch.set_num_threads(1)
    if silent:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    os._exit(main(arguments))


def start_command(arguments: list[str], silent: bool = True) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(
        target=run_command, args=(arguments, silent)
    )
    process.start()
    return process


def wait(process: BaseProcess) -> int:
    """Its exit status; negative: the signal that ended it."""
    process.join()
    assert process.exitcode is not None
    return process.exitcode
