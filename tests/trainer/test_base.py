"""Base models are found by name, path or hub id, and known by their content."""

import json
from pathlib import Path

import pytest
from factories import make_weights

from registry.client import InvalidRequest, describe_base
from trainer.base import DEMO_BASE, locate_base, prepare_demo_base

FILES = {
    "config.json": b'{"hidden_size": 64}',
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b'{"chat_template": "t"}',
    "model-00001-of-00002.safetensors": make_weights({"model.a.weight": [4, 2]}),
    "model-00002-of-00002.safetensors": make_weights({"model.b.weight": [2, 3]}, fill=2),
}


def make_base(folder: Path, **changes: bytes) -> Path:
    folder.mkdir(parents=True)
    for name, data in {**FILES, **changes}.items():
        (folder / name).write_bytes(data)
    return folder


def test_the_digest_is_of_the_content_not_of_the_place(tmp_path: Path) -> None:
    one, other = make_base(tmp_path / "one"), make_base(tmp_path / "other")
    (other / "README.md").write_text("a note")
    (other / "training_args.bin").write_bytes(b"x")
    assert describe_base(one).digest == describe_base(other).digest
    assert describe_base(one).tensors == {"model.a.weight": [4, 2], "model.b.weight": [2, 3]}


@pytest.mark.parametrize("name", FILES)
def test_any_changed_byte_is_another_base(tmp_path: Path, name: str) -> None:
    base = make_base(tmp_path / "base")
    before = describe_base(base).digest
    whole = (base / name).read_bytes()
    for place in (len(whole) // 2, len(whole) - 1) if name.endswith(".json") else (len(whole) - 1,):
        (base / name).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert describe_base(base).digest != before
    (base / name).write_bytes(whole)
    assert describe_base(base).digest == before


@pytest.mark.parametrize("extra", ["chat_template.jinja", "added_tokens.json", "model-3.safetensors"])
def test_one_file_more_that_counts_is_another_base(tmp_path: Path, extra: str) -> None:
    base = make_base(tmp_path / "base")
    before = describe_base(base).digest
    (base / extra).write_bytes(make_weights({"model.c.weight": [1, 1]}))
    assert describe_base(base).digest != before


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        (["config.json"], "config"),
        (["tokenizer.json", "tokenizer_config.json"], "tokenizer"),
        (list(FILES)[3:], "weights"),
    ],
)
def test_what_is_no_base_is_told_what_it_lacks(tmp_path: Path, missing: list[str], told: str) -> None:
    base = make_base(tmp_path / "base")
    for name in missing:
        (base / name).unlink()
    with pytest.raises(InvalidRequest, match=f"no {told}"):
        describe_base(base)
    with pytest.raises(InvalidRequest):
        describe_base(tmp_path / "nowhere")


@pytest.mark.parametrize("data", [b"", b"\x00" * 8, b"\xff" * 16, (5).to_bytes(8, "little") + b"{nojs"])
def test_weights_that_are_none_are_refused(tmp_path: Path, data: bytes) -> None:
    base = make_base(tmp_path / "base", **{"model-00002-of-00002.safetensors": data})
    with pytest.raises(InvalidRequest, match="not a safetensors file"):
        describe_base(base)


def test_a_prepared_base_comes_before_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared, by_path = make_base(tmp_path / "bases" / "tiny"), make_base(tmp_path / "elsewhere" / "tiny")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert locate_base("tiny", tmp_path / "bases") == prepared
    assert locate_base(str(by_path), tmp_path / "bases") == by_path
    assert locate_base("tiny", tmp_path / "none").resolve() == by_path


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (DEMO_BASE, "tunegate base prepare"),
        ("nowhere", "nor a hub id"),
        ("./some/model", "nor a directory"),
        ("/some/model", "nor a directory"),
        ("a/b/c", "nor a hub id"),
    ],
)
def test_a_base_that_is_nowhere_is_told_how_to_get_it(tmp_path: Path, name: str, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        locate_base(name, tmp_path)


def test_a_directory_that_is_no_base_is_told_what_it_lacks_and_not_looked_for_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "bases" / "org" / "model").mkdir(parents=True)
    with pytest.raises(InvalidRequest, match="no config and no tokenizer and no weights"):
        describe_base(locate_base("org/model", tmp_path / "bases"))


def test_a_base_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    made = make_base(tmp_path / DEMO_BASE)
    said: list[str] = []
    assert prepare_demo_base(tmp_path, said.append) == made
    assert said == [] and json.loads((made / "config.json").read_text()) == {"hidden_size": 64}
