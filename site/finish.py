"""The last touches of the generator: comments beside parameters become their description, and wide
things get a box of their own to scroll in."""
import re

from docutils import nodes
from fastcore.docments import docments


def describe_parameters(app, what, name, thing, options, lines):
    """Add what stands beside each parameter in the source (a docment) to its docstring."""
    if what not in ("function", "method", "class"):
        return
    try:
        found = docments(thing, full=True)
    except (TypeError, ValueError, OSError, SyntaxError):
        return
    words = [(key, " ".join(str(of["docment"]).split())) for key, of in found.items()
             if isinstance(of, dict) and isinstance(of.get("docment"), str)]
    if words:
        lines.append("")
    for key, said in words:
        said = plain_words(said)
        lines.append(f":returns: {said}" if key == "return" else f":param {key}: {said}")


def plain_words(said: str) -> str:
    """A comment as text for the generator: only what stands in backticks is mark-up."""
    parts = said.replace("\\", "\\\\").split("`")
    return "`".join(part if i % 2 else re.sub(r"([*|_])", r"\\\1", part)
                    for i, part in enumerate(parts))


def few_entries(app, pagename, templatename, context, doctree):
    """The navigation shows the way to a page and what stands beside it. With every page of the
    site in every page, the site would weigh twice as much."""
    if "toctree" in context:
        whole = context["toctree"]
        context["toctree"] = lambda **options: whole(**options | {"collapse": True})


def check_pictures(app, pagename, templatename, context, doctree):
    """No page is written with a picture that says nothing to those who cannot see it."""
    for image in doctree.findall(nodes.image) if doctree is not None else ():
        if not image.get("alt"):
            raise ValueError(f"{pagename}: a picture has no alternative text")


def setup(app):
    app.connect("autodoc-process-docstring", describe_parameters)
    app.connect("html-page-context", few_entries, priority=100)     # before the theme's own
    app.connect("html-page-context", check_pictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
