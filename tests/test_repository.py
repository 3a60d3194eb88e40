"""Rules of the repository that no single module can hold; who imports whom is in test_imports.py."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*(ROOT / "sgrun").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")])

# What turns data into running code, or reads a format that does.
FORBIDDEN = {
    *("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "recv_pyobj", "send_pyobj"),
    *("eval", "exec", "torch.load", "trust_remote_code"),
}


def names(tree: ast.AST) -> Iterator[str]:
    """Every name that the code uses, imports or passes by keyword; with dots also the whole."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(name):
                yield name
            case ast.Attribute(_, name):
                yield name
                yield ast.unparse(node)
            case ast.alias(name):
                yield from name.split(".")
            case ast.ImportFrom(str(module), aliases):
                yield from module.split(".")
                yield from (f"{module}.{alias.name}" for alias in aliases)
            case ast.keyword(str(name)):
                yield name


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_runs_data_as_code(path: Path) -> None:
    assert not FORBIDDEN.intersection(names(ast.parse(path.read_text())))


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "builtins.eval('1')",
        "torch.load(f)",
        "from torch import load",
        "f(trust_remote_code=1)",
    ],
)
def test_the_rule_against_running_data_sees(code: str) -> None:
    assert FORBIDDEN.intersection(names(ast.parse(code)))


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_names_of_test_files_are_unique() -> None:
    # Without packages under tests/, pytest imports test files by their bare names.
    found = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert len(found) == len(set(found))


def test_packages_are_marked_as_typed() -> None:
    assert (ROOT / "sgrun" / "py.typed").exists()
    assert (ROOT / "kernels" / "sgrun_kernels" / "py.typed").exists()


def test_the_ci_command_is_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert script.read_text() == "#!/bin/sh\nmake test\n"


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert headings[0] == version
