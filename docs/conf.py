"""Sphinx configuration. ``make docs`` builds with warnings as errors and fetches nothing."""

from __future__ import annotations

from musictf import __version__

project = "musictf"
author = "The musictf developers"
copyright = "The musictf developers"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

# Docstrings write code in single backticks as well as in double ones.
default_role = "literal"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}

myst_enable_extensions = ["deflist", "fieldlist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "musictf"
html_show_sphinx = False
