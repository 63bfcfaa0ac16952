"""Preflight against a second set of faults, made by another hand than its rules and its first set.

First run, before any rule was changed for it: 363 of 434 found (83.6 %), 17 of 2,295 clean rows accused (0.74 %).
"""

import msgspec
import pytest
from independent_faults import ACCEPTED, Corpus, corpus, score

from registry.client import Question, read_suite
from trainer.preflight.check import Options, preflight

HEAD = 'name = "held/out"\nkind = "questions"\ntitle = "x"\ndescription = "x"\nlicence = "Apache-2.0"\nsource = "x"\n'


def findings(folder, planted: Corpus) -> list[tuple[int, str]]:
    items = [Question(id=f"i-{n:02d}", question=q, answers=[a], tags=["x"]) for n, (q, a) in enumerate(planted.suite)]
    lines = b"\n".join(
        msgspec.json.encode({"id": one.id, "question": one.question, "answers": one.answers}) for one in items
    )
    suite = read_suite({"suite.toml": HEAD.encode(), "items.jsonl": lines + b"\n"})
    path = folder / "data.jsonl"
    path.write_bytes(planted.data)
    report = preflight(path, Options(max_length=2048, suites=[("held/out", suite)]))
    return [(one.line, one.rule) for one in report.problems if one.line]


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "style"), [(11, "messages"), (14, "instruction"), (29, "prompt")])
def test_faults_of_a_strangers_making_are_found_and_clean_rows_are_left_alone(tmp_path, seed: int, style: str) -> None:
    planted = corpus(seed, style)
    assert len(planted.clean) >= 2000 and len({one.kind for one in planted.faults}) >= 20
    result = score(planted, findings(tmp_path, planted))
    assert result.recall >= 0.95, result.missed
    assert len(result.false_alarms) <= 0.01 * len(planted.clean), result.false_alarms
    weak = {kind: (result.found[kind], n) for kind, n in result.planted.items() if result.found[kind] < 0.7 * n}
    assert not weak


def test_the_score_counts_what_is_named_rightly_and_nothing_else() -> None:
    planted = corpus(1, "messages", rows=200)
    assert set(ACCEPTED) == {one.kind for one in planted.faults}
    silent = score(planted, [])
    assert silent.recall == 0 and not silent.false_alarms and len(silent.missed) == len(planted.faults)
    right = score(planted, [(one.line, ACCEPTED[one.kind].split()[0]) for one in planted.faults])
    assert right.recall == 1 and not right.missed and not right.false_alarms
    wrong = score(planted, [(one.line, "W999") for one in planted.faults] + [(line, "W241") for line in planted.clean])
    assert wrong.recall == 0 and set(wrong.false_alarms) == planted.clean
