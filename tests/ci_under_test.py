"""A CI as its tokens show it: an issuer with a key of its own, and where it publishes that."""

import contextlib
import json
import threading
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from registry.records import Jwk

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
ISSUER, AUDIENCE = "https://ci.example", "tunegate"
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "repo:acme/bots:ref:refs/heads/main",
    "repository": "acme/bots",
    "repository_owner_id": "65",
    "ref": "refs/heads/main",
}


def claims_at(now: datetime, **more: Any) -> dict[str, Any]:
    """Claims of a token that begins now and lives for five minutes, with an id of its own."""
    seconds = int(now.timestamp())
    times = {"iat": seconds, "nbf": seconds, "exp": seconds + 300, "jti": str(uuid.uuid4())}
    return {**CLAIMS, **times, **more}


class Issuer:
    """A key and the tokens it signs. Making an RSA key takes a tenth of a second."""

    def __init__(self, algorithm: str = "ES256", key_id: str = "k1", bits: int = 2048) -> None:
        self.algorithm, self.key_id = algorithm, key_id
        self._key: Any = (
            rsa.generate_private_key(public_exponent=65537, key_size=bits)
            if algorithm == "RS256"
            else ec.generate_private_key(ec.SECP256R1())
        )

    @property
    def public_fields(self) -> dict[str, Any]:
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        fields: dict[str, Any] = json.loads(algorithm.to_jwk(self._key.public_key()))
        return {name: value for name, value in fields.items() if name != "key_ops"} | {"kid": self.key_id}

    @property
    def public(self) -> Jwk:
        return Jwk(**self.public_fields)

    @property
    def public_pem(self) -> bytes:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        pem: bytes = self._key.public_key().public_bytes(serialization.Encoding.PEM, form)
        return pem

    def token(self, claims: dict[str, Any] | None = None, headers: dict[str, Any] | None = None) -> str:
        """A token with these claims (default: good ones at NOW); `headers` go over the good ones."""
        payload = claims_at(NOW) if claims is None else claims
        head = {"alg": self.algorithm, "typ": "JWT", "kid": self.key_id, **(headers or {})}
        signing = jwt.get_algorithm_by_name(self.algorithm)
        parts = [json.dumps(one).encode() for one in (head, payload)]
        text = b".".join(jwt.utils.base64url_encode(part) for part in parts)
        return b".".join([text, jwt.utils.base64url_encode(signing.sign(text, self._key))]).decode()


class Published:
    """What a loopback server answers, and how often it was asked."""

    def __init__(self) -> None:
        self.status, self.body, self.asked = 200, b"", 0
        self.headers: dict[str, str] = {}
        self.url = ""

    def show(self, keys: Sequence[Issuer]) -> None:
        self.status, self.body = 200, json.dumps({"keys": [one.public_fields for one in keys]}).encode()


@contextlib.contextmanager
def published(*keys: Issuer) -> Iterator[Published]:
    """These keys at an address of this machine."""
    found = Published()
    found.show(keys)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked += 1
            self.send_response(found.status)
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(found.body)))
            self.end_headers()
            self.wfile.write(found.body)

        def log_message(self, *_: Any) -> None:
            """Tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}/keys"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
