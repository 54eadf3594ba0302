"""``python -m tests.harness.page_pictures`` draws the README's pictures of the pages again."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests.harness import pages
from tests.harness.chromium import WIDE, install, look, visit
from tests.serving import serving

from patrolserver_exporter.web.http.protocol import ConnectionLimits

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
SHOWN = 13
"""The id of the server on the picture."""


def main() -> None:
    """Draw them."""
    programs = [shutil.which(name) for name in ("node", "chromium", "npm")]
    if None in programs or (problem := install(str(programs[2]))):
        sys.exit(f"This takes node, npm and chromium. {problem if all(programs) else ''}")
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, pages.open_store(Path(folder)) as store:
        site = pages.Site(store, pages.realistic(store))
        with serving(site.app(), limits=ConnectionLimits()) as served:
            base = f"http://127.0.0.1:{served.port}"
            look(
                str(programs[0]),
                str(programs[1]),
                [
                    visit(f"{base}/", WIDE, "light", picture=str(FOLDER / "page-fleet.png")),
                    visit(f"{base}/software", WIDE, "light", picture=str(FOLDER / "page-software.png")),
                    visit(
                        f"{base}/servers/{SHOWN}?account=main",
                        WIDE,
                        "dark",
                        picture=str(FOLDER / "page-server.png"),
                    ),
                ],
            )


if __name__ == "__main__":
    main()
