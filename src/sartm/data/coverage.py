"""What the labels of a set have to tell: labels of one class, or of none, teach and score nothing.

Such labels are valid one by one, so that nothing else refuses them: masks of 0 and 255 above all.
"""

from collections.abc import Mapping

from sartm.classes import Classes


def describe_poor_labels(pixels: Mapping[int, int], classes: Classes) -> str:
    """Why labels with these pixels per id tell no classes apart; "" where they do.

    Ids that the class table does not have count for nothing, as `classes.ignore` does.
    """
    present = [id_ for id_, count in pixels.items() if count and id_ < len(classes)]
    if len(present) > 1 or not any(pixels.values()):
        return ""
    found = "no class at all"
    if present:
        found = f"one class only, {present[0]} ({classes.names[present[0]]!r})"
    return (
        f"the labels hold {found}, {classes.ignore} (ignore) aside: there is nothing to learn or "
        f"to score. Where {classes.ignore} is meant to be a class, write its id instead, such as "
        f"1, or name another value as ignore in dataset.toml"
    )
