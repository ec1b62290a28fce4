"""Formulas become MathML while the site is built: no script, no font, no request, and a screen
reader can read them."""
from docutils.nodes import SkipNode
from math_core import LatexError, LatexToMathML
from sphinx.errors import ExtensionError

convert = LatexToMathML().convert_with_local_state


def render(node, block: bool) -> str:
    """The MathML of a formula; a build that meets one it cannot read stops and shows it."""
    try:
        return convert(node.astext(), displaystyle=block)
    except LatexError as error:
        raise ExtensionError(f"formula {node.astext()!r}: {error}") from error


def visit_inline(writer, node):
    writer.body.append(f'<span class="math">{render(node, False)}</span>')
    raise SkipNode


def visit_block(writer, node):
    writer.body.append(f'<div class="math">{render(node, True)}</div>\n')
    raise SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
