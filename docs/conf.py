"""How Sphinx makes a site of the Markdown pages; ``make docs`` runs it. The pages stay as readable where they are."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
REPOSITORY = "https://github.com/patrolserver-exporter/patrolserver-exporter"
_LOG = logging.getLogger(__name__)

project = "patrolserver-exporter"
author = "the authors of patrolserver-exporter"
copyright = author  # noqa: A001 - Sphinx's name for it
release = re.findall(r'__version__ = "(.+)"', (ROOT / "exporter/patrolserver_exporter/__init__.py").read_text())[0]
version = release

extensions = ["myst_parser"]
root_doc = "docs/index"
# The source is the whole checkout, so that links between the pages are those that hold on disk.
include_patterns = [
    "*.md",
    "docs/**.md",
    "grafana/runbooks.md",
    "ansible_collection/*.md",
    "ansible_collection/roles/*/README.md",
]
exclude_patterns = [".*", "build", "dist", "**/node_modules"]
nitpicky = True
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"{project} {release}"
html_extra_path = ["site/index.html"]
html_static_path = ["site/wide.css"]
html_css_files = ["wide.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"source_repository": REPOSITORY, "source_branch": "main", "source_directory": ""}


class LinksIntoTheRepository(SphinxTransform):
    """What is linked and is no page, such as a test or a folder, is shown by the repository. It has to be there."""

    default_priority = 4

    def apply(self) -> None:
        """Replace those links of one page."""
        for kind in (addnodes.download_reference, addnodes.pending_xref):
            for link in list(self.document.findall(kind)):
                self._replace(link)

    def _replace(self, link: nodes.Element) -> None:
        target = unquote(link["reftarget"]).partition("#")[0]
        there = (ROOT / self.env.docname).parent / target
        if not target or not there.exists() or (there.suffix == ".md" and self._is_page(there)):
            return
        kind = "tree" if there.is_dir() else "blob"
        name = there.resolve().relative_to(ROOT)
        reference = nodes.reference("", "", refuri=f"{REPOSITORY}/{kind}/main/{name}")
        reference += [inline for child in link.children for inline in (child.children or [child])]
        link.replace_self(reference)

    def _is_page(self, file: Path) -> bool:
        return self.env.project.path2doc(str(file.resolve())) in self.env.found_docs


def _link_openapi(_app: Sphinx, page: str, source: list[str]) -> None:
    """The site carries the OpenAPI document (scripts/docs); where the pages are read as files, there is none."""
    if page == "docs/api":
        call = "`GET /api/v1/openapi.json`"
        if call not in source[0]:
            _LOG.warning("docs/api.md does not name %s", call)
        source[0] = source[0].replace(call, f'{call}, <a href="openapi.json">of this version</a>', 1)


def _copy_pictures(app: Sphinx, error: Exception | None) -> None:
    """Sphinx does not know of pictures that stand in HTML, as those do that have a dark form."""
    if error is None:
        shutil.copytree(ROOT / "docs/pictures", app.outdir / "docs/pictures", dirs_exist_ok=True)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_lexer("promql", TextLexer)
    app.add_lexer("caddy", TextLexer)
    app.add_lexer("haproxy", TextLexer)
    app.add_transform(LinksIntoTheRepository)
    app.connect("source-read", _link_openapi)
    app.connect("build-finished", _copy_pictures)
