"""What counts as personal data or a secret, what does not, and that looking for it needs no network."""

import socket
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.client import Message
from trainer.preflight.privacy import check_privacy, masked, sensitive
from trainer.preflight.reading import Row

SENSITIVE = {
    "write to jane.doe+shop@mail.example.org today": "EMAIL_ADDRESS",
    "call +49 30 1234567 now": "PHONE_NUMBER",
    "call (212) 555-0147 now": "PHONE_NUMBER",
    "on 020 7946 0958 please": "PHONE_NUMBER",
    "on 0171 / 6767562 please": "PHONE_NUMBER",
    "on 0041 44 479 27 35 please": "PHONE_NUMBER",
    "my phone is 5551234567": "PHONE_NUMBER",
    "card 4111 1111 1111 1111": "CREDIT_CARD",
    "card 378282246310005": "CREDIT_CARD",
    "to DE89 3704 0044 0532 0130 00": "IBAN_CODE",
    "to de89370400440532013000 please": "IBAN_CODE",
    "SSN 219-09-9999": "US_SSN",
    "from 84.112.37.9": "IP_ADDRESS",
    "from 2a02:810d:8abf::1": "IP_ADDRESS",
    "date of birth: 12.03.1985": "DATE_OF_BIRTH",
    "born on March 12, 1985": "DATE_OF_BIRTH",
    "to 1BoatSLRHtKNngkdXEeobR76b53LETtpyT": "CRYPTO",
    "key AKIAABCDEFGHIJKLMNOP": "AWS_KEY",
    "token ghp_" + "a1B2" * 9: "GITHUB_TOKEN",
    "sk-ant-" + "a1B2" * 9: "MODEL_API_KEY",
    "postgres://desk:hunter22@db:5432/x": "PASSWORD_IN_ADDRESS",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----": "PRIVATE_KEY",
    "password: Tr0ub4dor&3": "PASSWORD",
    "export DB_PASSWORD='Tr0ub4dor3'": "PASSWORD",
    "Authorization: Bearer " + "a1B2" * 9: "BEARER_TOKEN",
    "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.SflKxwRJSMeKKF2QT4": "JSON_WEB_TOKEN",
}
HARMLESS = [
    "write to support@shop.example",
    "order 4155550123 of 2024-05-06",
    "card 4111 1111 1111 1112",  # Luhn's sum is wrong
    "DE89 3704 0044 0532 0130 01",
    "your router is at 192.168.1.1 or 127.0.0.1",
    "version 1.2.3 of ISO 9001:2015, at 12:30:45",
    "password: at least twelve characters",
    "the secret is patience",
    "see https://shop.example/help?x=1",
    "part 12-3456-78, 100-200 euros, 1,000.50",
    "AKIA is a prefix, sk- is another",
    "born in Italy in 1985",
    "send Authorization: Bearer <token> with each call",
    "0021 4 rows of 30 and 0100 others",
]


@pytest.mark.parametrize("text", SENSITIVE)
def test_what_is_sensitive_is_found_and_masked(text: str) -> None:
    (spot,) = sensitive(text)
    assert spot.kind == SENSITIVE[text]
    assert text[spot.start : spot.end] not in masked(text) and f"<{spot.kind}>" in masked(text)
    assert sensitive(masked(text)) == []


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_nobodys_is_left_alone(text: str) -> None:
    assert sensitive(text) == [] and masked(text) == text


def test_nothing_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **more: Any) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert {one.kind for text in SENSITIVE for one in sensitive(text)} == set(SENSITIVE.values())


@given(st.lists(st.sampled_from([*SENSITIVE, *HARMLESS, "@", "x"]), max_size=5), st.text(max_size=3))
def test_places_do_not_overlap_and_masking_leaves_nothing_behind(parts: list[str], between: str) -> None:
    text = f" {between} ".join(parts)
    spots = sensitive(text)
    assert all(one.end <= other.start for one, other in pairwise(spots))
    assert all(0 <= one.start < one.end <= len(text) for one in spots)


def make_rows(answers: list[str]) -> list[Row]:
    prompt = (Message(role="user", content="q"),)
    return [Row(str(i), i, prompt, answer, "g", str(i), i) for i, answer in enumerate(answers, start=1)]


def test_a_finding_has_its_place_and_does_not_repeat_the_value() -> None:
    answer = "Write to jane@mail.example.org or joe@mail.example.org."
    (one,) = check_privacy(make_rows([answer]))
    assert one.span is not None and answer[one.span.start : one.span.end] == "jane@mail.example.org"
    assert "jane" not in one.message and one.rule == "W231"


def test_what_stands_in_many_rows_is_the_organisations_own_and_secrets_never_are() -> None:
    own = ["Write to jane@mail.example.org."] * 30 + ["Hello."] * 200
    assert check_privacy(make_rows(own)) == []
    assert len(check_privacy(make_rows(own[25:]))) == 5
    assert len(check_privacy(make_rows(["AKIAABCDEFGHIJKLMNOP"] * 230))) == 230
