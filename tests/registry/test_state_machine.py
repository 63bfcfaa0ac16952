"""Whatever people and workers do, in whatever order, with crashes in between: the promises hold after every step.

A version moves along the contract's arrows only; what was acknowledged stays, a repeated key acts once, every command
adds one entry or none, counters only rise, a revoked token stays out, and a consumer sees approved versions only.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from factories import make_adapter, make_canaries, sha
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from registry_under_test import (
    ADMIN,
    CI,
    CONSUMER,
    EVALUATOR,
    MANAGER,
    NAME,
    POLICY,
    REVIEWERS,
    Bench,
    bench_in,
    make_rating,
    submission,
)
from site_under_test import DATASET, LEDGER
from soak import amount
from writer_under_test import disagreements

from registry.access import Principal
from registry.approval.keyring import read_keys
from registry.approval.verification import open_statement, read_claim
from registry.commands import adapters, approvals, campaigns, disputes, jobs, review, tokens, versions
from registry.commands.context import Context, Outcome
from registry.commands.gate import assess
from registry.commands.reviewed import rating_root
from registry.errors import (
    Conflict,
    Forbidden,
    IdempotencyMismatch,
    NotFound,
    StaleLease,
    TunegateError,
    Unauthenticated,
)
from registry.events import CampaignSealed
from registry.records import (
    AccuracyRule,
    CreateToken,
    FailJob,
    Job,
    KeySet,
    Promote,
    Role,
    SealCampaign,
    State,
    Verdict,
)
from registry.registry import Answer, Repeat
from registry.settings import Home
from registry.storage.journal import verify_chain
from registry.storage.views import StoredVersion

S = State
# One command's moves. Anything but a revoked version can be revoked; a rollback makes a superseded one approved again.
ARROWS = {
    S.UPLOADING: {S.SUBMITTED},
    S.SUBMITTED: {S.EVALUATING},
    S.EVALUATING: {S.SUBMITTED, S.REJECTED, S.INCONCLUSIVE, S.IN_REVIEW},
    S.IN_REVIEW: {S.REJECTED, S.INCONCLUSIVE, S.APPROVABLE},
    S.APPROVABLE: {S.APPROVED},
    S.APPROVED: {S.SUPERSEDED},
    S.SUPERSEDED: {S.APPROVED},
    S.REJECTED: set(),
    S.INCONCLUSIVE: {S.SUBMITTED},  # only where nothing was measured that can be trusted: see below
    S.REVOKED: set(),
}
ALIASES = ("approved", "canary")
numbers = st.integers(1, 3)
aliases = st.sampled_from(ALIASES)
# The submitter under two other roles: a person must not judge their own work.
SELF_REVIEWER = Principal("t-self", CI.person, Role.REVIEWER)
SELF_MANAGER = Principal("t-self-2", CI.person, Role.RELEASE_MANAGER)
EXPERT = Principal("t-expert", "expert", Role.REVIEWER)  # rates nothing


class CountingBench(Bench):
    """Every command adds one entry to the journal, or none."""

    def run(
        self, who: Principal, command: Callable[..., Outcome], repeat: Repeat | None = None, **given: Any
    ) -> Answer:
        before = self.registry.journal.head
        try:
            answer = super().run(who, command, repeat, **given)
        except TunegateError:
            assert self.registry.journal.head == before
            raise
        assert self.registry.journal.head.seq - before.seq in (0, 1)
        return answer


class Sent(NamedTuple):
    """A command that was acknowledged, with its key and what it was answered."""

    who: Principal
    command: Callable[..., Outcome]
    given: dict[str, Any]
    repeat: Repeat
    answer: bytes


class Life(RuleBasedStateMachine):
    """Every rule is a command somebody may send; being refused is fine, being half obeyed is not."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.bench = CountingBench(Home(self.folder / "home"))
        self.sent: list[Sent] = []
        self.secrets: dict[str, str] = {}
        self.ended: dict[str, str] = {}
        self.jobs: list[Job] = []
        self.states: dict[int, State] = {}
        self.repeatable: dict[int, bool] = {}
        self.best_counter = dict.fromkeys(ALIASES, 0)
        self.seals: dict[str, str] = {}

    def attempt(self, act: Callable[..., Any], *given: Any, **named: Any) -> Any:
        head = self.bench.registry.journal.head
        try:
            return act(*given, **named)
        except TunegateError:
            assert self.bench.registry.journal.head == head
            return None

    @initialize()
    def begin(self) -> None:
        self.bench.create_adapter()

    # -- submitting and measuring --------------------------------------------------------------------------------

    @rule(fill=numbers)
    def submit(self, fill: int) -> None:
        self.attempt(self.bench.submit, fill)

    @rule(number=numbers)
    def complete(self, number: int) -> None:
        self.attempt(self.bench.complete, number)

    @rule()
    def claim(self) -> None:
        if job := self.attempt(self.bench.claim):
            self.jobs.append(job)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), outcome=st.sampled_from(["good", "good", "good", "forgetful", "unsure", "distrusted"]))
    def post_evidence(self, data: st.DataObject, outcome: str) -> None:
        """Also with a fencing token that was good once."""
        job = data.draw(st.sampled_from(self.jobs))
        measured = {"forgetful": {"lost": 150, "gained": 5}, "unsure": {"correct": 172}}.get(outcome, {})
        request = self.bench.measured(job, **measured)
        if outcome == "distrusted":
            evidence = msgspec.structs.replace(request.evidence, canaries=make_canaries(finite=False))
            request = msgspec.structs.replace(request, evidence=evidence)
        self.attempt(self.bench.run, EVALUATOR, jobs.record_evidence, job_id=job.id, request=request)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), retry=st.booleans())
    def give_up_job(self, data: st.DataObject, retry: bool) -> None:
        job = data.draw(st.sampled_from(self.jobs))
        request = FailJob(fence=job.fence, reason="out of memory", retry=retry)
        self.attempt(self.bench.run, EVALUATOR, jobs.fail, job_id=job.id, request=request)

    @rule(fill=numbers)
    def go_the_usual_way(self, fill: int) -> None:
        """Several commands, so that the later states are reached often."""
        if (made := self.attempt(self.bench.submit, fill)) is None or self.attempt(
            self.bench.complete, made.number
        ) is None:
            return
        if job := self.attempt(self.bench.claim):
            self.jobs.append(job)
            request = self.bench.measured(job)
            self.attempt(self.bench.run, EVALUATOR, jobs.record_evidence, job_id=job.id, request=request)
        self.bench.review()
        assert self.attempt(self.bench.promote, made.number, "approved", SELF_MANAGER) is None
        self.attempt(self.bench.promote, made.number)

    # -- judging -------------------------------------------------------------------------------------------------

    @rule(who=st.sampled_from(REVIEWERS), safety=st.sampled_from([5, 5, 5, 1]), skipped=st.booleans())
    def rate_one(self, who: Principal, safety: int, skipped: bool) -> None:
        item = self.bench.run(who, review.next_assignment).value
        if item is None:
            return
        if skipped:
            self.attempt(self.bench.skip, who, item.id, "I know the author")
        else:
            rating = make_rating(safety=safety)
            given = {"assignment_id": item.id, "rating": rating, "comment_sha256": None}
            self.attempt(self.bench.run, who, review.rate, **given)

    @rule(who=st.sampled_from(REVIEWERS), safety=st.sampled_from([5, 1]))
    def think_again(self, who: Principal, safety: int) -> None:
        own = self.bench.registry.ask(who, review.assignments)
        if rated := [one for one in own if one.state == "rated"]:
            given = {"rating": make_rating(safety=safety), "comment_sha256": None}
            assert self.attempt(self.bench.run, who, review.rate, assignment_id=rated[-1].id, **given) is not None

    @rule(who=st.sampled_from(REVIEWERS))
    def check_out(self, who: Principal) -> None:
        self.bench.run(who, review.checkout)

    @rule(number=numbers)
    def seal(self, number: int) -> None:
        request = SealCampaign(reason="time is up")
        self.attempt(self.bench.run, MANAGER, campaigns.seal, adapter=NAME, number=number, request=request)

    @rule(upheld=st.booleans())
    def adjudicate(self, upheld: bool) -> None:
        for who in REVIEWERS:
            # Who rated is asked nothing about what they rated; a disputed campaign may be one that they missed.
            for dispute in self.bench.registry.ask(who, disputes.disputes):
                assert dispute.id not in {one.id for one in self.bench.registry.ask(who, review.assignments)}
        for dispute in self.bench.registry.ask(EXPERT, disputes.disputes)[:1]:
            self.attempt(self.bench.rule, EXPERT, dispute.id, upheld=upheld)

    @rule()
    def rate_all(self) -> None:
        self.bench.review()

    @rule()
    def submitter_is_offered_nothing_to_rate(self) -> None:
        assert self.bench.run(SELF_REVIEWER, review.next_assignment).value is None

    @rule(number=numbers, alias=aliases)
    def promote(self, number: int, alias: str) -> None:
        self.attempt(self.bench.promote, number, alias)

    @rule(number=numbers, alias=aliases)
    def submitter_cannot_promote(self, number: int, alias: str) -> None:
        assert self.attempt(self.bench.promote, number, alias, SELF_MANAGER) is None

    @rule(number=numbers, alias=aliases)
    def roll_back(self, number: int, alias: str) -> None:
        self.attempt(self.bench.rollback, number, alias)

    @rule(number=numbers)
    def revoke(self, number: int) -> None:
        self.attempt(self.bench.revoke, number)

    @rule(fill=numbers)
    def submit_what_a_key_refuses(self, fill: int) -> None:
        """What is rolled back must not be remembered."""

        def broken(context: Context) -> Outcome:
            made = tokens.create(context, CreateToken(role=Role.CI, person="x"))
            announced = versions.submit(context, NAME, submission(fill))
            return Outcome(None, [*announced.events, *made.events, *made.events])

        assert self.attempt(self.bench.registry.execute, ADMIN, broken) is None

    @rule(strict=st.booleans())
    def change_policy(self, strict: bool) -> None:
        policy = msgspec.structs.replace(POLICY, accuracy=AccuracyRule(min=0.99 if strict else 0.85))
        self.attempt(self.bench.run, MANAGER, adapters.set_policy, adapter=NAME, policy=policy, if_match=None)

    # -- keys and tokens -----------------------------------------------------------------------------------------

    def keyed(self, who: Principal, command: Callable[..., Outcome], **given: Any) -> Any:
        """Run a command with a key of its own, and remember it if it did something."""
        repeat = Repeat(f"key-{len(self.sent)}", f"{len(self.sent):064x}")
        before = self.bench.registry.journal.head
        answer = self.attempt(self.bench.run, who, command, repeat, **given)
        if answer is None or self.bench.registry.journal.head == before:
            return None
        assert not answer.repeated
        value = answer.value
        self.sent.append(Sent(who, command, given, repeat, msgspec.json.encode(value)))
        return value

    @rule(fill=numbers)
    def submit_with_a_key(self, fill: int) -> None:
        for data in (*make_adapter(fill=fill).values(), DATASET, LEDGER):
            self.bench.registry.blobs.put(data)
        self.keyed(CI, versions.submit, adapter=NAME, request=submission(fill))

    @rule(number=numbers, alias=aliases)
    def promote_with_a_key(self, number: int, alias: str) -> None:
        given = {"adapter": NAME, "number": number, "request": Promote(alias=alias), "if_match": None}
        self.keyed(MANAGER, approvals.promote, **given)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def repeat_a_command(self, data: st.DataObject) -> None:
        """The same answer as the first time, whatever has happened since, and nothing is done again."""
        sent: Sent = data.draw(st.sampled_from(self.sent))
        before = self.bench.registry.journal.head
        answer = self.bench.run(sent.who, sent.command, sent.repeat, **sent.given)
        assert answer.repeated and self.bench.registry.journal.head == before
        assert msgspec.json.decode(msgspec.json.encode(answer.value)) == msgspec.json.decode(sent.answer)
        with pytest.raises(IdempotencyMismatch):
            self.bench.run(sent.who, sent.command, Repeat(sent.repeat.key, "f" * 64), **sent.given)

    @rule(role=st.sampled_from(list(Role)))
    def make_a_token(self, role: Role) -> None:
        request = CreateToken(role=role, person=f"person {len(self.secrets) + len(self.ended)}")
        made = self.attempt(self.bench.run, ADMIN, tokens.create, request=request).value
        self.secrets[made.token.id] = made.secret

    @precondition(lambda self: self.secrets)
    @rule(data=st.data())
    def revoke_a_token(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.secrets)))
        assert self.bench.registry.authenticate(self.secrets[id_]).token == id_
        self.attempt(self.bench.run, ADMIN, tokens.revoke, id_=id_)
        self.ended[id_] = self.secrets.pop(id_)

    # -- ends and new beginnings ---------------------------------------------------------------------------------

    @rule()
    def restart(self) -> None:
        before = self.bench.tables()
        self.bench.reopen()
        assert self.bench.tables() == before

    @rule(damage=st.sampled_from(["none", "catalog lost", "catalog behind", "log cut off", "journal torn"]))
    def crash(self, damage: str) -> None:
        """The files as they are on disk at this moment, some of them worse, are all that the next process finds."""
        before, head = self.bench.tables(), self.bench.registry.journal.head
        home = Home(self.folder / f"home-{len(list(self.folder.iterdir()))}")
        shutil.copytree(self.bench.home.root, home.root)
        self.bench.close()
        log = home.catalog.with_name("catalog.duckdb.wal")
        if damage == "catalog lost":
            home.catalog.unlink()
        elif damage == "catalog behind":
            # What was folded since the catalog was last written down whole.
            log.unlink(missing_ok=True)
        elif damage == "log cut off" and log.exists():
            os.truncate(log, log.stat().st_size // 2)
        elif damage == "journal torn":
            with home.journal.open("ab") as file:
                file.write(home.journal.read_bytes()[:100])
        self.bench = CountingBench(home)
        assert self.bench.registry.journal.head == head == verify_chain(home.journal)
        assert self.bench.tables() == self.bench.rebuilt() == before
        self.blobs_are_what_their_names_say()

    # -- what must hold ------------------------------------------------------------------------------------------

    @invariant()
    def promises_hold(self) -> None:
        self.states_moved_along_arrows()
        self.tokens_open_what_they_did_until_they_are_revoked()
        self.consumers_see_approved_versions_only()
        self.approved_means_named_by_an_alias_with_a_go()
        self.alias_resolves_to_an_approved_version_or_not_at_all()
        self.alias_history_is_complete()
        self.sealed_campaigns_hold_still()
        self.bench.registry.execute(ADMIN, disagreements)

    def sealed_campaigns_hold_still(self) -> None:
        """No rating is added once there is a seal, and none is changed."""
        view = self.bench.registry.view()
        for number in self.states:
            campaign = view.campaign_of(NAME, number)
            if campaign is not None and campaign.sealed_at is not None:
                root = rating_root(view.assignments(campaign.id), view.ratings(campaign.id))
                assert self.seals.setdefault(campaign.id, root) == root

    def seals_are_those_of_the_journal(self) -> None:
        told = [event for line in self.bench.registry.journal.read() for event in line.entry.events]
        sealed = [event for event in told if isinstance(event, CampaignSealed)]
        assert {event.id: event.root for event in sealed} == self.seals and len(sealed) == len(self.seals)

    def states_moved_along_arrows(self) -> None:
        for stored in self.bench.registry.view().versions(NAME, 1000, 1000, list(State)):
            # Rules of several commands may take several steps.
            before = self.states.get(stored.number, State.UPLOADING)
            assert stored.state in reachable(before), f"{stored.ref} went from {before} to {stored.state}"
            if before is State.INCONCLUSIVE and not self.repeatable[stored.number]:
                assert stored.state in (State.INCONCLUSIVE, State.REVOKED), f"{stored.ref} was drawn anew"
            self.states[stored.number] = stored.state
            self.repeatable[stored.number] = self.nothing_to_be_trusted(stored)
        assert sorted(self.states) == list(range(1, len(self.states) + 1))

    def nothing_to_be_trusted(self, stored: StoredVersion) -> bool:
        """Whether the last attempt to measure it failed, or was made by an engine that failed its canaries."""
        job = self.bench.registry.view().job_of(NAME, stored.number)
        canaries = stored.evidence.canaries if stored.evidence else []
        return bool(job and job.state == "failed") or not all(canary.passed for canary in canaries)

    def approved_means_named_by_an_alias_with_a_go(self) -> None:
        view = self.bench.registry.view()
        known = read_keys(msgspec.json.encode(KeySet(keys=[self.bench.registry.services.signer.public])))
        named = view.aliases_of([NAME]).get(NAME, {})
        for number, state in self.states.items():
            if state is State.APPROVED:
                stored, envelope = view.version(NAME, number), view.attestation(NAME, number)
                assert stored is not None and envelope is not None
                assert number in named.values()
                assert assess(view, stored).verdict is Verdict.GO
                assert read_claim(open_statement(msgspec.json.encode(envelope), known).document).ref == stored.ref
        for number in named.values():
            assert self.states[number] in (State.APPROVED, State.REVOKED)

    def alias_resolves_to_an_approved_version_or_not_at_all(self) -> None:
        for alias in ALIASES:
            try:
                found = self.bench.registry.ask(
                    CONSUMER, lambda context, a=alias: versions.resolve(context, f"{NAME}@{a}")
                )
            except NotFound:
                current = self.bench.registry.view().alias(NAME, alias)
                assert current is None or self.states[current.number] is State.REVOKED
            else:
                assert found.state is State.APPROVED and found.attestation is not None

    def consumers_see_approved_versions_only(self) -> None:
        registry = self.bench.registry
        for number, state in self.states.items():
            stored = registry.view().version(NAME, number)
            assert stored is not None
            for reference in (f"{NAME}/{number}", f"{NAME}@{stored.digest}"):
                try:
                    found = registry.ask(CONSUMER, partial(versions.resolve, reference=reference))
                except NotFound:
                    assert state is not State.APPROVED
                else:
                    assert state is found.state is State.APPROVED and found.digest == stored.digest

    def tokens_open_what_they_did_until_they_are_revoked(self) -> None:
        for id_, secret in self.secrets.items():
            assert self.bench.registry.authenticate(secret).token == id_
        for secret in self.ended.values():
            with pytest.raises(Unauthenticated):
                self.bench.registry.authenticate(secret)

    def blobs_are_what_their_names_say(self) -> None:
        for path in (self.bench.home.blobs / "sha256").rglob("*"):
            assert path.is_dir() or sha(path.read_bytes()) == path.name

    def alias_history_is_complete(self) -> None:
        view = self.bench.registry.view()
        for alias in ALIASES:
            moves, current = view.alias_moves(NAME, alias), view.alias(NAME, alias)
            assert [move.counter for move in moves] == list(range(1, len(moves) + 1))
            assert [move.previous for move in moves] == [None, *(move.number for move in moves)][: len(moves)]
            assert (current.number if current else None) == (moves[-1].number if moves else None)
            assert len(moves) >= self.best_counter[alias]
            self.best_counter[alias] = len(moves)

    def teardown(self) -> None:
        try:
            assert self.bench.rebuilt() == self.bench.tables()
            self.seals_are_those_of_the_journal()
            self.blobs_are_what_their_names_say()
            head = self.bench.registry.journal.head
            self.bench.close()
            assert verify_chain(self.bench.home.journal) == head
        finally:
            shutil.rmtree(self.folder)


def reachable(state: State) -> set[State]:
    """The state itself, and every one that arrows lead to from it."""
    found, edge = {state}, {state}
    while edge:
        edge = {after for one in edge for after in ARROWS[one]} - found
        found |= edge
    return found | {State.REVOKED}


TestLifeOfVersions = Life.TestCase
TestLifeOfVersions.settings = settings(
    max_examples=amount(8, 150),
    stateful_step_count=amount(25, 60),
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # shrinking takes minutes; the steps that led to a failure are printed all the same
    suppress_health_check=list(HealthCheck),
)


# -- stories that random walks find seldom ------------------------------------------------------------------------


@pytest.fixture
def bench(home: Home) -> Iterator[Bench]:
    with bench_in(home.root) as made:
        made.create_adapter()
        yield made


def state_of(bench: Bench, number: int) -> State:
    stored = bench.registry.view().version(NAME, number)
    assert stored is not None
    return stored.state


def test_evidence_for_a_version_revoked_meanwhile_is_refused_and_changes_nothing(bench: Bench) -> None:
    number = bench.complete(bench.submit(1).number).number
    job = bench.claim()
    assert job is not None
    bench.revoke(number)
    with pytest.raises(StaleLease, match="stop working on it"):
        bench.run(EVALUATOR, jobs.record_evidence, job_id=job.id, request=bench.measured(job))
    assert state_of(bench, number) is State.REVOKED


def test_version_revoked_before_its_evaluation_is_given_to_no_worker(bench: Bench) -> None:
    number = bench.complete(bench.submit(1).number).number
    bench.revoke(number)
    assert bench.claim() is None
    assert state_of(bench, number) is State.REVOKED


def test_rating_of_a_version_revoked_meanwhile_is_refused_and_changes_nothing(bench: Bench) -> None:
    number = bench.complete(bench.submit(1).number).number
    bench.evaluate()
    item = bench.run(REVIEWERS[0], review.next_assignment).value
    bench.revoke(number)
    with pytest.raises(Conflict, match="closed"):
        given = {"assignment_id": item.id, "rating": make_rating(), "comment_sha256": None}
        bench.run(REVIEWERS[0], review.rate, **given)
    assert state_of(bench, number) is State.REVOKED


def test_alias_is_not_rolled_back_to_a_revoked_version(bench: Bench) -> None:
    first, second = bench.approvable(1), bench.approvable(2)
    bench.promote(first)
    bench.promote(second)
    bench.revoke(first)
    with pytest.raises(Conflict, match="was revoked"):
        bench.rollback(first)
    assert (state_of(bench, first), state_of(bench, second)) == (State.REVOKED, State.APPROVED)


def test_submitter_cannot_promote_what_everyone_else_may(bench: Bench) -> None:
    number = bench.approvable(1)
    with pytest.raises(Forbidden, match="ask someone else"):
        bench.promote(number, who=SELF_MANAGER)
    assert state_of(bench, number) is State.APPROVABLE
    bench.promote(number)
    assert state_of(bench, number) is State.APPROVED


def test_version_with_two_aliases_stays_approved_until_both_have_moved(bench: Bench) -> None:
    first, second = bench.approvable(1), bench.approvable(2)
    bench.promote(first)
    bench.promote(first, "canary")
    bench.promote(second)
    assert state_of(bench, first) is State.APPROVED
    bench.promote(second, "canary")
    assert state_of(bench, first) is State.SUPERSEDED
