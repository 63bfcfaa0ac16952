"""A registry without HTTP: commands straight through the door, with shortcuts for the way of a version."""

import functools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from factories import (
    BASE,
    BASE_TENSORS,
    SIZES,
    SUITES,
    entry_of,
    make_adapter,
    make_suite,
    make_training,
    rows_and_evidence,
)
from site_under_test import DATASET, KINDS, LEDGER

from evaluator.evidence import write_rows
from registry.access import Principal
from registry.commands import adapters, approvals, disputes, jobs, review, versions
from registry.commands.context import Outcome
from registry.opening import open_registry
from registry.records import (
    AliasInfo,
    ClaimJob,
    CreateAdapter,
    Job,
    Policy,
    PostEvidence,
    Promote,
    Rating,
    RegisterSuite,
    ReviewRule,
    Revoke,
    Role,
    Rollback,
    SubmitVersion,
    VersionCreated,
)
from registry.registry import Answer, Registry, Repeat
from registry.settings import Home
from registry.storage.catalog import rebuild_catalog

NAME = "support-bot"
# The default policy, with a review of six ratings in all, for which nobody needs time to read.
POLICY = Policy(review=ReviewRule(outputs=2, min_seconds=0))
ADMIN = Principal("t-admin", "ada", Role.ADMIN)
CI = Principal("t-ci", "carl", Role.CI)
EVALUATOR = Principal("t-evaluator", "eve", Role.EVALUATOR)
MANAGER = Principal("t-manager", "rita", Role.RELEASE_MANAGER)
CONSUMER = Principal("t-consumer", "product", Role.CONSUMER)
REVIEWERS = [Principal(f"t-reviewer-{n}", f"reviewer {n}", Role.REVIEWER) for n in (1, 2, 3)]

Table = list[tuple[Any, ...]]


class Bench:
    """An open home. Every shortcut is one command, or says how many it is."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.registry: Registry = open_registry(home).registry

    def close(self) -> None:
        self.registry.close()

    def reopen(self) -> None:
        self.close()
        self.registry = open_registry(self.home).registry

    def run(
        self, who: Principal, command: Callable[..., Outcome], repeat: Repeat | None = None, **given: Any
    ) -> Answer:
        return self.registry.execute(who, partial(command, **given), repeat)

    # -- the way of a version ------------------------------------------------------------------------------------

    def create_adapter(self, name: str = NAME, policy: Policy = POLICY) -> None:
        """The adapter, and before the first one the four suites: five commands."""
        if not self.registry.view().suites():
            for section, suite in SUITES.items():
                files = make_suite(suite, KINDS[section], SIZES[section])
                for data in files.values():
                    self.registry.blobs.put(data)
                request = RegisterSuite(name=suite, files=[entry_of(path, data) for path, data in files.items()])
                self.run(ADMIN, adapters.register_suite, request=request)
        made = CreateAdapter(name=name, base=BASE, base_tensors=BASE_TENSORS, policy=policy)
        self.run(ADMIN, adapters.create, request=made)

    def submit(self, fill: int = 1, repeat: Repeat | None = None, who: Principal = CI) -> VersionCreated:
        """A version whose blobs are stored; another `fill` is another version."""
        for data in (*make_adapter(fill=fill).values(), DATASET, LEDGER):
            self.registry.blobs.put(data)
        answer: VersionCreated = self.run(who, versions.submit, repeat, adapter=NAME, request=submission(fill)).value
        return answer

    def complete(self, number: int) -> VersionCreated:
        answer: VersionCreated = self.run(CI, versions.complete, adapter=NAME, number=number).value
        return answer

    def claim(self) -> Job | None:
        job: Job | None = self.run(EVALUATOR, jobs.claim, request=ClaimJob(kinds=["evaluation"], worker="w")).value
        return job

    def measured(self, job: Job, **numbers: int) -> PostEvidence:
        """Evidence with these numbers, its rows stored."""
        suites = {section: getattr(job.document, section).suite for section in SUITES}
        _, evidence = rows_and_evidence(suites, job.digest, job.policy, **numbers)
        rows = self.registry.blobs.put(parquet(tuple(suites.items()), tuple(numbers.items())))
        return PostEvidence(fence=job.fence, evidence=msgspec.structs.replace(evidence, rows=rows))

    def evaluate(self, **numbers: int) -> Job:
        """Claim the oldest job and post evidence with these numbers: two commands."""
        job = self.claim()
        assert job is not None
        self.run(EVALUATOR, jobs.record_evidence, job_id=job.id, request=self.measured(job, **numbers))
        return job

    def rate(self, who: Principal, **scores: Any) -> bool:
        """Two commands: ask for the next item and rate it. False if there is none."""
        if (item := self.run(who, review.next_assignment).value) is None:
            return False
        self.run(who, review.rate, assignment_id=item.id, rating=make_rating(**scores), comment_sha256=None)
        return True

    def skip(self, who: Principal, assignment: str, reason: str = "not my field") -> Answer:
        words = self.registry.blobs.put(reason.encode())
        return self.run(who, review.skip, assignment_id=assignment, reason_sha256=words)

    def rule(self, who: Principal, dispute: str, *, upheld: bool, reason: str = "I read it") -> Answer:
        """A word on an output that somebody found unsafe."""
        words = self.registry.blobs.put(reason.encode())
        return self.run(who, disputes.adjudicate, dispute_id=dispute, upheld=upheld, reason_sha256=words)

    def review(self, **scores: Any) -> None:
        """Everyone rates until nothing is left."""
        for who in REVIEWERS:
            while self.rate(who, **scores):
                pass

    def promote(self, number: int, alias: str = "approved", who: Principal = MANAGER) -> AliasInfo:
        request = Promote(alias=alias)
        answer: AliasInfo = self.run(
            who, approvals.promote, adapter=NAME, number=number, request=request, if_match=None
        ).value
        return answer

    def rollback(self, to: int, alias: str = "approved") -> AliasInfo:
        request = Rollback(to=to, reason="the newer one is worse")
        answer: AliasInfo = self.run(
            MANAGER, approvals.rollback, adapter=NAME, alias=alias, request=request, if_match=None
        ).value
        return answer

    def revoke(self, number: int) -> None:
        self.run(MANAGER, approvals.revoke, adapter=NAME, number=number, request=Revoke(reason="it leaks"))

    def approvable(self, fill: int = 1) -> int:
        """A version that everyone is content with."""
        number = self.complete(self.submit(fill).number).number
        self.evaluate()
        self.review()
        return number

    # -- what is there -------------------------------------------------------------------------------------------

    def tables(self) -> dict[str, Table]:
        return tables(self.registry)

    def rebuilt(self) -> dict[str, Table]:
        """The tables of a second catalog, folded anew from the journal."""
        with tempfile.TemporaryDirectory() as folder:
            catalog = rebuild_catalog(
                Path(folder) / "catalog.duckdb", Path(folder) / "staging", self.registry.blobs, self.registry.journal
            )
            try:
                return dump(catalog.view()._db)
            finally:
                catalog.close()


@contextmanager
def bench_in(root: Path) -> Iterator[Bench]:
    bench = Bench(Home(root))
    try:
        yield bench
    finally:
        bench.close()


def submission(fill: int) -> SubmitVersion:
    files = [entry_of(path, data) for path, data in make_adapter(fill=fill).items()]
    return SubmitVersion(files=files, training=make_training(dataset=DATASET, ledger=LEDGER))


def make_rating(**scores: Any) -> Rating:
    return Rating(**{"clarity": 5, "relevance": 5, "safety": 5, "accuracy": 5, "hallucination": False, **scores})


def tables(registry: Registry) -> dict[str, Table]:
    return dump(registry.view()._db)


def dump(db: Any) -> dict[str, Table]:
    """Every row of every table, whatever the order they were written in."""
    names = [row[0] for row in db.execute("SELECT table_name FROM duckdb_tables() ORDER BY 1").fetchall()]
    return {name: sorted(db.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name in names}


@functools.cache
def parquet(suites: tuple[tuple[str, str], ...], numbers: tuple[tuple[str, int], ...]) -> bytes:
    """The rows do not depend on the version that was measured, so they are made once."""
    rows, _ = rows_and_evidence(dict(suites), "", "", **dict(numbers))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        write_rows(path, rows)
        return path.read_bytes()
