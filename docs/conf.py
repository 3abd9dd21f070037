"""The site: `sphinx-build -W docs docs/_build`."""

import importlib.metadata
import os

project = "incentax"
author = "The incentax authors"
copyright = author
release = importlib.metadata.version("incentax")
extensions = ["myst_nb"]
html_theme = "furo"
html_title = f"incentax {release}"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
# INCENTAX_NOTEBOOKS=1 runs the notebooks, which takes some minutes; the tests run them in any case.
nb_execution_mode = "force" if os.environ.get("INCENTAX_NOTEBOOKS") else "off"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
