"""Weights looked through before an engine loads them: every way of being no number, wherever it stands."""

import json
import math
import struct
from pathlib import Path

import pytest
from factories import BASE_TENSORS, make_config, make_tensors, make_weights

from evaluator import adapters
from evaluator.adapters import check_adapter
from registry.client import InvalidRequest

# The bits of numbers that are none, little-endian, by the name that safetensors has for their type.
NONE = {
    "F32": [struct.pack("<f", math.nan), struct.pack("<f", math.inf), struct.pack("<f", -math.inf)],
    "F16": [struct.pack("<e", math.nan), struct.pack("<e", math.inf), struct.pack("<e", -math.inf)],
    "BF16": [b"\xc0\x7f", b"\x80\x7f", b"\x80\xff"],
}
LARGEST = {"F32": struct.pack("<f", 3.4e38), "F16": struct.pack("<e", 65504.0), "BF16": b"\x7f\x7f"}


def write(folder: Path, weights: bytes, **config: object) -> Path:
    (folder / "adapter_config.json").write_bytes(make_config(**config))
    (folder / "adapter_model.safetensors").write_bytes(weights)
    return folder


def with_number(dtype: str, number: bytes, place: int) -> bytes:
    """Weights with this number at a place, counted in numbers from the end."""
    weights = make_weights(dtype=dtype)
    at = len(weights) - len(number) * (place + 1)
    return weights[:at] + number + weights[at + len(number) :]


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("place", [0, 1, 100])
def test_a_number_that_is_none_is_found_wherever_it_stands(tmp_path: Path, dtype: str, place: int) -> None:
    for number in NONE[dtype]:
        with pytest.raises(InvalidRequest, match=r"lora_[AB]\.weight of the adapter holds NaN or infinity"):
            check_adapter(write(tmp_path, with_number(dtype, number, place)), BASE_TENSORS)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_the_largest_number_of_a_type_is_a_number(tmp_path: Path, dtype: str) -> None:
    assert check_adapter(write(tmp_path, with_number(dtype, LARGEST[dtype], 3)), BASE_TENSORS) == 8


def test_weights_larger_than_what_is_read_at_once_are_read_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "_CHUNK_BYTES", 64)
    assert check_adapter(write(tmp_path, make_weights()), BASE_TENSORS) == 8
    with pytest.raises(InvalidRequest, match="NaN"):
        check_adapter(write(tmp_path, with_number("F32", NONE["F32"][0], 0)), BASE_TENSORS)


def test_the_largest_rank_of_any_module_decides(tmp_path: Path) -> None:
    folder = write(tmp_path, make_weights(), rank_pattern={"q_proj": 40, "v_proj": 4})
    assert check_adapter(folder, BASE_TENSORS) == 64


def test_the_rank_is_the_one_that_an_engine_must_be_started_with(tmp_path: Path) -> None:
    assert check_adapter(write(tmp_path, make_weights(make_tensors(12)), r=12), BASE_TENSORS) == 16


@pytest.mark.parametrize(
    ("base", "told"),
    [
        ({name: [8, 24] for name in BASE_TENSORS}, r"has shape \[8, 24\] there"),
        ({}, "is not there"),
        ({name: [16] for name in BASE_TENSORS}, r"has shape \[16\] there"),
    ],
)
def test_an_adapter_of_another_base_is_told_with_the_tensor(
    tmp_path: Path, base: dict[str, list[int]], told: str
) -> None:
    with pytest.raises(InvalidRequest, match=told):
        check_adapter(write(tmp_path, make_weights()), base)


@pytest.mark.parametrize(
    "weights",
    [b"", b"\xff" * 40, make_weights()[:-8], struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 1) + b"3"],
    ids=["empty", "noise", "cut short", "a list", "a number"],
)
def test_files_that_cannot_be_read_are_told_so(tmp_path: Path, weights: bytes) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        check_adapter(write(tmp_path, weights), BASE_TENSORS)


def with_tensor(dtype: str, shape: object, size: int) -> bytes:
    """One tensor as its header says it, and as many bytes."""
    header = {"base_model.model.x.lora_A.weight": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


@pytest.mark.parametrize("shape", [[4], [], [2, 2, 2], 4, "ab", None], ids=str)
def test_a_shape_that_no_adapter_has_is_told(tmp_path: Path, shape: object) -> None:
    with pytest.raises(InvalidRequest, match=r"does not fit the base|cannot be read"):
        check_adapter(write(tmp_path, with_tensor("F32", shape, 16)), {"x.weight": [2, 2]})


@pytest.mark.parametrize("size", [0, 12, 20])
def test_as_many_bytes_as_the_shape_needs_or_the_file_cannot_be_read(tmp_path: Path, size: int) -> None:
    with pytest.raises(InvalidRequest, match=f"has {size} bytes, and its shape and type need 16"):
        check_adapter(write(tmp_path, with_tensor("F32", [2, 2], size)), {"x.weight": [2, 2]})


@pytest.mark.parametrize("change", [{"rank_pattern": [1]}, {"rank_pattern": {"q_proj": []}}, {"r": None}], ids=str)
def test_a_config_that_is_none_is_told(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match="push it again"):
        check_adapter(write(tmp_path, make_weights(), **change), BASE_TENSORS)


def test_a_type_of_number_that_is_not_known_is_told_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"of type F8_E4M3, .* save it as one of F32, F16, BF16"):
        check_adapter(write(tmp_path, with_tensor("F8_E4M3", [2, 2], 4)), {"x.weight": [2, 2]})
