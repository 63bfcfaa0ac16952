"""Personal data and secrets in texts. Pure, offline: nothing is downloaded and no name is looked up.

Personal data that has a form: e-mail addresses, phone, card, account (IBAN) and social security numbers, IP addresses,
crypto wallets, dates of birth. presidio's recognisers find and verify those with a checksum; what is written like a
phone number or an e-mail address counts even where nobody answers there. **Names of people and postal addresses are not
found**: that takes a language model. Secrets are known by their issuers' prefixes.

An address of a role (support@…), of a private network, and whatever stands in many rows is the organisation's own.
"""

import ipaddress
import re
import string
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

from trainer.preflight.codes import Problem, Span, found
from trainer.preflight.reading import Row

# A value that stands in more of the rows than this is the organisation's own, in a set of at least so many rows.
_OWN_SHARE, _OWN_ROWS = 0.05, 100


class Sensitive(NamedTuple):
    """A place in a text. `kind` names what it is, in capitals as presidio does; `code` is the rule's."""

    code: str
    kind: str
    start: int
    end: int


_SECRETS = {
    "PRIVATE_KEY": r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY[A-Z ]{0,10}-----(?:[\s\S]{0,8000}?-----END [A-Z ]{1,50}-----)?",
    "AWS_KEY": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "GITHUB_TOKEN": r"\b(?:gh[pousr]_[0-9A-Za-z]{30,}|github_pat_[0-9A-Za-z_]{40,})",
    "GITLAB_TOKEN": r"\bglpat-[0-9A-Za-z_-]{20,}",
    "SLACK_TOKEN": r"\bxox[abeoprs]-[0-9A-Za-z-]{10,}|hooks\.slack\.com/services/[0-9A-Za-z/]{20,}",
    "STRIPE_KEY": r"\b(?:sk|rk|pk)_(?:live|test)_[0-9A-Za-z]{16,}",
    "MODEL_API_KEY": r"\bsk-(?:ant-|proj-|svcacct-|or-)?[0-9A-Za-z_-]{20,}",
    "GOOGLE_KEY": r"\bAIza[0-9A-Za-z_-]{35}|\bya29\.[0-9A-Za-z_-]{20,}",
    "HUGGING_FACE_TOKEN": r"\bhf_[0-9A-Za-z]{30,}",
    "PACKAGE_TOKEN": r"\bnpm_[0-9A-Za-z]{36}\b|\bpypi-[0-9A-Za-z_-]{50,}",
    "SENDGRID_KEY": r"\bSG\.[0-9A-Za-z_-]{16,}\.[0-9A-Za-z_-]{16,}",
    "TWILIO_KEY": r"\b(?:SK|AC)[0-9a-f]{32}\b",
    "TELEGRAM_TOKEN": r"\b\d{8,10}:AA[0-9A-Za-z_-]{33}",
    "AZURE_KEY": r"AccountKey=[0-9A-Za-z+/=]{40,}",
    "JSON_WEB_TOKEN": r"\beyJ[0-9A-Za-z_-]{8,}\.eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}",
    "PASSWORD_IN_ADDRESS": r"\b[a-z][a-z0-9+.-]*://[^\s/:@]+:[^\s/:@]{3,}@[^\s/]+",
    "BEARER_TOKEN": r"(?i:authorization\W{1,4}(?:bearer|basic)\s+)(?=[^\s\"']*\d)[0-9A-Za-z._~+/=-]{20,}",
    "AWS_SECRET": r"(?i:aws_?secret_?(?:access_?)?key)\W{1,5}[0-9A-Za-z/+]{40}\b",
}
_SECRET = re.compile("|".join(f"(?P<{kind}>{form})" for kind, form in _SECRETS.items()))
# What every form above needs; the whole list is looked for only where this is found.
_HINT = re.compile(
    r"-----BEGIN|AKIA|ASIA|gh[pousr]_|github_pat|glpat|xox|hooks\.slack|[srp]k[_-]|AIza|ya29|hf_|npm_|pypi-|SG\.|SK|"
    r"AC[0-9a-f]|:AA|AccountKey|eyJ|://|(?i:secret|authorization)"
)
# "password: Tr0ub4dor&3": what follows must be no word of a sentence, so it has a digit and a letter.
_PASSWORD = re.compile(
    r"(?<![A-Za-z])(?:pass(?:word|wd|phrase|code)?|pwd|secret|(?:api|access)[ _-]?key|"
    r"(?:auth|access)[ _-]?token|credentials?)"
    r"(?:\s+is|\s*[:=])\s*[\"'`]?(?P<value>[^\s\"'`,;]{6,})",
    re.I,
)

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.)+[^\W\d_]{2,24}\b")
_ROLE_ADDRESS = re.compile(
    r"(?:support|help(?:desk)?|info|contact|service|sales|no-?reply|hello|office|admin|billing|orders?|returns?|press|"
    r"security|privacy|careers|jobs|team|feedback|customer[._-]?(?:care|service|support)|accounts?|care|legal|abuse|hr)@",
    re.I,
)
# As people write phone numbers: +49 30 1234567, 0049 30 123 45 67, (212) 555-0147, 212-555-0147, 0171 / 1234567.
_PHONE = re.compile(
    r"(?<![\w.+-])(?<!\d )(?:\+\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,6}|\(\d{3}\) ?\d{3}[ .-]\d{4}|"
    r"(?:1[ .-])?\d{3}([ .-])\d{3}\1\d{4}|0\d{2,4}(?: ?/ ?|[ -])\d{3,4}[ -]?\d{3,5}|"
    r"00[1-9]\d{0,2}(?:[ .-]\d{2,4}){3,5})(?![\w-])"
)
_PHONE_WORD = re.compile(r"\b(?:phone|tele?phone|tel|call|cell|mobile|fax|whatsapp|text me|sms|ring|reach me)\b", re.I)
_BARE_PHONE = re.compile(r"(?<![\w.+-])(?:\d{10,11}|\d{3}[ .-]\d{4})(?![\w-])")
_BIRTH = re.compile(
    r"\b(?:date of birth|birth ?date|d\.?o\.?b\.?|born(?: on)?)\b\W{0,6}(?:is |was )?"
    r"(?P<value>\d{1,4}[./-]\d{1,2}[./-]\d{1,4}|"
    r"\d{1,2}(?:st|nd|rd|th)? (?:of )?[A-Z][a-z]{2,8},? \d{4}|[A-Z][a-z]{2,8} \d{1,2}(?:st|nd|rd|th)?,? \d{4})",
    re.I,
)
_SSN = re.compile(r"(?<![\w-])(?!000|666)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
_CAPITALS = {ord(letter): letter.upper() for letter in string.ascii_lowercase}
_RUN_OF_DIGITS = re.compile(r"\d(?:[ -]?\d){11,18}")


def sensitive(text: str) -> list[Sensitive]:
    """Every secret and every piece of personal data in a text; they do not overlap, the widest counts."""
    places = [*_secrets(text), *_passwords(text), *_personal(text)]
    places.sort(key=lambda one: (one.start, -one.end, one.code))
    kept: list[Sensitive] = []
    for place in places:
        if not kept or place.start >= kept[-1].end:
            kept.append(place)
    return kept


def check_privacy(rows: Sequence[Row]) -> list[Problem]:
    """One finding for each kind in each text of a row, at its first place."""
    places = [(row, name, text, sensitive(text)) for row in rows for name, text in texts_of(row)]
    spread: Counter[str] = Counter()
    for row_values in _values_by_row(places).values():
        spread.update(row_values)
    own = {value for value, count in spread.items() if len(rows) >= _OWN_ROWS and count > _OWN_SHARE * len(rows)}
    problems = []
    for row, name, text, spots in places:
        kinds: set[str] = set()
        for spot in spots:
            if spot.kind in kinds or (spot.code == "W231" and text[spot.start : spot.end] in own):
                continue
            kinds.add(spot.kind)
            message = f"{name} holds {_ARTICLE.get(spot.kind[0], 'a')} {spot.kind.lower().replace('_', ' ')}"
            span = Span(name, spot.start, spot.end)
            problems.append(found(spot.code, message, row=row.number, line=row.line, span=span))
    return problems


def texts_of(row: Row) -> list[tuple[str, str]]:
    """Name and text of every message of a row; a later message of a conversation has its place in its name."""
    named = [(f"{one.role} {place}", one.content) for place, one in enumerate(row.prompt, start=1)]
    return [*named, ("answer", row.completion)]


def masked(text: str) -> str:
    """The text with a mark such as <EMAIL_ADDRESS> in place of everything sensitive."""
    for spot in reversed(sensitive(text)):
        text = f"{text[: spot.start]}<{spot.kind}>{text[spot.end :]}"
    return text


_ARTICLE = dict.fromkeys("AEIOU", "an")


def _values_by_row(places: Iterable[tuple[Row, str, str, list[Sensitive]]]) -> dict[int, set[str]]:
    values: dict[int, set[str]] = {}
    for row, _, text, spots in places:
        values.setdefault(row.line, set()).update(text[one.start : one.end] for one in spots)
    return values


def _secrets(text: str) -> Iterable[Sensitive]:
    if not _HINT.search(text):
        return []
    return [Sensitive("E230", str(one.lastgroup), one.start(), one.end()) for one in _SECRET.finditer(text)]


def _passwords(text: str) -> Iterable[Sensitive]:
    for one in _PASSWORD.finditer(text):
        value = one["value"].rstrip(".!?)")
        if any(char.isdigit() for char in value) and any(char.isalpha() for char in value):
            yield Sensitive("W232", "PASSWORD", one.start("value"), one.start("value") + len(value))


def _personal(text: str) -> Iterable[Sensitive]:
    """Each recogniser runs only where the characters stand that its finds are made of."""

    def personal(kind: str, start: int, end: int) -> Sensitive:
        return Sensitive("W231", kind, start, end)

    if "@" in text:
        for one in _EMAIL.finditer(text):
            if not _ROLE_ADDRESS.match(one[0]):
                yield personal("EMAIL_ADDRESS", one.start(), one.end())
    if not any(char.isdigit() for char in text):
        return
    for one in _BIRTH.finditer(text):
        yield personal("DATE_OF_BIRTH", one.start("value"), one.end("value"))
    for one in _SSN.finditer(text):
        yield personal("US_SSN", one.start(), one.end())
    for start, end in _phones(text):
        yield personal("PHONE_NUMBER", start, end)
    for recogniser in _RECOGNISERS:
        if recogniser.needs.search(text):
            # Accounts are written in small letters as well; the checksum wants capitals.
            shown = text.translate(_CAPITALS) if recogniser.entity == "IBAN_CODE" else text
            for result in _presidio(recogniser.name).analyze(shown, [recogniser.entity], None):
                if result.score >= recogniser.least and not _harmless(
                    recogniser.entity, text[result.start : result.end]
                ):
                    yield personal(recogniser.entity, result.start, result.end)


def _phones(text: str) -> Iterable[tuple[int, int]]:
    for one in _PHONE.finditer(text):
        if 7 <= sum(char.isdigit() for char in one[0]) <= 15:
            yield one.start(), one.end()
    if _PHONE_WORD.search(text):
        for one in _BARE_PHONE.finditer(text):
            if _PHONE_WORD.search(text, max(0, one.start() - 40), one.start()):
                yield one.start(), one.end()


def _harmless(kind: str, value: str) -> bool:
    """An address that is nobody's: of this machine, of a private network, of none."""
    if kind != "IP_ADDRESS":
        return False
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return True  # an embedded form that Python knows no owner of
    reserved = address.is_loopback or address.is_unspecified or address.is_multicast or address.is_link_local
    private = any(address in network for network in _PRIVATE if network.version == address.version)
    return reserved or private


_PRIVATE = [ipaddress.ip_network(one) for one in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")]


class _Recogniser(NamedTuple):
    """`needs`: what must stand in a text for this recogniser to find anything. `least`: the score that counts."""

    name: str
    entity: str
    needs: re.Pattern[str]
    least: float


# Those of presidio that verify what they match: a checksum, or an address that parses.
_RECOGNISERS = (
    _Recogniser("CreditCardRecognizer", "CREDIT_CARD", _RUN_OF_DIGITS, 0.9),
    _Recogniser("IbanRecognizer", "IBAN_CODE", re.compile(r"\b[A-Za-z]{2}\d{2}[ ]?[A-Za-z0-9]{4}"), 0.9),
    _Recogniser(
        "IpRecognizer",
        "IP_ADDRESS",
        re.compile(r"\d(?:\.\d{1,3}){3}|[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]{2,}"),
        0.5,
    ),
    _Recogniser("CryptoRecognizer", "CRYPTO", re.compile(r"\b(?:bc1|[13])[0-9A-Za-z]{25,59}\b"), 0.9),
)


# presidio imports these for recognisers that we do not use: 13 CPU seconds. It goes without where they are missing.
_HEAVY = ("torch", "transformers")


@cache
def _presidio(name: str) -> Any:
    """One of presidio's recognisers by itself: a pattern is matched, then verified, and no NLP engine is needed."""
    hidden = [one for one in _HEAVY if one not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None makes an import fail
    try:
        from presidio_analyzer import predefined_recognizers
    finally:
        for one in hidden:
            del sys.modules[one]
    return getattr(predefined_recognizers, name)()
