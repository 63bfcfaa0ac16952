"""Blobs over HTTP: put whole or in pieces, got whole or in ranges, seen only by who may see a version that holds it."""

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from factories import entry_of, make_adapter, sha
from site_under_test import DATASET, LEDGER, Site, body, running

from registry.client import Refused
from registry.records import Role, SubmitVersion
from registry.settings import Home

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("blobs") / "home")) as found:
        found.create_adapter()
        yield found


def path_of(data: bytes) -> str:
    return f"/v1/blobs/sha256:{sha(data)}"


def kept(site: Site, data: bytes) -> list[Path]:
    """Every file in the home that holds this blob, whole or in part."""
    return [path for path in site.home.blobs.rglob(f"*{sha(data)}*") if path.is_file()]


def fresh(size: int = 1000) -> bytes:
    return os.urandom(size)


def piece(first: int, last: int, total: int) -> dict[str, str]:
    return {"Content-Range": f"bytes {first}-{last}/{total}"}


@pytest.mark.parametrize("size", [0, 1, 1000, 9 * MIB])
def test_bytes_are_stored_once_under_their_digest(site: Site, size: int) -> None:
    data = fresh(size)
    first = site.http("PUT", path_of(data), "ci", content=data)
    assert (first.status_code, body(first)) == (201, {"digest": f"sha256:{sha(data)}", "size": size})
    assert site.http("PUT", path_of(data), "ci", content=data).status_code == 200
    (stored,) = kept(site, data)
    assert stored.read_bytes() == data and stored.stat().st_mode & 0o777 == 0o440


def test_an_upload_of_unknown_length_is_stored_too(site: Site) -> None:
    data = fresh(3 * MIB)
    answer = site.http("PUT", path_of(data), "trainer", content=iter([data[:MIB], data[MIB:]]))
    assert answer.status_code == 201 and len(kept(site, data)) == 1


def test_bytes_that_are_not_what_was_announced_are_not_kept(site: Site) -> None:
    data = fresh()
    wrong = {
        "other bytes": site.http("PUT", path_of(data), "ci", content=fresh()),
        "one bit": site.http("PUT", path_of(data), "ci", content=bytes([data[0] ^ 1]) + data[1:]),
        "too few": site.http("PUT", path_of(data), "ci", content=data[:-1]),
        "too many": site.http("PUT", path_of(data), "ci", content=data + b"x"),
        "shorter than the range": site.http("PUT", path_of(data), "ci", content=data[:10], headers=piece(0, 999, 1000)),
        "longer than the range": site.http("PUT", path_of(data), "ci", content=data, headers=piece(0, 99, 1000)),
        "longer, unknown length": site.http(
            "PUT", path_of(data), "ci", content=iter([data, data]), headers=piece(0, 999, 1000)
        ),
        "compressed": site.http("PUT", path_of(data), "ci", content=data, headers={"Content-Encoding": "gzip"}),
    }
    assert {name: answer.status_code for name, answer in wrong.items()} == dict.fromkeys(wrong, 422)
    assert not kept(site, data)
    assert site.http("PUT", path_of(data), "ci", content=data).status_code == 201


@pytest.mark.parametrize(
    "header", ["bytes 5-1/9", "bytes 0-9/9", "bytes=0-8/9", "0-8/9", "bytes 0-8/*", "bytes -1-8/9"]
)
def test_a_content_range_that_makes_no_sense_is_refused(site: Site, header: str) -> None:
    data = fresh(9)
    assert site.http("PUT", path_of(data), "ci", content=data, headers={"Content-Range": header}).status_code == 422
    assert not kept(site, data)


def test_an_upload_in_pieces_continues_only_where_it_stopped(site: Site) -> None:
    data = fresh()
    path = path_of(data)
    first = site.http("PUT", path, "ci", content=data[:400], headers=piece(0, 399, 1000))
    assert (first.status_code, body(first)["size"]) == (202, 400)
    assert site.http("GET", path, "admin").status_code == 404
    for gap in (300, 500):
        refused = site.http("PUT", path, "ci", content=data[gap:], headers=piece(gap, 999, 1000))
        assert (refused.status_code, body(refused)["offset"]) == (416, 400)
        assert refused.headers["Range"] == "bytes=0-399"
    second = site.http("PUT", path, "ci", content=data[400:700], headers=piece(400, 699, 1000))
    assert (second.status_code, body(second)["size"]) == (202, 700)
    assert site.http("PUT", path, "ci", content=data[700:], headers=piece(700, 999, 1000)).status_code == 201
    (stored,) = kept(site, data)
    assert stored.read_bytes() == data


def test_a_wrong_piece_spoils_the_whole_upload(site: Site) -> None:
    data = fresh()
    site.http("PUT", path_of(data), "ci", content=fresh(400), headers=piece(0, 399, 1000))
    last = site.http("PUT", path_of(data), "ci", content=data[400:], headers=piece(400, 999, 1000))
    assert (last.status_code, body(last)["code"]) == (422, "digest_mismatch")
    assert not kept(site, data)


def test_a_cut_connection_leaves_a_part_that_can_be_continued(site: Site) -> None:
    data = fresh(10 * MIB)
    host, port = urlsplit(site.url).netloc.split(":")
    head = (
        f"PUT {path_of(data)} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {site.tokens['ci']}\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head.encode() + data[: 6 * MIB])
        for _ in range(500):
            if any(path.stat().st_size for path in kept(site, data)):
                break
            time.sleep(0.01)
    offset = len(data) - 1
    for _ in range(200):
        rest = site.http(
            "PUT", path_of(data), "ci", content=data[offset:], headers=piece(offset, len(data) - 1, len(data))
        )
        if rest.status_code == 201:
            break
        # The server may still write what had arrived: it tells how far it is, or that it holds the part.
        assert rest.status_code in (409, 416)
        offset = body(rest).get("offset", offset)
        time.sleep(0.05)
    assert rest.status_code == 201 and 0 < offset <= 6 * MIB
    assert hashlib.sha256(kept(site, data)[0].read_bytes()).hexdigest() == sha(data)


def test_a_blob_over_the_limit_is_refused_before_it_is_sent(site: Site) -> None:
    data = fresh()
    refused = site.http("PUT", path_of(data), "ci", content=data, headers=piece(0, 999, 10**15))
    assert refused.status_code == 413 and not kept(site, data)


@pytest.fixture(scope="module")
def weights(site: Site) -> bytes:
    """The bytes of a file that a version holds."""
    site.submit(fill=1)
    return make_adapter(fill=1)["adapter_model.safetensors"]


def test_a_blob_is_its_own_etag_and_may_be_cached_for_ever(site: Site, weights: bytes) -> None:
    whole = site.http("GET", path_of(weights), "ci")
    assert (whole.status_code, whole.content) == (200, weights)
    etag = f'"sha256:{sha(weights)}"'
    assert whole.headers["ETag"] == etag
    assert "immutable" in whole.headers["Cache-Control"] and "private" in whole.headers["Cache-Control"]
    assert whole.headers["Content-Length"] == str(len(weights)) and whole.headers["Accept-Ranges"] == "bytes"
    assert whole.headers["X-Content-Type-Options"] == "nosniff"
    assert whole.headers["Content-Disposition"] == "attachment"
    again = site.http("GET", path_of(weights), "ci", headers={"If-None-Match": etag})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
    changed = site.http("GET", path_of(weights), "ci", headers={"If-None-Match": '"other"'})
    assert changed.status_code == 200
    head = site.http("HEAD", path_of(weights), "ci")
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(weights)))


@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=10-", 10, None),
        ("bytes=-5", -5, None),
        ("bytes=-999999999", 0, None),
        ("bytes=5-999999999", 5, None),
    ],
)
def test_one_range_is_answered_with_just_these_bytes(
    site: Site, weights: bytes, wanted: str, first: int, last: int | None
) -> None:
    size = len(weights)
    begin, end = first % size if first < 0 else first, size - 1 if last is None else last
    answer = site.http("GET", path_of(weights), "ci", headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (206, weights[begin : end + 1])
    assert answer.headers["Content-Range"] == f"bytes {begin}-{end}/{size}"
    assert answer.headers["Content-Length"] == str(end - begin + 1)


def test_a_range_outside_the_blob_is_416_and_an_odd_one_is_ignored(site: Site, weights: bytes) -> None:
    for outside in ("bytes=999999999-", "bytes=-0", "bytes=9-5"):
        answer = site.http("GET", path_of(weights), "ci", headers={"Range": outside})
        assert (answer.status_code, body(answer)["code"]) == (416, "range_refused"), outside
    for odd in ("bytes=-", "lines=1-2", "bytes=" + ",".join(["0-1"] * 1000), "bytes=a-b", "bytes=0-1,5-6"):
        answer = site.http("GET", path_of(weights), "ci", headers={"Range": odd})
        assert (answer.status_code, answer.content) == (200, weights), odd
    stale = site.http("GET", path_of(weights), "ci", headers={"Range": "bytes=0-0", "If-Range": '"old"'})
    assert stale.status_code == 200
    same = {"Range": "bytes=0-0", "If-Range": f'"sha256:{sha(weights)}"'}
    assert site.http("GET", path_of(weights), "ci", headers=same).status_code == 206


def test_what_a_blob_is_to_a_version_decides_who_may_read_it(site: Site) -> None:
    ref = site.submit(fill=3)
    suite = site.client("admin").suites()[0].files[0].sha256
    weights = make_adapter(fill=3)["adapter_model.safetensors"]
    readers = {
        sha(weights): {"admin", "ci", "trainer", "evaluator", "release-manager", "auditor"},
        sha(DATASET): {"admin", "trainer", "evaluator", "auditor"},
        sha(LEDGER): {"admin", "trainer", "evaluator", "auditor"},
        suite: {"admin", "evaluator", "release-manager", "auditor"},
    }
    for sha256, expected in readers.items():
        found = {role.value: site.http("GET", f"/v1/blobs/sha256:{sha256}", role.value).status_code for role in Role}
        assert {role for role, status in found.items() if status == 200} == expected
        assert (found["consumer"], found["reviewer"]) == (404, 403)
    assert site.client("ci").version(ref).state == "submitted"


def test_a_blob_that_no_version_holds_is_nobodys(site: Site) -> None:
    """And its absence looks just like the absence of one that was never stored."""
    stored, unknown = fresh(), fresh()
    site.http("PUT", path_of(stored), "ci", content=stored)
    for role in Role:
        if role is not Role.REVIEWER:
            answers = [site.http("GET", path_of(data), role.value) for data in (stored, unknown)]
            assert [answer.status_code for answer in answers] == [404, 404]
            texts = [
                answer.text.replace(sha(data), "X") for answer, data in zip(answers, (stored, unknown), strict=True)
            ]
            assert texts[0] == texts[1]


def test_the_files_of_another_scope_can_not_be_told_from_files_that_do_not_exist(site: Site, weights: bytes) -> None:
    site.add_token("outsider", Role.CI, "outsider", scope="other-team")
    answers = [site.http("GET", path_of(data), "outsider") for data in (weights, fresh())]
    assert [answer.status_code for answer in answers] == [404, 404]
    files = [entry_of(path, data) for path, data in make_adapter(fill=1).items()]
    request = SubmitVersion(files=files)
    with pytest.raises(Refused) as refused:
        site.client("outsider").submit("support-bot", request)
    assert refused.value.status == 404
