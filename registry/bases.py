"""Base models by content: one digest over config, tokenizer and weights, wherever the directory lies.

A name or path says nothing (the same name has other weights tomorrow); the digest is what adapters are bound to.
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from registry.errors import InvalidRequest
from registry.names import digest_of

CONFIG_FILES = ("config.json",)
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
_CHUNK_BYTES = 4 * 1024 * 1024
_MAX_HEADER_BYTES = 100 * 1024 * 1024


class DescribedBase(NamedTuple):
    """`tensors`: weight name to shape, read from the safetensors headers."""

    digest: str
    tensors: dict[str, list[int]]


def describe_base(directory: Path) -> DescribedBase:
    """Digest and tensor shapes of a base model's directory.

    Raises InvalidRequest if it has no config, tokenizer or safetensors weights.
    """
    weights = sorted(directory.glob("*.safetensors")) if directory.is_dir() else []
    parts = {
        "config": [directory / name for name in CONFIG_FILES if (directory / name).is_file()],
        "tokenizer": [directory / name for name in TOKENIZER_FILES if (directory / name).is_file()],
        "weights": weights,
    }
    if missing := [part for part, files in parts.items() if not files]:
        raise InvalidRequest(
            f"{directory} is no base model: it has no {' and no '.join(missing)}; give a directory in the Hugging Face "
            "layout with safetensors weights (`tunegate base prepare` makes the demo's)"
        )
    document = {part: {file.name: _sha256(file) for file in files} for part, files in parts.items()}
    tensors: dict[str, list[int]] = {}
    for file in weights:
        tensors |= _shapes(file)
    return DescribedBase(digest_of(document), tensors)


def _shapes(file: Path) -> dict[str, list[int]]:
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if not 0 < size <= _MAX_HEADER_BYTES:
            raise InvalidRequest(f"{file} is not a safetensors file")
        try:
            header = json.loads(stream.read(size))
            return {name: list(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InvalidRequest(f"{file} is not a safetensors file") from None


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
