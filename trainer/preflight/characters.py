"""Characters that went through the wrong character set, and white space that nobody meant. Pure.

UTF-8 read as Windows-1252 or Latin-1 leaves sequences that no language writes, and that decode to what was meant:

>>> repaired("Itâ€™s a cafÃ©"), repaired("naïve café, SÃO PAULO"), repaired("donâ€™t  \\r\\n")
('It’s a café', 'naïve café, SÃO PAULO', 'don’t')
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from trainer.preflight.codes import Problem, Span, found
from trainer.preflight.privacy import texts_of
from trainer.preflight.reading import Row
from trainer.preflight.text import prose

_HIGH = {byte: bytes([byte]).decode("cp1252", "replace") for byte in range(0x80, 0x100)}
# Windows-1252 leaves five bytes undefined; what reads it mostly gives Latin-1's control characters for them.
_BYTE = {chr(byte): byte for byte in range(0x80, 0x100)} | {
    char: byte for byte, char in _HIGH.items() if char != "\ufffd"
}


def _class(low: int, high: int) -> str:
    return "[" + "".join(re.escape(char) for char, byte in _BYTE.items() if low <= byte <= high) + "]"


_NEXT = _class(0x80, 0xBF)
# Lead bytes of what people lose: Latin letters and signs (C2, C3), punctuation and symbols (E2), the mark U+FEFF (EF),
# emoji (F0). œ and š (C4, C5) leave a capital within a word; in other scripts (Greek CE, Cyrillic D0 …) one pair may be
# a word's own letters, three in a row are not.
_BROKEN = re.compile(
    rf"(?:[\u00c2\u00c3]{_NEXT}|\u00e2{_NEXT}{{2}}|\u00ef\u00bb\u00bf|\u00f0\u0178{_NEXT}{{2}})+|"
    rf"(?<=[a-z])[\u00c4\u00c5]{_NEXT}|[\u00c4\u00c5]{_NEXT}(?=[a-z])|"
    rf"(?:{_class(0xC4, 0xDF)}{_NEXT}){{3,}}|(?:{_class(0xE3, 0xEF)}{_NEXT}{{2}}){{2,}}"
)
# UTF-8 read as Mac Roman: ‚Äô for ’, √© for é. Behind a lone â stands Windows-1252's â‚¬.
_MAC_NEXT = "[" + re.escape(bytes(range(0x80, 0xC0)).decode("mac_roman")) + "]"
_MATHS = "[\u03c0\u221e\u2211\u220f\u222b\u03a9\u2264\u2265]"  # what stands behind √ and ≈ in earnest
_MAC = re.compile(rf"(?:(?<!(?<!\u221a)\u00e2)\u201a{_MAC_NEXT}{{2}}|\u221a(?!{_MATHS}){_MAC_NEXT})+")
# Beside what leaves no way back: words of Latin-1's upper half only, as Cyrillic or Greek of one byte leaves them.
_LOST = re.compile(
    "\ufffd|\u00c3\u0083\u00c2|(?<=[^\\W\\d_])\\?{2,3}(?=[^\\W\\d_])|"
    "(?<![\u00c0-\u00ff])[\u00c0-\u00ff]{4,60}[ ,.-]{1,5}[\u00c0-\u00ff]{3,}"
)


def _misread(charset: str) -> re.Pattern[str]:
    """UTF-8 read as a charset of one byte: an accented letter within a word, a quotation mark, a run of another script.

    One pair counts only beside a plain small letter, since in the charset's own language it may be two letters; the
    pairs that begin with a box's corner are left out for the same reason.
    """
    table = {byte: bytes([byte]).decode(charset, "ignore") for byte in range(0x80, 0x100)}

    def any_of(low: int, high: int) -> str:
        return "[" + "".join(re.escape(table[byte]) for byte in range(low, high + 1)) + "]"

    following = any_of(0x80, 0xBF)
    # Mac Roman has ≈ where others have the lead byte of ő, ł and š.
    latin = f"(?!\u2248{_MATHS})[{re.escape(table[0xC3] + table[0xC5])}]{following}"
    mark = f"{re.escape(table[0xE2])}[{re.escape(table[0x80] + table[0x82] + table[0x84])}]{following}"
    script = f"(?:{any_of(0xCE, 0xD1)}{following}){{3,}}"
    # At most eight in a row: a long text of nothing else must not be read again from each of its places.
    beside = f"(?<=[a-z])(?:{latin}){{1,8}}|(?:{latin}){{1,8}}(?=[a-z])"
    return re.compile(f"(?:{beside}|(?:{mark})+|{script})")


_MISREAD: list[tuple[re.Pattern[str], Callable[[str], bytes]]] = [
    (_misread(charset), partial(str.encode, encoding=charset))
    for charset in ("cp437", "cp850", "cp1250", "cp1251", "cp866", "koi8_r", "mac_roman")
]
_ABOUT_MARKUP = re.compile(
    r"html|xml|markup|\btags?\b|\bentit(?:y|ies)\b|\bescape (?:sequence|character|code)|\bescaped\b", re.I
)
_CONTROL = re.compile("[\x01-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\u2060\ufeff]")
_HTML = re.compile(
    r"</(?:p|div|span|a|b|i|u|em|strong|ul|ol|li|table|t[dhr]|h[1-6]|font|script|style|body|html)>|<br ?/?>|"
    r"<!--[^<>]{0,80}-->|&(?:nbsp|amp|quot|lt|gt|apos|mdash|ndash|hellip|[lr]squo|[lr]dquo|#\d{2,5}|#x[0-9a-f]{2,5});",
    re.I,
)
# Where more rows than this share a habit, such as a leading space, it is how the data is written.
_HABIT = 0.05


def check_characters(rows: Sequence[Row]) -> list[Problem]:
    """Broken characters by text, then white space and control characters where few rows have them."""
    return [*_broken(rows), *_edges_and_html(rows)]


def repaired(text: str) -> str:
    """The text with broken characters restored, and without stray control characters and white space at its end."""
    for _ in range(2):  # what went through twice
        # Mac Roman first: the end of ‚Ä¶ before a letter looks like one of the other kind.
        text = _MAC.sub(lambda one: _decoded(one[0], _mac_bytes), text)
        text = _BROKEN.sub(lambda one: _decoded(one[0], _bytes), text)
        # Charsets share characters: the one that explains most of the text is the one that it went through.
        text = max((pattern.sub(partial(_meant, encode=encode), text) for pattern, encode in _MISREAD), key=_plainness)
    return _CONTROL.sub("", text.replace("\r\n", "\n")).strip()


def _broken(rows: Sequence[Row]) -> Iterator[Problem]:
    for row in rows:
        for name, text in texts_of(row):
            if text.isascii() and "??" not in text:
                continue
            match = _first_broken(text)
            if match:
                span = Span(name, match.start(), match.end())
                around = text[max(0, match.start() - 15) : match.end() + 15]
                message = f"{name} was decoded with the wrong character set: {around!r}"
                yield found("W246", message, row=row.number, line=row.line, span=span)


def _first_broken(text: str) -> re.Match[str] | None:
    for match in _BROKEN.finditer(text):
        if _decoded(match[0], _bytes) != match[0]:
            return match
    for pattern, encode in _MISREAD:
        for match in pattern.finditer(text):
            if _meant(match, encode) != match[0]:
                return match
    return _MAC.search(text) or _LOST.search(text)


def _edges_and_html(rows: Sequence[Row]) -> Iterator[Problem]:
    odd = [
        (row, name, what)
        for row in rows
        for name, text in texts_of(row)
        for what in _oddities(text)
        if not (what == "HTML" and any(_ABOUT_MARKUP.search(one.content) for one in row.prompt if one.role == "user"))
    ]
    habits = Counter((name, what) for _, name, what in odd)
    for row, name, what in odd:
        if habits[name, what] <= max(1, _HABIT * len(rows)) or what == "control characters":
            yield found("W252" if what == "HTML" else "W251", f"{name} has {what}", row=row.number, line=row.line)


def _oddities(text: str) -> Iterator[str]:
    if text[:1].isspace():
        yield "white space at its start"
    if text[-1:].isspace():
        yield "white space at its end"
    if _CONTROL.search(text):
        yield "control characters"
    if ("<" in text or "&" in text) and _HTML.search(prose(text)):
        yield "HTML"


def _plainness(text: str) -> int:
    """Misreading makes several characters of one, so the shortest reading explains most."""
    return -len(text)


def _meant(match: re.Match[str], encode: Callable[[str], bytes]) -> str:
    return _decoded(match[0], encode)


def _decoded(text: str, encode: Callable[[str], bytes]) -> str:
    """What the characters' bytes say as UTF-8, or the text as it is where they say nothing."""
    try:
        return encode(text).decode()
    except ValueError:
        return text


def _bytes(text: str) -> bytes:
    return bytes(_BYTE[char] for char in text)


def _mac_bytes(text: str) -> bytes:
    return text.encode("mac_roman")
