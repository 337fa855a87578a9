"""Links, names of tests and names of folders on the pages exist, and the documentation builds without a warning."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "experiments").glob("*.md")),
    *sorted((ROOT / "experiments").glob("*/README.md")),
]
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page):
    """Anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@by_page
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text()):
        if link.startswith(("http:", "https:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@by_page
def test_links_to_the_repository_name_files_of_it(page):
    pattern = r"https://github\.com/musictf/musictf/(?:tree|blob)/main/([^)\s]+)"
    assert all((ROOT / path).exists() for path in re.findall(pattern, page.read_text()))


@by_page
def test_tests_that_a_page_names_exist(page):
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", page.read_text()):
        assert f"def {name}(" in sources, name
    assert all((ROOT / path).exists() for path in re.findall(r"`(tests/[\w/]+\.py)`", page.read_text()))


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_the_tree_of_the_readme_names_what_there_is():
    tree = (ROOT / "README.md").read_text().split("## Where things are")[1].split("```")[1]
    names = [(line.startswith("  "), line.split()[0]) for line in tree.strip("\n").splitlines()]
    assert all((ROOT / ("musictf" if inside else ".") / name).exists() for inside, name in names)
    packages = {f"{path.parent.name}/" for path in (ROOT / "musictf").glob("*/__init__.py")}
    assert packages <= {name for inside, name in names if inside}


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path):
    pytest.importorskip("furo")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(ROOT / "docs"), tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
