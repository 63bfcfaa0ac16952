"""Base models by content: the digest follows every byte that can change a number, and nothing else."""

import json
import struct
from pathlib import Path

import pytest
from factories import make_header

from registry.bases import describe_base
from registry.errors import InvalidRequest


def weights(shapes: dict[str, list[int]], fill: int = 1) -> bytes:
    header, size = make_header(shapes)
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return struct.pack("<Q", len(text)) + text + bytes([fill]) * size


def make_base(directory: Path, **files: bytes) -> Path:
    directory.mkdir()
    content = {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "model-1.safetensors": weights({"a.weight": [2, 3]}),
        "model-2.safetensors": weights({"b.weight": [4, 5]}),
        **files,
    }
    for name, data in content.items():
        (directory / name).write_bytes(data)
    return directory


def test_a_base_has_one_digest_wherever_it_lies(tmp_path: Path) -> None:
    first, second = (describe_base(make_base(tmp_path / name)) for name in ("one", "two"))
    assert first == second
    assert first.digest.startswith("sha256:")


def test_tensor_shapes_are_those_of_all_shards(tmp_path: Path) -> None:
    assert describe_base(make_base(tmp_path / "base")).tensors == {"a.weight": [2, 3], "b.weight": [4, 5]}


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "chat_template.jinja",
        "model-1.safetensors",
        "model-3.safetensors",
    ],
)
def test_every_file_that_decides_a_number_is_in_the_digest(tmp_path: Path, name: str) -> None:
    plain = describe_base(make_base(tmp_path / "plain"))
    other = make_base(tmp_path / "other")
    (other / name).write_bytes(weights({"a.weight": [2, 3]}, fill=2) if name.endswith("tensors") else b'{"x": 1}')
    assert describe_base(other).digest != plain.digest


def test_files_that_decide_nothing_are_not_in_the_digest(tmp_path: Path) -> None:
    plain = describe_base(make_base(tmp_path / "plain"))
    other = make_base(tmp_path / "other")
    (other / "README.md").write_text("hello")
    (other / ".gitattributes").write_text("x")
    assert describe_base(other) == plain


@pytest.mark.parametrize(
    ("missing", "word"), [("config.json", "config"), ("tokenizer.json", "tokenizer"), ("*.safetensors", "weights")]
)
def test_a_directory_without_one_part_is_no_base(tmp_path: Path, missing: str, word: str) -> None:
    base = make_base(tmp_path / "base")
    for file in base.glob(missing):
        file.unlink()
    with pytest.raises(InvalidRequest, match=f"no {word}"):
        describe_base(base)


def test_a_directory_that_is_not_there_lacks_everything(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no config and no tokenizer and no weights"):
        describe_base(tmp_path / "none")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 8,
        b"\xff" * 8,
        struct.pack("<Q", 100) + b"{",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b"null",
        struct.pack("<Q", 8) + b'{"a": 1}',
        struct.pack("<Q", 9) + b'{"a": {}}',
        struct.pack("<Q", 20) + b'{"a": {"shape": 123}}'[:20],
        struct.pack("<Q", 19) + b'{"a": {"shape": 1}}',
        struct.pack("<Q", 10) + b'{"a": "\xff"}',
    ],
)
def test_weights_that_are_not_safetensors_are_named(tmp_path: Path, data: bytes) -> None:
    base = make_base(tmp_path / "base", **{"model-2.safetensors": data})
    with pytest.raises(InvalidRequest, match=r"model-2\.safetensors is not a safetensors file"):
        describe_base(base)
