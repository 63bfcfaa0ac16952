"""The error tree: every class is drawn, described, raised with a message, and has its row in the HTTP table."""

import inspect

import pytest

from registry import errors
from registry.api.problems import TABLE
from registry.errors import TunegateError

CLASSES = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, TunegateError)]


def drawn() -> dict[str, str]:
    """Parent by class, from the tree in the module's docstring."""
    assert errors.__doc__ is not None
    path: list[str] = []
    parents: dict[str, str] = {}
    for line in errors.__doc__.splitlines():
        text = line.lstrip(" │├└─")
        if not text or not text[0].isupper() or not line.startswith("    "):
            continue
        depth = (len(line) - len(text)) // 4 - 1
        name = text.split()[0]
        parents[name] = path[depth - 1] if depth else ""
        path[depth:] = [name]
    return parents


def test_the_tree_of_the_docstring_is_the_tree_of_the_classes() -> None:
    assert drawn() == {one.__name__: "" if one is TunegateError else one.__bases__[0].__name__ for one in CLASSES}


@pytest.mark.parametrize("one", [one for one in CLASSES if one is not TunegateError])
def test_every_error_has_a_row_in_the_http_table(one: type[TunegateError]) -> None:
    status, code = TABLE[one]
    assert 400 <= status < 600
    assert code == code.lower().replace(" ", "_")


def test_the_http_table_has_no_row_without_a_class_and_no_code_twice() -> None:
    assert TABLE.keys() == set(CLASSES) - {TunegateError}
    assert len({code for _, code in TABLE.values()}) == len(TABLE)


@pytest.mark.parametrize("one", CLASSES)
def test_every_error_says_what_it_means(one: type[TunegateError]) -> None:
    assert one.__doc__ and one.__doc__.split("\n")[0].rstrip().endswith((".", "."))


def test_an_invalid_request_lists_every_problem() -> None:
    assert errors.InvalidRequest("two problems", ["one", "other"]).problems == ["one", "other"]
    assert errors.InspectionFailed("none").problems == []


def test_an_error_carries_what_its_caller_needs() -> None:
    assert errors.RangeRefused("resume", offset=7).offset == 7
    assert errors.PreconditionFailed("stale", current="3").current == "3"
    assert errors.GateNotSatisfied("refused", {"verdict": "no_go"}).report == {"verdict": "no_go"}
    assert str(errors.Conflict("the state is approved")) == "the state is approved"
