"""Pushing and pulling directories: what travels, what stays behind, and never half of anything."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from factories import SUITES, make_adapter, make_suite, make_training
from site_under_test import DATASET, LEDGER, Site, running

from registry.approval.keyring import read_keys
from registry.approval.verification import (
    ANYTHING,
    ATTESTATION_FILE,
    FRESHNESS_FILE,
    Verified,
    Wanted,
    verify_directory,
)
from registry.client import Client, Refused, Unreachable
from registry.errors import InvalidRequest
from registry.records import Resolved, State, SubmitVersion, manifest_digest
from registry.settings import Home
from registry.transfer import Training, pull, push, push_suite, split_directory

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Version 1 is approved."""
    with running(Home(tmp_path_factory.mktemp("transfer") / "home")) as found:
        found.create_adapter()
        found.approved(tmp_path_factory.mktemp("rows"))
        yield found


def write(directory: Path, files: dict[str, bytes]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return directory


def verified(site: Site, directory: Path, wanted: Wanted = ANYTHING) -> Verified:
    keys = read_keys(msgspec.json.encode(site.client("consumer").keys()))
    return verify_directory(directory, keys, datetime.now(UTC), wanted)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# -- push -------------------------------------------------------------------------------------------------------------


def test_only_the_files_of_an_adapter_travel(tmp_path: Path) -> None:
    directory = write(tmp_path / "adapter", make_adapter())
    left = [
        "adapter_model.bin",
        "chat_template.jinja",
        "checkpoint-100",
        "evil.py",
        "optimizer.pt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "training_args.bin",
    ]
    for name in left:
        if name.startswith("checkpoint"):
            write(directory / name, make_adapter())
        else:
            (directory / name).write_bytes(b"x")
    (directory / "README.md").write_text("a card")
    taken, behind = split_directory(directory)
    assert [path.name for path in taken] == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert behind == left


def test_a_link_is_never_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a private key")
    directory = write(tmp_path / "adapter", make_adapter())
    (directory / "README.md").symlink_to(secret)
    assert split_directory(directory)[1] == ["README.md"]
    (directory / "adapter_config.json").unlink()
    (directory / "adapter_config.json").symlink_to(secret)
    with pytest.raises(InvalidRequest, match=r"adapter_config\.json is missing"):
        split_directory(directory)


def test_a_directory_that_is_no_adapter_is_named_with_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="is not a directory"):
        split_directory(tmp_path / "none")
    with pytest.raises(InvalidRequest, match=r"adapter_config.json, adapter_model.safetensors is missing"):
        split_directory(tmp_path)


def test_pushing_again_is_the_same_version_and_sends_nothing(site: Site, tmp_path: Path) -> None:
    directory = write(tmp_path / "adapter", {**make_adapter(fill=20), "training_args.bin": b"pickle"})
    first, left = push(site.client("ci"), directory, "support-bot", notes="first try")
    head = site.registry.journal.head
    assert left == ["training_args.bin"] and first.state is State.SUBMITTED
    again, _ = push(site.client("ci"), directory, "support-bot", notes="second try")
    assert (again.ref, again.digest, again.missing) == (first.ref, first.digest, [])
    assert site.registry.journal.head == head and site.client("ci").version(first.ref).notes == "first try"


def test_a_push_that_broke_off_is_continued(site: Site, tmp_path: Path) -> None:
    files = make_adapter(fill=21)
    directory = write(tmp_path / "run" / "adapter", files)
    write(tmp_path / "run", {"dataset.jsonl": DATASET, "ledger.parquet": LEDGER})
    training = Training(
        make_training(dataset=DATASET, ledger=LEDGER), tmp_path / "run/dataset.jsonl", tmp_path / "run/ledger.parquet"
    )
    weights = directory / "adapter_model.safetensors"
    data = weights.read_bytes()
    weights.unlink()
    with pytest.raises(InvalidRequest):
        push(site.client("ci"), directory, "support-bot", training=training)
    weights.write_bytes(data)
    entries = [site.client("ci").upload(directory / "adapter_config.json")]
    assert entries[0].path == "adapter_config.json"
    created, _ = push(site.client("ci"), directory, "support-bot", training=training)
    version = site.client("ci").version(created.ref)
    assert version.state is State.SUBMITTED and version.training == training.record


def test_a_suite_is_registered_once_for_each_content(site: Site, tmp_path: Path) -> None:
    name = SUITES["accuracy"]
    directory = write(tmp_path / "suite", make_suite(name, "questions", 200))
    before = len(site.client("ci").suites())
    assert push_suite(site.client("admin"), directory) in site.client("ci").suites()
    assert len(site.client("ci").suites()) == before, "the registry has it already"
    write(directory, make_suite("another/suite", "questions", 3))
    made = push_suite(site.client("admin"), directory)
    assert (made.name, made.n_items) == ("another/suite", 3) and len(site.client("ci").suites()) == before + 1
    (directory / "items.jsonl").write_text('{"id": "a"}\n\nnonsense\n')
    with pytest.raises(InvalidRequest, match=r"line 1: .*line 3: "):
        push_suite(site.client("admin"), directory)
    (directory / "items.jsonl").unlink()
    with pytest.raises(InvalidRequest, match=r"is no suite: No such file or directory: .*items.jsonl"):
        push_suite(site.client("admin"), directory)


# -- pull -------------------------------------------------------------------------------------------------------------


def test_what_was_pulled_is_what_was_pushed_and_verifies(site: Site, tmp_path: Path) -> None:
    lines: list[str] = []
    resolved = pull(site.client("consumer"), "support-bot@approved", tmp_path / "deep" / "here", lines.append)
    target = tmp_path / "deep" / "here"
    files = {path.name: path.read_bytes() for path in target.iterdir()}
    assert files.pop(ATTESTATION_FILE) and files.pop(FRESHNESS_FILE) and files == make_adapter(fill=1)
    assert resolved.ref == "support-bot/1" and len(lines) == 2
    found = verified(site, target, Wanted(alias="approved", fresh=True))
    assert (found.problems, found.ref, found.alias) == ([], "support-bot/1", "approved")
    by_digest = pull(site.client("consumer"), f"support-bot@{resolved.digest}", tmp_path / "by-digest")
    assert by_digest == resolved


def test_an_unapproved_version_comes_without_approval_and_does_not_verify(site: Site, tmp_path: Path) -> None:
    ref = site.submit(fill=30)
    assert pull(site.client("ci"), ref, tmp_path / "raw").attestation is None
    assert ATTESTATION_FILE not in names(tmp_path / "raw")
    assert verified(site, tmp_path / "raw").problems
    with pytest.raises(Refused):
        pull(site.client("consumer"), ref, tmp_path / "hidden")
    assert names(tmp_path) == ["raw"]


def test_only_an_empty_or_new_directory_is_pulled_into(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = write(tmp_path / "full", {"mine.txt": b"keep me"})
    file = tmp_path / "file"
    file.write_text("keep me")
    for target in (full, file):
        with pytest.raises(InvalidRequest, match="give a new directory"):
            pull(site.client("consumer"), "support-bot", target)
    assert names(full) == ["mine.txt"] and file.read_text() == "keep me"
    (tmp_path / "empty").mkdir()
    pull(site.client("consumer"), "support-bot", tmp_path / "empty")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    pull(site.client("consumer"), "support-bot", Path("."))
    assert (
        names(tmp_path / "here")
        == names(tmp_path / "empty")
        == [
            "adapter_config.json",
            "adapter_model.safetensors",
            ATTESTATION_FILE,
            FRESHNESS_FILE,
        ]
    )


def test_bytes_that_changed_on_the_way_leave_no_directory(site: Site, liar: Client, tmp_path: Path) -> None:
    Liar.resolved = site.client("consumer").resolve("support-bot")
    with pytest.raises(Unreachable, match="arrived damaged"):
        pull(liar, "support-bot", tmp_path / "new")
    assert names(tmp_path) == []


def test_bytes_that_rotted_on_the_registrys_disk_leave_no_directory(site: Site, tmp_path: Path) -> None:
    ref = site.submit(fill=31)
    weights = site.client("ci").version(ref).files[1]
    stored = site.registry.blobs.path(weights.sha256)
    stored.chmod(0o600)
    with stored.open("r+b") as file:
        file.seek(weights.size // 2)
        file.write(b"\xff")
    with pytest.raises(Refused, match="has rotted on disk"):
        pull(site.client("ci"), ref, tmp_path / "new")
    assert names(tmp_path) == []


class Liar(BaseHTTPRequestHandler):
    """Answers a resolve with what it was given, and every blob with the same bytes."""

    resolved: Resolved
    blob = b"x"

    def do_GET(self) -> None:
        content = msgspec.json.encode(self.resolved) if "/resolve" in self.path else self.blob
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def liar() -> Iterator[Client]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Liar) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        with Client(f"http://127.0.0.1:{server.server_address[1]}", "t") as client:
            yield client
        server.shutdown()


@pytest.mark.parametrize("path", ["../../evil", "/etc/evil", "evil.py", "sub/adapter_config.json", "attestation.json"])
def test_a_registry_can_not_make_a_puller_write_elsewhere(site: Site, liar: Client, tmp_path: Path, path: str) -> None:
    honest = site.client("consumer").resolve("support-bot")
    files = [msgspec.structs.replace(honest.files[0], path=path), *honest.files[1:]]
    digest = manifest_digest(files, honest.base)
    Liar.resolved = msgspec.structs.replace(honest, files=files, digest=digest)
    with pytest.raises(Unreachable, match="no file of an adapter"):
        pull(liar, "support-bot", tmp_path / "a" / "b" / "c")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_registry_can_not_offer_other_files_than_the_digest_names(site: Site, liar: Client, tmp_path: Path) -> None:
    honest = site.client("consumer").resolve("support-bot")
    changed = [
        msgspec.structs.replace(
            honest.files[0], sha256="2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
        )
    ]
    Liar.resolved = msgspec.structs.replace(honest, files=changed)
    with pytest.raises(Unreachable, match="do not add up"):
        pull(liar, "support-bot", tmp_path / "new")
    Liar.resolved = msgspec.structs.replace(honest, files=changed, digest=manifest_digest(changed, honest.base))
    with pytest.raises(Unreachable, match="do not add up"):
        pull(liar, f"support-bot@{honest.digest}", tmp_path / "new")
    assert names(tmp_path) == []


def test_a_version_announced_twice_with_other_notes_is_one(site: Site) -> None:
    ref = site.submit(fill=32, complete=False)
    version = site.client("ci").version(ref)
    again = site.client("ci").submit("support-bot", SubmitVersion(files=version.files[::-1], notes="other"))
    assert again.ref == ref
