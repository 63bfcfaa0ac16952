"""How a message is signed: the symmetric scheme of Standard Webhooks (https://www.standardwebhooks.com), version 1.

A webhook's secret is derived from one secret file of the service, so that none has to be stored: the journal keeps a
digest of it, by which a lost or foreign file is noticed before anything is signed with the wrong secret.
"""

import base64
import hmac
import secrets
from pathlib import Path

from registry.errors import StorageDamaged
from registry.names import sha256_hex
from registry.storage.files import write_durably

_SECRET_BYTES = 32
_DOMAIN = b"tunegate webhook secret v1\n"


def service_secret(path: Path) -> bytes:
    """What all webhooks' secrets are derived from; made on first use. StorageDamaged for a file that is not ours."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_durably(path, secrets.token_bytes(_SECRET_BYTES))
    found = path.read_bytes()
    if len(found) != _SECRET_BYTES:
        raise StorageDamaged(
            f"{path} has {len(found)} bytes instead of {_SECRET_BYTES}; restore the keys from a backup"
        )
    return found


def webhook_secret(service: bytes, webhook: str) -> str:
    """The secret of one webhook as its receiver is given it, `whsec_` and base64 of 32 bytes."""
    derived = hmac.digest(service, _DOMAIN + webhook.encode(), "sha256")
    return "whsec_" + base64.b64encode(derived).decode()


def fingerprint(secret: str) -> str:
    """What the journal keeps of a secret; it has 256 random bits, so a plain sha256 tells nothing of it."""
    return sha256_hex(secret.encode())


def signed_headers(secret: str, message: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of one attempt. timestamp: of the attempt, in whole seconds since 1970.

    The example is the specification's own:

    >>> secret, message = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek"
    >>> signed_headers(secret, message, 1614265330, b'{"test": 2432232314}')["webhook-signature"]
    'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
    """
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.digest(key, f"{message}.{timestamp}.".encode() + body, "sha256")
    return {
        "content-type": "application/json",
        "webhook-id": message,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": "v1," + base64.b64encode(mac).decode(),
    }
