"""Run a notebook's cells in order and keep what they print and show, without a Jupyter server.

python scripts/run_notebook.py docs/notebook/what-thermal-adds.ipynb
"""

import ast
import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image

Cell = dict[str, Any]


def run(notebook: dict[str, Any]) -> dict[str, Any]:
    """A copy with the outputs of this run; what a cell raises is raised."""
    space: dict[str, Any] = {"__name__": "__main__"}
    cells, count = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            outputs = _run_cell("".join(cell["source"]), space, count)
            cell = {**cell, "execution_count": count, "outputs": outputs}
        cells.append(cell)
    return {**notebook, "cells": cells}


def _run_cell(source: str, space: dict[str, Any], count: int) -> list[Cell]:
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    value, printed = None, io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        exec(compile(tree, f"cell {count}", "exec"), space)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {count}", "eval"), space)
    outputs: list[Cell] = []
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    if value is not None:
        shown = {"output_type": "execute_result", "execution_count": count, "metadata": {}}
        outputs.append({**shown, "data": _shown(value)})
    return outputs


def _shown(value: object) -> dict[str, Any]:
    if not isinstance(value, Image.Image):
        return {"text/plain": repr(value).splitlines(keepends=True)}
    data = io.BytesIO()
    value.save(data, "JPEG", quality=85)
    text = f"<picture of {value.height}x{value.width}>"
    return {"image/jpeg": base64.b64encode(data.getvalue()).decode(), "text/plain": [text]}


if __name__ == "__main__":
    path = Path(sys.argv[1])
    done = run(json.loads(path.read_text(encoding="utf-8")))
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(path)
