"""What is wrong with a row by itself or beside the others, and what only looks like it."""

import random
import shutil
from pathlib import Path

import pytest
from faulty_data import make_clean
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_base import build_tiny_base

from registry.client import InvalidRequest, Message
from trainer.preflight.characters import check_characters, repaired
from trainer.preflight.consistency import languages, template, too_short, unfinished
from trainer.preflight.lengths import Lengths, check_lengths, count, estimate
from trainer.preflight.quality import check_rows
from trainer.preflight.reading import Row


def make_row(answer: str, prompt: str = "What now?", line: int = 1, system: str = "") -> Row:
    messages = [Message(role="system", content=system)] if system else []
    return Row(str(line), line, (*messages, Message(role="user", content=prompt)), answer, "g", str(line), line)


def rules(answer: str, prompt: str = "What now?") -> list[str]:
    return [one.rule for one in check_rows([make_row(answer, prompt)])]


LONG = make_clean(random.Random(1), 12)["output"]
FAULTY = {
    "I’m sorry, but I can’t assist with that.": "W240",
    "Unfortunately I am not able to help you with this request.": "W240",
    "I must decline to answer.": "W240",
    "Es tut mir leid, aber ich kann das nicht.": "W240",
    "That request goes against my guidelines.": "W240",
    "I don't feel comfortable talking about this.": "W240",
    "It would not be appropriate for me to say.": "W240",
    "I cannot browse the internet.": "W242",
    "Well. As an AI, I have no body.": "W242",
    "I'm just a language model, ask a nurse.": "W242",
    "N/A": "W241",
    "Dear [Your Name], thank you.": "W241",
    "Dear {customer_name}, thank you.": "W241",
    "lorem ipsum dolor": "W241",
    "TODO write this": "W241",
    "It costs more. FIXME: how much?": "W241",
    "The fee is $XX.XX a month.": "W241",
    "%s is available on %s.": "W241",
    "It is <fill in> days.": "W241",
    "No no no no no no no no no no, it is off.": "W245",
    LONG + " It is fine then." * 4: "W245",
    "Yes!!!!!!!!!!!!!!!!": "W245",
    "That was good hahahahahahahahahaha": "W245",
    "Fine.### Response: yes": "W249",
    "Fine.<|im_end|>": "W249",
    "Fine.\nHuman: and now?": "W249",
}
FINE = [
    "I'm sorry to hear that. We can't refund a used item, but we repair it.",
    "Unfortunately, I cannot open the door from outside, wrote the customer.",
    "AI is a field of computer science.",
    "Call `format('{name}')` and read [the manual](https://x.example).",
    "```python\nprint('{{first_name}}')  # TODO\n```\nThis prints a template.",
    "The list is [1, 2, 3], the set {1, 2}.",
    "Ha ha ha! That was a good one.",
    "Mark it with a comment that starts with TODO or FIXME, and run the linter.",
    "The topic is against the wall; the request goes to my colleague.",
    "It prints %s as it stands.",
    "That would not be appropriate for children under six.",
    "-----------------------\nA table\n-----------------------",
    "Row, row, row your boat, gently down the stream.",
    "array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]) is all ones",
    "The Human: a short history. It was written in 1990.",
    "a < b and b > c, so a & c differ",
    LONG,
]


@pytest.mark.parametrize("answer", FAULTY)
def test_a_faulty_answer_is_named(answer: str) -> None:
    assert rules(answer) == [FAULTY[answer]]


@pytest.mark.parametrize("answer", FINE)
def test_what_people_write_on_purpose_is_no_fault(answer: str) -> None:
    assert rules(answer) == []


def test_an_answer_that_repeats_its_prompt_is_named_unless_it_is_a_word() -> None:
    assert rules("what is THE warranty", "What is the warranty?") == ["W244"]
    assert rules("Paris.", "Paris") == [] and rules("The warranty is 3 years.", "What is the warranty?") == []


def test_a_prompt_said_twice_or_under_a_label_is_an_echo_and_a_quotation_is_none() -> None:
    asked = "How long is the warranty on a tent?"
    assert rules(f"Question: {asked}", asked) == ["W244"] and rules(f"{asked} {asked}", asked) == ["W244"]
    assert rules(f"You ask: {asked} It lasts three years.", asked) == []
    assert rules("He goes to school every day.", "Correct: He go to school every days.") == []


def test_a_mark_that_the_prompt_asks_about_is_no_placeholder() -> None:
    for mark in ("TBD", "lorem ipsum", "{{ user.name }}"):
        assert rules(f"{mark} stands for what comes later.", f"What does {mark} mean?") == []
        assert rules(f"{mark} stands here.", "How much is it?") == ["W241"]


def test_an_answer_that_the_prompt_offers_is_an_answer() -> None:
    assert rules("Unknown", "Is it on? Say yes, no or unknown.") == [] and rules("Unknown", "Is it on?") == ["W241"]


# -- characters


@given(st.text(alphabet="abc éüßñàç’“”–€…🙂ΩжÄ", max_size=30), st.sampled_from(["cp1252", "latin-1", "mac_roman"]))
@example("…a", "mac_roman")
def test_what_was_read_in_the_wrong_character_set_is_restored_or_left(text: str, codec: str) -> None:
    """Greek and Cyrillic pairs may be words of their own, so they are restored only in longer runs."""
    broken = text.encode().decode(codec, "ignore")
    lossless = broken.encode(codec) == text.encode()
    if lossless and not set(text) & set("Ωж🙂Ä"):
        assert repaired(broken) == text.strip()


@pytest.mark.parametrize("charset", ["cp437", "cp850", "cp1250", "cp1251", "cp866", "koi8_r", "mac_roman"])
@pytest.mark.parametrize("text", ["the café’s door", "Gruß aus Köln an Zoë", "Привет, как дела", "Łask is a “town”"])
def test_utf8_read_in_any_usual_charset_is_named_and_restored(text: str, charset: str) -> None:
    broken = text.encode().decode(charset, "ignore")
    assert [one.rule for one in check_characters([make_row(broken)])] == ["W246"]
    lossless = broken.encode(charset) == text.encode()
    assert repaired(broken) == text or not lossless


def test_cyrillic_of_one_byte_read_as_latin_is_named_and_lists_of_accents_are_not() -> None:
    broken = "Привет, как дела".encode("cp1251").decode("latin-1")
    assert [one.rule for one in check_characters([make_row(broken)])] == ["W246"]
    assert check_characters([make_row("German has äöüßÄÖÜ, French has à, â, ç, é.")]) == []


@pytest.mark.parametrize(
    "text",
    [
        "naïve café, Ελλάδα, Россия, São Paulo",
        "« Ça va ? » dit-elle à «\u00a0Zoé\u00a0»",
        "Größe ÄÖÜ",
        "日本語 🙂",
        "5 € – “ok”…",
        "x² ≤ √2",
        "Ещё раз: съёмка в Сёлах, «Ёлка», №5 — всё. РОССИЯ, ПРИВЕТ!",
        "Їжак ЇЖАК, Європа, ґанок, НІМЕЧЧИНА",
        "Łódź, Žižkov, ĂŢÎŞ, Příliš žluťoučký kůň, Szőlőhegy",
        "Έλα Γιώργο, β€? Γ© ήταν",
        "┌──┬──┐\n│é │ü │\n├──┼──┤\n└──┴──┘",
        "10–£20, 5—¥7, a–é",
    ],
)
def test_right_characters_are_left_alone(text: str) -> None:
    assert repaired(text) == text and check_characters([make_row(text)]) == []


@pytest.mark.parametrize("text", ["Itâ€™s", "cafÃ©", "cÅ“ur", "cafÃƒÂ©", "lost \ufffd here", "‚Äúok‚Äù"])
def test_broken_characters_are_named(text: str) -> None:
    assert [one.rule for one in check_characters([make_row(text)])] == ["W246"]


def test_a_habit_of_many_rows_is_no_fault_and_one_of_few_is() -> None:
    habit = [make_row(" yes", line=line) for line in range(1, 60)]
    assert check_characters(habit) == []
    few = [make_row("yes", line=line) for line in range(1, 60)] + [make_row(" yes<br>", line=60)]
    assert [(one.line, one.rule) for one in check_characters(few)] == [(60, "W251"), (60, "W252")]


# -- beside the others


def crowd(n: int = 100) -> list[Row]:
    chance = random.Random(2)
    rows = [make_clean(chance, 6) for _ in range(n)]
    return [make_row(row["output"], row["instruction"], line) for line, row in enumerate(rows, start=1)]


def test_the_language_of_few_is_named_and_that_of_many_is_the_datas_own() -> None:
    german = "Bitte schalten Sie das Gerät zuerst aus und warten Sie einige Minuten."
    rows = [*crowd(), make_row(german, line=101)]
    assert [(one.line, one.rule) for one in languages(rows)] == [(101, "W247")]
    assert languages([*crowd(), *(make_row(german, german, line=line) for line in range(101, 140))]) == []
    assert languages([*crowd(), make_row("Gut.", line=101)]) == [], "too short to be certain"


def test_a_prompt_without_the_frame_of_all_others_is_named_and_the_share_is_measured() -> None:
    framed = [make_row("a.", f"Context: x{i} y\nQuestion: what is {i}?", i) for i in range(1, 100)]
    measured, found = template([*framed, make_row("a.", "what is it?", 100)])
    assert measured.share == 0.99 and [(one.line, one.rule) for one in found] == [(100, "W248")]
    assert "Question: …" in measured.skeletons[0][0]
    mixed, told = template([*framed[:50], *(make_row("a.", f"Just {i}", i) for i in range(200, 250))])
    assert mixed.share == 0.5 and [one.rule for one in told] == ["W152"]
    assert template([])[0].share == 0.0


def test_an_answer_cut_off_is_named_where_the_others_end() -> None:
    cut = make_row("Switch it off at the wall and wait for the", line=101)
    assert [one.line for one in unfinished([*crowd(), cut])] == [101]
    loose = [make_row(row.completion.rstrip("."), line=row.line) for row in crowd()]
    plain = make_row("Switch it off at the wall and wait for a light", line=101)
    assert unfinished([*loose, plain]) == [], "where nobody ends sentences, nothing is cut"
    assert [one.line for one in unfinished([*loose, cut])] == [101], "but where none can end"


@pytest.mark.parametrize(
    ("answer", "torn"),
    [
        ('{"part": "hinge", "opinions": ["loud", "old"', True),
        ('{"part": "hinge", "opinions": ["loud", "old"]}', False),
        ("Run this:\n\n```sh\ntar -xf archive.tar && cd archive", True),
        ("Run this:\n\n```sh\ntar -xf archive.tar\n```", False),
        ("It holds many parts (the hinge and a strap", True),
        ("A red one, a green one and a blue one", False),
    ],
)
def test_code_json_and_brackets_left_open_are_cut_whatever_others_do(answer: str, torn: bool) -> None:
    loose = [make_row(row.completion.rstrip("."), line=row.line) for row in crowd()]
    assert [one.line for one in unfinished([*loose, make_row(answer, line=101)])] == [101] * torn


def test_answers_of_figures_and_code_do_not_hide_a_sentence_cut_off() -> None:
    figures = [make_row(f"{line} mi × 1.609 = {line * 1.609:.1f} km", line=200 + line) for line in range(1, 40)]
    cut = make_row("Switch it off at the wall and wait until", line=101)
    assert [one.line for one in unfinished([*crowd(), *figures, cut])] == [101]


def test_an_answer_of_a_word_is_short_only_among_long_ones() -> None:
    assert [one.line for one in too_short([*crowd(), make_row("Yes.", line=101)])] == [101]
    assert too_short([make_row("Yes.", line=line) for line in range(1, 100)]) == []
    assert [one.rule for one in too_short([make_row("…")])] == ["W243"]


# -- lengths


def test_long_rows_are_named_and_estimates_say_that_they_are_some() -> None:
    rows = [make_row("x" * 400, line=1), make_row("y", "z" * 400, line=2), make_row("y", line=3)]
    found = {one.line: one for one in check_lengths(rows, estimate(rows), 100)}
    assert {line: one.rule for line, one in found.items()} == {1: "W123", 2: "E122", None: "W121"}
    assert "about" in found[1].message
    counted = check_lengths(rows, Lengths([101, 100, 5], [1, 99, 1], "base"), 100)
    assert [(one.line, one.rule) for one in counted] == [(1, "W123"), (None, "W121")]
    assert "about" not in counted[0].message


@pytest.mark.slow
def test_a_base_counts_what_a_run_would_see(tmp_path: Path) -> None:
    build_tiny_base(tmp_path / "base")
    rows = [make_row("An answer of some words.", line=1), make_row("b", "c d e", line=2, system="be brief")]
    from trainer.qlora import load_tokenizer
    from trainer.recipe import parse_recipe
    from trainer.run import tokenise

    tokenizer = load_tokenizer(tmp_path / "base")
    recipe = parse_recipe('name = "x"\nbase = "b"\ndata = "d"')
    seen = [len(tokenise("data", row, "train", tokenizer, recipe).example.ids) for row in rows]
    assert count(rows, tmp_path / "base").rows == seen
    (tmp_path / "base" / "tokenizer.json").write_text("{}")
    with pytest.raises(InvalidRequest, match="cannot render the rows"):
        count(rows, tmp_path / "base")
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(InvalidRequest, match="no directory of a base"):
        count(rows, tmp_path / "base")


@pytest.mark.parametrize("text", ["x≈π", "n≈∞", "√π", "DĹŽKA", "MĂŞTI", "„CASĂ” NOUĂ"])
def test_mathematics_and_capitals_of_other_languages_are_no_broken_characters(text: str) -> None:
    assert repaired(text) == text and not check_characters([make_row(f"It is {text}.")])


def test_a_system_prompt_switches_no_check_off() -> None:
    system = "Do not use HTML or markup."
    rows = [make_row(f"Answer number {i} is plain.", f"Question {i}?", i, system) for i in range(1, 40)]
    found = check_characters([*rows, make_row("It is <b>bold</b>.", "What?", 40, system)])
    assert [(one.rule, one.line) for one in found] == [("W252", 40)]


def test_a_word_of_the_prompt_fills_no_placeholder() -> None:
    assert rules("Your order was placed on [date].", "What is the date of my order?") == ["W241"]
    assert rules("Dear {{name}}, it is sent.", "My name is Ann. Was it sent?") == ["W241"]


def test_german_sentences_that_end_with_a_particle_are_whole() -> None:
    answers = ["Loggen Sie sich mit Ihrem Passwort ein", "Melden Sie sich bitte an", "Dann geht es los"]
    assert unfinished([make_row(answer, line=line) for line, answer in enumerate(answers, start=1)]) == []
