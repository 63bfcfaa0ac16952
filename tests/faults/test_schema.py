"""schemathesis asks every operation of the OpenAPI document, well-formed and not: no 500, one shape of error."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from litestar.routes import HTTPRoute
from site_under_test import Site, running
from soak import amount

from registry.api.app import create_app
from registry.settings import Home

pytestmark = pytest.mark.slow
PHASES = amount("examples,coverage,fuzzing", "examples,coverage,fuzzing,stateful")
CHECKS = (
    "not_a_server_error,errors_have_one_shape,unsupported_method,negative_data_rejection,status_code_conformance,"
    "content_type_conformance"
)
# These make the registry call other servers, and a test talks to this machine alone; they have tests of their own.
CALLS_OUT = "^/v1/(webhooks|publishers|oidc)"


@pytest.fixture
def site(home: Home, tmp_path: Path) -> Iterator[Site]:
    """With an approved version, one that is being uploaded, and one that waits for its evaluation."""
    with running(home) as found:
        found.create_adapter()
        found.approved(tmp_path)
        found.submit(fill=2, complete=False)
        found.submit(fill=3)
        yield found


def token_by_operation(site: Site) -> dict[str, str]:
    """A token of a role that may call it; to delete tokens, one that can delete none but itself."""
    found = {}
    for route in create_app(site.registry).routes:
        assert isinstance(route, HTTPRoute)
        for method, (handler, _) in route.route_handler_map.items():
            roles = sorted(handler.opt.get("roles", ()))
            if roles:
                role = "consumer" if method == "DELETE" else "admin" if "admin" in roles else roles[0]
                found[f"{method} {route.path_format}"] = site.tokens[role]
    return found


def test_no_request_however_odd_makes_the_registry_fail(site: Site) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{site.url}/schema/openapi.json"),
            *("--phases", PHASES, "--checks", CHECKS, "--exclude-path-regex", CALLS_OUT),
            *("--max-examples", str(amount(5, 200)), "--seed", "1", "--generation-database", "none"),
            *("--suppress-health-check", "all", "--no-shrink", "--no-color", "--request-timeout", "60"),
            *("--generation-with-security-parameters", "false", "--continue-on-failure", "--warnings", "off"),
        ],
        env={
            **os.environ,
            "TUNEGATE_TOKENS": json.dumps(token_by_operation(site)),
            "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
            "PYTHONPATH": str(Path(__file__).parent),
        },
        capture_output=True,
        text=True,
        timeout=amount(280, 7000),
    )
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-2000:]
