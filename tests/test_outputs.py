"""Where outputs go: locks that end with their process, targets that are no inputs, short names."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sartm import files, outputs
from sartm.errors import InputError

HOLD = """
import sys, time
from pathlib import Path
from sartm.outputs import lock_beside, lock_folder
with (lock_folder, lock_beside)[int(sys.argv[2])](Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def hold(target: Path, beside: bool = False) -> subprocess.Popen[str]:
    """Another process that has the lock."""
    command = [sys.executable, "-c", HOLD, str(target), str(int(beside))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("beside", [False, True])
def test_a_second_process_is_refused_and_names_the_first(tmp_path, beside):
    target = tmp_path / "out"
    lock = outputs.lock_beside if beside else outputs.lock_folder
    first = hold(target, beside)
    try:
        with (
            pytest.raises(InputError, match=rf"out is in use by process {first.pid} \(-c .*out"),
            lock(target),
        ):
            pass
        with lock(tmp_path / "other"):
            pass
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert list(tmp_path.rglob(".sartm*")) != []  # what the dead process left
    with lock(target):
        pass
    assert list(tmp_path.rglob(".sartm*")) == []


def test_two_threads_of_a_process_keep_each_other_out_too(tmp_path):
    with (
        outputs.lock_folder(tmp_path),
        pytest.raises(InputError, match=rf"in use by process {os.getpid()} "),
        outputs.lock_folder(tmp_path),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


CROWD = """
import sys
from pathlib import Path
from sartm.errors import InputError
from sartm.outputs import lock_folder
folder, held = Path(sys.argv[1]), 0
while held < 100:
    try:
        with lock_folder(folder):
            (folder / "busy").touch(exist_ok=False)  # fails if another is inside
            (folder / "busy").unlink()
            held += 1
    except InputError:
        pass
"""


def test_never_two_hold_a_lock_though_its_file_is_removed_each_time(tmp_path):
    command = [sys.executable, "-c", CROWD, str(tmp_path)]
    crowd = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(60) for process in crowd] == [0, 0, 0, 0]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_made_for_nothing_goes_again(tmp_path):
    with outputs.lock_folder(tmp_path / "a"):
        pass
    assert not (tmp_path / "a").exists()
    with outputs.lock_folder(tmp_path / "a"):
        (tmp_path / "a/kept").touch()
    with outputs.lock_folder(tmp_path / "a"):
        pass
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]


def test_a_lock_never_writes_through_a_link(tmp_path):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / outputs.LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match="cannot write"), outputs.lock_folder(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "kept"


def test_where_there_can_be_no_folder_it_is_said(tmp_path):
    (tmp_path / "file").touch()
    for lock in (outputs.lock_beside, outputs.lock_folder):
        with (
            pytest.raises(InputError, match=r"cannot write to .*choose another place"),
            lock(tmp_path / "file/out"),
        ):
            pass


def test_targets_that_are_inputs_or_lie_outside_are_refused(tmp_path):
    out = tmp_path / "out"
    image = tmp_path / "out/overlays/a.jpg"
    image.parent.mkdir(parents=True)
    image.touch()
    (tmp_path / "b.png").touch()
    (out / "labels").symlink_to(tmp_path)
    outputs.check_targets(
        out, [out / "overlays/b.jpg", out / "x/y/z.png"], [image, None, "camera:0"]
    )
    with pytest.raises(InputError, match=r"a\.jpg would be written over"):
        outputs.check_targets(out, [out / "overlays/a.jpg"], [image])
    (tmp_path / "link.jpg").symlink_to(image)
    with pytest.raises(InputError, match=r"an input of this run \(.*link\.jpg"):
        outputs.check_targets(out, [out / "overlays/a.jpg"], [tmp_path / "link.jpg"])
    for outside in (out / "labels/b.png", out / "x/../../b.png", tmp_path / "b.png"):
        with pytest.raises(InputError, match="outside"):
            outputs.check_targets(out, [outside], [])
    (tmp_path / "linked").symlink_to(out)  # the folder that is named may be a link
    outputs.check_targets(tmp_path / "linked", [tmp_path / "linked/overlays/b.jpg"], [])


def test_names_that_differ_by_case_alone_are_found():
    assert outputs.find_clash(["a", "b", "sub/a", "A1"]) is None
    assert outputs.find_clash(["a", "sub/B", "Sub/b"]) == ("sub/B", "Sub/b")
    assert outputs.find_clash(["caf\u00e9", "cafe\u0301"]) == ("caf\u00e9", "cafe\u0301")


def test_case_is_ignored_where_the_file_system_does(tmp_path):
    with outputs.lock_folder(tmp_path):
        assert not outputs.ignores_case(tmp_path)
        (tmp_path / outputs.LOCK.upper()).touch()  # as if it did
        assert outputs.ignores_case(tmp_path)


@pytest.mark.parametrize("name", ["n" * 232 + ".png", "n" * 251 + ".png", "\u00e4" * 125 + ".png"])
def test_a_name_may_be_as_long_as_names_can_be(tmp_path, name):
    files.write_atomic(tmp_path / name, b"whole")
    with files.replacing_folder(tmp_path / ("f" * 255)) as folder:
        (folder / "part").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "f" * 255])


def test_leftovers_go_and_only_those(tmp_path):
    (tmp_path / "labels/sub").mkdir(parents=True)
    left = [files.temporary_beside(tmp_path / "labels/sub/a.png") for _ in range(2)]
    left.append(files.temporary_beside(tmp_path / "film"))
    assert len(set(left)) == 3
    assert all(str(os.getpid()) in path.name for path in left)
    left[0].touch()
    left[1].mkdir()
    (left[1] / "inside").touch()
    left[2].touch()
    other = files.temporary_beside(tmp_path / "other film")
    other.touch()
    for kept in (".hidden.tmp", "a.tmp"):
        (tmp_path / kept).touch()
    files.remove_leftovers_of(tmp_path / "film")
    assert [path.exists() for path in (*left, other)] == [True, True, False, True]
    files.remove_leftovers(tmp_path / "labels", below=True)
    assert not left[0].exists()
    assert not left[1].exists()
    files.remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden.tmp", "a.tmp", "labels"]


def test_two_names_change_places(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old/model").write_text("old")
    (tmp_path / "new").mkdir()
    (tmp_path / "new/model").write_text("new")
    if not files.exchange(tmp_path / "old", tmp_path / "new"):
        pytest.skip("this system cannot exchange names")
    assert (tmp_path / "old/model").read_text() == "new"
    assert (tmp_path / "new/model").read_text() == "old"
    with pytest.raises(FileNotFoundError):
        files.exchange(tmp_path / "old", tmp_path / "none")


def test_a_hash_is_of_what_a_file_holds(tmp_path):
    for name, content in (("a", b"same"), ("b", b"same"), ("c", b"other")):
        (tmp_path / name).write_bytes(content)
    first, second, third = (files.hash_file(tmp_path / name) for name in "abc")
    assert first == second == files.hash_bytes(b"same") != third
