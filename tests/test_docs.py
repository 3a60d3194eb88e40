"""The Python in README.md and docs/ is run, page by page and in order, on the default model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import sgrun as sg

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]
_FENCE = re.compile(r"(?P<note><!-- not run: .+? -->\n)?^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?://)([^)#]*)(#[^)]*)?\)")


@dataclass(frozen=True)
class Snippet:
    code: str
    first_line: int
    is_run: bool


def snippets(page: Path) -> list[Snippet]:
    text = page.read_text()
    return [
        Snippet(found["code"], text.count("\n", 0, found.start("code")), found["note"] is None)
        for found in _FENCE.finditer(text)
    ]


def run(page: Path) -> None:
    """All snippets of a page in one namespace; line numbers of errors are those of the page."""
    namespace: dict[str, object] = {"__name__": page.stem}
    for snippet in snippets(page):
        if snippet.is_run:
            exec(compile("\n" * snippet.first_line + snippet.code, str(page), "exec", dont_inherit=True), namespace)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "README.md" and snippets(page)], ids=lambda page: page.name
)
def test_snippets_of_a_page_run(page: Path, engine: sg.Engine) -> None:
    sg.set_default_backend(engine)
    try:
        run(page)
    finally:
        sg.set_default_backend(None)


def test_the_readme_program_prints_what_the_readme_shows(capsys: pytest.CaptureFixture[str]) -> None:
    run(ROOT / "README.md")
    printed = capsys.readouterr().out.splitlines()
    after_program = (ROOT / "README.md").read_text().partition("Output, ")[2]
    shown = re.findall(r"^```\n(.*?)^```$", after_program, re.MULTILINE | re.DOTALL)[0].splitlines()
    assert printed[0] == shown[0]
    # Times differ, and which operation comes first and computes what they share; operations and sums do not.
    rows, expected = ([_row(line) for line in lines[2:]] for lines in (printed, shown))
    assert [(name, counts[:1]) for name, counts in rows] == [(name, counts[:1]) for name, counts in expected]
    assert _sums(rows) == _sums(expected)


def _row(line: str) -> tuple[str, list[int]]:
    """The operation of a row of a trace, and its counts: tokens, cached, computed."""
    name, _, cells = re.sub(r"\(.+?:\d+\)", "|", line).partition("|")
    return name.rstrip(), [int(cell) for cell in cells.split()[:3]]


def _sums(rows: list[tuple[str, list[int]]]) -> list[int]:
    return [sum(column) for column in zip(*(counts for _, counts in rows if len(counts) == 3), strict=True)]


def test_few_snippets_are_not_run() -> None:
    assert sum(not snippet.is_run for page in PAGES for snippet in snippets(page)) <= 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_of_a_page_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target, anchor in _LINK.findall(text):
        file = (page.parent / target) if target else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert anchor[1:] in {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}
    for path in re.findall(r"`((?:sgrun|kernels|tests|benchmarks|examples|docs)/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), f"{page.name}: {path}"
