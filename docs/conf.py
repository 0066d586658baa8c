"""How Sphinx makes the documentation: ``sphinx-build -W -n docs build/docs``, without a network."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

from bossworker import __version__  # noqa: E402 - the path comes first

project = "bossworker"
author = "The bossworker developers"
copyright = author
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "house"]
exclude_patterns = ["_ext", "README.md"]
suppress_warnings = ["toc.empty_glob"]  # pages that are there only with the part that they are about
html_theme = "furo"
html_title = f"bossworker {release}"
html_static_path = ["_static"]
html_css_files = ["house.css"]
html_show_sphinx = False

myst_enable_extensions = ["attrs_block", "colon_fence", "deflist"]
myst_heading_anchors = 3

default_role = "obj"  # `BossWorker` in a docstring is a link, `timeout` is code: see _ext/house.py
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature has defaults, the table below it types and meanings
autodoc_class_signature = "mixed"
autoclass_content = "both"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
add_module_names = False
