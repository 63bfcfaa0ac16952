"""Whatever people and workers do, in whatever order: a version moves along the contract's arrows only."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from factories import make_canaries
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from registry_under_test import CI, CONSUMER, EVALUATOR, MANAGER, NAME, POLICY, REVIEWERS, Bench, bench_in, make_rating

from registry.access import Principal
from registry.attestation import open_envelope
from registry.commands import adapters, jobs, review, versions
from registry.commands.gate import assess
from registry.errors import Conflict, Forbidden, NotFound, StaleLease, TunegateError
from registry.records import AccuracyRule, FailJob, Job, KeySet, Role, Skip, State, Verdict
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


class Life(RuleBasedStateMachine):
    """Every rule is a command somebody may send; being refused is fine, being half obeyed is not."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.bench = Bench(Home(self.folder / "home"))
        self.jobs: list[Job] = []
        self.states: dict[int, State] = {}
        self.repeatable: dict[int, bool] = {}
        self.best_counter = dict.fromkeys(ALIASES, 0)

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
            request = Skip(reason="I know the author")
            self.attempt(self.bench.run, who, review.skip, assignment_id=item.id, request=request)
        else:
            rating = make_rating(safety=safety)
            given = {"assignment_id": item.id, "rating": rating, "comment_sha256": None}
            self.attempt(self.bench.run, who, review.rate, **given)

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

    @rule(strict=st.booleans())
    def change_policy(self, strict: bool) -> None:
        policy = msgspec.structs.replace(POLICY, accuracy=AccuracyRule(min=0.99 if strict else 0.85))
        self.attempt(self.bench.run, MANAGER, adapters.set_policy, adapter=NAME, policy=policy, if_match=None)

    @rule()
    def restart(self) -> None:
        before = self.bench.tables()
        self.bench.reopen()
        assert self.bench.tables() == before

    # -- what must hold ------------------------------------------------------------------------------------------

    @invariant()
    def promises_hold(self) -> None:
        self.states_moved_along_arrows()
        self.approved_means_named_by_an_alias_with_a_go()
        self.alias_resolves_to_an_approved_version_or_not_at_all()
        self.alias_history_is_complete()

    def states_moved_along_arrows(self) -> None:
        for stored in self.bench.registry.view().versions(NAME, 1000, 1000, []):
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
        view, key = self.bench.registry.view(), KeySet(keys=[self.bench.registry.services.signer.public])
        named = view.aliases(NAME)
        for number, state in self.states.items():
            if state is State.APPROVED:
                stored, envelope = view.version(NAME, number), view.attestation(NAME, number)
                assert stored is not None and envelope is not None
                assert number in named.values()
                assert assess(view, stored).verdict is Verdict.GO
                assert open_envelope(envelope, key)["subject"]
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
    max_examples=6,
    stateful_step_count=20,
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
