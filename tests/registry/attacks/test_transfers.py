"""Uploads and downloads that lie, stop, come back or ask for too much, as bytes on the wire.

Whatever the case: never a 500 but for a blob that rotted, never a stack trace, and nothing on disk that nobody asked for.
"""

# ruff: noqa: E501 - a corpus reads as a table

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest
from factories import BASE, entry_of, make_adapter, make_config, make_training, make_weights, sha
from site_under_test import DATASET, LEDGER, Site, body, running

from registry.records import CreateAdapter, Role, SubmitVersion
from registry.settings import Home

pytestmark = pytest.mark.slow

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("transfers") / "home")) as found:
        found.create_adapter()
        yield found


def fresh(size: int = 1000) -> bytes:
    return os.urandom(size)


def path_of(data: bytes) -> str:
    return f"/v1/blobs/sha256:{sha(data)}"


def kept(site: Site, data: bytes) -> list[Path]:
    """Every file in the home that holds this blob, whole or in part."""
    return [path for path in site.home.root.rglob(f"*{sha(data)}*") if path.is_file()]


def on_disk(site: Site) -> set[str]:
    return {str(path) for path in (site.home.root / "blobs").rglob("*") if path.is_file()}


def settles_at(site: Site, expected: set[str]) -> bool:
    """Whether the disk holds these files in a moment: what is given up is deleted after the answer."""
    for _ in range(200):
        if on_disk(site) == expected:
            return True
        time.sleep(0.01)
    return False


class Raw(NamedTuple):
    """What came back: the statuses of all answers on the connection, and the bytes."""

    statuses: list[int]
    data: bytes


def on_the_wire(site: Site, head: str, payload: bytes = b"", *, wait: float = 5.0) -> Raw:
    """Send exactly these bytes, read what comes until the server closes or is silent."""
    host, port = urlsplit(site.url).netloc.split(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=wait) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n" + payload)
        try:
            while part := connection.recv(65536):
                received += part
        except (TimeoutError, ConnectionResetError):
            pass
    lines = [line for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    return Raw([int(line[9:12]) for line in lines], received)


def head_of(site: Site, target: str, *headers: str, method: str = "PUT", who: str = "ci") -> str:
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {site.tokens[who]}", *headers]
    return "\n".join([*lines, "Connection: close", ""])


# -- lengths and digests (C21) ------------------------------------------------------------------------------------

DATA = b"the quick brown fox" * 50
SIZE = len(DATA)
HEADERS: dict[str, tuple[list[str], bytes, set[int]]] = {
    "two lengths": ([f"Content-Length: {SIZE}", "Content-Length: 5"], DATA, {400}),
    "the same length twice": ([f"Content-Length: {SIZE}", f"Content-Length: {SIZE}"], DATA, {400}),
    "a length and chunks": (
        [f"Content-Length: {SIZE}", "Transfer-Encoding: chunked"],
        b"5\r\nhello\r\n0\r\n\r\n",
        {400},
    ),
    "a negative length": (["Content-Length: -1"], DATA, {400}),
    "a length with a sign": ([f"Content-Length: +{SIZE}"], DATA, {400}),
    "a length in hex": (["Content-Length: 0x10"], DATA, {400}),
    "a length of superscripts": (["Content-Length: \xb2\xb3"], DATA, {400}),
    "a length of 30 digits": ([f"Content-Length: {10**30}"], DATA, {400, 413, 422}),
    "a length of 18 nines": ([f"Content-Length: {'9' * 18}"], DATA, {413}),
    "no length and no body": ([], b"", {422}),
    "no chunks": (["Transfer-Encoding: chunked"], b"0\r\n\r\n", {422}),
    "a chunk of a negative size": (["Transfer-Encoding: chunked"], b"-5\r\nhello\r\n0\r\n\r\n", {400, 422}),
    "a chunk of 2^64 bytes": (["Transfer-Encoding: chunked"], b"10000000000000000\r\nhello", {400, 422}),
    "chunks under another name": (["Transfer-Encoding: xchunked"], DATA, {400, 422, 501}),
    "gzip": ([f"Content-Length: {SIZE}", "Content-Encoding: gzip"], DATA, {422}),
    "two encodings": ([f"Content-Length: {SIZE}", "Content-Encoding: identity, gzip"], DATA, {422}),
    "too few bytes in chunks": (["Transfer-Encoding: chunked"], b"5\r\nhello\r\n0\r\n\r\n", {422}),
    "a body of another length": (["Content-Length: 5"], DATA[:5], {422}),
    "a body with one bit flipped": ([f"Content-Length: {SIZE}"], bytes([DATA[0] ^ 1]) + DATA[1:], {422}),
    "another body of the same length": ([f"Content-Length: {SIZE}"], bytes(SIZE), {422}),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_body_that_is_not_what_was_announced_is_refused_and_not_kept(site: Site, name: str) -> None:
    headers, payload, expected = HEADERS[name]
    answer = on_the_wire(site, head_of(site, path_of(DATA), *headers), payload)
    assert answer.statuses and answer.statuses[0] in expected, answer.data[:200]
    assert b"Traceback" not in answer.data
    # Where the server cuts the connection, what arrived is given up just after.
    assert settles_at(site, {path for path in on_disk(site) if sha(DATA) not in path})


@pytest.mark.parametrize(
    "header",
    [
        "bytes 0-949/950000000000000000000", "bytes 99999999999999999999-1/5", "bytes 0-18446744073709551615/18446744073709551616",
        "bytes -0-949/950", "bytes 0--1/950", "bytes 0-949/*", "bytes */950", "bytes 0-949/950,951-999/1000", "octets 0-949/950",
        "bytes 950-949/950", "bytes 0-950/950", "bytes 0-5/950", "bytes 0-949/950\t", "bytes 0x0-949/950", "", "bytes",
        "bytes \xb2-949/950",
    ],
)  # fmt: skip
def test_a_content_range_that_makes_no_sense_is_refused_and_nothing_kept(site: Site, header: str) -> None:
    data = fresh(950)
    answer = on_the_wire(site, head_of(site, path_of(data), "Content-Length: 950", f"Content-Range: {header}"), data)
    expected = {201} if header.strip() == "bytes 0-949/950" else {422, 413, 400}
    assert answer.statuses and answer.statuses[0] in expected, answer.data[:200]
    assert bool(kept(site, data)) == (201 in answer.statuses)


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:" + "A" * 64, "SHA256:" + "a" * 64, "sha256:" + "a" * 63, "sha256:" + "a" * 65, "sha256:" + "g" * 64,
        "sha512:" + "a" * 128, "md5:" + "a" * 32, "a" * 64, "sha256:", "sha256:" + "a" * 60 + "/../x", "sha256%00" + "a" * 64,
        "..%2f..%2fetc%2fpasswd", "%2e%2e", "%252e%252e", "sha256:%2e%2e%2f" + "a" * 61, "sha256:" + "a" * 64 + "%0a",
        "sha256:" + "%c3%a4" * 32, "%ff%fe", "sha256:" + "a" * 8000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD"])
def test_a_digest_that_is_none_names_no_file(site: Site, digest: str, method: str) -> None:
    before = on_disk(site)
    headers = ["Content-Length: 1"] if method == "PUT" else []
    answer = on_the_wire(site, head_of(site, f"/v1/blobs/{digest}", *headers, method=method), b"x" if headers else b"")
    assert answer.statuses and answer.statuses[0] in (400, 404, 405, 422, 431), answer.data[:200]
    assert b"root:" not in answer.data and settles_at(site, before)


def test_a_percent_encoded_colon_is_the_same_digest(site: Site) -> None:
    """Decoded once, compared after: the two spellings are one blob, and no second file."""
    data = fresh()
    target = path_of(data).replace("sha256:", "sha256%3A")
    answer = on_the_wire(site, head_of(site, target, f"Content-Length: {len(data)}"), data)
    assert answer.statuses == [201] and len(kept(site, data)) == 1
    twice = path_of(data).replace("sha256:", "sha256%253A")
    assert on_the_wire(site, head_of(site, twice, method="GET")).statuses[0] == 422


@pytest.mark.parametrize(
    "name", ["..%2f", "%252e%252e", "%2e%2e", "..%2f..%2f..%2fetc%2fpasswd", "..", "%00", "a%0d%0ab"]
)
def test_a_path_that_climbs_leads_nowhere(site: Site, name: str) -> None:
    """C2."""
    for tail in ("", "/versions", "/versions/1", "/policy"):
        answer = on_the_wire(site, head_of(site, f"/v1/adapters/{name}{tail}", method="GET"))
        assert answer.statuses and answer.statuses[0] in (400, 404, 422), answer.data[:200]
        assert b"root:" not in answer.data and b"Traceback" not in answer.data


def test_a_client_that_asks_before_it_sends_is_told_no_first(site: Site) -> None:
    """Expect: 100-continue with a size over the limit is answered with the refusal and not with 100."""
    data = fresh()
    headers = (f"Content-Length: {'9' * 15}", "Expect: 100-continue")
    assert on_the_wire(site, head_of(site, path_of(data), *headers)).statuses == [413]
    headers = (f"Content-Length: {len(data)}", "Expect: 100-continue")
    assert on_the_wire(site, head_of(site, path_of(data), *headers), data).statuses == [100, 201]


# -- pieces (C22) -------------------------------------------------------------------------------------------------


def send_piece(site: Site, data: bytes, first: int, last: int, **headers: Any) -> httpx.Response:
    said = {"Content-Range": f"bytes {first}-{last}/{len(data)}", **headers}
    return site.http("PUT", path_of(data), "ci", content=data[first : last + 1], headers=said)


def test_pieces_out_of_order_with_gaps_or_overlaps_are_told_where_to_go_on(site: Site) -> None:
    data = fresh()
    assert send_piece(site, data, 500, 999).status_code == 416, "nothing was sent before"
    assert kept(site, data) == []
    assert send_piece(site, data, 0, 399).status_code == 202
    for first, last in ((500, 599), (399, 499), (1, 399), (999, 999)):
        answer = send_piece(site, data, first, last)
        assert (answer.status_code, body(answer)["offset"], answer.headers["Range"]) == (416, 400, "bytes=0-399")
    assert send_piece(site, data, 400, 999).status_code == 201
    after = send_piece(site, data, 0, 399)
    assert after.status_code == 200, "a piece of a blob that is there changes nothing"
    assert [path.read_bytes() for path in kept(site, data)] == [data]


def test_bytes_that_come_after_a_blob_is_stored_change_nothing(site: Site) -> None:
    """C23."""
    data = fresh()
    assert site.http("PUT", path_of(data), "ci", content=data).status_code == 201
    shorter = site.http("PUT", path_of(data), "ci", content=data[:-1])
    assert (shorter.status_code, body(shorter)["code"]) == (422, "digest_mismatch")
    site.http("PUT", path_of(data), "ci", content=bytes(len(data)))
    assert [path.read_bytes() for path in kept(site, data)] == [data]


def test_the_part_of_one_scope_is_not_continued_by_another(site: Site) -> None:
    site.add_token("team-ci", Role.CI, "team", scope="team")
    data = fresh()
    said = {"Content-Range": "bytes 0-399/1000"}
    assert site.http("PUT", path_of(data), "team-ci", content=data[:400], headers=said).status_code == 202
    assert send_piece(site, data, 400, 999).status_code == 416


def test_of_two_uploads_of_one_blob_at_once_one_waits(site: Site) -> None:
    data = fresh(3 * MIB)
    host, port = urlsplit(site.url).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as first:
        first.sendall(
            head_of(site, path_of(data), f"Content-Length: {len(data)}").replace("\n", "\r\n").encode()
            + b"\r\n"
            + data[:MIB]
        )
        for _ in range(100):
            if kept(site, data):
                break
            time.sleep(0.02)
        second = site.http("PUT", path_of(data), "ci", content=data)
        assert (second.status_code, body(second)["code"]) == (409, "conflict")
        first.sendall(data[MIB:])
        assert first.recv(100).startswith(b"HTTP/1.1 201")
    assert len(kept(site, data)) == 1


# -- what hidden data a name can reach ----------------------------------------------------------------------------


def test_naming_held_out_data_as_a_file_of_ones_own_does_not_hand_it_out(site: Site) -> None:
    """The digests of a suite's files are no secret; their content is, from whoever trains or submits."""
    secret = next(file for file in site.client("ci").suites()[0].files if file.path == "items.jsonl")
    files = make_adapter(fill=51)
    entries = [{"path": path, "size": len(data), "sha256": sha(data)} for path, data in files.items()]
    entries.append({"path": "README.md", "size": secret.size, "sha256": secret.sha256})
    training = {"base": "sha256:" + "1" * 64, "dataset": f"sha256:{secret.sha256}", "ledger": f"sha256:{secret.sha256}"}
    for request in ({"files": entries}, {"files": entries[:2], "training": training}):
        made = site.http("POST", "/v1/adapters/support-bot/versions", "ci", json=request)
        if made.is_success:
            for data in files.values():
                site.http("PUT", path_of(data), "ci", content=data)
            site.http("POST", f"/v1/adapters/support-bot/versions/{body(made)['number']}/complete", "ci")
    for role in ("ci", "trainer", "consumer"):
        answer = site.http("GET", f"/v1/blobs/sha256:{secret.sha256}", role)
        assert (answer.status_code, b"question" in answer.content) == (404, False), role


def test_naming_training_data_as_a_file_of_ones_own_is_refused(site: Site) -> None:
    """Also before the version is complete: announcing a digest reads nothing."""
    site.submit(fill=52)
    dataset = {"path": "README.md", "size": len(DATASET), "sha256": sha(DATASET)}
    files = make_adapter(fill=53)
    entries = [{"path": path, "size": len(content), "sha256": sha(content)} for path, content in files.items()]
    made = site.http("POST", "/v1/adapters/support-bot/versions", "ci", json={"files": [*entries, dataset]})
    for content in files.values():
        site.http("PUT", path_of(content), "ci", content=content)
    assert site.http("GET", path_of(DATASET), "ci").status_code == 404
    answer = site.http("POST", f"/v1/adapters/support-bot/versions/{body(made)['number']}/complete", "ci")
    assert (answer.status_code, body(answer)["code"]) == (422, "inspection_failed")
    assert "README.md is held as dataset already" in answer.text
    assert site.http("GET", path_of(DATASET), "ci").status_code == 404


# -- ranges (C57) -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(site: Site) -> bytes:
    site.submit(fill=61)
    return make_adapter(fill=61)["adapter_model.safetensors"]


def test_a_thousand_ranges_in_one_header_are_answered_with_the_blob_once(site: Site, weights: bytes) -> None:
    for ranges in (",".join(["0-"] * 1000), ",".join(f"{i}-{i}" for i in range(1000)), "0-0,-1"):
        answer = site.http("GET", path_of(weights), "ci", headers={"Range": f"bytes={ranges}"})
        assert (answer.status_code, len(answer.content)) == (200, len(weights))


def test_a_range_beyond_the_end_is_refused_with_the_size(site: Site, weights: bytes) -> None:
    one = site.http("GET", path_of(weights), "ci", headers={"Range": "bytes=0-0"})
    assert (one.status_code, one.content) == (206, weights[:1])
    for beyond in (f"bytes={len(weights)}-", "bytes=-0", "bytes=999999999999999999-", "bytes=9-5"):
        answer = site.http("GET", path_of(weights), "ci", headers={"Range": beyond})
        assert (answer.status_code, answer.headers["Content-Range"]) == (416, f"bytes */{len(weights)}")
        assert body(answer)["code"] == "range_refused"


@pytest.mark.parametrize("tag", ["*", '"{0}"', 'W/"{0}"', '"other", "{0}"', '"a","b" , W/"{0}"'])
def test_who_has_the_blob_already_is_told_so(site: Site, weights: bytes, tag: str) -> None:
    headers = {"If-None-Match": tag.format(f"sha256:{sha(weights)}")}
    for method in ("GET", "HEAD"):
        answer = site.http(method, path_of(weights), "ci", headers=headers)
        assert (answer.status_code, answer.content) == (304, b"")
    for other in ('"other"', "sha256:x", ""):
        assert site.http("GET", path_of(weights), "ci", headers={"If-None-Match": other}).status_code == 200


# -- room (C26) ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A service with little room: 64 KiB a blob, 4,000 bytes a project."""
    monkeypatch.setenv("TUNEGATE_BLOB_BYTES", str(64 * 1024))
    monkeypatch.setenv("TUNEGATE_PROJECT_BYTES", "4000")
    with running(Home(tmp_path / "home")) as found:
        found.create_adapter("team/bot")
        found.add_token("team-ci", Role.CI, "team", scope="team")
        yield found


def test_a_stream_over_the_limit_of_a_blob_is_cut_off_and_not_kept(small: Site) -> None:
    data = fresh(65 * 1024)
    before = on_disk(small)
    announced = small.http("PUT", path_of(data), "ci", content=data)
    streamed = small.http("PUT", path_of(data), "ci", content=iter([data[:MIB]]))
    pieces = small.http(
        "PUT", path_of(data), "ci", content=data[:9], headers={"Content-Range": f"bytes 0-8/{len(data)}"}
    )
    for answer in (announced, streamed, pieces):
        assert (answer.status_code, body(answer)["code"]) == (413, "too_large")
    assert settles_at(small, before)


def test_a_project_keeps_no_more_than_its_quota(small: Site) -> None:
    """Announced or streamed: what goes over it is refused, and nothing of it stays."""
    first = small.http("POST", "/v1/adapters/team/bot/versions", "team-ci", json={"files": entries_of(71)})
    assert first.status_code == 201
    for data in make_adapter(fill=71).values():
        assert small.http("PUT", path_of(data), "team-ci", content=data).status_code in (200, 201)
    over = small.http("POST", "/v1/adapters/team/bot/versions", "team-ci", json={"files": entries_of(72)})
    assert (over.status_code, body(over)["code"]) == (413, "too_large") and "4000" in over.text
    before = on_disk(small)
    data = fresh(4000)
    for content in (data, iter([data])):
        answer = small.http("PUT", path_of(data), "team-ci", content=content)
        assert (answer.status_code, body(answer)["code"]) == (413, "too_large")
    assert settles_at(small, before)
    again = small.http("POST", "/v1/adapters/team/bot/versions", "team-ci", json={"files": entries_of(71)})
    assert again.status_code == 200, "the same files need no more room"


def test_bytes_that_no_version_names_count_too(small: Site) -> None:
    sent = [small.http("PUT", path_of(data), "team-ci", content=data) for data in (fresh(1500) for _ in range(4))]
    assert [answer.status_code for answer in sent] == [201, 201, 413, 413]


def pieces(data: bytes, first: int, last: int) -> dict[str, Any]:
    return {"content": data[first:last], "headers": {"Content-Range": f"bytes {first}-{last - 1}/{len(data)}"}}


def test_uploads_that_broke_off_count_too(small: Site) -> None:
    """Otherwise a disk is filled with parts, each the beginning of another blob."""
    small.add_token("bot-ci", Role.CI, "bot", scope="team/bot")
    small.add_token("other-ci", Role.CI, "other", scope="other")
    half, rest = fresh(3000), fresh(2000)
    kept = small.http("PUT", path_of(half), "team-ci", **pieces(half, 0, 2500))
    assert kept.status_code == 202
    for who in ("team-ci", "bot-ci"):
        for sent in ({"content": rest}, pieces(rest, 0, 10)):
            over = small.http("PUT", path_of(rest), who, **sent)
            assert (over.status_code, body(over)["code"]) == (413, "too_large"), "its whole size counts, not the piece"
            assert "uploads that go on or broke off" in over.text
    assert small.http("PUT", path_of(rest), "other-ci", content=rest).status_code == 201
    announced = small.http("POST", "/v1/adapters/team/bot/versions", "team-ci", json={"files": entries_of(71)})
    assert announced.status_code == 413
    # The part itself is in nobody's way: not in that of its own rest, and gone once it is whole.
    assert small.http("PUT", path_of(half), "team-ci", **pieces(half, 2500, 3000)).status_code == 201
    small_one = fresh(900)
    assert small.http("PUT", path_of(small_one), "bot-ci", content=small_one).status_code == 201


def test_a_part_of_what_a_version_announced_counts_once(small: Site) -> None:
    weights = make_adapter(fill=71)["adapter_model.safetensors"]
    first = small.http("POST", "/v1/adapters/team/bot/versions", "team-ci", json={"files": entries_of(71)})
    assert first.status_code == 201
    used = sum(one["size"] for one in entries_of(71))
    assert small.http("PUT", path_of(weights), "team-ci", **pieces(weights, 0, len(weights) - 1)).status_code == 202
    rest = fresh(4000 - used)
    assert small.http("PUT", path_of(rest), "team-ci", content=rest).status_code == 201


def test_of_uploads_at_once_no_more_begin_than_there_is_room_for(small: Site) -> None:
    blobs = [fresh(1500) for _ in range(6)]
    with ThreadPoolExecutor(6) as crowd:
        answers = crowd.map(lambda data: small.http("PUT", path_of(data), "team-ci", content=data), blobs)
        statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {201, 413} and statuses.count(201) <= 2
    # While one goes on that does not say how much it brings, there is room for no other.
    end = threading.Event()

    def endless() -> Iterator[bytes]:
        yield b"x"
        end.wait(20)

    with ThreadPoolExecutor(1) as other:
        unknown = fresh(10)
        going = other.submit(small.http, "PUT", path_of(unknown), "team-ci", content=endless())
        deadline = time.monotonic() + 20
        while not small.registry.blobs.parts_of("team") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert small.http("PUT", path_of(fresh(10)), "team-ci", content=b"0123456789").status_code == 413
        end.set()
        assert going.result().status_code == 422
    assert small.registry.blobs.parts_of("team") == {}


def entries_of(fill: int) -> list[dict[str, Any]]:
    return [{"path": path, "size": len(data), "sha256": sha(data)} for path, data in make_adapter(fill=fill).items()]


def test_a_nearly_full_disk_takes_no_uploads_and_answers_everything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(Home(tmp_path / "home")) as site:
        site.create_adapter()
        ref = site.submit(fill=81)
        disk = os.statvfs(site.home.root)
        site.registry.blobs.limits = site.registry.blobs.limits._replace(free_bytes=disk.f_blocks * disk.f_frsize)
        before, data = on_disk(site), fresh()
        answer = site.http("PUT", path_of(data), "ci", content=data)
        assert (answer.status_code, body(answer)["code"]) == (507, "storage_full") and "Retry-After" in answer.headers
        assert settles_at(site, before)
        assert site.client("ci").version(ref).state == "submitted"


# -- rot (C55) ----------------------------------------------------------------------------------------------------


def flip(path: Path, at: int) -> None:
    path.chmod(0o640)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def quarantines(site: Site) -> list[str]:
    """The blobs that the journal tells of, as an auditor reads it."""
    events = [event for entry in site.client("auditor").audit_events() for event in json.loads(entry.body)["events"]]
    return [event["sha256"] for event in events if event["type"] == "blob.quarantined"]


@pytest.mark.parametrize("headers", [{}, {"Range": "bytes=0-9"}], ids=["the whole", "a range"])
def test_a_rotten_blob_is_never_handed_out_and_heals_when_it_is_sent_again(site: Site, headers: dict[str, str]) -> None:
    fill = 91 + len(headers)
    ref = site.submit(fill=fill)
    data = make_adapter(fill=fill)["adapter_model.safetensors"]
    flip(site.registry.blobs.path(sha(data)), len(data) - 1)
    for _ in range(2):
        answer = site.http("GET", path_of(data), "ci", headers=headers)
        assert (answer.status_code, body(answer)["code"]) == (500, "blob_damaged") and data[:50] not in answer.content
    assert site.http("HEAD", path_of(data), "ci").status_code == 500
    assert quarantines(site).count(sha(data)) == 1
    assert site.registry.blobs.quarantined() == [sha(data)]
    assert site.http("GET", path_of(data), "reviewer").status_code == 403, "who may not know it learns nothing of it"
    assert site.client("ci").submit(ref.partition("/")[0], request_of(fill)).missing == [sha(data)]
    assert site.http("PUT", path_of(data), "ci", content=data).status_code == 201
    assert site.http("GET", path_of(data), "ci").content == data
    assert site.registry.blobs.quarantined() == []


def request_of(fill: int) -> SubmitVersion:
    files = [entry_of(path, data) for path, data in make_adapter(fill=fill).items()]
    return SubmitVersion(files=files, training=make_training(dataset=DATASET, ledger=LEDGER))


def test_a_large_blob_that_rotted_breaks_off_before_its_end(site: Site) -> None:
    """Larger than what is read ahead: the answer has begun when the damage shows."""
    site.client("admin").create_adapter(CreateAdapter(name="big-bot", base=BASE))
    tensors = {
        f"base_model.model.q_proj.lora_{half}.weight": shape
        for half, shape in (("A", [8, 150_000]), ("B", [150_000, 8]))
    }
    files = {
        "adapter_config.json": make_config(target_modules=["q_proj"]),
        "adapter_model.safetensors": make_weights(tensors),
    }
    made = announced(site, "big-bot", files)
    assert site.client("ci").complete(made).state == "submitted"
    data = files["adapter_model.safetensors"]
    assert site.http("GET", path_of(data), "ci").content == data
    flip(site.registry.blobs.path(sha(data)), 100)
    received = b""
    with (
        pytest.raises(httpx.RemoteProtocolError),
        httpx.stream(
            "GET", site.url + path_of(data), headers={"Authorization": f"Bearer {site.tokens['ci']}"}
        ) as answer,
    ):
        assert (answer.status_code, answer.headers["Content-Length"]) == (200, str(len(data)))
        for part in answer.iter_bytes():
            received += part
    assert len(received) < len(data)
    for headers in ({}, {"Range": "bytes=0-9"}):
        assert site.http("GET", path_of(data), "ci", headers=headers).status_code == 500
    assert quarantines(site).count(sha(data)) == 1


def announced(site: Site, adapter: str, files: dict[str, bytes]) -> str:
    """A version with all its files sent."""
    client = site.client("ci")
    made = client.submit(adapter, SubmitVersion(files=[entry_of(path, data) for path, data in files.items()]))
    for data in files.values():
        client.upload(data)
    return made.ref
