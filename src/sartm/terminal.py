"""Text that comes from files and their names, made safe where it is shown: terminal, Markdown."""

import html
import re


def printable(text: str) -> str:
    """`text` on one line, with control characters and the like spelled out (`\\x1b`, `\\n`).

    What a name brings along can then neither steer the terminal nor pass for a message of ours.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def clean_text(text: str) -> str:
    """Text without control or direction characters and without what UTF-8 cannot hold."""
    text = str(text).encode("utf-8", "replace").decode("utf-8")
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "\ufffd", text)


def as_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    text = html.escape(clean_text(text), quote=False)
    text = re.sub(r"([\\|*\[\]`~])", r"\\\1", text)
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # inside a word `_` is no markup
    return re.sub(r"\s*\n\s*", " ", text)
