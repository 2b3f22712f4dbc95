"""What others install: sdist and wheel are whole and work; the workflow names what exists."""

import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
import yaml
from test_docs import script

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git checkout to package")
def test_sdist_and_wheel_hold_every_file_and_the_demo_runs_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/check_package.py", "--out", str(tmp_path)]
    command += ["--site", sysconfig.get_path("purelib")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".gz", ".whl"]


def test_links_of_all_pages_lead_somewhere() -> None:
    assert script("check_links").broken_links(ROOT) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(
        "[a](docs/a.md) [b](docs/a.md#two-words-2) [c](docs/none.md) [d](#here)\n# Here\n"
        "[e](docs/a.md#three) [f](https://nowhere.invalid/x) ![g](h.png)\n[i]: docs/gone\n"
        "`[code](not/a/link)` [j](../outside.md) [k](docs/a.md#two-words)\n"
    )
    (tmp_path / "docs" / "a.md").write_text("## Two `words`, 2!\n## Two words\n")
    assert script("check_links").broken_links(tmp_path) == [
        "README.md: docs/none.md",
        "README.md: docs/a.md#three (no such heading)",
        "README.md: h.png",
        "README.md: ../outside.md",
        "README.md: docs/gone",
    ]


def workflow_commands(path: Path) -> list[str]:
    jobs = yaml.safe_load(path.read_text("utf-8"))["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    return [line.strip() for step in steps for line in step.get("run", "").splitlines()]


def test_the_workflows_run_only_what_is_there() -> None:
    assert WORKFLOWS
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for path in WORKFLOWS:
        commands = workflow_commands(path)
        assert len(commands) >= 4
        for command in commands:
            words = command.split()
            if words[0] == "make":
                assert words[1] in targets, command
            elif words[0] in ("bash", "python") and not words[1].startswith("-"):
                assert (ROOT / words[1]).is_file(), command
            assert words[0] in ("make", "bash", "python", "command", "sudo"), command


def test_the_workflow_tests_every_python_that_is_promised() -> None:
    (path,) = WORKFLOWS
    jobs = yaml.safe_load(path.read_text("utf-8"))["jobs"]
    matrix = jobs["test"]["strategy"]["matrix"]["python"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f">={matrix[0]}" == project["requires-python"]
    assert matrix == ["3.11", "3.12", "3.13", "3.14"]
    assert any("check_package" in line for line in workflow_commands(path))
    assert subprocess.run(["bash", "-n", ROOT / ".ci" / "run"]).returncode == 0
