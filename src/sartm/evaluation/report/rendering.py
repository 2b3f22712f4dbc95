"""Templates to pages and charts: jinja2, which escapes every text that a template shows."""

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from sartm.evaluation.report.tables import Table, numeric_columns
from sartm.terminal import clean_text


def render(name: str, values: Mapping[str, Any]) -> Markup:
    """A file of the folder `templates`, filled in; the result may stand in another one."""
    return Markup(_TEMPLATES.get_template(name).render(values))


def unbroken(text: str) -> Markup:
    """Text with names such as mfnet-9 kept on one line."""
    escaped = str(escape(clean_text(text)))
    return Markup(re.sub(r"\S*-\S*", r'<span class="nb">\g<0></span>', escaped))


def column_styles(table: Table) -> list[str]:
    """The style class of each column: numbers flush right, and room for sentences."""
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.head)
    longest = [max(map(len, column), default=0) for column in columns]
    return [
        "n" if numeric else "wide" if length > 60 else "mid" if length > 30 else ""
        for numeric, length in zip(numeric_columns(table), longest, strict=True)
    ]


def _clean(value: object) -> str:
    """What jinja2 shows of a value, before it escapes all but markup of its own."""
    return value if isinstance(value, Markup) else clean_text(str(value))


_TEMPLATES = Environment(
    loader=PackageLoader("sartm.evaluation.report"),
    autoescape=True,
    finalize=_clean,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {"unbroken": unbroken, "column_styles": column_styles}
