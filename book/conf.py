"""Sphinx's settings for one edition of the book; build.py starts Sphinx and says which one.

Nothing here may reach the network, neither while building nor from a page.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from sphinx.search.zh import SearchChinese

HERE = Path(__file__).resolve().parent
LANGUAGE = os.environ["BOOK_LANGUAGE"]
WORDS = tomllib.loads((HERE / "words.toml").read_text("utf-8"))
# For machines without a Chinese font; a browser takes it where it has none itself.
FONT = [HERE.parent / "helpers/words/zh" / name for name in ("NotoSansSC.otf", "OFL.txt")]
_OTHER = next(name for name in WORDS if name != LANGUAGE)

project = "LoRA · QLoRA · LLaMA-Factory"
language = {"zh": "zh_CN"}.get(LANGUAGE, LANGUAGE)
extensions = ["myst_nb"]
root_doc = "index"
templates_path = [str(HERE / "_templates")]
html_static_path = [str(HERE / "_static"), *map(str, FONT)]
html_css_files = ["book.css"]

nb_execution_mode = "off"  # the outputs are those of a run that was made
nb_merge_streams = True
nb_render_markdown_format = "myst"
nb_ipywidgets_js = {}  # else require.js comes from a CDN
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type"]

# Sphinx 9.0 looks for a stemmer called after the language, and Chinese search uses the English one:
# its pages would end in an error (sphinx-doc/sphinx, issue 14229; mended since).
SearchChinese.language_name = "English"

html_theme = "pydata_sphinx_theme"
html_title = project
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False
html_use_index = False
html_context = {
    "default_mode": "auto",
    "book_contents": WORDS[LANGUAGE]["lead"],
    "book_other": _OTHER,
    "book_other_name": WORDS[_OTHER]["language"],
    "book_switch": WORDS[_OTHER]["switch"],
}
html_theme_options = {
    "navbar_center": [],
    "navbar_end": ["language-switch", "theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_center": [],
    "footer_end": [],
    "navigation_depth": 2,
    "show_nav_level": 2,
}
html_sidebars = {"**": ["contents"]}
