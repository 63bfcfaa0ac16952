"""Forms that only this registry's own pages can send.

A form is accepted when three things hold: it has the content type of a form, its Origin (if the browser names one) is
this host, and it carries a token that a page of ours was given for this browser and this session. The token is an HMAC,
under a key of this process, of a random value in a cookie and of the session's cookie, so a planted cookie is no use.
"""

import hmac
import re
import secrets
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from registry.errors import Forbidden, InvalidRequest

SESSION_COOKIE = "tunegate_token"
FORM_COOKIE = "tunegate_form"
FIELD = "form_token"
MOST_BYTES = 64 * 1024
_NONCE = re.compile(r"[0-9a-f]{32}", re.ASCII)
_MOST_FIELDS = 20


class Ticket(NamedTuple):
    """What a page's forms carry. `new_nonce`: to be set as FORM_COOKIE, where the browser has none yet."""

    token: str
    new_nonce: str | None


def ticket(cookies: Mapping[str, str], key: bytes) -> Ticket:
    """The token for the forms of a page that is shown to the browser with these cookies."""
    known = cookies.get(FORM_COOKIE, "")
    if _NONCE.fullmatch(known):
        return Ticket(_token(known, cookies, key), None)
    nonce = secrets.token_hex(16)
    return Ticket(_token(nonce, cookies, key), nonce)


def read_form(body: bytes) -> dict[str, str]:
    """The fields of a form, the first value of each; InvalidRequest for what no form of ours sends."""
    try:
        found = parse_qs(body.decode("utf-8", "replace"), max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise InvalidRequest(f"the form has more than {_MOST_FIELDS} fields") from None
    return {name: values[0] for name, values in found.items()}


def require_own(
    form: Mapping[str, str], cookies: Mapping[str, str], key: bytes, *, origin: str | None, host: str | None
) -> None:
    """Raises Forbidden unless a page of ours, shown to this browser, sent the form."""
    if origin is not None and urlsplit(origin).netloc != host:
        raise Forbidden("this form was sent from another site; open the registry's own page")
    nonce = cookies.get(FORM_COOKIE, "")
    sent = form.get(FIELD, "").encode()
    if not _NONCE.fullmatch(nonce) or not hmac.compare_digest(sent, _token(nonce, cookies, key).encode()):
        raise Forbidden(
            "this form is not from a page that this registry showed you; load the page again and send it anew"
        )


def _token(nonce: str, cookies: Mapping[str, str], key: bytes) -> str:
    message = f"{nonce}.{cookies.get(SESSION_COOKIE, '')}"
    return hmac.new(key, message.encode("utf-8", "surrogatepass"), "sha256").hexdigest()
