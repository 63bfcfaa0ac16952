"""The numbers of an adapter: every one finite, and some that change the model. Reads the file through once.

A number of any of the three types is not finite exactly when all bits of its exponent are set. Adding one at the lowest
bit of the exponent then carries into the sign's place, for a whole chunk of numbers at once: two additions' worth of
arithmetic on one huge integer look through about a gigabyte a second, with no package.

>>> import io, struct
>>> span = Span("base_model.model.q_proj.lora_A.weight", 0, 8, "F32", [1, 2])
>>> [finding.code for finding in check_weights(io.BytesIO(struct.pack("<2f", 1.0, float("nan"))), [span], 0)]
['not_finite', 'no_effect']
"""

import functools
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from registry.inspection.adapter import Span
from registry.inspection.findings import error, short, warning
from registry.records import Finding

# Small enough that its integers stay in the processor's cache and other threads get their turn.
_CHUNK_BYTES = 256 * 1024


class _Format(NamedTuple):
    """A number's width in bytes, its bits without the sign, the lowest bit of its exponent, and its sign."""

    width: int
    magnitude: int
    exponent: int
    sign: int


_FORMATS = {
    "F32": _Format(4, 0x7FFF_FFFF, 0x0080_0000, 0x8000_0000),
    "F16": _Format(2, 0x7FFF, 0x0400, 0x8000),
    "BF16": _Format(2, 0x7FFF, 0x0080, 0x8000),
}


def check_weights(file: BinaryIO, spans: Sequence[Span], start: int) -> Iterator[Finding]:
    """The findings on the numbers in `spans`, whose offsets count from `start` in the file."""
    not_finite: list[str] = []
    halves_that_count: dict[str, set[str]] = {}
    for span in spans:
        file.seek(start + span.begin)
        finite, zero = _look_through(file, span)
        if not finite:
            not_finite.append(span.name)
        elif not zero:
            module, _, half = span.name.removesuffix(".weight").rpartition(".")
            halves_that_count.setdefault(module, set()).add(half)
    if not_finite:
        yield error(
            "not_finite",
            f"{len(not_finite)} tensors hold NaN or infinity, {short(not_finite[0])} for one; every score would be NaN "
            "too; train with a smaller learning rate",
        )
    if not any(len(halves) == 2 for halves in halves_that_count.values()):
        yield warning(
            "no_effect", "in every module lora_A or lora_B is all zero, so this is the base model; was it trained?"
        )


def _look_through(file: BinaryIO, span: Span) -> tuple[bool, bool]:
    """Whether all numbers are finite, and whether all are zero."""
    left, finite, zero = span.end - span.begin, True, True
    while left and finite:
        chunk = file.read(min(left, _CHUNK_BYTES))
        if not chunk:
            return False, False
        left -= len(chunk)
        finite, chunk_is_zero = _look_at(chunk, _FORMATS[span.dtype])
        zero = zero and chunk_is_zero
    return finite, zero


def _look_at(chunk: bytes, form: _Format) -> tuple[bool, bool]:
    lanes = len(chunk) // form.width
    magnitudes = int.from_bytes(chunk, "little") & _repeated(form.magnitude, form.width, lanes)
    carried = magnitudes + _repeated(form.exponent, form.width, lanes)
    return not carried & _repeated(form.sign, form.width, lanes), not magnitudes


@functools.lru_cache(maxsize=64)
def _repeated(bits: int, width: int, lanes: int) -> int:
    """The same bits in every lane of an integer."""
    return int.from_bytes(bits.to_bytes(width, "little") * lanes, "little")
