"""Where things lie and how the service behaves, from the environment.

TUNEGATE_HOME   directory of everything this service keeps (default: `tunegate` in the user's data directory)
TUNEGATE_URL    address the client talks to (default: http://127.0.0.1:8420)
TUNEGATE_TOKEN  token the client sends
TUNEGATE_APPROVAL_DAYS  days until a signed approval expires and the version is promoted anew (default: 365)
TUNEGATE_OUTBOUND_ALLOW
                `host:port` list, with commas, of places that the service calls by plain http and at private addresses
                too, such as receivers of webhooks inside one's own network. Unsafe: whoever answers for such a name
                decides what is called (default: none)
TUNEGATE_HOSTS  names this service answers to, with commas between them, besides localhost and its own address
TUNEGATE_PROXIES  addresses or networks, with commas, of proxies whose X-Forwarded-For and X-Forwarded-Proto are
                believed (default: none)
TUNEGATE_ADDRESS_CONNECTIONS  connections that one address may hold open, of 1,000 in all (default: 250)
TUNEGATE_BLOB_BYTES     largest upload (default: 8 GiB)
TUNEGATE_WEIGHTS_BYTES  largest adapter_model.safetensors (default: 4 GiB)
TUNEGATE_PROJECT_BYTES  bytes that the versions of one project (a namespace, or an adapter without one) may have
                (default: any)
TUNEGATE_FREE_BYTES     free space that uploads leave (default: a twentieth of the file system, at most 1 GiB)
TUNEGATE_PART_HOURS     hours until an upload that nobody continues is deleted (default: 24)
TUNEGATE_WEBHOOKS  `on` (default), or `off`: webhooks are sent nothing until it is `on`; for a copy of a registry
TUNEGATE_LOG    form of the log on stderr: `text` (default) or `json`
TUNEGATE_METRICS  `open` (default), or `token`: /metrics needs the token of an auditor or admin
TUNEGATE_RATE   requests a second that one token may make on average (default: as many as it likes)
"""

import ipaddress
import os
from pathlib import Path
from typing import NamedTuple

from platformdirs import user_data_path

from registry.errors import InvalidRequest

DEFAULT_PORT = 8420


class Home(NamedTuple):
    """The layout of a tunegate home."""

    root: Path

    @property
    def journal(self) -> Path:
        return self.root / "journal.log"

    @property
    def catalog(self) -> Path:
        return self.root / "catalog.duckdb"

    @property
    def staging(self) -> Path:
        return self.root / "staging"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def signing_key(self) -> Path:
        return self.root / "keys" / "signing.pem"

    @property
    def next_key(self) -> Path:
        """The key that a rotation puts in place of the signing key."""
        return self.root / "keys" / "signing.next.pem"

    @property
    def public_keys(self) -> Path:
        return self.root / "keys" / "public.json"

    @property
    def draw_secret(self) -> Path:
        return self.root / "keys" / "draw.secret"

    @property
    def admin_token(self) -> Path:
        return self.root / "keys" / "admin.token"

    @property
    def webhook_secret(self) -> Path:
        return self.root / "keys" / "webhooks.secret"

    @property
    def deliveries(self) -> Path:
        return self.root / "deliveries.sqlite"

    @property
    def restoring(self) -> Path:
        """Where a restore puts together what it makes; while it is there, this is no home yet."""
        return self.root / ".restoring"

    @property
    def bases(self) -> Path:
        return self.root / "bases"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def trainings(self) -> Path:
        """What workers tell of training runs. It may be deleted; the journal has what happened to them."""
        return self.root / "trainings"

    @property
    def cache(self) -> Path:
        return self.root / "cache"


class Limits(NamedTuple):
    """What uploads may take. `project_bytes` None: any; `free_bytes` None: a twentieth of the disk, at most 1 GiB."""

    blob_bytes: int = 8 * 1024**3
    weights_bytes: int = 4 * 1024**3
    project_bytes: int | None = None
    free_bytes: int | None = None
    part_seconds: float = 24 * 3600.0


def home() -> Home:
    configured = os.environ.get("TUNEGATE_HOME")
    return Home(Path(configured).expanduser().resolve() if configured else user_data_path("tunegate"))


def outbound_allow() -> frozenset[str]:
    """Places that are exempt from the rules for outgoing calls; InvalidRequest for one without a port."""
    written = os.environ.get("TUNEGATE_OUTBOUND_ALLOW", "").split(",")
    places = frozenset(one.strip().lower() for one in written if one.strip())
    for place in sorted(places):
        host, _, port = place.rpartition(":")
        if not (host and port.isascii() and port.isdigit()):
            raise InvalidRequest(f"{place!r} in TUNEGATE_OUTBOUND_ALLOW is not of the form host:port; add the port")
    return places


def approval_days() -> int:
    """Days that an approval is good for; InvalidRequest for what is no whole number of at least one."""
    written = os.environ.get("TUNEGATE_APPROVAL_DAYS", "365").strip()
    if not (written.isascii() and written.isdigit() and 1 <= int(written) <= 36500):
        raise InvalidRequest(f"TUNEGATE_APPROVAL_DAYS is {written!r}; give a whole number of days from 1 to 36500")
    return int(written)


def limits() -> Limits:
    """What uploads may take; InvalidRequest for a setting that is no whole number."""
    usual = Limits()
    hours = _whole("TUNEGATE_PART_HOURS")
    return Limits(
        blob_bytes=_whole("TUNEGATE_BLOB_BYTES") or usual.blob_bytes,
        weights_bytes=_whole("TUNEGATE_WEIGHTS_BYTES") or usual.weights_bytes,
        project_bytes=_whole("TUNEGATE_PROJECT_BYTES"),
        free_bytes=_whole("TUNEGATE_FREE_BYTES"),
        part_seconds=usual.part_seconds if hours is None else hours * 3600.0,
    )


def _whole(name: str) -> int | None:
    written = os.environ.get(name, "").strip()
    if not written:
        return None
    if not (written.isascii() and written.isdigit() and len(written) <= 18):
        raise InvalidRequest(f"{name} is {written!r}; give a whole number")
    return int(written)


def url() -> str:
    return os.environ.get("TUNEGATE_URL", f"http://127.0.0.1:{DEFAULT_PORT}")


def hosts() -> frozenset[str]:
    """Names that the service answers to, in lower case."""
    written = os.environ.get("TUNEGATE_HOSTS", "").split(",")
    return frozenset(one.strip().lower() for one in written if one.strip())


def proxies() -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Where trusted proxies are; InvalidRequest for what is no address or network."""
    written = [one.strip() for one in os.environ.get("TUNEGATE_PROXIES", "").split(",") if one.strip()]
    try:
        return tuple(ipaddress.ip_network(one) for one in written)
    except ValueError as error:
        raise InvalidRequest(f"TUNEGATE_PROXIES: {error}; give addresses or networks such as 10.0.0.0/8") from None


def address_connections() -> int:
    """Connections that one address may hold open; InvalidRequest for what is no whole number of at least one."""
    written = _whole("TUNEGATE_ADDRESS_CONNECTIONS")
    if written == 0:
        raise InvalidRequest("TUNEGATE_ADDRESS_CONNECTIONS is 0, which lets nobody in; give a number of at least 1")
    return 250 if written is None else written


def request_rate() -> float | None:
    """Requests a second for one token; None for any number; InvalidRequest for what is no number above 0."""
    written = os.environ.get("TUNEGATE_RATE", "").strip()
    if not written:
        return None
    try:
        rate = float(written)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 1e6:
        raise InvalidRequest(f"TUNEGATE_RATE is {written!r}; give a number of requests a second above 0")
    return rate


def log_form() -> str:
    """`text` or `json`; InvalidRequest for anything else."""
    return _one_of("TUNEGATE_LOG", ("text", "json"))


def webhooks_are_sent() -> bool:
    return _one_of("TUNEGATE_WEBHOOKS", ("on", "off")) == "on"


def metrics_need_token() -> bool:
    return _one_of("TUNEGATE_METRICS", ("open", "token")) == "token"


def _one_of(name: str, known: tuple[str, ...]) -> str:
    found = os.environ.get(name) or known[0]
    if found not in known:
        raise InvalidRequest(f"{name} = {found!r} is not known; set it to {' or '.join(known)}")
    return found
