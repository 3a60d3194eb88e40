"""Who may import whom, and what importing sgrun loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Parts of sgrun that each part may import, function-local imports included.
ALLOWED = {
    "types": {"errors"},
    "errors": set(),
    "config": {"types", "errors"},
    "python_types": {"errors"},
    "grammar": {"types", "errors", "python_types", "models.tokenizer_files"},
    "lang": {"types", "errors", "python_types", "grammar.api", "grammar.captures", "grammar.automaton"},
    "cache": {"types", "errors"},
    "models": {"types", "errors"},
    "engine": {"types", "errors", "config", "grammar", "cache", "models"},
    "server": {"types", "errors", "config", "engine", "lang.schema"},
}
ANYTHING = {"__init__", "__main__", "cli"}  # where the language meets the engine
WITH_TORCH = {"cache", "models", "engine", "cli"}
WITH_KERNELS = {"models", "engine", "cli"}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""


def part_of(path: Path) -> str:
    return path.relative_to(ROOT / "sgrun").parts[0].removesuffix(".py")


SOURCES = sorted((ROOT / "sgrun").rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_table_of_packages(path: Path) -> None:
    part = part_of(path)
    assert part in ALLOWED or part in ANYTHING, f"{part} is not in the table"
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "sgrun" and part not in ANYTHING:
            other = rest.split(".")[0]
            assert other == part or {other, rest} & ALLOWED[part], f"{part} must not import {name}"
        if top in ("torch", "transformers", "triton", "safetensors"):
            assert part in WITH_TORCH, f"{part} must not import {name}"
        if top == "sgrun_kernels":
            assert part in WITH_KERNELS, f"{part} must not import {name}"


def test_kernels_import_nothing_of_sgrun() -> None:
    for path in (ROOT / "kernels").rglob("*.py"):
        assert not [name for name in imports(path) if name.split(".")[0] == "sgrun"], path


def test_kernels_folder_is_no_package() -> None:
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("module", ["sgrun", "sgrun.lang.program", "sgrun.lang.scripted", "sgrun.lang.chat"])
def test_importing_the_language_stays_light(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "numpy", "jinja2", "tokenizers", "tqdm", "pydantic", "jsonschema"} & set(
        loaded
    )
    assert not [name for name in loaded if name.startswith(("sgrun.engine", "sgrun.models", "sgrun.cache"))]
