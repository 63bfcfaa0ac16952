"""The numbers of an adapter, looked through in plain Python, agree with the definition of each type."""

import io
import math
import struct
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from registry.inspection.adapter import Span
from registry.inspection.weights import _CHUNK_BYTES, check_weights

MODULE = "base_model.model.model.layers.0.self_attn.q_proj"
WIDTH = {"F32": 4, "F16": 2, "BF16": 2}


def floats(data: bytes, dtype: str) -> list[float]:
    """The numbers as somebody else reads them."""
    if dtype == "BF16":
        halves = struct.unpack(f"<{len(data) // 2}H", data)
        data = struct.pack(f"<{len(halves)}I", *(half << 16 for half in halves))
    letter, width = ("e", 2) if dtype == "F16" else ("f", 4)
    return list(struct.unpack(f"<{len(data) // width}{letter}", data))


def found(data: bytes, dtype: str, *, start: int = 0) -> list[str]:
    """The codes for an adapter whose A holds this data and whose B holds a one."""
    one = {"F32": 0x3F800000, "F16": 0x3C00, "BF16": 0x3F80}[dtype].to_bytes(WIDTH[dtype], "little")
    spans = [
        Span(f"{MODULE}.lora_A.weight", 0, len(data), dtype, [1, len(data) // WIDTH[dtype]]),
        Span(f"{MODULE}.lora_B.weight", len(data), len(data) + len(one), dtype, [1, 1]),
    ]
    return [one.code for one in check_weights(io.BytesIO(bytes(start) + data + one), spans, start)]


def expected(data: bytes, dtype: str) -> list[str]:
    values = floats(data, dtype)
    codes = [] if all(map(math.isfinite, values)) else ["not_finite"]
    return codes + ([] if not codes and any(values) else ["no_effect"])


@pytest.mark.parametrize("dtype", WIDTH)
@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_numbers_are_found_finite_and_zero_exactly_where_they_are(dtype: str, data: Any) -> None:
    special = st.sampled_from([b"\x00", b"\x7f", b"\x80", b"\xff", b"\x7c", b"\xf8", b"\x01"])
    piece = st.binary(min_size=1, max_size=1) | special
    raw = b"".join(data.draw(st.lists(piece, min_size=4, max_size=48)))
    raw = raw[: len(raw) // 4 * 4]
    assert found(raw, dtype) == expected(raw, dtype)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_every_number_of_two_bytes_is_judged_rightly(dtype: str) -> None:
    for bits in range(2**16):
        data = bits.to_bytes(2, "little")
        if (math.isfinite(floats(data, dtype)[0])) != ("not_finite" not in found(data, dtype)):
            raise AssertionError(f"{dtype} {bits:#06x}")


@pytest.mark.parametrize("dtype", WIDTH)
@pytest.mark.parametrize("where", [0, 1, _CHUNK_BYTES // 4 - 1, _CHUNK_BYTES // 4, _CHUNK_BYTES // 2, -1])
@pytest.mark.parametrize("start", [0, 8 + 777])
def test_one_number_that_is_none_is_found_anywhere(dtype: str, where: int, start: int) -> None:
    width = WIDTH[dtype]
    nan = {"F32": 0xFFC00001, "F16": 0xFE01, "BF16": 0xFFC1}[dtype].to_bytes(width, "little")
    data = bytearray(b"\x11" * (2 * _CHUNK_BYTES + 12 * width))
    assert found(bytes(data), dtype, start=start) == []
    place = (where % (len(data) // width)) * width
    data[place : place + width] = nan
    assert found(bytes(data), dtype, start=start)[0] == "not_finite"


@given(st.binary(min_size=8, max_size=8))
@example(b"\x00\x00\x00\x80" * 2)
def test_minus_zero_is_zero_too(data: bytes) -> None:
    assert ("no_effect" in found(data, "F32")) == (not any(floats(data, "F32")) or "not_finite" in found(data, "F32"))


def adapter(**halves: bytes) -> list[str]:
    """The codes for modules given as `name_A=…, name_B=…`."""
    spans, data = [], b""
    for name, numbers in halves.items():
        module, _, half = name.rpartition("_")
        spans.append(
            Span(f"base_model.model.{module}.lora_{half}.weight", len(data), len(data) + len(numbers), "F32", [1])
        )
        data += numbers
    return [one.code for one in check_weights(io.BytesIO(data), spans, 0)]


ONE, ZERO, MINUS_ZERO = struct.pack("<f", 1.0), struct.pack("<f", 0.0), struct.pack("<f", -0.0)


@pytest.mark.parametrize(
    ("halves", "codes"),
    [
        ({"q_A": ONE, "q_B": ONE}, []),
        ({"q_A": ONE, "q_B": ZERO}, ["no_effect"]),
        ({"q_A": ONE, "q_B": MINUS_ZERO}, ["no_effect"]),
        ({"q_A": ZERO, "q_B": ONE}, ["no_effect"]),
        ({"q_A": ONE, "q_B": ZERO, "k_A": ZERO, "k_B": ONE}, ["no_effect"]),
        ({"q_A": ONE, "q_B": ZERO, "k_A": ONE, "k_B": ONE}, []),
    ],
    ids=str,
)
def test_an_adapter_has_an_effect_if_one_module_has_two_halves_that_count(
    halves: dict[str, bytes], codes: list[str]
) -> None:
    assert adapter(**halves) == codes


def test_a_file_that_ends_too_early_is_not_finite() -> None:
    span = Span(f"{MODULE}.lora_A.weight", 0, 400, "F32", [100])
    assert next(check_weights(io.BytesIO(bytes(200)), [span], 0)).code == "not_finite"


def test_all_tensors_that_are_not_finite_are_counted() -> None:
    nan = struct.pack("<f", math.nan)
    spans = [Span(f"base_model.model.m{i}.lora_A.weight", i * 4, i * 4 + 4, "F32", [1]) for i in range(5)]
    finding = next(check_weights(io.BytesIO(nan * 3 + ONE * 2), spans, 0))
    assert finding.message.startswith("3 tensors hold NaN or infinity, 'base_model.model.m0.lora_A.weight'")
