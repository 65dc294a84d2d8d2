"""The course's pages: the glossary, the teacher's page, troubleshooting, adding; and that no notebook is forgotten."""

import ast
import re

import pytest

from elle.base import paths, storage
from helpers.runs import profile

ROOT = paths.root()
NOTEBOOKS = sorted(paths.notebooks().glob("*.ipynb"))
#: Pages in which a term of the glossary may occur.
PAGES = [ROOT / "README.md", ROOT / "data" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")


def sections(text: str, level: int) -> dict[str, str]:
    """Heading → what stands under it."""
    _, *parts = re.split(rf"^{'#' * level} (.+)\n", text.partition("\n[00]: ")[0], flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


# The glossary

TERMS = sections(page("glossary"), 3)


def test_the_glossary_is_in_order_and_each_term_names_where_it_is_explained():
    headings = re.findall(r"^### (.+)$", page("glossary"), re.MULTILINE)
    assert headings == sorted(headings, key=str.casefold)
    assert len({heading.casefold() for heading in headings}) == len(headings) == len(TERMS) > 100
    defined = dict(re.findall(r"^\[(.+)\]: (.+)$", page("glossary"), re.MULTILINE))
    used = {term: re.findall(r"\[([\w ]+)\](?!\()", " ".join(text.split())) for term, text in TERMS.items()}
    assert [term for term, places in used.items() if not places] == []
    assert {place for places in used.values() for place in places} == set(defined)


@pytest.fixture(scope="module")
def course_text() -> str:
    """The notebooks and the pages but the glossary, in small letters, words parted by one space: time_to_first_token
    and KV-cache are read as words."""
    sources = ["".join(cell["source"]) for path in NOTEBOOKS for cell in storage.read_json(path)["cells"]]
    texts = [path.read_text(encoding="utf-8") for path in PAGES if path.stem != "glossary"]
    return " ".join(re.split(r"[\s_-]+", "\n".join(sources + texts).casefold()))


@pytest.mark.parametrize("term", TERMS)
def test_each_term_occurs_in_the_course(term, course_text):
    words = " ".join(re.split(r"[\s_-]+", term.casefold()))
    assert re.search(rf"(?<!\w){re.escape(words)}(s|es)?(?!\w)", course_text)


# Troubleshooting


def literals() -> str:
    """The programs' own words: Python's adjacent literals joined, what an f-string fills in left out."""
    found = [(ROOT / "requirements" / "setup.sh").read_text(encoding="utf-8")]
    for path in (*(ROOT / "src").rglob("*.py"), *(ROOT / "requirements").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values))
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "unknown":
                found.append(f"unknown {getattr(node.args[0], 'value', '…')} …")
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_the_symptoms_are_the_programs_own_words():
    words = literals()
    rows = re.findall(r"^\| (.+?) \| .+ \| .+ \|$", page("troubleshooting"), re.MULTILINE)
    quoted = [text for row in rows for _, text in re.findall(r"(`+)(.+?)\1", row)]
    assert len(quoted) > 60
    for text in quoted:
        for part in text.split("…"):
            assert part.strip(" ,:;") in words, f"{text!r}: nothing says {part!r}"


# The teacher's page


def test_the_teachers_page_covers_every_notebook():
    text = page("teaching")
    rows = re.findall(
        r"^\| \[.+\]\(\.\./notebooks/(\w+)\.ipynb\) \| (\d+) \| (\S+) \| (\S+) \| (.+) \|$", text, re.MULTILINE
    )
    assert [row[0] for row in rows] == [path.stem for path in NOTEBOOKS]
    lessons = sections(text.partition("## Checking exercises")[0], 3)
    assert [title[:2] for title in lessons] == [path.stem[:2] for path in NOTEBOOKS]
    for lesson in lessons.values():
        assert re.findall(r"\*\*(.+?):\*\*", lesson) == ["Ask", "Look at", "Exercise", "Skip", "Misunderstanding"]
    assert sum(int(hour) for _, _, hour, _, _ in rows if hour != "–") == 60
    assert [day for *_, day in rows if not re.fullmatch(r"day [1-5]: \d+", day)] == []


def test_the_notebooks_take_no_longer_than_the_teacher_is_told():
    if not paths.published().exists():
        pytest.skip("no run is published yet: `make notebooks`")
    took = storage.read_json(paths.published())["step_seconds"]
    promised = re.findall(r"/(\w+)\.ipynb\) \| (\d+) \|", page("teaching"))
    assert [step for step, minutes in promised if took.get(step, 0) > 60 * int(minutes)] == []


# Adding


def test_the_tests_that_are_promised_exist():
    promised = set(re.findall(r"(tests/\w+\.py)::(\w+)", page("adding")))
    assert len(promised) > 15
    for file, name in promised:
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), f"{file}::{name}"


def test_every_notebook_is_run_and_named_everywhere():
    names = [path.stem for path in NOTEBOOKS]
    for left_out in ("smoke", "course"):  # such a notebook is run by no test; it has no committed outputs
        assert profile.load_profile(left_out).notebooks == names
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[\d\d · .+\]\(notebooks/(\w+)\.ipynb\) \|", readme, re.MULTILINE) == names
