"""Conditions on measured values: read whole or refused, bound and never interpolated."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from registry_under_test import ADMIN, NAME, Bench, bench_in

from registry.commands.context import Outcome
from registry.commands.gate import assess
from registry.commands.versions import find_version
from registry.errors import InvalidRequest
from registry.events import GateDecided
from registry.records import State
from registry.search import MAX_CONDITIONS, Condition, Operator, read_conditions
from registry.settings import Home

# What a check may observe that is no measured number.
ODD = (None, True, "0.5")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("accuracy>=0.85", [Condition("accuracy", Operator.AT_LEAST, 0.85)]),
        ("  perplexity  <  6 ", [Condition("perplexity", Operator.LESS, 6.0)]),
        ("forgetting <= -1.5e-2", [Condition("forgetting", Operator.AT_MOST, -0.015)]),
        ("accuracy:support-desk/extra = 1", [Condition("accuracy:support-desk/extra", Operator.EQUAL, 1.0)]),
        (
            "accuracy > 0.9 AND perplexity < 6.2 and forgetting<0.01",
            [
                Condition("accuracy", Operator.MORE, 0.9),
                Condition("perplexity", Operator.LESS, 6.2),
                Condition("forgetting", Operator.LESS, 0.01),
            ],
        ),
    ],
)
def test_conditions_are_read(text: str, found: list[Condition]) -> None:
    assert read_conditions(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "and",
        "accuracy",
        "accuracy > ",
        "accuracy > nan",
        "accuracy > inf",
        "accuracy > 1e999",
        "accuracy > 0x10",
        "accuracy > ٣",
        "accuracy => 1",
        "accuracy == 1",
        "accuracy != 1",
        "accuracy > 1 or 1 = 1",
        "accuracy > 1; DROP TABLE versions",
        "accuracy > 1 -- and",
        "accuracy > 1 and",
        "accuracy > 1 and and perplexity < 1",
        "accuracy > (SELECT 1)",
        "Accuracy > 1",
        "m.value > 1",
        "'accuracy' > 1",
        "accuracy > 1\nand\x00perplexity < 1",
    ],
)
def test_what_is_no_condition_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"accuracy >= 0\.85 and perplexity < 6\.2"):
        read_conditions(text)


def test_number_of_conditions_is_limited() -> None:
    assert len(read_conditions(" and ".join(["accuracy > 0"] * MAX_CONDITIONS))) == MAX_CONDITIONS
    with pytest.raises(InvalidRequest, match="more than"):
        read_conditions(" and ".join(["accuracy > 0"] * (MAX_CONDITIONS + 1)))


def test_last_gate_report_decides_what_a_version_is_found_by(home: Home) -> None:
    def found(bench: Bench, text: str) -> list[int]:
        versions = bench.registry.view().versions(NAME, 2**31, 10, list(State), read_conditions(text))
        return [one.number for one in versions]

    with bench_in(home.root) as bench:
        bench.create_adapter()
        number = bench.complete(bench.submit().number).number
        bench.evaluate(correct=190)
        assert found(bench, "accuracy = 0.95") == [number]
        report = bench.registry.ask(ADMIN, lambda context: assess(context.view, find_version(context, NAME, number)))
        changed = [msgspec.structs.replace(check, observed={"value": 0.5}) for check in report.checks[:3]]
        one = report.checks[0]
        odd = [msgspec.structs.replace(one, name=f"odd{n}", observed={"value": value}) for n, value in enumerate(ODD)]
        whole = msgspec.structs.replace(one, name="whole", observed={"value": 1.0})
        again = msgspec.structs.replace(report, checks=[*changed, *odd, whole])
        event = GateDecided(adapter=NAME, number=number, state=State.REJECTED, report=again)
        bench.registry.execute(ADMIN, lambda _: Outcome(None, [event]))
        assert found(bench, "accuracy = 0.95") == found(bench, "forgetting > -1") == []
        assert found(bench, f"{changed[0].name} <= 0.5 and whole = 1") == [number]
        assert not any(found(bench, f"odd{n} >= 0") for n in range(len(ODD)))
        assert bench.rebuilt() == bench.tables()


def test_a_search_finds_what_lies_far_below_and_misses_nothing_on_the_way(home: Home) -> None:
    with bench_in(home.root) as bench:
        bench.create_adapter()
        for fill in range(1, 41):
            number = bench.submit(fill).number
            if number in (1, 2, 19, 30):
                bench.complete(number)
        view = bench.registry.view()
        for states, wanted in {
            (State.SUBMITTED,): [30, 19, 2, 1],
            (State.UPLOADING,): [n for n in range(40, 0, -1) if n not in (30, 19, 2, 1)],
            (State.SUBMITTED, State.UPLOADING): list(range(40, 0, -1)),
            (State.APPROVED,): [],
        }.items():
            for after in (1, 2, 3, 20, 31, 40, 41, 2**31):
                for limit in (1, 2, 3, 50):
                    found = [one.number for one in view.versions(NAME, after, limit, states)]
                    assert found == [n for n in wanted if n < after][:limit], (states, after, limit)
        assert view.versions("unknown-bot", 2**31, 5, list(State)) == view.versions(NAME, 2**31, 5, []) == []


@given(st.text(alphabet="acurpe <>=.019-:/'\";and", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        for one in read_conditions(text):
            assert one.metric.replace(":", "").replace("/", "").replace("-", "").replace("_", "").isalnum()
