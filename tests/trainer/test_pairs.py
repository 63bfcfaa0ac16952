"""Reading preference pairs: what is one, and every fault of the file at once."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.client import InvalidRequest
from trainer.pairs import Pairs, are_pairs, read_pairs
from trainer.preflight.check import Options
from trainer.preflight.pairs import check_pairs

PAIR = {"prompt": "How long?", "chosen": "3 years.", "rejected": "It depends."}


def read(folder: Path, *lines: Any) -> Pairs:
    file = folder / "pairs.jsonl"
    file.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines))
    return read_pairs(file)


def faults(folder: Path, *lines: Any) -> list[str]:
    with pytest.raises(InvalidRequest) as error:
        read(folder, *lines)
    assert error.value.problems is not None
    return list(error.value.problems)


def test_text_and_messages_are_the_same_pair(tmp_path: Path) -> None:
    spelled = {
        "prompt": [{"role": "user", "content": "How long?"}],
        "chosen": [{"role": "assistant", "content": "3 years."}],
        "rejected": "It depends.",
    }
    [one], [other] = read(tmp_path, PAIR).pairs, read(tmp_path, spelled).pairs
    assert one == other
    assert [(turn.role, turn.content) for turn in one.row.prompt] == [("user", "How long?")]
    assert (one.row.completion, one.rejected, one.row.id, one.row.line) == ("3 years.", "It depends.", "pair-1", 1)


def test_where_a_pair_comes_from_is_kept(tmp_path: Path) -> None:
    told = {"id": 7, "group": "g", "source": "https://x/1", "licence": "MIT", "reviewer": "ada", "meta": {"any": 1}}
    [one] = read(tmp_path, PAIR | told).pairs
    assert (one.row.id, one.row.group) == ("7", "g")
    assert one.row.provenance == {"source": "https://x/1", "licence": "MIT", "reviewer": "ada"}


def test_a_repeated_pair_is_left_out_and_named(tmp_path: Path) -> None:
    found = read(tmp_path, PAIR, PAIR | {"rejected": "Never."}, "", PAIR)
    assert [one.row.line for one in found.pairs] == [1, 2]
    assert [(one.row.line, first) for one, first in found.duplicates] == [(4, 1)]


TURN = {"role": "user", "content": "q"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ({}, "the field 'prompt' is missing"),
        (PAIR | {"choosen": "x"}, "the field 'choosen' is not known"),
        (PAIR | {"chosen": 3}, "chosen is neither text nor a list of messages"),
        (PAIR | {"chosen": []}, "chosen is neither text nor a list of messages"),
        (PAIR | {"chosen": [{"role": "assistant"}]}, "chosen is neither text nor a list of messages"),
        (PAIR | {"chosen": [TURN]}, "chosen has the roles user; it must be one message of the assistant"),
        (PAIR | {"prompt": [{"role": "assistant", "content": "a"}]}, "prompt has the roles assistant; it must end"),
        (PAIR | {"prompt": [TURN, TURN]}, "prompt has the roles user, user"),
        (PAIR | {"prompt": [{"role": "system", "content": "s"}]}, "prompt has the roles system"),
        (PAIR | {"prompt": " "}, "prompt has a blank message"),
        (PAIR | {"rejected": ""}, "rejected has a blank message"),
        (PAIR | {"rejected": "3 years. "}, "chosen and rejected are the same answer"),
        (PAIR | {"chosen": "\ud800"}, "chosen has a NUL or half of a surrogate pair"),
        (PAIR | {"source": "\0"}, "source has a NUL or half of a surrogate pair"),
        (PAIR | {"id": True}, "id is not text"),
        (PAIR | {"reviewed_at": "lately"}, "reviewed_at is 'lately', no date"),
    ],
)
def test_what_is_no_pair_is_named_with_its_line(tmp_path: Path, line: Any, said: str) -> None:
    listed = faults(tmp_path, PAIR, line)
    assert any(one.startswith("line 2: ") and said in one for one in listed), listed


def test_every_faulty_line_is_listed_at_once(tmp_path: Path) -> None:
    listed = faults(tmp_path, {"prompt": 1, "chosen": 2}, PAIR, PAIR | {"extra": 1, "id": []}, "nonsense")
    assert [one.partition(":")[0] for one in listed] == ["line 1"] * 3 + ["line 3"] * 2 + ["line 4"]


@pytest.mark.parametrize(
    ("lines", "meant"),
    [
        ([PAIR] * 3, True),
        ([PAIR, {"prompt": "q", "chosen": "a"}, "{", {"prompt": "q", "rejected": "a", "choosen": "b"}], True),
        ([{"prompt": "q", "completion": "a"}] * 2, False),
        ([{"prompt": "q", "completion": "a", "chosen": 1, "rejected": 0}] * 2, False),
        ([PAIR, {"instruction": "q", "output": "a"}], False),
        (["{", "[]"], False),
        ([], False),
    ],
)
def test_a_file_is_one_of_pairs_where_most_of_its_lines_mean_to_be(
    tmp_path: Path, lines: list[Any], meant: bool
) -> None:
    file = tmp_path / "any.jsonl"
    file.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines))
    assert are_pairs(file) is meant


def test_an_id_that_is_used_twice_and_a_file_without_pairs_are_refused(tmp_path: Path) -> None:
    assert "is used on line 1" in faults(tmp_path, PAIR | {"id": "a"}, PAIR | {"id": "a", "prompt": "Else?"})[0]
    assert faults(tmp_path) == ["the file holds no pairs"]
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_pairs(tmp_path / "none.jsonl")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["prompt", "chosen", "rejected", "id", "group", "source", "meta", "x"])


@given(st.dictionaries(KEYS, JSON | st.just([TURN]), max_size=6))
def test_no_content_whatever_is_met_with_a_traceback(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    folder = tmp_path_factory.mktemp("any")
    try:
        distinct = len(read(folder, value).pairs)
        assert distinct
    except InvalidRequest as error:
        distinct = 0
        assert error.problems
    report = check_pairs(folder / "pairs.jsonl", Options()).report
    assert (report.lines, report.distinct) == (1, distinct) and (distinct or report.blocked)
