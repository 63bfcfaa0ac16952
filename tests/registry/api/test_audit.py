"""An auditor with the public keys alone can tell whether what the registry shows of its journal is the truth."""

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from site_under_test import Site, body, running

from registry.audit.checkpoint import Checkpoint, open_checkpoint
from registry.audit.merkle import consistency_holds, inclusion_holds, leaf_hash
from registry.records import Role
from registry.settings import Home

PATHS = ("/v1/audit/checkpoint", "/v1/audit/proof?seq=1", "/v1/audit/consistency?from=1")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("audited") / "home")) as found:
        yield found


def checkpoint(site: Site) -> Checkpoint:
    keys = [base64.b64decode(key.public) for key in site.client("consumer").keys().keys]
    return open_checkpoint(site.client("auditor").checkpoint(), keys)


def test_checkpoint_is_a_signed_note_of_the_durable_head(site: Site) -> None:
    answer = site.http("GET", "/v1/audit/checkpoint", "auditor")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    origin, size, root, blank, signature = answer.text.splitlines()
    assert origin.startswith("tunegate.dev/registry/") and len(base64.b64decode(root)) == 32
    assert int(size) == site.registry.journal.head.seq
    assert blank == "" and signature.startswith(f"\u2014 {origin} ")
    assert checkpoint(site).size == int(size)


def test_every_entry_is_proven_to_be_in_the_signed_tree(site: Site) -> None:
    client, signed = site.client("auditor"), checkpoint(site)
    entries = list(client.audit_events())
    assert len(entries) == signed.size
    for entry in entries:
        proof = client.inclusion(entry.seq, signed.size)
        hashes = [bytes.fromhex(one) for one in proof.hashes]
        leaf = leaf_hash(entry.body.encode())
        assert inclusion_holds(leaf, entry.seq - 1, signed.size, hashes, signed.root)
        assert not inclusion_holds(
            leaf_hash(entry.body.encode() + b" "), entry.seq - 1, signed.size, hashes, signed.root
        )


def test_each_checkpoint_is_proven_to_begin_with_those_before(site: Site) -> None:
    older = [checkpoint(site)]
    for number in range(5):
        site.add_token(f"more-{number}", Role.CI, "someone")
        newer = checkpoint(site)
        assert newer.size > older[-1].size
        for before in older:
            proof = site.client("auditor").consistency(before.size, newer.size)
            hashes = [bytes.fromhex(one) for one in proof.hashes]
            assert consistency_holds(before.size, before.root, newer.size, newer.root, hashes)
        older.append(newer)


def test_without_a_size_proofs_are_of_the_whole_journal(site: Site) -> None:
    signed = checkpoint(site)
    included = body(site.http("GET", "/v1/audit/proof?seq=2", "auditor"))
    shown = body(site.http("GET", "/v1/audit/consistency?from=2", "auditor"))
    assert (included["size"], included["root"]) == (signed.size, signed.root.hex())
    assert (shown["newer"], shown["newer_root"]) == (signed.size, signed.root.hex())


@pytest.mark.parametrize(
    "query",
    [
        "proof",
        "proof?seq=0",
        "proof?seq=-1",
        "proof?seq=x",
        "proof?seq=1000000",
        "proof?seq=3&size=2",
        "proof?seq=1&size=0",
        "proof?seq=1&size=1000000",
        f"proof?seq={2**63}",
        "consistency",
        "consistency?from=0",
        "consistency?from=1000000",
        "consistency?from=3&to=2",
        "consistency?from=1&to=1000000",
        f"consistency?from=1&to={2**70}",
    ],
)
def test_what_cannot_be_proven_is_refused_with_the_reason(site: Site, query: str) -> None:
    answer = site.http("GET", f"/v1/audit/{query}", "auditor")
    assert (answer.status_code, body(answer)["code"]) == (422, "invalid_request")
    assert body(answer)["detail"]


@pytest.mark.parametrize("path", PATHS)
def test_a_token_with_a_scope_learns_nothing_of_the_journal(site: Site, path: str) -> None:
    site.add_token("team-auditor", Role.AUDITOR, "team auditor", scope="team")
    assert site.http("GET", path, "auditor").status_code == 200
    refused: httpx.Response = site.http("GET", path, "team-auditor")
    problem: dict[str, Any] = body(refused)
    assert refused.status_code == 403 and "without a scope" in problem["detail"]
