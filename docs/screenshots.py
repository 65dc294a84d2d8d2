"""Takes the README's pictures anew from a finished run: `make screenshots` (the run `lab`, or RUN=id).

docs/images/lab.png: notebook 00 in JupyterLab, with its map; form.png: the form of notebook 08, with an answer and its
verdict; report.png, report-dark.png: the top of the report. The run is copied, not changed.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from lab import Lab  # tests/, which the Makefile puts on the path

from elle.base import paths
from elle.base.errors import ElleError, unknown
from helpers.runs.report import smaller_png

IMAGES = paths.root() / "docs" / "images"
SIZE = (1400, 900)  # pixels


def kept(name: str) -> Path:
    return IMAGES / f"{name}.png"


def smaller(path: Path) -> None:
    """Reduce a picture to 256 colours, of which it hardly has more: fewer bytes, and the eye sees no difference."""
    path.write_bytes(smaller_png(path.read_bytes(), colours=256))
    print(f"{paths.shown(path)}: {path.stat().st_size / 1000:.0f} kB")


def take(run: Path, folder: Path) -> None:
    """All pictures of a run; folder: for what is passing."""
    runs = folder / "runs"
    shutil.copytree(run, runs / "lab", ignore=shutil.ignore_patterns("checkpoint-*", "prepared"))
    with Lab(folder / "lab", runs, *SIZE) as lab:
        page = lab.page
        lab.open("notebooks/00_start_here.ipynb")
        lab.run_all()
        lab.show(page.locator(".jp-MarkdownCell:has(+ .jp-CodeCell .jp-RenderedImage)").first)
        page.screenshot(path=kept("lab"))

        lab.open("notebooks/08_serve_vllm.ipynb")
        form = lab.run_to("form.show(")
        form.locator(".widget-slider", has_text="cyber").get_by_role("slider").press("End")
        form.get_by_role("button", name="Brief me").click()
        form.get_by_text("All right").or_(form.get_by_text("The evaluator objects")).wait_for()
        form.screenshot(path=kept("form"))

        for scheme, name in (("light", "report"), ("dark", "report-dark")):
            page.emulate_media(color_scheme=scheme)
            page.goto((run / "report.html").as_uri())
            row = page.locator("tr").nth(9).bounding_box()
            page.screenshot(path=kept(name), clip={"x": 60, "y": 0, "width": SIZE[0] - 120, "height": row["y"]})
    for name in ("lab", "form", "report", "report-dark"):
        smaller(kept(name))


def main(run: str = "lab") -> None:
    known = [path.parent.name for path in paths.runs().glob("*/report.html")]
    if run not in known:
        raise unknown("finished run", run, known, where=str(paths.runs()))
    with tempfile.TemporaryDirectory() as folder:
        take(paths.runs() / run, Path(folder))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except ElleError as error:
        sys.exit(str(error))
