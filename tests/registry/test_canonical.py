"""Canonical bytes are those of RFC 8785: every digest, and the journal's chain, is over them."""

from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from registry.names import canonical

LARGEST = 2**53 - 1
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-LARGEST, LARGEST)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([1.0, -0.0, 1e16, 1e22, 1e-5, 1e-7, 123456.0, 0.1, "1.0", "2e+5", ",1234567890123456", "1.0,"])
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@given(value=VALUES)
def test_bytes_are_those_of_the_reference_implementation(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value",
    [
        {"\ue000": 1, "\U00010000": 2, "a": 3},  # by UTF-16 code units the second comes before the first
        {"b": [1.0, 1e21, 1e-7, -0.0, 0.1], "a": {"": None}},
        "".join(map(chr, range(0x20))) + '"\\/\x7f\u2028é',
        ("tuple", True, {}, []),
    ],
)
def test_cases_that_tell_encoders_apart(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [2**53], {"a": -(2**53)}, "\ud800", {"\udfff": 1}])
def test_what_json_cannot_carry_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"domain|representable|surrogates"):
        canonical(value)
