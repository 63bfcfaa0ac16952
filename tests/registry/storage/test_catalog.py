"""The catalog can be thrown away: it is a fold over the journal, and a witness for it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

import duckdb
import msgspec
import pytest
from factories import as_lines, make_adapter, make_entries, make_row
from registry_under_test import ADMIN, CI, EVALUATOR, MANAGER, NAME, POLICY, Bench, Table, bench_in, submission

from registry.access import Principal
from registry.commands import (
    adapters,
    blobs,
    disputes,
    erasure,
    jobs,
    publishers,
    rejection,
    reviewers,
    tokens,
    trainings,
    versions,
    webhooks,
)
from registry.commands.context import Context, Outcome
from registry.commands.publishers import Accepted
from registry.errors import Conflict, EvidenceRefused, StorageDamaged
from registry.events import (
    AdapterCreated,
    AnyEvent,
    AssignmentSkipped,
    BlobQuarantined,
    Event,
    JobQueued,
    KeyAdded,
    KeyRevoked,
    KeyRotated,
    PolicySet,
)
from registry.names import sha256_hex
from registry.opening import open_registry, rebuild
from registry.records import (
    AddPublisher,
    AddReviewer,
    ClaimJob,
    CreateToken,
    CreateTraining,
    CreateWebhook,
    EraseWords,
    FailJob,
    FinishTraining,
    PostEvidence,
    PromotionRule,
    Reject,
    Role,
    State,
    WebhookEvent,
)
from registry.registry import Repeat
from registry.settings import Home
from registry.storage.blobs import LocalBlobs
from registry.storage.catalog import open_catalog
from registry.storage.journal import FileJournal, MemoryJournal

pytestmark = pytest.mark.slow


NOT_IN_THE_HISTORY: dict[type[Event], str] = {
    KeyRotated: "other keys would sign than those that the tests of opening expect; test_keys.py",
    KeyAdded: "as KeyRotated",
    KeyRevoked: "as KeyRotated",
    BlobQuarantined: "a rebuild reads the blobs of this history; test_scrub.py",
    JobQueued: "needs an evaluation that was given up; test_jobs.py",
    AssignmentSkipped: "this review is rated to its end; test_review.py",
}


class Lived(NamedTuple):
    """A closed home with a history, and its tables."""

    home: Home
    tables: dict[str, Table]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Lived:
    home = Home(tmp_path_factory.mktemp("template") / "home")
    with bench_in(home.root) as bench:
        live(bench)
        return Lived(home, bench.tables())


@pytest.fixture
def lived(template: Lived, home: Home) -> Lived:
    """A copy that a test may spoil."""
    shutil.copytree(template.home.root, home.root)
    return Lived(home, template.tables)


@pytest.fixture
def bench(home: Home) -> Iterator[Bench]:
    with bench_in(home.root) as made:
        yield made


def live(bench: Bench) -> None:
    """A history with every type of event in it."""
    bench.create_adapter()
    first, second = bench.approvable(1), bench.approvable(2)
    bench.promote(first)
    bench.promote(second)
    bench.promote(second, "canary")
    bench.rollback(first)
    third = bench.complete(bench.submit(3, Repeat("k", "0" * 64)).number).number
    job = bench.claim()
    assert job is not None
    bench.run(EVALUATOR, jobs.fail, job_id=job.id, request=FailJob(fence=job.fence, reason="r", retry=True))
    bench.evaluate(lost=150, gained=5)
    bench.revoke(second)
    bench.submit(4)
    strict = msgspec.structs.replace(POLICY, promotion=PromotionRule(second_signature=True))
    bench.run(ADMIN, adapters.set_policy, adapter=NAME, policy=strict, if_match=None)
    assert bench.promote(first, "signed-twice").unsigned
    hook = CreateWebhook(url="https://hooks.example/", events=list(WebhookEvent))
    for _ in range(2):
        told = bench.run(ADMIN, webhooks.create, request=hook, allow=frozenset(), secret_of=lambda id_: f"whsec_{id_}")
        bench.run(ADMIN, webhooks.test, id_=told.value.webhook.id)
    bench.run(ADMIN, webhooks.redeliver, id_=told.value.webhook.id, delivery="msg_1")
    bench.run(ADMIN, webhooks.disable, id_=told.value.webhook.id, reason="gone")
    bench.run(ADMIN, webhooks.delete, id_=told.value.webhook.id)
    made = bench.run(ADMIN, tokens.create, Repeat("t", "1" * 64), request=CreateToken(role=Role.CI, person="carl"))
    bench.run(ADMIN, tokens.revoke, Repeat("t2", "2" * 64), id_=made.value.token.id)
    trust(bench)
    train(bench)
    disagree(bench)
    states = [stored.state for stored in bench.registry.view().versions(NAME, 100, 100, list(State))]
    assert (
        states == [State.REJECTED, State.REJECTED, State.UPLOADING, State.REJECTED, State.REVOKED, State.APPROVED]
        and third == 3
    )


def disagree(bench: Bench) -> None:
    """A version whose outputs are found unsafe, which an expert confirms; and an expert nobody vouches for any more."""
    expert = Principal("t-expert", "olga", Role.REVIEWER)
    standing = AddReviewer(
        person="olga", domain="safety", credential="MD", valid_from="2020-01-01", valid_until="2100-01-01"
    )
    vouched = bench.run(ADMIN, reviewers.vouch, request=standing).value
    bench.complete(bench.submit(5).number)
    bench.evaluate()
    bench.review(unsafe=True)
    dispute = bench.registry.ask(expert, disputes.disputes)[0]
    bench.rule(expert, dispute.id, upheld=True, reason="it harms")
    bench.run(ADMIN, erasure.erase_words, request=EraseWords(person="olga", reason="she asked to"))
    bench.run(ADMIN, reviewers.withdraw, id_=vouched.id)


def train(bench: Bench) -> None:
    """One run that met everything that a run can meet, and the version that came of it, which is refused by hand."""
    trainer = Principal("t-trainer", "tina", Role.TRAINER)
    digest = f"sha256:{bench.registry.blobs.put(b'rows')}"
    recipe = 'name = "r"\nbase = "b"\ndata = "d"\n'
    request = CreateTraining(adapter=NAME, recipe=recipe, dataset=digest, notes="why not")
    run = bench.run(trainer, trainings.submit, request=request).value.id
    for what in (trainings.pause, trainings.resume, trainings.cancel, trainings.resume):
        bench.run(trainer, what, id_=run)
    for final in (False, True):
        fence = bench.run(trainer, trainings.claim, request=ClaimJob(kinds=["training"])).value.fence
        failed = FailJob(fence=fence, reason="killed", retry=not final)
        bench.run(trainer, trainings.fail, id_=run, request=failed)
    stored = bench.registry.view().training(run)
    assert stored is not None and (stored.status, stored.attempts) == ("failed", 2) and stored.error is not None
    bench.run(trainer, trainings.resume, id_=run)
    fence = bench.run(trainer, trainings.claim, request=ClaimJob(kinds=["training"])).value.fence
    made = submission(6)
    assert made.training is not None
    record = msgspec.structs.replace(made.training, recipe=recipe, run=run)
    for data in make_adapter(fill=6).values():
        bench.registry.blobs.put(data)
    pushed = msgspec.structs.replace(made, training=record)
    number = bench.run(CI, versions.submit, adapter=NAME, request=pushed).value.number
    bench.complete(number)
    bench.run(trainer, trainings.finish, id_=run, request=FinishTraining(fence=fence, version=f"{NAME}/{number}"))
    done = bench.registry.view().training(run)
    assert done is not None and (done.status, done.version) == ("succeeded", number)
    bench.evaluate()
    bench.run(MANAGER, rejection.reject, adapter=NAME, number=number, request=Reject(reason="not the tone we want"))


def trust(bench: Bench) -> None:
    """Two publishers, one of them removed; a token that was minted, and refused; bytes that were proven."""
    for subject in ("kept", "gone"):
        request = AddPublisher(
            scope="team", issuer="https://ci.example", claims={"sub": subject}, jwks_url="https://ci.example/keys"
        )
        added = bench.run(ADMIN, publishers.add, request=request).value
        found = Accepted(added.id, "team", added.issuer, subject, sha256_hex(subject.encode()))
        made = bench.run(found.principal, publishers.mint, accepted=found).value.token
        bench.run(ADMIN, tokens.refused, token=made.id, reason="role")
        bench.run(found.principal, blobs.sent, sha256=bench.registry.blobs.put(subject.encode()))
    bench.run(ADMIN, publishers.remove, id_=added.id)


# -- folding ------------------------------------------------------------------------------------------------------


def test_the_history_that_is_folded_has_every_event_but_those_that_are_tested_elsewhere(lived: Lived) -> None:
    with bench_in(lived.home.root) as bench:
        told = {type(event) for line in bench.registry.journal.read() for event in line.entry.events}
    assert set(get_args(AnyEvent)) - told == set(NOT_IN_THE_HISTORY)


def test_rebuilt_catalog_equals_the_one_that_grew(lived: Lived) -> None:
    grown = lived.tables
    with bench_in(lived.home.root) as bench:
        rebuilt = bench.rebuilt()
    assert {name for name, rows in grown.items() if not rows} == set(), "the history must fill every table"
    for name, rows in grown.items():
        assert rebuilt[name] == rows, name


def test_order_of_keys_in_a_command_does_not_reach_the_catalog(bench: Bench) -> None:
    """The journal is canonical; what is folded at once must be what is folded after a restart."""
    before = bench.registry.journal.head.seq
    bench.create_adapter()
    entries = [line.entry for line in bench.registry.journal.read(after=before)]
    created, policy = entries[-1].events
    assert isinstance(created, AdapterCreated) and isinstance(policy, PolicySet) and created.base_tensors
    assert bench.registry.view().base_tensors(NAME) == created.base_tensors
    assert bench.tables()["adapters"] == bench.rebuilt()["adapters"]


def test_index_and_scan_agree(lived: Lived) -> None:
    with bench_in(lived.home.root) as bench:
        db = bench.registry.view()._db
        for number in (1, 2, 3):
            keyed = "SELECT count(*) FROM items WHERE adapter = ? AND number = ?"
            scanned = "SELECT count(*) FILTER (WHERE number = ?) FROM items"
            assert db.execute(keyed, [NAME, number]).fetchall() == db.execute(scanned, [number]).fetchall() != [(0,)]


# -- starting -----------------------------------------------------------------------------------------------------


def at_start(home: Home) -> dict[str, Table]:
    with bench_in(home.root) as bench:
        return bench.tables()


def test_deleted_catalog_is_rebuilt_at_start(lived: Lived) -> None:
    home, before = lived
    home.catalog.unlink()
    assert at_start(home) == before


def test_catalog_behind_the_journal_catches_up(home: Home) -> None:
    with bench_in(home.root) as bench:
        bench.create_adapter()
    early = home.catalog.read_bytes()
    with bench_in(home.root) as bench:
        bench.approvable(1)
        bench.promote(1)
        before = bench.tables()
    home.catalog.write_bytes(early)
    assert at_start(home) == before
    assert not home.catalog.with_name("catalog.duckdb.damaged").exists(), "it was to catch up, not to be rebuilt"


def cut_last_entries(home: Home, n: int) -> bytes:
    whole = home.journal.read_bytes()
    home.journal.write_bytes(b"".join(whole.splitlines(keepends=True)[:-n]))
    return whole


def test_catalog_ahead_of_the_journal_is_refused_until_the_journal_is_back(lived: Lived) -> None:
    home, before = lived
    whole = cut_last_entries(home, 2)
    for _ in range(2):
        with pytest.raises(StorageDamaged, match=r"lost its tail.*--accept-loss"):
            open_registry(home)
    with pytest.raises(StorageDamaged, match="lost its tail"):
        rebuild(home)
    home.journal.write_bytes(whole)
    assert at_start(home) == before


def test_accepted_loss_leads_to_the_state_the_journal_tells(lived: Lived) -> None:
    home = lived.home
    lines = home.journal.read_bytes().splitlines(keepends=True)
    revoked = next(place for place, line in enumerate(lines) if b'"token.revoked"' in line)
    cut_last_entries(home, len(lines) - revoked)
    last = rebuild(home, accept_loss=True)
    with bench_in(home.root) as bench:
        assert bench.registry.view().applied().seq == last == bench.registry.journal.head.seq
        assert [token.revoked_at for token in bench.registry.view().tokens()] == [None, None]


def test_last_journal_entry_changed_in_place_is_noticed_at_start(lived: Lived) -> None:
    home = lived.home
    data = bytearray(home.journal.read_bytes())
    data[-30] ^= 1
    home.journal.write_bytes(data)
    for _ in range(2):
        with pytest.raises(StorageDamaged):
            open_registry(home)


def test_journal_of_another_registry_is_refused(lived: Lived, tmp_path: Path) -> None:
    with bench_in(tmp_path / "other") as other:
        other.create_adapter()
    lived.home.journal.write_bytes(other.home.journal.read_bytes())
    with pytest.raises(StorageDamaged, match="not the one this journal began with"):
        open_registry(lived.home)
    shutil.copytree(other.home.signing_key.parent, lived.home.signing_key.parent, dirs_exist_ok=True)
    with pytest.raises(StorageDamaged, match="lost its tail or is another one"):
        open_registry(lived.home)


@pytest.mark.parametrize("garbage", [b"", b"x", b"not a database at all" * 1000, bytes(20_000)])
def test_garbage_in_place_of_the_catalog_leads_to_a_rebuild(home: Home, garbage: bytes) -> None:
    with bench_in(home.root) as bench:
        bench.create_adapter()
        before = bench.tables()
    home.catalog.write_bytes(garbage)
    assert at_start(home) == before
    assert home.catalog.with_name("catalog.duckdb.damaged").read_bytes() == garbage


@pytest.mark.parametrize("offset", [4096 + 9, 8192 + 9, 12288 + 9])
def test_damaged_block_at_the_head_leads_to_a_rebuild(home: Home, offset: int) -> None:
    """DuckDB says "block" where it means damage and "lock" where another process has the file."""
    with bench_in(home.root) as bench:
        bench.create_adapter()
        before = bench.tables()
    data = bytearray(home.catalog.read_bytes())
    data[offset] ^= 0xFF
    home.catalog.write_bytes(data)
    assert at_start(home) == before


def test_catalog_of_another_schema_version_is_rebuilt(home: Home) -> None:
    with bench_in(home.root) as bench:
        bench.create_adapter()
        before = bench.tables()
    with duckdb.connect(str(home.catalog)) as db:
        db.execute("UPDATE applied SET schema_version = schema_version + 1")
    assert at_start(home) == before


def test_interrupted_rebuild_leaves_nothing_in_the_way(home: Home) -> None:
    with bench_in(home.root) as bench:
        bench.create_adapter()
        before = bench.tables()
    home.catalog.with_name("catalog.duckdb.new").write_bytes(b"half")
    home.catalog.with_name("catalog.duckdb.new.wal").write_bytes(b"half")
    home.catalog.unlink()
    assert at_start(home) == before
    assert [path.name for path in home.root.glob("catalog*")] == ["catalog.duckdb"]


def test_missing_key_or_draw_secret_is_not_made_anew(lived: Lived) -> None:
    home = lived.home
    secret = home.draw_secret.read_bytes()
    home.draw_secret.unlink()
    with pytest.raises(StorageDamaged, match="missing"):
        open_registry(home)
    home.draw_secret.write_bytes(os.urandom(32))
    with pytest.raises(StorageDamaged, match="not the one"):
        open_registry(home)
    home.draw_secret.write_bytes(secret)
    at_start(home)


def test_entry_that_does_not_fold_is_named_and_not_skipped(tmp_path: Path) -> None:
    journal, blobs = MemoryJournal(), LocalBlobs(tmp_path / "blobs")
    entries = make_entries(3)
    poison = make_entries(1, after=entries[-1])[0]
    twice = msgspec.structs.replace(poison, receipt=entries[0].receipt)  # one key, answered twice
    journal.append(as_lines([*entries, twice]))
    with pytest.raises(StorageDamaged, match="journal entry 4 cannot be folded"):
        open_catalog(tmp_path / "catalog.duckdb", tmp_path / "staging", blobs, journal)
    assert not (tmp_path / "catalog.duckdb").exists()


def test_second_process_is_told_that_the_home_is_in_use(bench: Bench) -> None:
    with pytest.raises(StorageDamaged, match="in use by another tunegate process"):
        FileJournal(bench.home.journal)


# -- constraints --------------------------------------------------------------------------------------------------


def test_event_that_breaks_a_key_is_not_journalled(bench: Bench) -> None:
    """A command with a defect, or a race that should not be possible: the key has the last word."""
    bench.create_adapter()
    head, before = bench.registry.journal.head, bench.tables()
    created = next(
        event
        for line in bench.registry.journal.read()
        for event in line.entry.events
        if isinstance(event, AdapterCreated)
    )

    def defect(context: Context) -> Outcome:
        return Outcome(None, [created])

    with pytest.raises(Conflict, match="read again"):
        bench.registry.execute(ADMIN, defect)
    assert bench.registry.journal.head == head and bench.tables() == before
    assert bench.submit(1).number == 1
    assert bench.rebuilt() == bench.tables()


def test_rows_that_are_not_parquet_are_refused_and_leave_nothing(bench: Bench) -> None:
    bench.create_adapter()
    bench.complete(bench.submit(1).number)
    job = bench.claim()
    assert job is not None
    good = bench.measured(job)
    head, before = bench.registry.journal.head, bench.tables()
    rows = bench.registry.blobs.put(b"PAR1 but not really PAR1")
    bad = PostEvidence(fence=job.fence, evidence=msgspec.structs.replace(good.evidence, rows=rows))
    with pytest.raises(EvidenceRefused, match="not a Parquet file"):
        bench.run(EVALUATOR, jobs.record_evidence, job_id=job.id, request=bad)
    assert bench.registry.journal.head == head and bench.tables() == before
    assert list(bench.home.staging.iterdir()) == []
    bench.run(EVALUATOR, jobs.record_evidence, job_id=job.id, request=good)
    assert list(bench.home.staging.iterdir()) == []


def parquet(folder: Path, columns: str) -> bytes:
    """One row with these columns, as Parquet."""
    with duckdb.connect() as db:
        db.execute(f"COPY (SELECT {columns}) TO '{folder / 'one.parquet'}' (FORMAT parquet)")
    return (folder / "one.parquet").read_bytes()


UNTAGGED = (
    "'s' AS suite, 'i' AS item, 'candidate' AS subject, 'q' AS prompt, 'a' AS output, true AS correct, "
    "CAST(NULL AS DOUBLE) AS nll_nats, CAST(3 AS BIGINT) AS n_tokens, 'stop' AS finish, false AS contaminated"
)
TAGGED = UNTAGGED + (
    ", ['t', 'u'] AS tags, CAST(9 AS BIGINT) AS n_bytes, 0.5::DOUBLE AS gold_nll_nats, "
    "CAST(2 AS BIGINT) AS gold_tokens, 0.1::DOUBLE AS kl_nats, CAST(24 AS BIGINT) AS kl_tokens"
)


@pytest.mark.parametrize("columns", [UNTAGGED, TAGGED], ids=["before tags", "now"])
def test_rows_of_both_layouts_are_read_and_folded(bench: Bench, tmp_path: Path, columns: str) -> None:
    """A journal from before there were tags names blobs without them, and must still fold."""
    sha256 = bench.registry.blobs.put(parquet(tmp_path, columns))
    expected = make_row("s", "i", prompt="q", output="a", correct=True, n_tokens=3, finish="stop", contaminated=False)
    scores = {"n_bytes": 9, "gold_nll_nats": 0.5, "gold_tokens": 2, "kl_nats": 0.1, "kl_tokens": 24}
    changes = {"tags": []} if columns == UNTAGGED else {"tags": ["t", "u"], **scores}
    expected = msgspec.structs.replace(expected, **changes)
    catalog = bench.registry._catalog
    assert catalog.read_rows(sha256) == [expected]
    with catalog.transaction():
        catalog.load_items(sha256, NAME, 1)
    assert bench.registry.view().items(NAME, 1, "s", "", 10) == [expected]


@pytest.mark.parametrize(
    "columns",
    [
        TAGGED.replace("['t', 'u']", "'t'"),
        TAGGED.replace("CAST(9 AS BIGINT)", "CAST(9 AS DOUBLE)"),
        TAGGED + ", 1 AS more",
        TAGGED.partition(", CAST(24")[0],
        UNTAGGED.partition(", false")[0],
    ],
    ids=["tags of text", "bytes of another type", "one more", "one less", "less than ever"],
)
def test_rows_of_any_other_layout_are_refused(bench: Bench, tmp_path: Path, columns: str) -> None:
    sha256 = bench.registry.blobs.put(parquet(tmp_path, columns))
    with pytest.raises(EvidenceRefused, match="the per-item rows have columns"):
        bench.registry._catalog.read_rows(sha256)
    assert list(bench.home.staging.iterdir()) == []


def test_no_statement_reaches_a_file_outside(bench: Bench, tmp_path: Path) -> None:
    outside = tmp_path / "outside.csv"
    outside.write_text("a,b\n1,2\n")
    db = bench.registry.view()._db
    for statement in (
        f"SELECT * FROM read_csv('{outside}')",
        f"COPY (SELECT 1) TO '{tmp_path / 'written'}'",
        f"ATTACH '{tmp_path / 'other.duckdb'}' AS other",
        "SET enable_external_access = true",
    ):
        with pytest.raises(duckdb.Error):
            db.execute(statement)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "outside.csv"]


def test_readers_at_rest_do_not_keep_the_catalog_from_writing_its_log_out(lived: Lived) -> None:
    """An open result holds its transaction, and DuckDB does not checkpoint beside one: the log would grow for ever."""
    with bench_in(lived.home.root) as bench:
        view = bench.registry.view()
        assert view.applied().seq and view.version("support-bot", 1) and view.tokens()
        bench.create_adapter("another")
        bench.registry._catalog.checkpoint()


VERSIONS = "SELECT adapter, number, state, evidence_digest FROM versions ORDER BY ALL"


@pytest.mark.parametrize("damage", ["rot", "loss"])
def test_per_item_rows_that_are_gone_keep_nothing_else_from_being_rebuilt(lived: Lived, damage: str) -> None:
    home = lived.home
    with bench_in(home.root) as bench:
        rows = bench.registry.view()._db.execute("SELECT DISTINCT sha256 FROM version_blobs WHERE purpose = 'items'")
        paths = [bench.registry.blobs.path(sha256) for (sha256,) in rows.fetchall()]
        before = bench.registry.view()._db.execute(VERSIONS).fetchall()
        assert paths and before
    for path in paths:
        if damage == "loss":
            path.unlink()
        else:
            whole = bytearray(path.read_bytes())
            whole[len(whole) // 2] ^= 1
            path.chmod(0o600)
            path.write_bytes(whole)
    rebuild(home)
    with bench_in(home.root) as bench:
        assert bench.registry.view()._db.execute(VERSIONS).fetchall() == before
        assert bench.registry.view()._db.execute("SELECT count(*) FROM items").fetchall() == [(0,)]
