"""Recipes made to hold the service up or to break its parser: refused at once, with a reason, and nothing is queued."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from site_under_test import DATASET, Site, body, running

from registry.commands import trainings
from registry.errors import InvalidRequest
from registry.records import CreateTraining
from registry.settings import Home

GOOD = 'name = "r"\nbase = "b"\ndata = "d"\n'
MANY = 8000
CASES = {
    "a key of very many parts": (f"{'.'.join('a' * MANY)} = 1", "more than 8 parts"),
    "a table of very many parts": (f"[{'.'.join('a' * MANY)}]", "more than 8 parts"),
    "a quoted key of many parts": (".".join(['"a.b"'] * MANY) + " = 1", "more than 8 parts"),
    "a key spread out": (" . ".join(["'a'"] * MANY) + " = 1", "more than 8 parts"),
    "a key of many parts in a table": (f"x = {{{'.'.join('a' * MANY)} = 1}}", "more than 8 parts"),
    "lists without an end": ("a = " + "[" * 1000, "nested deeper than 20"),
    "lists in lists": (f"a = {'[' * 1000}{']' * 1000}", "nested deeper than 20"),
    "tables in tables": ("a = " + "{a = " * 1000, "nested deeper than 20"),
    "behind a text": ("x = '''\n\"\"\"''' # '''\na = " + "[" * 1000, "nested deeper than 20"),
    "a number of very many digits": ("a = " + "1" * 60_000, "not valid TOML"),
    "a text without an end, again and again": ('"""\n\\' * 12_000, "not valid TOML"),
    "an escape at the very end": ('"""\n\\"""\n' * 6000 + "\\", "not valid TOML"),
}
FINE = {
    "eight parts": "a.b.c.d.e.f.g.h = 1",
    "dots in a text": f'x = \'{"a." * 1000}\'\ny = """\n{"a." * 1000}\n[[[[[[[[[[[[[[[[[[[[[[[[[\n"""',
    "dots and brackets in a comment": "# a.b.c.d.e.f.g.h.i.j.k " + "[" * 100,
    "many numbers": f"x = [{', '.join(['1.5'] * 1000)}]",
    "lists in twenty lists": f"x = {'[' * 20}{']' * 20}",
    "many tables": "".join(f"[t.a.b.c.d.e.f.k{number}]\n" for number in range(1000)),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("recipes") / "home")) as found:
        found.create_adapter()
        yield found


def asked(recipe: str) -> CreateTraining:
    return CreateTraining(adapter="support-bot", recipe=recipe, dataset="sha256:" + "0" * 64)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_recipe_that_is_dear_to_read_is_refused_before_any_command_waits_for_it(site: Site, case: str) -> None:
    recipe, says = CASES[case]
    dataset = "sha256:" + site.client("trainer").upload(DATASET).sha256
    head = site.registry.journal.head
    sent = {"adapter": "support-bot", "recipe": GOOD + recipe, "dataset": dataset}
    answer = site.http("POST", "/v1/trainings", "trainer", json=sent)
    assert (answer.status_code, body(answer)["code"]) == (422, "invalid_request") and says in body(answer)["detail"]
    assert "Traceback" not in answer.text and site.registry.journal.head == head


@pytest.mark.parametrize("case", FINE)
def test_a_recipe_that_only_looks_like_it_is_fine(case: str) -> None:
    trainings.check_recipe(asked(GOOD + FINE[case]))


@given(st.text(alphabet="ab.=[]{}\"'#\\\n, 1", max_size=400))
def test_whatever_the_text_is_it_is_fine_or_an_invalid_request(text: str) -> None:
    try:
        trainings.check_recipe(asked(GOOD + text))
    except InvalidRequest as error:
        assert error.problems
