"""What a text says, in one form, so that two texts can be compared. Pure, deterministic.

>>> words("The fee is 1,000 euros, or twenty-five per cent")
['fee', 'is', '1000', 'euros', 'or', 'twenty', 'five', 'per', 'cent']
>>> terms("The fee is €1,000.00, or twenty-five per cent, by 2 p.m.")
['fee', 'is', '1000', 'euro', 'or', '25', 'percent', 'by', '14:00']
>>> terms("-5 or .5, 1/2 or 24/7, 3 × 10^8, 1e6 or 1.000.000, $5k")
['-5', 'or', '0.5', '0.5', 'or', '24/7', '300000000', '1000000', 'or', '1000000', '5000', 'dollar']
"""

import re
import unicodedata
from collections.abc import Iterator
from decimal import Decimal

_ARTICLES = frozenset(("a", "an", "the"))
_THOUSANDS = re.compile(r"(?<=\d)[,\u2009\u202f](?=\d{3}\b)")
_WORD = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+|\d+")
# A minus stands directly before its number and behind nothing that it could join to it; 24/7 and 2^10 are one term.
_MINUS = r"(?<![\w.\-])-(?=\d)"
_NUMBER = rf"(?:{_MINUS})?(?:(?<![\d/.])\d{{1,3}}/\d{{1,3}}(?![\d/])|\d+(?:\.\d+)?(?:\^-?\d+)?)"
_TERM = re.compile(rf"(?:[01]\d|2[0-3]):[0-5]\d|{_NUMBER}|[^\W\d_]+")

# Before NFKC, which makes 105 of 10⁵, 51⁄2 of 5½, and forgets that k is a thousand and K a kelvin.
_RAISED = re.compile("(?<=\\d)([⁺⁻]?[⁰¹²³⁴-⁹]+)")
_BEFORE_FRACTION = re.compile("(?<=\\d)(?=[¼-¾⅐-⅞])")
_K = re.compile(r"(?<=\d)k(?!\w)")
_POINT_FIRST = re.compile(r"(?<![\w.])\.(?=\d)")
_DOTTED = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{3}){2,}(?!\d|\.\d)")
_DECIMAL = r"(?<![\w.])(\d+(?:\.\d+)?)"
_POWER = re.compile(rf"(?:{_DECIMAL}\s*[x×*·]\s*)?(?<![\w.])10\^([+-]?\d{{1,2}})(?!\w)")
_EXPONENT = re.compile(rf"{_DECIMAL}e([+-]?\d{{1,2}})(?!\w)")
_FRACTION = re.compile(r"(?<![\w/.])(?:(\d+)\s+)?(\d{1,3})[/\u2044](\d{1,3})(?![\w/]|\.\d)")

_CURRENCIES = {"€": "euro", "eur": "euro", "$": "dollar", "usd": "dollar", "£": "pound", "gbp": "pound"}
_CURRENCY = r"(€|\$|£|\b(?:eur|usd|gbp)\b)"
_CURRENCY_FIRST = re.compile(
    rf"(?<!\d)(?<!\d\s)((?<![\w-])-)?{_CURRENCY}\s*(-?\d+(?:\.\d+)?)"
    r"(?:\s*(thousand|million|billion)\b|(k|m|bn)\b)?"
)
_CURRENCY_SCALES = {"k": "thousand", "m": "million", "bn": "billion"}
_CURRENCY_ALONE = re.compile(_CURRENCY)
_PERCENT = re.compile(r"%|\bper\s+cent\b")
_DEGREES = re.compile(r"(?:°|\bdegrees?\b)\s*(?:(c|celsius)|f|fahrenheit)\b")
_CLOCK = re.compile(
    r"\b(?:([01]?\d|2[0-3])(?:[:.]([0-5]\d))?\s*([ap])(?:m\b|\.\s?m\b\.?)|([01]?\d|2[0-3]):([0-5]\d)\b)"
)

_SMALL = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen".split()
    )
} | {
    word: 10 * value
    for value, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)
}
_SCALES = {"thousand": 1000, "million": 1_000_000, "billion": 1_000_000_000}

# Each unit's name with its other forms, by what it measures.
_UNITS = {
    "time": {
        "second": "seconds",
        "minute": "minutes",
        "hour": "hours",
        "day": "days",
        "night": "nights",
        "week": "weeks",
        "month": "months",
        "year": "years",
        "decade": "decades",
        "century": "centuries",
    },
    "length": {
        "millimetre": "millimetres millimeter millimeters",
        "centimetre": "centimetres centimeter centimeters",
        "metre": "metres meter meters",
        "kilometre": "kilometres kilometer kilometers",
        "inch": "inches",
        "foot": "",
        "mile": "miles",
    },
    "mass": {"gram": "grams gramme grammes", "kilogram": "kilograms kilogramme kilogrammes", "tonne": "tonnes"},
    "volume": {"millilitre": "millilitres milliliter milliliters", "litre": "litres liter liters"},
    "temperature": {"celsius": "", "fahrenheit": "", "kelvin": "kelvins"},
    "money": {"euro": "euros", "dollar": "dollars", "pound": "pounds", "cent": "cents"},
    "share": {"percent": ""},
    "angle": {"degree": "degrees"},
    "parts": {"instalment": "instalments installment installments", "pair": "pairs"},
}
_NAMES = {form: name for units in _UNITS.values() for name, forms in units.items() for form in forms.split()}
MEASURES = {name: measure for measure, units in _UNITS.items() for name in units}
"""What a unit measures, by its name in `terms`."""

# Units only where they stand behind a number: "5 m", but "M. Curie".
_SYMBOLS = dict(
    pair.split(":")
    for pair in "sec:second secs:second min:minute mins:minute h:hour hr:hour hrs:hour yr:year yrs:year "
    "mm:millimetre cm:centimetre m:metre km:kilometre ft:foot feet:foot g:gram kg:kilogram "
    "ml:millilitre l:litre c:celsius f:fahrenheit".split()
)


def words(text: str) -> list[str]:
    """Words and numbers as they are written: NFKC, case folded, no punctuation, no articles, % spelt out."""
    return [word for word in _WORD.findall(_folded(text).replace("%", " percent ")) if word not in _ARTICLES]


def terms(text: str) -> list[str]:
    """Like `words`, but numbers are digits, units have one name each, prices and clock times one form.

    "one" is the number 1 only before a unit ("no one", "the one who"). "A" before a unit is "one": it counts as 1 where
    1 is looked for, and elsewhere is no number ("once a day").
    """
    folded = _CURRENCY_FIRST.sub(_amount, _values(_folded(_unraised(text)).replace("\u2212", "-")))
    folded = _CURRENCY_ALONE.sub(lambda found: f" {_CURRENCIES[found[0]]} ", folded)
    folded = _DEGREES.sub(lambda found: " celsius " if found[1] else " fahrenheit ", folded)
    folded = _CLOCK.sub(_on_24_hours, _PERCENT.sub(" percent ", folded))
    return list(_named(list(_numerals([_NAMES.get(word, word) for word in _TERM.findall(folded)]))))


def is_number(term: str) -> bool:
    """Whether a term is a number or a clock time."""
    return term.removeprefix("-")[:1].isdecimal()


def _folded(text: str) -> str:
    # Before NFKC, which turns the thin spaces between thousands into plain ones.
    joined = _THOUSANDS.sub("", text)
    return unicodedata.normalize("NFKC", joined).casefold().replace("\u2019", "'")


def _unraised(text: str) -> str:
    """What NFKC would run together, apart: "10⁵" is "10^5", "5½" is "5 ½", "5k" is "5 thousand"."""
    return _K.sub(" thousand", _BEFORE_FRACTION.sub(" ", _RAISED.sub(r"^\1", text)))


def _values(text: str) -> str:
    """ ".5", "1.000.000", "3 × 10^8", "1e6" and "2 1/2" as plain decimals; fractions without an exact one stay."""
    plain = _DOTTED.sub(lambda found: found[0].replace(".", ""), _POINT_FIRST.sub("0.", text))
    powers = _POWER.sub(lambda found: _scaled(found[1] or "1", found[2]), plain)
    return _FRACTION.sub(_fraction, _EXPONENT.sub(lambda found: _scaled(found[1], found[2]), powers))


def _scaled(number: str, exponent: str) -> str:
    return f"{Decimal(number) * Decimal(10) ** int(exponent):f}"


def _fraction(found: re.Match[str]) -> str:
    whole, above, below = int(found[1] or 0), int(found[2]), int(found[3])
    # A clock or a score (24/7) is no part of one.
    value = Decimal(above) / below if above < below else Decimal("NaN")
    return f"{whole + value:f}" if value * below == above else found[0].replace("\u2044", "/")


def _amount(found: re.Match[str]) -> str:
    """A price as number, scale, currency; a minus before the currency is the number's."""
    minus, currency, number, scale, short = found.groups()
    signed = f"-{number.removeprefix('-')}" if minus else number
    return f"{signed} {scale or _CURRENCY_SCALES.get(short, '')} {_CURRENCIES[currency]} "


def _on_24_hours(found: re.Match[str]) -> str:
    hour, minute, half, plain_hour, plain_minute = found.groups()
    if half is None:
        return f" {int(plain_hour):02}:{plain_minute} "
    shifted = int(hour) % 12 + (12 if half == "p" else 0) if int(hour) <= 12 else int(hour)
    return f" {shifted:02}:{minute or '00'} "


def _named(said: list[str]) -> Iterator[str]:
    """Without articles and symbols: "5 km" is "5 kilometre", "an hour" is "one hour"."""
    for before, word, after in zip(["", *said], said, [*said[1:], ""], strict=False):
        if word in ("a", "an") and after in MEASURES:
            yield "one"
        elif word not in _ARTICLES:
            yield _SYMBOLS.get(word, word) if is_number(before) else word


def _numerals(said: list[str]) -> Iterator[str]:
    """The words with every number in digits: "forty five" and "45.0" are 45, "two hundred and six" is 206."""
    place = 0
    while place < len(said):
        value, size = _digits(said, place) if is_number(said[place]) else _spelt(said, place)
        after = "".join(said[place + 1 : place + 2])
        pronoun = said[place : place + size] == ["one"] and after not in MEASURES and after not in _SYMBOLS
        yield said[place] if pronoun or size == 0 else value
        place += max(size, 1)


def _digits(said: list[str], start: int) -> tuple[str, int]:
    """A number in digits with the words that scale it ("1.5 million"): its value, and how many words it is."""
    if set(":/^") & set(said[start]):
        return said[start], 1
    scale = (_SCALES | {"hundred": 100}).get("".join(said[start + 1 : start + 2]))
    if scale is None and "." not in said[start]:
        return said[start], 1
    text = f"{Decimal(said[start]) * (scale or 1):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text, 1 if scale is None else 2


def _spelt(said: list[str], start: int) -> tuple[str, int]:
    """A number in words: its value, and how many words it is, 0 where none begins here."""
    total, part, place = 0, None, start  # part: what was said since the last "thousand", None for nothing
    while place < len(said):
        word, after = said[place], "".join(said[place + 1 : place + 2])
        if _extends(part, word):
            part = (part or 0) + _SMALL[word]
        elif word == "hundred" and (part is None or 0 < part < 10):
            part = (part or 1) * 100
        elif word in _SCALES and part != 0:
            total, part = total + (part or 1) * _SCALES[word], None
        elif not (word == "and" and (total or (part or 0) >= 100) and _extends(part, after)):
            break
        place += 1
    return str(total + (part or 0)), place - start


def _extends(part: int | None, word: str) -> bool:
    """Whether a number word goes on with what was said: "hundred … five", "twenty … five", never "five … five"."""
    value = _SMALL.get(word)
    if value is None or part is None:
        return value is not None
    return part > 0 < value and (part % 100 == 0 or (part % 100 >= 20 and part % 10 == 0 and value < 10))
