"""Text that comes from files and their names, made safe for a terminal."""


def printable(text: str) -> str:
    """`text` on one line, with control characters and the like spelled out (`\\x1b`, `\\n`).

    What a name brings along can then neither steer the terminal nor pass for a message of ours.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
