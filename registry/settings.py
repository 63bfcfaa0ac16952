"""Where things lie and how the service behaves, from the environment.

TUNEGATE_HOME   directory of everything this service keeps (default: `tunegate` in the user's data directory)
TUNEGATE_URL    address the client talks to (default: http://127.0.0.1:8420)
TUNEGATE_TOKEN  token the client sends
"""

import os
from pathlib import Path
from typing import NamedTuple

from platformdirs import user_data_path

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
    def public_keys(self) -> Path:
        return self.root / "keys" / "public.json"

    @property
    def draw_secret(self) -> Path:
        return self.root / "keys" / "draw.secret"

    @property
    def admin_token(self) -> Path:
        return self.root / "keys" / "admin.token"

    @property
    def bases(self) -> Path:
        return self.root / "bases"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def cache(self) -> Path:
        return self.root / "cache"


def home() -> Home:
    configured = os.environ.get("TUNEGATE_HOME")
    return Home(Path(configured).expanduser().resolve() if configured else user_data_path("tunegate"))


def url() -> str:
    return os.environ.get("TUNEGATE_URL", f"http://127.0.0.1:{DEFAULT_PORT}")
