"""How Sphinx makes a site of these pages and of the docstrings: `make docs`. Reading it fetches nothing."""

import re
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.errors import ExtensionError
from sphinx.writers.html5 import HTML5Translator

project = "mmcam"
author = "The mmcam authors"
html_title = "mmcam"
html_theme = "furo"
html_show_sphinx = False
html_copy_source = False
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["conf.py"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
html_math_renderer = "mathml"
highlight_language = "text"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "exclude-members": "forward"}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
maximum_signature_line_length = 96
html_static_path = ["_static"]
html_css_files = ["site.css"]

FETCHED = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed|link)\b[^>]*(?:src|href)=\"(?:https?:)?//[^\"]*\"|@import|url\([\"']?(?:https?:)?//"
)
"""What makes a browser fetch something from elsewhere. A link that one must click does not."""


def titled(app: Sphinx, name: str, content: list[str]) -> None:
    """A link whose text is the name of a page gets that page's title."""
    content[0] = re.sub(r"\[`?(\w+)\.md`?\]\((\1\.md(?:#[\w-]+)?)\)", r"[](\2)", content[0])


def plain_signature(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """What is no Python (`<factory>`) would keep Sphinx from laying the signature out."""
    return re.sub(r"<[^<>]*>", "...", signature) if signature else signature, returns


def plain_to_rst(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Our docstrings are plain text with `code`; Sphinx reads reStructuredText."""
    found, section = [], False
    for number, line in enumerate(lines):
        section = section or bool(re.match(r"(Args|Attributes|Returns|Raises|Yields):$", line))
        begins = line.startswith("    ") and number and not lines[number - 1].strip() and not section
        if begins and not any(previous.strip() == "::" for previous in found[-3:]) and not _in_block(found):
            found += ["::", ""]
        literal = not section and (begins or (line.startswith("    ") and _in_block(found)))
        found.append(line if literal else _escaped(line))
        if not section and literal and number + 1 < len(lines) and lines[number + 1][:1].strip():
            found.append("")
    lines[:] = found


def _in_block(lines: list[str]) -> bool:
    """Whether the last line that is not indented opened a literal block."""
    return next((line for line in reversed(lines) if line.strip() and not line.startswith(" ")), "") == "::"


def _escaped(line: str) -> str:
    parts = line.split("`")
    for number in range(0, len(parts), 2):  # outside of `code`
        parts[number] = re.sub(r"(?<![\w*])(\*\w(?:[^*]*\w)?\*)(?![\w*])|([*|\\]|_(?!\w))", _kept, parts[number])
    return "``".join(parts)


def _kept(found: re.Match[str]) -> str:
    return found[1] or f"\\{found[2]}"  # *emphasis* is emphasis, a lone star is a star


def inline_math(self: HTML5Translator, node: nodes.math) -> None:
    """MathML, which browsers draw by themselves."""
    self.body.append(_mathml(node.astext()))
    raise nodes.SkipNode


def display_math(self: HTML5Translator, node: nodes.math_block) -> None:
    """The same, on a line of its own."""
    self.body.append(f"<div>{_mathml(node.astext(), as_block=True)}</div>")
    raise nodes.SkipNode


def _mathml(tex: str, **options: bool) -> str:
    # Docutils writes \bar as the letter modifier, which fonts of mathematics do not have.
    return tex2mathml(tex, **options).replace("\u02c9", "\u00af")


def check_resources(app: Sphinx, exception: Exception | None) -> None:
    """Refuse a site that asks other hosts for fonts, scripts or pictures."""
    if exception is None:
        for file in Path(app.outdir).rglob("*"):
            if file.suffix in (".html", ".css") and (found := FETCHED.search(file.read_text(encoding="utf-8"))):
                raise ExtensionError(f"{file}: {found[0]} would be fetched from elsewhere")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (inline_math, None), (display_math, None))
    for field in PyObject.doc_field_types:
        if field.name == "variable":  # napoleon's word for what our docstrings call attributes
            field.label = "Attributes"
    app.connect("source-read", titled)
    app.connect("autodoc-process-signature", plain_signature)
    app.connect("autodoc-process-docstring", plain_to_rst, priority=100)  # before napoleon
    app.connect("build-finished", check_resources)
