"""The last touches of the generator: comments beside parameters become their description, the
navigation stays short, and no picture is without words."""
import inspect
import re

from docutils import nodes
from fastcore.docments import docments


def read_comments(thing) -> dict[str, str]:
    """What stands beside each parameter or field in the source (its docment), with the comment
    lines that go on below it; `return` for what is beside the arrow."""
    try:
        found = {key: of["docment"] for key, of in docments(thing, full=True).items()
                 if isinstance(of, dict) and isinstance(of.get("docment"), str)}
        source = inspect.getsource(thing)
    except (TypeError, ValueError, OSError, SyntaxError):
        return {}
    return {key: " ".join([*said.split(), *lines_below(source, said)])
            for key, said in found.items()}


def lines_below(source: str, said: str) -> list[str]:
    """Lines that hold nothing but a comment, right below the line that ends with this one."""
    below = re.search(rf"#\s*{re.escape(said)}[ \t]*\n((?:[ \t]*#.*\n)*)", source)
    return [line.strip(" \t#") for line in below[1].splitlines()] if below else []


def describe_parameters(app, what, name, thing, options, lines):
    """Add what stands beside each parameter in the source to its docstring."""
    if what not in ("function", "method", "class"):
        return
    words = read_comments(thing)
    if words:
        lines.append("")
    for key, said in words.items():
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


plain_spans = re.compile(r'<span class="(?:n|p|w)">([^<]*)</span>')


def thin_code(app, pagename, templatename, context, doctree):
    """Names, punctuation and spaces in code look like plain text, so they need no span of their
    own: a tenth of the site is nothing else."""
    if "body" in context:
        context["body"] = plain_spans.sub(r"\1", context["body"])


def setup(app):
    app.connect("autodoc-process-docstring", describe_parameters)
    app.connect("html-page-context", few_entries, priority=100)     # before the theme's own
    app.connect("html-page-context", check_pictures)
    app.connect("html-page-context", thin_code)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
