"""The command line, run as users run it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest

from sgrun import cli

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "an order",
    "type": "object",
    "properties": {"id": {"type": "integer", "minimum": 1}, "a/b": {"enum": ["x", "y"]}},
    "required": ["id"],
    "additionalProperties": False,
}


def check(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sgrun", "check-schema", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120)


def test_report_names_keywords_sizes_and_valid_samples(tmp_path: Path) -> None:
    path = tmp_path / "order.json"
    path.write_text(json.dumps(SCHEMA))
    done = check(str(path), "--samples", "5", "--seed", "3")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "enforced: type (2): #/type, #/properties/id/type" in lines
    assert "enforced: enum (1): #/properties/a~1b/enum" in lines
    assert not [line for line in lines if "title" in line or "$schema" in line]
    assert re.search(r"^compiled in \d+\.\d ms$", done.stdout, flags=re.MULTILINE)
    assert re.search(r"^tables: \d+ states x \d+ byte classes, .*; [\d,]+ bytes$", done.stdout, flags=re.MULTILINE)
    samples = [json.loads(line.removeprefix("sample: ")) for line in lines if line.startswith("sample: ")]
    assert len(samples) == 5
    for sample in samples:
        jsonschema.validate(sample, SCHEMA)


def test_same_seed_gives_the_same_samples(tmp_path: Path) -> None:
    def samples(seed: str) -> list[str]:
        done = check("-", "--seed", seed, stdin=json.dumps(SCHEMA))
        return [line for line in done.stdout.splitlines() if line.startswith("sample")]

    assert len(samples("1")) == 3
    assert samples("1") == samples("1") != samples("2")


def test_refused_schema_is_exit_status_1_with_the_pointer() -> None:
    done = check("-", stdin='{"properties": {"a": {"$ref": "https://example.com/other.json"}}}')
    assert done.returncode == cli.FAILED
    assert done.stdout.startswith("refused: ") and "#/properties/a/$ref" in done.stdout


def test_what_is_no_json_is_refused() -> None:
    done = check("-", stdin="{")
    assert done.returncode == cli.FAILED and done.stdout.startswith("refused: ") and done.stderr == ""


def test_file_that_cannot_be_read_is_exit_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-schema", str(tmp_path / "nowhere.json")]) == cli.MISUSED
    (tmp_path / "latin.json").write_bytes(b'{"title": "\xe9"}')
    assert cli.main(["check-schema", str(tmp_path / "latin.json")]) == cli.MISUSED
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("cannot be read") == 2


def test_console_script_is_this_function() -> None:
    scripts = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"sgrun": f"{cli.main.__module__}:{cli.main.__name__}"}
