"""Runs a command on disks of ten sizes that are too small for it; see test_full_disk.py.

python full_disk.py PLACE COMMAND...: in a mount namespace of its own, where PLACE becomes the disk;
`{out}` in the command stands for the output on it. Prints what happened as JSON.
"""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path += [str(Path(__file__).parent), str(Path(__file__).parent / "inference")]
from test_video import read_video

import sartm.demo
from sartm.cli.main import main

ROOM = 64 * 2**20
VARYING = {"seconds", "seconds_per_frame"}


def mount(place: Path, size: int, again: bool = True) -> None:
    options = f"{'remount,' * again}size={size}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)


def run(command: list[str]) -> tuple[int, str]:
    """Exit status, and all that was said; a traceback is said too."""
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        try:
            status = main(command)
        except Exception:
            import traceback

            traceback.print_exc()
            status = 1
    return status, "".join(stream.buffer.getvalue().decode() for stream in streams)  # type: ignore[attr-defined]


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(part) for key, part in value.items() if key not in VARYING}
    return [without_times(part) for part in value] if isinstance(value, list) else value


def results(place: Path) -> dict[str, Any]:
    """All files, but for how long things took."""
    found: dict[str, Any] = {}
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        if path.suffix == ".json":
            found[name] = without_times(json.loads(path.read_text()))
        elif path.suffix == ".webm":
            found[name] = [frame.tobytes() for frame in read_video(path)[1]]
        elif path.is_file() and path.suffix != ".jsonl":  # lines of a first try may precede
            found[name] = path.read_bytes()
    return found


def empty(place: Path) -> None:
    for path in place.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def measure(place: Path, command: list[str]) -> list[dict[str, Any]]:
    mount(place, ROOM, again=False)
    status, said = run(command)
    assert status == 0, said
    whole, state = results(place), os.statvfs(place)
    used, page = state.f_blocks - state.f_bfree, state.f_frsize
    rows = []
    for tenth in range(10):
        empty(place)
        mount(place, page * max(1, used * tenth // 10))
        status, said = run(command)
        kept = {name: path for name in whole if (path := place / name).exists()}
        left = [str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()]
        wrong = []
        for name, path in kept.items():
            content: Any = whole[name]
            if isinstance(content, bytes) and path.read_bytes() != content:
                wrong.append(name)
        mount(place, ROOM)
        rows.append({
            "pages": max(1, used * tenth // 10), "of": used, "status": status, "said": said,
            "left": left, "wrong": wrong,
        })  # fmt: skip
        if tenth % 4 == 0:  # once there is room; it takes as long as all the rest
            again = run([*command, *(["--overwrite"] if command[0] == "video" else [])])
            now = results(place)
            differs = [name for name in {*whole, *now} if whole.get(name) != now.get(name)]
            rows[-1] |= {"again": again, "differs": differs}
    return rows


if __name__ == "__main__":
    sartm.demo.SCENES, sartm.demo.CONDITIONS = 1, ("day", "night")  # the more often it can be tried
    disk = Path(sys.argv[1])
    print(json.dumps(measure(disk, [part.format(out=disk / "out") for part in sys.argv[2:]])))
