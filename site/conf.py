"""How the generator (Sphinx) builds the site; `make.py` calls it with the folders."""
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCES = Path(os.environ["SELMATCH_SITE_SOURCES"])
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

project = "selmatch"
author = "The selmatch developers"
copyright = "2026, The selmatch developers"
language = "en"
extensions = ["myst_nb", "sphinx.ext.autodoc", "mathml", "finish"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}

nb_execution_mode = "off"          # what a notebook has is shown; nothing is run here
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
suppress_warnings = ["mystnb.unknown_mime_type", "misc.highlighting_failure"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False
default_role = "code"           # `x` in a docstring is code, as everywhere in the project
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 88

html_theme = "furo"
html_title = "selmatch"
html_static_path = [str(HERE / "static")]
html_extra_path = [str(SOURCES / "extra")]
exclude_patterns = ["extra"]
templates_path = [str(HERE / "templates")]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_copy_source = False
html_use_index = False
html_domain_indices = False
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": True,
    "top_of_page_buttons": [],
    "light_css_variables": {"color-brand-primary": "#1f5f8b", "color-brand-content": "#1f5f8b",
                            "color-foreground-muted": "#5a6068"},
    "dark_css_variables": {"color-brand-primary": "#8fc7ef", "color-brand-content": "#8fc7ef",
                           "color-brand-visited": "#c3b0f0", "color-foreground-muted": "#a2a8b2"},
}
