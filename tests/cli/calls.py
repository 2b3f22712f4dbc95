"""What a function of ours may come to call: names followed through imports, methods by their name.

A class counts as used where its name stands, a method where its class is used and its name stands
behind a dot anywhere. So a little too much is found, and nothing of interest is missed.
"""

import ast
from collections.abc import Iterator

from test_architecture import TREES

Place = tuple[str, str]
"""Module, and name of a function, class, `Class.method` or constant in it."""


def find_definitions() -> dict[Place, ast.AST]:
    found: dict[Place, ast.AST] = {}
    for module, tree in TREES.items():
        for node in tree.body:
            found |= {(module, name): part for name, part in names_in(node)}
    return found


def names_in(node: ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    """What a statement of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name, node
    if isinstance(node, ast.ClassDef):
        for part in node.body:
            if isinstance(part, ast.FunctionDef):
                yield f"{node.name}.{part.name}", part
    if isinstance(node, ast.Assign | ast.AnnAssign):
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            yield from ((name.id, node) for name in ast.walk(target) if isinstance(name, ast.Name))


DEFINITIONS = find_definitions()


def find_imports() -> dict[str, dict[str, tuple[str, str]]]:
    """Module -> local name -> module and name there ("" for a module itself)."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for module, tree in TREES.items():
        names = found.setdefault(module, {})
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    names[alias.asname or alias.name] = (
                        (whole, "") if whole in TREES else (node.module, alias.name)
                    )
    return found


IMPORTS = find_imports()


def body_of(place: Place) -> Iterator[ast.AST]:
    """All nodes of a definition; of a class without those of its methods."""
    node = DEFINITIONS[place]
    if isinstance(node, ast.ClassDef):
        for part in (*node.bases, *node.decorator_list, *node.body):
            if not isinstance(part, ast.FunctionDef):
                yield from ast.walk(part)
    else:
        yield from ast.walk(node)


def reach(module: str, name: str) -> set[Place]:
    """Everything that may run once a function is called."""
    live: set[Place] = set()
    attributes: set[str] = set()
    waiting: list[Place] = [(module, name)]

    def use(place: Place) -> None:
        if place in DEFINITIONS and place not in live:
            waiting.append(place)

    while waiting:
        place = waiting.pop()
        here, seen = place[0], place in live
        live.add(place)
        for node in () if seen else body_of(place):
            if isinstance(node, ast.Name):
                use((here, node.id))
                use(IMPORTS[here].get(node.id, ("", "")))
            elif isinstance(node, ast.Attribute):
                attributes.add(node.attr)
                if isinstance(node.value, ast.Name):
                    use((IMPORTS[here].get(node.value.id, ("", ""))[0], node.attr))
        if not waiting:
            waiting += [
                (where, text)
                for where, text in DEFINITIONS
                if "." in text
                and (where, text) not in live
                and (where, text.split(".")[0]) in live
                and (text.split(".")[1] in attributes or text.split(".")[1].startswith("__"))
            ]
    return live
