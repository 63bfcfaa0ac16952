"""The order in which suites are asked, of whom, and when a candidate need not be asked any further.

Accuracy first, then forgetting, perplexity, extra suites and pilot prompts: what most often fails comes first, so that
a run which may stop early stops early. Only a failure that no completion could undo ends a candidate's questions.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from evaluator import measure
from evaluator.engine import Engine
from evaluator.evidence import Found, compared_suites, nothing_found
from evaluator.measure import BATCH, Ground, Subject, Task
from evaluator.results import Answered, R
from evaluator.suites import Loaded, Read, judge
from registry.client import accuracy_is_lost, forgetting_is_lost
from registry.records import Job, Policy, SuiteKind

_SMALL_BATCH = 32  # a run that may stop looks after each batch whether it does


class Case(NamedTuple):
    """A job made ready: its suites as ids, the replies that are right, the items found in the training data."""

    job: Job
    subject: Subject
    rank: int
    suites: Mapping[str, Loaded]
    gold: list[Read]
    contaminated: Mapping[str, set[str]] | None


class Watch(NamedTuple):
    """What a run tells and asks outside: stages, steps, and whether a job is still this worker's."""

    stage: Callable[[str], None]
    step: Callable[[int, int], None]
    holds: Callable[[Job], bool]


Lost = Callable[[Case, Mapping[str, Answered]], bool]


class Course:
    """One run of cases of one base over one engine, together."""

    def __init__(
        self, engine: Engine, cases: Sequence[Case], ground: Ground, watch: Watch, *, fast_fail: bool = False
    ) -> None:
        self._engine, self._cases, self._ground, self._watch = engine, cases, ground, watch
        self._fast_fail = fast_fail
        self._base = Subject(cases[0].subject.base_digest, "base", None)
        self._found = nothing_found()
        self._over: set[str] = set()

    def run(self) -> Found:
        """Everything that the cases' policies ask for, or as much of it as it took to refuse them."""
        for role, ref in _order([case.job.document for case in self._cases]):
            cases = [case for case in self._cases if (role, ref) in _wanted(case.job.document) and self._goes_on(case)]
            if cases:
                self._watch.stage(cases[0].suites[ref].suite.name)
                self._ask(role, cases, cases[0].suites[ref])
        return self._found

    def _ask(self, role: str, cases: Sequence[Case], loaded: Loaded) -> None:
        """Put one suite to the cases' candidates, and to the base where a policy compares them."""
        ref, found = loaded.suite.ref, self._found
        compared = [case for case in cases if ref in compared_suites(case.job.document)]
        subjects = [self._base] if compared else []
        subjects += dict.fromkeys(case.subject for case in cases)
        match loaded.suite.kind:
            case SuiteKind.CONVERSATIONS:
                _file(found.scores, ref, self._run(measure.readings(loaded), subjects, cases))
            case SuiteKind.LM_EVAL:
                _file(found.judged, ref, self._run(measure.documents(loaded, self._ground), subjects, cases))
            case SuiteKind.CHOICES:
                _file(found.answers, ref, self._run(measure.letters(loaded), subjects, cases))
            case SuiteKind.QUESTIONS | SuiteKind.PROMPTS | SuiteKind.REFUSALS:
                task = measure.answers(loaded)
                lost = self._lost(role, loaded)
                if lost and compared:
                    # What the base gets wrong is all that a candidate can still gain.
                    _file(found.answers, ref, self._run(task, [self._base], cases))
                _file(found.answers, ref, self._run(task, subjects, cases, lost))
        if role == "forgetting":
            self._ask_beside(loaded, [case for case in cases if self._goes_on(case)])

    def _ask_beside(self, loaded: Loaded, cases: Sequence[Case]) -> None:
        """How likely the right answers have become, and what the base itself would say."""
        if not cases:
            return
        ref, subjects = loaded.suite.ref, [self._base, *dict.fromkeys(case.subject for case in cases)]
        _file(self._found.gold, ref, self._run(measure.gold(loaded, cases[0].gold), subjects, cases))
        sampled = self._run(measure.samples(loaded, self._ground), [self._base], cases)[self._base]
        _file(self._found.echoes, ref, self._run(measure.echoes(loaded, sampled), subjects, cases))

    def _run(
        self, task: Task[R], subjects: Sequence[Subject], cases: Sequence[Case], lost: Lost | None = None
    ) -> dict[Subject, dict[str, R]]:
        def going(subject: Subject, found: Mapping[str, R]) -> bool:
            mine = [case for case in cases if case.subject == subject and self._goes_on(case)]
            if lost:
                self._over |= {case.job.id for case in mine if lost(case, found)}  # type: ignore[arg-type]
            return subject == self._base or any(map(self._goes_on, mine))

        batch = _SMALL_BATCH if lost else BATCH
        return measure.run(self._engine, task, subjects, self._ground, self._watch.step, batch=batch, going=going)

    def _goes_on(self, case: Case) -> bool:
        return case.job.id not in self._over and self._watch.holds(case.job)

    def _lost(self, role: str, loaded: Loaded) -> Lost | None:
        """Whether a candidate's answers so far decide that it fails; None where they are never asked that."""
        if not self._fast_fail:
            return None
        base = self._found.answers
        match role:
            case "accuracy":
                return lambda case, answers: accuracy_lost(case, loaded, answers)
            case "forgetting":
                return lambda case, answers: forgetting_lost(case, loaded, answers, base[loaded.suite.ref, "base"])
        return None


def accuracy_lost(case: Case, loaded: Loaded, answers: Mapping[str, Answered]) -> bool:
    """Whether accuracy fails whatever the rest of the answers is."""
    right = list(_outcomes(case, loaded, answers).values())
    size = loaded.suite.n_items - (len(answers) - len(right))
    return accuracy_is_lost(case.job.document.accuracy, size, sum(right), len(right) - sum(right))


def forgetting_lost(
    case: Case, loaded: Loaded, answers: Mapping[str, Answered], base_answers: Mapping[str, Answered]
) -> bool:
    """Whether the loss against the base is too large whatever the rest of the answers is."""
    after = _outcomes(case, loaded, answers)

    def is_lost(before: Mapping[str, bool]) -> bool:
        rest = [right for item, right in before.items() if item not in answers]
        lost = sum(before[item] and not right for item, right in after.items())
        gained = sum(right and not before[item] for item, right in after.items())
        known = sum(before[item] for item in after) + sum(rest)
        rule = case.job.document.forgetting
        return forgetting_is_lost(rule, len(after) + len(rest), lost, gained, len(rest) - sum(rest), known)

    # The gate is not told what of the rest was in the training data, and the whole run would leave that out.
    return all(is_lost(_outcomes(case, loaded, base_answers, clean=clean)) for clean in (False, True))


def _outcomes(case: Case, loaded: Loaded, answers: Mapping[str, Answered], *, clean: bool = True) -> dict[str, bool]:
    """Whether each answer is right; `clean`: only of the items that were not found in the training data."""
    flagged = (case.contaminated or {}).get(loaded.suite.ref, set()) if clean else set()
    sources = {one.item: one.source for one in loaded.asks if one.item not in flagged}
    return {item: bool(judge(sources[item], one.text)) for item, one in answers.items() if item in sources}


def _order(policies: Sequence[Policy]) -> list[tuple[str, str]]:
    """Every (role, suite) of several policies, role by role."""
    wanted = dict.fromkeys(one for policy in policies for one in _wanted(policy))
    roles = list(dict.fromkeys(role for policy in policies for role, _ in _wanted(policy)))
    return sorted(wanted, key=lambda one: roles.index(one[0]))


def _wanted(policy: Policy) -> list[tuple[str, str]]:
    """The suites of a policy with what each is for, in the order in which they are asked."""
    return [
        ("accuracy", policy.accuracy.suite),
        ("forgetting", policy.forgetting.suite),
        ("perplexity", policy.perplexity.suite),
        *(("extra", rule.suite) for rule in policy.extra),
        ("review", policy.review.suite),
    ]


def _file(shelf: dict[tuple[str, str], dict[str, R]], ref: str, found: Mapping[Subject, dict[str, R]]) -> None:
    for subject, results in found.items():
        shelf[ref, subject.digest] = results
