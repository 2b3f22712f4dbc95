"""Follow the links between the repository's own pages: files, folders and headings have to exist.

    python scripts/check_links.py

Links to other sites are not followed: whether those answer says nothing about a change.
"""

import re
import sys
import unicodedata
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[1]


def pages(root: Path) -> list[Path]:
    """README, CHANGELOG and the like, and everything below docs, benchmarks and examples."""
    below = [root / folder for folder in ("docs", "benchmarks", "examples")]
    return [*root.glob("*.md"), *(page for folder in below for page in folder.rglob("*.md"))]


def without_code(text: str) -> str:
    """A page without its blocks and spans of code, in which nothing is a link or heading."""
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(page: Path) -> set[str]:
    """What headings of a page are called in addresses, as GitHub makes them."""
    found: dict[str, int] = {}
    names = set()
    text = re.sub(r"^(```|~~~).*?^\1", "", page.read_text("utf-8"), flags=re.M | re.S)
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", text, re.M):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        kept = (c for c in words if c in " -_" or unicodedata.category(c)[0] in "LNM")
        name = "".join(kept).replace(" ", "-")
        number = found.get(name, 0)
        found[name] = number + 1
        names.add(f"{name}-{number}" if number else name)
    return names | set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))


def broken_links(root: Path) -> list[str]:
    """`page: target` of every link that leads nowhere."""
    broken = []
    for page in pages(root):
        text = without_code(page.read_text("utf-8"))
        targets = re.findall(r"\]\(\s*<?([^)\s>]+)", text)
        targets += re.findall(r"^\[[^\]]+\]: *(\S+)", text, re.M)
        targets += re.findall(r"<(?:img|a)\b[^>]*\b(?:src|href)=\"([^\"]+)\"", text)
        for target in targets:
            if re.match(r"[a-z][a-z0-9+.-]*:", target):
                continue
            path, _, anchor = unquote(target).partition("#")
            place = page.parent / path if path else page
            inside = place.resolve().is_relative_to(root.resolve())
            if not (inside and place.exists()):
                broken.append(f"{page.relative_to(root)}: {target}")
            elif anchor and place.suffix == ".md" and anchor not in anchors(place):
                broken.append(f"{page.relative_to(root)}: {target} (no such heading)")
    return broken


if __name__ == "__main__":
    found = broken_links(ROOT)
    print("\n".join(found) or f"all links of {len(pages(ROOT))} pages lead somewhere")
    sys.exit(bool(found))
