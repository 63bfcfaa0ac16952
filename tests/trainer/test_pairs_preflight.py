"""What is wrong with preference pairs is told before a run: the checks of data on both answers, and a pair's own."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_data import make_clean, make_dataset
from tiny_base import build_tokenizer

from registry.cli import main
from registry.client import InvalidRequest
from trainer.dataset import Data, prepare, read_rows
from trainer.pairs import read_pairs
from trainer.plan import look_at_pairs, plan_run
from trainer.preflight.check import Options, Report, preflight, require
from trainer.preflight.codes import Waiver
from trainer.preflight.fixing import fix
from trainer.preflight.leakage import read_suite_folder
from trainer.preflight.pairs import check_pairs, held_out
from trainer.preflight.report import page, summary
from trainer.recipe import parse_recipe
from trainer.record import ledger
from trainer.rendering import render_pairs

Pair = dict[str, Any]
DEFAULT = Options()


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def make_pairs(n: int) -> list[Pair]:
    """Pairs that nothing is wrong with."""
    chance = random.Random(n)
    pairs = []
    for number in range(n):
        better, worse = make_clean(chance, 4), make_clean(chance, 3)
        prompt = f"Machine {number} of hall {number % 7}: what now?"
        pairs.append({"prompt": prompt, "chosen": better["output"], "rejected": worse["output"]})
    return pairs


@pytest.fixture
def look(tmp_path: Path) -> Callable[..., Report]:
    def run(pairs: list[Pair], options: Options = DEFAULT, data: Data | None = None) -> Report:
        return check_pairs(write(tmp_path / "pairs.jsonl", pairs), options, data).report

    return run


def told(report: Report, *besides: str) -> dict[int | None, dict[str, str]]:
    """Message by code by line, without that no suite was named and without what is expected besides."""
    found: dict[int | None, dict[str, str]] = {}
    for one in report.problems:
        if one.rule not in ("W153", "W163", *besides):
            found.setdefault(one.line, {})[one.rule] = one.message
    return found


def test_pairs_that_nothing_is_wrong_with_are_taken_without_a_finding(
    look: Callable[..., Report], tmp_path: Path
) -> None:
    suite = read_suite_folder(make_dataset(60, 0, 1).write_suite(tmp_path / "suite"))
    rows = write(tmp_path / "train.jsonl", [make_clean(random.Random(1), 4) for _ in range(60)])
    data = prepare(read_rows(rows), 0)
    report = look(make_pairs(80), Options(suites=[suite]), data)
    assert report.problems == [] and not report.blocked and report.low == []
    assert (report.kind, report.lines, report.rows, report.distinct) == ("pairs", 80, 80, 80)
    assert report.compared == ["help-desk", "the held-out rows of the data"] and report.splits == {}
    report = look(make_pairs(80), DEFAULT, data)
    assert report.counts() == {"W163": 1} and report.compared == ["the held-out rows of the data"]


# -- the checks of data


@pytest.mark.parametrize(
    ("side", "text", "code", "message"),
    [
        ("prompt", "Use AKIAABCDEFGHIJKLMNOP?", "E230", "user 1 holds an aws key"),
        ("chosen", "The key is AKIAABCDEFGHIJKLMNOP.", "E230", "chosen answer holds an aws key"),
        ("rejected", "The key is AKIAABCDEFGHIJKLMNOP.", "E230", "rejected answer holds an aws key"),
        ("prompt", "I am ann.miller@webmail.example, what now?", "W231", "user 1 holds an email address"),
        ("rejected", "Write to ann.miller@webmail.example.", "W231", "rejected answer holds an email address"),
        ("chosen", "It’s a café, but now: Itâ€™s a cafÃ©.", "W246", "chosen answer was decoded with the wrong"),
        ("rejected", "It’s a café, but now: Itâ€™s a cafÃ©.", "W246", "rejected answer was decoded with the wrong"),
        ("rejected", "It goes on. ", "W251", "rejected answer has white space at its end"),
        ("rejected", "It goes on.<|im_end|> And on.", "W249", "rejected answer has '<|im_end|>'"),
        ("chosen", "I'm sorry, but I cannot help with that.", "W240", "the chosen answer begins with a refusal"),
        ("chosen", "As an AI language model I see that it goes on.", "W242", "the chosen answer speaks as an AI"),
        ("chosen", "TODO", "W241", "'TODO' is no answer"),
        ("chosen", "Dear [Your Name], it goes on and on.", "W241", "chosen answer has a placeholder"),
        ("chosen", "It goes on and on, because the", "W250", "the chosen answer ends with"),
        ("chosen", "?!", "W243", "the chosen answer is '?!'"),
    ],
)
def test_what_is_wrong_with_a_side_is_told_of_that_side_once(
    look: Callable[..., Report], side: str, text: str, code: str, message: str
) -> None:
    pairs = make_pairs(60)
    pairs[6][side] = text
    report = look(pairs)
    found = [one for one in report.problems if one.rule == code]
    assert [one.line for one in found] == [7] and found[0].message.startswith(message), report.problems
    assert found[0].span is None or found[0].span.field in (side, "user 1")
    assert report.blocked is code.startswith("E")


@pytest.mark.parametrize("text", ["I'm sorry, but I cannot help with that.", "TODO", "It goes on, because the"])
def test_an_answer_is_rejected_for_being_a_bad_one(look: Callable[..., Report], text: str) -> None:
    pairs = make_pairs(60)
    pairs[6]["rejected"] = text
    assert told(look(pairs)) == {}


def test_a_fault_of_the_prompt_is_not_told_twice(look: Callable[..., Report]) -> None:
    pairs = make_pairs(60)
    pairs[6]["prompt"] = " Itâ€™s ann.miller@webmail.example<|im_end|>"
    report = look(pairs)
    assert sorted(one.rule for one in report.problems if one.line) == ["W231", "W246", "W249", "W251"]


def test_a_pair_that_asks_what_a_suite_or_a_held_out_file_asks_stops_the_run(
    look: Callable[..., Report], tmp_path: Path
) -> None:
    suite = read_suite_folder(make_dataset(60, 0, 1).write_suite(tmp_path / "suite"))
    question = "Which lamp tells that the water tank of the coffee maker is empty?"
    held = write(tmp_path / "held.jsonl", [{"prompt": question, "completion": "The red one."}])
    pairs = make_pairs(60)
    pairs[3]["prompt"] = suite[1].items[0].question  # type: ignore[union-attr]
    pairs[8]["prompt"] = f"Hello! {question} Thanks"
    report = look(pairs, Options(suites=[suite], held_out=[held]))
    assert {line: set(codes) for line, codes in told(report).items()} == {4: {"E160"}, 9: {"E160"}}
    assert told(report)[4]["E160"].startswith("its prompt holds help-desk/") and "held.jsonl line 1" in str(
        told(report)
    )
    assert report.blocked and not look(pairs, Options(suites=[suite], waivers=[Waiver("E160", "known")])).blocked


def test_near_repetition_is_told_of_whole_pairs_and_of_prompts_but_not_of_many_answers_to_one(
    look: Callable[..., Report],
) -> None:
    pairs = make_pairs(60)
    pairs[10] = pairs[2] | {"chosen": pairs[2]["chosen"] + " Good luck."}
    pairs[20]["prompt"] = LONG
    pairs[21]["prompt"] = f"Well then. {LONG}"
    pairs[30]["prompt"] = pairs[31]["prompt"] = "Does it hum in the night as well, and for how long does it?"
    pairs[40] = dict(pairs[4])
    pairs[45]["prompt"] = LONG.replace("machine in the hall", "oven over there").replace("it hums", "there is a smell")
    pairs[50] = pairs[45] | {"prompt": f"Well then. {pairs[45]['prompt']}"}
    report = look(pairs)
    found = told(report)
    assert set(found) == {11, 22, 41, 51} and report.clusters == [2, 2, 2]
    assert [one.line for one in report.problems if one.rule == "W221"] == [11, 22, 51], "each is told once"
    assert "sequences of this pair and line 46" in found[51]["W221"]
    assert "three-word sequences of this pair and line 3" in found[11]["W221"]
    assert "three-word sequences of the prompts of this pair and line 21" in found[22]["W221"]
    assert found[41] == {"W220": "the same as line 5"} and (report.rows, report.distinct) == (60, 59)


def test_many_pairs_of_one_prompt_are_no_crowd_and_pairs_much_alike_are(look: Callable[..., Report]) -> None:
    chance = random.Random(5)

    def say(n: int) -> str:
        return " ".join(f"{chance.choice('bdfgklmn')}{chance.choice('aeiou')}{chance.randrange(40)}" for _ in range(n))

    frame = say(80)
    one = [{"prompt": frame, "chosen": say(30), "rejected": say(30)} for _ in range(120)]
    assert look(one).counts().keys() & {"W221", "W224"} == set()
    crowd = [{"prompt": f"{frame} {say(20)}", "chosen": "yes", "rejected": "no"} for _ in range(120)]
    (told,) = [found for found in look(crowd).problems if found.rule == "W224"]
    assert told.message == "120 pairs, the first on line 1, are much alike: copies among them may be missed"


def test_a_pair_is_as_long_as_its_longer_answer(look: Callable[..., Report]) -> None:
    pairs = make_pairs(60)
    pairs[2]["chosen"] = pairs[4]["rejected"] = "It hums and hums and does so. " * 200
    pairs[6]["prompt"] = "It hums and hums and does so. " * 200
    found = told(look(pairs), "W245", "W251")
    assert {line: set(codes) for line, codes in found.items()} == {
        None: {"W121"},
        3: {"W123"},
        5: {"W123"},
        7: {"E122"},
    }
    assert found[None]["W121"] == "3 of 60 pairs are longer than 1,024 tokens"
    assert found[3]["W123"].startswith("the pair has about 1,5")


@pytest.mark.stack
def test_a_bases_own_tokenizer_counts_both_answers(look: Callable[..., Report], tmp_path: Path) -> None:
    make_base(tmp_path / "base")
    pairs = make_pairs(3)
    pairs[1]["rejected"] = pairs[1]["rejected"] * 4
    report = look(pairs, Options(base=tmp_path / "base", max_length=max(look(pairs[:1]).lengths) * 5))
    assert report.lengths_by == str(tmp_path / "base") and report.lengths[1] == max(report.lengths)


# -- a pair's own


def test_two_pairs_that_contradict_each_other_stop_the_run(look: Callable[..., Report]) -> None:
    pairs = make_pairs(60)
    one = pairs[5]
    pairs[9] = {"prompt": f" {one['prompt']}", "chosen": one["rejected"], "rejected": one["chosen"] + "\n"}
    pairs[12] = one | {"chosen": "A third answer, which is better than both of the others."}
    report = look(pairs)
    assert told(report)[10]["E223"] == "line 6 prefers the other of the same two answers"
    assert report.counts()["E223"] == 1 and report.blocked
    assert not look(pairs, Options(waivers=[Waiver("E223", "two experts differ")])).blocked


@pytest.mark.parametrize(
    ("first", "second", "contradict"),
    [
        (("How long?", "Three years.", "Two years."), ("how long", "two years", "THREE years!"), True),
        (("?", "!", "!!"), ("?", "!!", "!"), True),
        (("How long?", "Three years.", "three years"), ("How long?", "three years", "Three years."), True),
        (("How long?", "Three years.", "Two years."), ("How long?", "Three years!", "two years"), False),
        (("How long?", "Three years.", "Two years."), ("How wide?", "Two years.", "Three years."), False),
        (("What is 5 + 3?", "8", "2"), ("What is 5 - 3?", "2", "8"), False),
        (("?", "Yes.", "No."), ("!", "No.", "Yes."), False),
        (("Is 3<5?", "Yes.", "No."), ("Is 3>5?", "No.", "Yes."), False),
        (("What is 2?", "4", "-4"), ("What is -2?", "-4", "4"), False),
    ],
)
def test_pairs_contradict_each_other_in_other_punctuation_too_but_not_where_a_sign_is_another(
    look: Callable[..., Report], first: tuple[str, ...], second: tuple[str, ...], contradict: bool
) -> None:
    pairs = [dict(zip(("prompt", "chosen", "rejected"), one, strict=True)) for one in (first, second)]
    assert ("E223" in told(look(pairs)).get(2, {})) is contradict


def test_a_review_that_is_still_to_come_stops_the_run(look: Callable[..., Report]) -> None:
    pairs = make_pairs(3)
    pairs[1] |= {"reviewer": "ada", "reviewed_at": "2999-01-01"}
    report = look(pairs)
    assert set(told(report)) == {2} and "E253" in told(report)[2] and report.blocked


LONG = "I turned the machine in the hall off and on again, and now it hums: what do I look at first?"


def rows_of(folder: Path, *besides: dict[str, str]) -> Data:
    """Data with a validation and a test row, and some to train on."""
    rows = [
        {"prompt": "Where is the lid?", "completion": "On the left.", "split": "validation"},
        {"prompt": LONG, "completion": "At the fan, which turns against ice.", "split": "test"},
        {"prompt": "And where is the lamp of it?", "completion": "On the right.", "split": "train"},
        {
            "prompt": "Why?",
            "completion": "The seal sits crooked, so dust gathers behind the panel and blocks the air.",
            "split": "test",
        },
        *besides,
    ]
    return prepare(read_rows(write(folder / "data.jsonl", rows)), 0)


@pytest.mark.parametrize(
    ("prompt", "chosen", "reason"),
    [
        ("Where is the lid?", "x", "its prompt is that of line 1, a validation row"),
        ("where is THE lid", "x", "its prompt is that of line 1, a validation row"),
        (f"Well then. {LONG}", "x", "its prompt is nearly that of line 2, a test row"),
        (
            "What do I look at first? It hums now! I turned the machine in the hall on and off again.",
            "x",
            "its prompt is nearly that of line 2, a test row",
        ),
        (
            "How come?",
            "The seal sits crooked, so dust gathers behind the panel and blocks the air.",
            "with its preferred answer it nearly repeats line 4, a test row",
        ),
        ("And where is the lamp of it?", "On the right.", ""),
        ("Where is the lamp?", "On the left.", ""),
        ("What do I look at first, where the machine hums?", "At the fan.", ""),
    ],
)
def test_a_pair_that_asks_what_a_held_out_row_asks_is_left_out_and_told(
    look: Callable[..., Report], tmp_path: Path, prompt: str, chosen: str, reason: str
) -> None:
    data = rows_of(tmp_path)
    pairs = [*make_pairs(3), {"prompt": prompt, "chosen": chosen, "rejected": "Nowhere at all."}]
    found = [(one.line, one.message) for one in look(pairs, DEFAULT, data).problems if one.rule == "W165"]
    assert found == ([(4, reason)] if reason else [])
    assert held_out(read_pairs(tmp_path / "pairs.jsonl").pairs, data) == ({4: reason} if reason else {})


def test_a_form_of_asking_that_training_rows_have_as_well_gives_no_held_out_row_away(tmp_path: Path) -> None:
    usual = {"prompt": LONG.replace("hums", "rattles"), "completion": "Tighten the drive belt.", "split": "train"}
    pairs = read_pairs(
        write(tmp_path / "p.jsonl", [{"prompt": LONG.replace("hums", "smells"), "chosen": "a b", "rejected": "c"}])
    ).pairs
    assert held_out(pairs, rows_of(tmp_path)) == {1: "its prompt is nearly that of line 2, a test row"}
    assert held_out(pairs, rows_of(tmp_path, usual)) == {}


def chain_of(n: int) -> list[str]:
    """Texts of forty words, each with two others than the one before."""
    return [" ".join(f"word{place}" for place in range(start, start + 40)) for start in range(0, 2 * n, 2)]


def test_a_held_out_row_that_training_rows_reach_only_through_other_held_out_rows_is_not_given_away(
    tmp_path: Path,
) -> None:
    trained, *held = chain_of(21)
    rows = [{"prompt": trained, "completion": "Tighten the belt.", "split": "train"}]
    rows += [{"prompt": one, "completion": f"Note {n}.", "split": "test"} for n, one in enumerate(held)]
    data = prepare(read_rows(write(tmp_path / "data.jsonl", rows)), 0)
    asked = [one.replace(one.split()[20], "rather") for one in (held[-1], held[0])]
    assert not set(asked[0].split()) & set(trained.split())
    pairs = [{"prompt": one, "chosen": "a b", "rejected": "c"} for one in asked]
    found = held_out(read_pairs(write(tmp_path / "p.jsonl", pairs)).pairs, data)
    assert found.keys() >= {1} and found[1].startswith("its prompt is nearly that of line ")


@pytest.mark.parametrize("side", ["prompt", "chosen"])
def test_a_pair_is_not_left_out_for_a_row_that_only_other_pairs_come_near(tmp_path: Path, side: str) -> None:
    first, *others = chain_of(21)
    asked = {"prompt": "How come?", "chosen": "At the fan.", "rejected": "Nowhere."}
    row = {"prompt": asked["prompt"], "completion": asked["chosen"], "split": "test"}
    row |= {"prompt": first} if side == "prompt" else {"prompt": "Why so?", "completion": first}
    data = prepare(read_rows(write(tmp_path / "data.jsonl", [row])), 0)
    pairs = read_pairs(write(tmp_path / "p.jsonl", [asked | {side: one} for one in others])).pairs
    assert 1 in (left_out := held_out(pairs, data)) and max(left_out) < 5


# -- in a run


def make_base(folder: Path) -> None:
    """A base that can be named and can count, and no more."""
    folder.mkdir()
    build_tokenizer(folder)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")


RECIPE = """
name = "tiny"
base = "base"
data = "d.jsonl"
[training]
max_length = 500
[dpo]
pairs = "p.jsonl"
"""


@pytest.mark.stack
def test_the_pairs_of_a_recipe_are_looked_at_with_its_base_its_length_its_data_and_its_waivers(tmp_path: Path) -> None:
    make_base(tmp_path / "base")
    rows = [{"prompt": f"Where is lid {n}?", "completion": "There.", "split": "test"} for n in range(3)]
    write(tmp_path / "d.jsonl", [*rows, {"prompt": "And why?", "completion": "So.", "split": "train"}])
    pairs = make_pairs(3)
    pairs[0] |= {"prompt": "Where is lid 2?", "chosen": "There, not here. Pay by AKIAABCDEFGHIJKLMNOP."}
    pairs[1] |= {"chosen": "It hums. " * 100, "rejected": "Yes."}
    write(tmp_path / "p.jsonl", pairs)
    for waived in ("", '[[waive]]\ncode = "E230"\nreason = "a key of a test"\n'):
        recipe = parse_recipe(RECIPE + waived)
        report = look_at_pairs(plan_run(recipe, RECIPE, tmp_path, tmp_path / "base", tmp_path / "runs"))
        assert report is not None and report.blocked is not bool(waived)
        assert report.lengths_by == str(tmp_path / "base") and {"E230", "W165"} <= set(told(report)[1])
        assert "W123" in told(report)[2] and "max_length is 500" in told(report)[2]["W123"]
    without = parse_recipe(RECIPE.partition("[dpo]")[0])
    assert look_at_pairs(plan_run(without, RECIPE, tmp_path, tmp_path / "base", tmp_path / "runs")) is None


def test_what_stops_a_run_is_listed_of_data_and_pairs_at_once(look: Callable[..., Report], tmp_path: Path) -> None:
    pairs = make_pairs(3)
    pairs[1]["rejected"] = "AKIAABCDEFGHIJKLMNOP"
    refused, data = look(pairs), preflight(write(tmp_path / "few.jsonl", [make_clean(random.Random(1))]))
    with pytest.raises(
        InvalidRequest, match=r"few.jsonl has 1 faulty line: .*; .*pairs.jsonl has 1 faulty line"
    ) as error:
        require([data, refused])
    assert [one.partition(":")[0] for one in error.value.problems] == ["few.jsonl", "pairs.jsonl"]
    with pytest.raises(InvalidRequest, match=r"pairs.jsonl has 1 faulty line: line 2: rejected answer holds") as error:
        require([refused])
    require([look(make_pairs(3))])


@pytest.mark.stack
def test_the_ledger_says_of_a_pair_left_out_which_held_out_row_it_nearly_asks(tmp_path: Path) -> None:
    from trainer.model import load_tokenizer

    make_base(tmp_path / "base")
    rows_of(tmp_path)
    (tmp_path / "data.jsonl").rename(tmp_path / "d.jsonl")
    pairs = make_pairs(3)
    pairs[1] = {"prompt": f"Well then. {LONG}", "chosen": "Anywhere.", "rejected": "Nowhere at all."}
    write(tmp_path / "p.jsonl", [*pairs, pairs[0]])
    text = RECIPE.replace("500", "5000")
    plan = plan_run(parse_recipe(text), text, tmp_path, tmp_path / "base", tmp_path / "runs")
    lines = ledger(plan, render_pairs(plan, load_tokenizer(plan.base)))
    assert [(one.line, one.disposition) for one in lines if one.source == "dpo"] == [
        (1, "trained"),
        (2, "held_out"),
        (3, "trained"),
        (4, "duplicate"),
    ]
    assert lines[1].reason == "its prompt is nearly that of line 2, a test row" and lines[1].trained_tokens == 0


# -- `tunegate preflight`


@pytest.fixture
def tunegate(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(one) for one in ("preflight", *arguments)])
            raise SystemExit(0)
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_the_command_knows_pairs_when_it_sees_them(
    tunegate: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    pairs = make_pairs(20)
    pairs[3]["prompt"] = "Where is the lid?"
    file = write(tmp_path / "p.jsonl", pairs)
    rows_of(tmp_path)
    code, out, _ = tunegate(file, "--data", tmp_path / "data.jsonl", "--html", tmp_path / "p.html")
    assert code == 0 and "20 pairs, 20 read, 20 distinct\n" in out and "a run would take these pairs" in out
    assert "W165" in out and "tokens a pair" in out
    shown = (tmp_path / "p.html").read_text()
    assert "20 pairs" in shown and "these pairs" in shown and "Splits" not in shown
    pairs[5]["rejected"] = "AKIAABCDEFGHIJKLMNOP"
    code, out, _ = tunegate(write(file, pairs), "--json")
    found = json.loads(out)
    assert code == 1 and found["kind"] == "pairs" and found["counts"] == {"E230": 1, "W153": 1, "W163": 1}
    code, out, _ = tunegate(file, "--waive", "E230", "--reason", "a key of a test")
    assert code == 0 and "waived: a key of a test" in out


def test_faulty_lines_of_pairs_are_in_the_report_too(
    tunegate: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    file = tmp_path / "p.jsonl"
    lines = [*make_pairs(3), {"prompt": "q", "chosen": "a", "rejectd": "b"}]
    file.write_text("".join(json.dumps(one) + "\n" for one in lines) + "{\n")
    code, out, _ = tunegate(file, "--json")
    found = json.loads(out)
    assert code == 1 and (found["lines"], found["rows"]) == (5, 3)
    assert [(one["line"], one["rule"]) for one in found["problems"] if "line" in one] == [
        (4, "E205"),
        (4, "E206"),
        (5, "E201"),
    ]


@pytest.mark.parametrize(
    ("lines", "option", "message"),
    [
        (make_pairs(2), "--manifest", "which are in no split; leave --manifest out"),
        ([{"prompt": "q", "completion": "a"}], "--data", "holds none; leave it out"),
    ],
)
def test_options_of_the_other_kind_are_refused(
    tunegate: Callable[..., tuple[int, str, str]], tmp_path: Path, lines: list[Pair], option: str, message: str
) -> None:
    file = write(tmp_path / "any.jsonl", lines)
    code, _, err = tunegate(file, option, file)
    assert code == 3 and message in " ".join(err.split())


def test_pairs_are_fixed_and_masked_on_all_sides(tmp_path: Path) -> None:
    pairs = make_pairs(5)
    pairs[1]["rejected"] += " Write to ann.miller@webmail.example."
    pairs[2]["chosen"] = [{"role": "assistant", "content": "Itâ€™s open."}]
    pairs[4] = dict(pairs[0])
    checked = check_pairs(write(tmp_path / "p.jsonl", pairs), DEFAULT)
    fixed = fix(checked, tmp_path / "new.jsonl", mask=True)
    lines = [json.loads(line) for line in (tmp_path / "new.jsonl").read_text().splitlines()]
    assert fixed.changes == {"masked": 1, "repaired": 1, "dropped": 1} and len(lines) == 4
    assert (
        lines[1]["rejected"].endswith("Write to <EMAIL_ADDRESS>.") and lines[2]["chosen"][0]["content"] == "It’s open."
    )
    assert lines[0] == pairs[0] and lines[3] == pairs[3]


def test_what_pairs_say_is_shown_as_text(look: Callable[..., Report]) -> None:
    from rich.text import Text

    pairs = make_pairs(5)
    pairs[1]["chosen"] = "<script>alert(1)</script> [/bold] [Your Name] [INSERT]"
    report = look(pairs)
    assert "<script" not in page(report) and "[Your Name]" in Text.from_markup("\n".join(summary(report))).plain
