"""Build sdist and wheel of what is committed, install each, run the demo away from the checkout.

    python scripts/check_package.py [--out DIR] [--site SITE-PACKAGES]

The wheel is built from the sdist, so that both are complete: every file of the package that git
knows must be in it. --site borrows the dependencies that are installed there, and fetches none.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Standard output of a command that must succeed, without Python's path of this process."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=inherited | environment, text=True,
        capture_output=True,
    )  # fmt: skip
    if done.returncode:
        said = f"{done.stdout}\n{done.stderr}"[-4000:]
        sys.exit(f"failed in {cwd}: {' '.join(map(str, command))}\n{said}")
    return done.stdout


def build(kind: str, tree: Path, out: Path) -> Path:
    """`sdist` or `wheel` of a source tree."""
    hook = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(out)!r}))"
    return out / run(sys.executable, "-c", hook, cwd=tree).split()[-1]


def committed_files() -> list[str]:
    """Paths below the root that git knows and that are there."""
    listed = run("git", "ls-files", "-z", cwd=ROOT).split("\0")
    return [name for name in listed if name and (ROOT / name).is_file()]


def copy_committed(tree: Path) -> None:
    """What a clone would hold, without what lies about in this checkout."""
    for name in committed_files():
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())


def missing_files(wheel: Path) -> list[str]:
    """Files of the package that git knows and the wheel lacks."""
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    wanted = [name.removeprefix("src/") for name in committed_files() if name.startswith("src/")]
    return [name for name in wanted if name not in held]


def install(package: Path, folder: Path, site: Path | None) -> Path:
    """The Python of a fresh environment in which the package is installed."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=ROOT)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    if site is None:
        run(*pip, "-c", ROOT / "constraints.txt", f"{package}[app]", cwd=folder)
        return python
    # A path file comes after the environment's packages: what is installed there is found first.
    purelib = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder
    )
    Path(purelib.strip(), "borrowed.pth").write_text(f"{site}\n", "utf-8")
    run(*pip, "--no-deps", "--no-index", "--no-build-isolation", package, cwd=folder)
    return python


def try_out(python: Path, folder: Path) -> None:
    """Import it from where it was installed, and see it work."""
    folder.mkdir()
    where = run(python, "-c", "import sartm; print(sartm.__file__)", cwd=folder).strip()
    if not Path(where).is_relative_to(python.parent.parent):
        sys.exit(f"sartm is imported from {where}, not from the environment")
    sartm = python.with_name("sartm")
    run(sartm, "--help", cwd=folder)
    run(sartm, "demo", "--out", "shown", cwd=folder, HF_HUB_OFFLINE="1")
    if not list(folder.glob("shown/**/report.html")):
        sys.exit("the demo wrote no report")
    run(python, "-c", "from sartm.app import server", cwd=folder)


def main() -> int:
    """Build, compare, install, run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder that keeps sdist and wheel")
    parser.add_argument("--site", type=Path, help="site-packages with the dependencies")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sartm-package-") as name:
        work = Path(name)
        out = (options.out or work / "dist").resolve()
        out.mkdir(parents=True, exist_ok=True)
        copy_committed(work / "tree")
        sdist = build("sdist", work / "tree", out)
        with tarfile.open(sdist) as archive:
            archive.extractall(work / "unpacked", filter="data")
        (unpacked,) = (work / "unpacked").iterdir()
        wheel = build("wheel", unpacked, out)
        if missing := missing_files(wheel):
            print(f"{wheel.name} lacks {', '.join(missing)}", file=sys.stderr)
            return 1
        try_out(install(wheel, work / "from-wheel", options.site), work / "elsewhere")
        python = install(sdist, work / "from-sdist", options.site)
        run(python.with_name("sartm"), "--help", cwd=work)
        print(f"{sdist.name} and {wheel.name}: complete, installed, and the demo runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
