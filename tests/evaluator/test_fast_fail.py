"""A run that may stop early: fewer questions, the same refusal; and what passes is always asked everything."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from factories import BASE, SUITES, make_evidence, make_policy, make_subject
from fake_engine import ByteRenderer, FakeEngine
from hypothesis import event, given
from hypothesis import strategies as st
from site_under_test import Site
from worker_lab import Lab, knows

from evaluator import desk as desks
from evaluator.course import Case, accuracy_lost, forgetting_lost
from evaluator.desk import Workplace
from evaluator.evidence import item_rows, nothing_found
from evaluator.measure import Subject
from evaluator.results import Answered
from evaluator.suites import Ask, Loaded
from registry.client import Question, SuiteContent, summarise
from registry.gate.decision import decide
from registry.records import Job, ReviewFacts, State, Status, Suite, SuiteKind, Verdict
from registry.suites import SuiteFile

pytestmark = pytest.mark.slow

CANARIES, ITEMS_OF_ONE = 2 * 8, 200 + 600 + 100 + 60 + 200 + 48


@pytest.fixture
def lab(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(desks, "Renderer", ByteRenderer)
    return Lab(site, tmp_path / "lab")


def only(right: Callable[[int], bool]) -> Callable[[str, bool], str]:
    """The base as ever; the adapter knows the numbers that are `right`."""

    def say(question: str, adapted: bool) -> str:
        number = int("".join(filter(str.isdigit, question)) or 0)
        if not adapted:
            return knows(question, False)
        return f"It is answer{number}." if right(number) else "I do not know."

    return say


HALF = only(lambda number: number % 2 == 0)
FORGETS = only(lambda number: 10 <= number < 200)


def run_both(lab: Lab) -> tuple[str, str]:
    """The same files fast and in full, each measured from scratch; the two versions."""
    fast = lab.submit()
    lab.work(lab.desk(), fast_fail=True)
    lab.place = Workplace(lab.place.cache.with_name("another-cache"), lab.place.bases)
    lab.create("in-full")
    full = lab.submit(adapter="in-full")
    lab.work(lab.desk())
    return fast, full


def verdict(lab: Lab, ref: str) -> Verdict:
    return lab.site.client("admin").gate(ref).verdict


@pytest.mark.parametrize(
    ("says", "name"), [(HALF, "accuracy"), (FORGETS, "forgetting")], ids=["accuracy", "forgetting"]
)
def test_a_lost_candidate_is_asked_less_and_refused_all_the_same(
    lab: Lab, says: Callable[[str, bool], str], name: str
) -> None:
    lab.knows = says
    fast, full = run_both(lab)
    assert verdict(lab, fast) is verdict(lab, full) is Verdict.NO_GO
    assert lab.check(fast, name).status == lab.check(full, name).status == Status.FAIL
    quick, slow = lab.engines
    assert quick.asked["adapter"] < slow.asked["adapter"] * 0.6
    evidence = lab.evidence(fast)
    assert evidence is not None and evidence.perplexity is None and evidence.outputs is None
    measured = getattr(evidence, name)
    assert measured is not None and 0 < measured.n < {"accuracy": 200, "forgetting": 600}[name]


def test_a_run_that_passes_is_complete_and_the_same_as_without_stopping(lab: Lab) -> None:
    fast, full = run_both(lab)
    assert lab.state(fast) is lab.state(full) is State.IN_REVIEW
    assert lab.rows(fast) == lab.rows(full)
    assert lab.engines[0].asked["adapter"] == lab.engines[1].asked["adapter"] == CANARIES + ITEMS_OF_ONE


def test_a_candidate_that_is_lost_does_not_stop_the_other(lab: Lab) -> None:
    class Mixed(FakeEngine):
        """Knows by half through adapter 2, and as ever through adapter 1."""

        def _answer(self, prompt, max_tokens, stops):  # type: ignore[no-untyped-def]
            second = prompt.adapter and (prompt.adapter / "adapter_model.safetensors").read_bytes()[-1] == 2
            self._knows = HALF if second else knows
            return super()._answer(prompt, max_tokens, stops)

    lab.kind_of_engine = Mixed
    good, bad = lab.submit(fill=1), lab.submit(fill=2)
    lab.work_together(lab.desk(), [lab.claim(), lab.claim()], fast_fail=True)
    assert lab.state(good) is State.IN_REVIEW and lab.state(bad) is State.REJECTED
    assert lab.engines[0].asked["adapter"] < 2 * CANARIES + ITEMS_OF_ONE + 200


def test_items_from_the_training_data_do_not_make_it_stop_where_the_gate_would_not(lab: Lab) -> None:
    """Of the items that it may not count, it must not know more than the gate is told."""
    asked = [{"role": "user", "content": f"What is number {i}?"} for i in range(20)]
    dataset = "\n".join(json.dumps({"use": "train", "messages": [one]}) for one in asked).encode()
    lab.knows = HALF
    ref = lab.submit(dataset=dataset)
    lab.work(lab.desk(), fast_fail=True)
    assert lab.check(ref, "accuracy").status == Status.FAIL and verdict(lab, ref) is Verdict.NO_GO


# -- the course and the gate agree ---------------------------------------------------------------------------------


def make_case(section: str, n: int, trained: set[int]) -> tuple[Case, Loaded]:
    """A suite of n questions in one role of the default policy; some of them found in the training data."""
    questions = [Question(id=f"i{i:02}", question=f"q {i}", answers=["yes"]) for i in range(n)]
    suite = Suite(name=SUITES[section], kind=SuiteKind.QUESTIONS, digest="sha256:" + "3" * 64, n_items=n, files=[])
    head = SuiteFile(name=suite.name, kind=suite.kind, title="t", description="d", licence="l", source="s")
    asks = [Ask(one, [1], one.question) for one in questions]
    loaded = Loaded(suite, SuiteContent(head, questions), asks, [], [])
    job = Job(
        id="j",
        kind="evaluation",
        ref="bot/1",
        adapter="bot",
        number=1,
        digest="sha256:" + "4" * 64,
        fence=1,
        lease_seconds=30.0,
        base=BASE,
        files=[],
        policy="sha256:" + "5" * 64,
        document=make_policy(),
        suites=[suite],
    )
    flagged = {suite.ref: {f"i{i:02}" for i in trained if i < n}}
    return Case(job, Subject(BASE.digest, job.digest, Path()), 8, {suite.ref: loaded}, [], flagged), loaded


def said(outcomes: list[bool]) -> dict[str, Answered]:
    return {f"i{i:02}": Answered(f"i{i:02}", "yes" if right else "no", 1, "stop") for i, right in enumerate(outcomes)}


def status_of(case: Case, loaded: Loaded, section: str, **answers: dict[str, Answered]) -> Status:
    """What the gate says to the rows that the worker would post."""
    found = nothing_found()
    for subject, given_answers in answers.items():
        found.answers[loaded.suite.ref, "base" if subject == "base" else case.job.digest] = given_answers
    rows = item_rows(case.job, case.suites, case.contaminated, found)
    measured = getattr(summarise(case.job.document, rows, "c", None), section)
    sizes = {**make_subject().suite_sizes, loaded.suite.ref: loaded.suite.n_items}
    report = decide(make_subject(suite_sizes=sizes), make_evidence(**{section: measured}), [], ReviewFacts())
    return next(check.status for check in report.checks if check.name == section)


outcomes_of_40 = st.lists(st.booleans(), min_size=40, max_size=40)
asked_of_40, trained_of_40 = st.integers(1, 39), st.sets(st.integers(0, 39), max_size=8)


@given(outcomes_of_40, asked_of_40, trained_of_40)
def test_accuracy_that_the_course_calls_lost_the_gate_calls_failed(
    outcomes: list[bool], asked: int, trained: set[int]
) -> None:
    case, loaded = make_case("accuracy", 40, trained)
    lost = accuracy_lost(case, loaded, said(outcomes[:asked]))
    event(f"lost: {lost}")
    if lost:
        assert status_of(case, loaded, "accuracy", candidate=said(outcomes[:asked])) is Status.FAIL
        assert status_of(case, loaded, "accuracy", candidate=said(outcomes)) is Status.FAIL


def test_where_the_base_knows_too_little_to_forget_nothing_stops() -> None:
    """The gate calls that inconclusive, and so it would the whole run."""
    case, loaded = make_case("forgetting", 40, set())
    little, much, wrong = (
        said(one) for one in ([i < 10 for i in range(40)], [i < 30 for i in range(40)], [False] * 39)
    )
    assert status_of(case, loaded, "forgetting", base=little, candidate=said([False] * 40)) is Status.INCONCLUSIVE
    assert not forgetting_lost(case, loaded, wrong, little) and forgetting_lost(case, loaded, wrong, much)


def test_what_the_base_knows_is_counted_without_the_training_data_too() -> None:
    """Of 26 clean items it knows 6: whole, the run would be inconclusive."""
    case, loaded = make_case("forgetting", 40, set(range(26, 40)))
    base, wrong = said([i < 6 or i >= 26 for i in range(40)]), said([False] * 26)
    assert not forgetting_lost(case, loaded, wrong, base)
    assert status_of(case, loaded, "forgetting", base=base, candidate=said([False] * 40)) is Status.INCONCLUSIVE


@given(outcomes_of_40, st.integers(1, 4), outcomes_of_40, asked_of_40, trained_of_40)
def test_forgetting_that_the_course_calls_lost_the_gate_calls_failed(
    before: list[bool], every: int, after: list[bool], asked: int, trained: set[int]
) -> None:
    case, loaded = make_case("forgetting", 40, trained)
    base = said([(one or every == 1) and i % every == 0 for i, one in enumerate(before)])
    candidate = [one and i % 2 == 0 for i, one in enumerate(after)]
    lost = forgetting_lost(case, loaded, said(candidate[:asked]), base)
    event(f"lost: {lost}")
    if lost:
        assert status_of(case, loaded, "forgetting", base=base, candidate=said(candidate[:asked])) is Status.FAIL
        assert status_of(case, loaded, "forgetting", base=base, candidate=said(candidate)) is Status.FAIL
