"""Notebook 00 as a newcomer meets it: JupyterLab in a browser. (The form of 08 needs a trained run: test_pipeline.)"""

import base64
import io

import pytest
from lab import Lab
from PIL import Image

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]
HERE = "notebooks/00_start_here.ipynb"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Notebook 00, run."""
    folder = tmp_path_factory.mktemp("lab")
    with Lab(folder, folder / "runs") as lab:
        lab.open(HERE)
        lab.run_all()
        yield lab


def test_all_cells_run_without_an_error_or_a_warning(lab):
    numbers = lab.page.locator(".jp-CodeCell .jp-InputPrompt").all_text_contents()
    assert numbers == [f"[{number}]:" for number in range(1, len(numbers) + 1)]
    for kind in ("error", "stderr"):
        assert lab.outputs(f"application/vnd.jupyter.{kind}").all_text_contents() == []
    assert "00_start_here done in" in lab.outputs().last.text_content()
    assert (lab.runs / "lab" / "manifests" / "00_start_here.json").exists()


def test_the_map_is_a_picture_that_a_dark_page_does_not_swallow(lab):
    picture = lab.outputs("image/png").locator("img").first
    picture.scroll_into_view_if_needed()
    assert picture.evaluate("img => img.clientWidth") >= 600
    encoded = picture.get_attribute("src").removeprefix("data:image/png;base64,")
    alpha = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGBA").getchannel("A")
    assert alpha.getextrema() == (255, 255)


def test_the_solution_opens_beside_it_and_the_browser_complained_of_nothing_and_asked_nobody_else(lab):
    lab.page.get_by_role("link", name="solutions/00").click()
    tab = lab.page.get_by_role("tab", selected=True).and_(lab.page.locator("[title*='solutions/00_start_here.ipynb']"))
    tab.wait_for()
    lab.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)").get_by_role("heading").first.wait_for()
    lab.idle()
    assert (lab.complaints, lab.elsewhere) == ([], [])
