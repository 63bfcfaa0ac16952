"""Fixtures: real DuckDB, real files, a real server on loopback."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

from site_under_test import Site, running

from registry.settings import Home

# No test asserts a time, not even of one example.
settings.register_profile("tunegate", deadline=None)
settings.load_profile("tunegate")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def site(home: Home) -> Iterator[Site]:
    """A registry served by uvicorn on 127.0.0.1, with a token for every role."""
    with running(home) as found:
        yield found
