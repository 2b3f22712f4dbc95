"""What a run writes down as it goes: metrics.jsonl, TensorBoard, validation pictures, its page."""

import json
from pathlib import Path
from typing import Any

from sartm.errors import InputError
from sartm.evaluation.report.pictures import PairPictures, draw_sheet, write_sheet
from sartm.evaluation.report.run import learning_curves, write_run_page
from sartm.training.runs import writing


class Journal:
    """Writes into the folder of one run; a full disk is an InputError that says how to go on.

    `title` and `settings` head and end its page. `writes` is False on every rank but the first:
    nothing is done there.
    """

    def __init__(self, out: Path, title: str, settings: dict[str, Any], writes: bool) -> None:
        self.out, self.title, self.settings, self.writes = out, title, settings, writes
        self.board: Any = None  # TensorBoard's writer

    def open_board(self, step: int) -> None:
        """Write to TensorBoard too; what an earlier session wrote beyond `step` is purged."""
        if self.writes:
            self.board = _open_board(self.out, step)

    def write(self, line: dict[str, Any], seconds: float) -> None:
        """Append a line to metrics.jsonl; `seconds` are those of the run so far."""
        if not self.writes:
            return
        with writing(f"metrics.jsonl of {self.out}"), (self.out / "metrics.jsonl").open("a") as to:
            to.write(json.dumps(line | {"seconds": round(seconds, 2)}) + "\n")
        if self.board is not None:
            for curve in learning_curves([line]):
                self.board.add_scalar(
                    curve.name.replace(": ", "/"), curve.values[0][1], line["step"]
                )

    def show(self, step: int, pictures: list[PairPictures]) -> None:
        """Pictures of this validation, and the page as it stands."""
        if not self.writes:
            return
        if pictures:
            sheet = draw_sheet(pictures)
            with writing(f"the pictures of {self.out}"):
                write_sheet(self.out, step, sheet)
            if self.board is not None:
                self.board.add_image("validation", sheet, step, dataformats="HWC")
        self._write_page()

    def close(self) -> None:
        """Write the page a last time, where there is anything to show."""
        if self.board is not None:
            self.board.close()
        if self.writes and (self.out / "metrics.jsonl").exists():
            self._write_page()

    def _write_page(self) -> None:
        with writing(f"the report of {self.out}"):
            write_run_page(self.out, self.title, self.settings)


def _open_board(out: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "tensorboard=true needs the extra: pip install 'sartm[tensorboard]', or leave it out; "
            "metrics.jsonl and report/report.html hold the same curves"
        ) from None
    return SummaryWriter(out / "tensorboard", purge_step=step + 1)
