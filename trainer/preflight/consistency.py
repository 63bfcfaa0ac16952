"""What is odd about a row beside the others: language, template, an answer cut off or far too short. Pure.

The data set is its own yardstick: a habit of most rows is no fault, a departure from it by few rows is.
"""

import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from trainer.preflight.codes import Problem, found
from trainer.preflight.reading import Row
from trainer.preflight.text import prose

_LETTERS, _LOOKED_AT, _SURE, _EXCLUDED, _ACCEPTED_SHARE = 30, 600, 0.8, 0.01, 0.05
_ENOUGH_ROWS = 50  # fewer say nothing about what is usual
_FRAME_SHARE, _TEMPLATE_SHARE, _RARE_SHARE, _CONSISTENT = 0.02, 0.95, 0.01, 0.8
_ENDED_SHARE = 0.95
_LABEL = re.compile(r"\s*(?:#{1,6} |\*\*)?([A-Z][\w /-]{0,30}):(?:\*\*)?(?=\s|$)")
_ASKED_LANGUAGE = re.compile(
    r"translat|übersetz|tradu[ciz]|vertaal|перевед|翻译|翻訳|"
    r"\b(?:arabic|chinese|czech|danish|dutch|english|finnish|french|german|greek|hebrew|hindi|hungarian|italian|"
    r"japanese|korean|latin|norwegian|polish|portuguese|romanian|russian|spanish|swedish|thai|turkish|ukrainian|"
    r"vietnamese|deutsch|englisch|französisch|spanisch|italienisch|anglais|français|allemand|espagnol|italien|"
    r"inglés|francés|alemán|español)\b",
    re.I,
)
# Words that a sentence does not end with: where a text ends with one, it was cut whatever others do.
_JOINING = frozenset(
    "the and or but which whose if than because although their its your our my every into onto "
    "den dem des eine einen einer eines und oder aber weil dass zum zur "
    "les une des et ou du aux las una del".split()
)
_WORDY_SHARE = 0.8
_URL = re.compile(r"https?://\S+|(?<!\S)[^\s@]*@\S+|[\d_{}<>\[\]|\\]+")
# What an answer may end with beside a figure; anything else that ends in a letter or a comma was cut.
_MARKS = frozenset(".!?…:;)]}\"'”’»›*`~_>|。！？」』）।؟۔%€$£°+=/-")


class Template(NamedTuple):
    """`share`: of the rows that have the most common skeleton, 0 to 1. skeletons: the most common ones, with counts."""

    share: float
    skeletons: list[tuple[str, int]]


# -- language


def languages(rows: Sequence[Row]) -> list[Problem]:
    """Rows whose prompt or answer is surely in a language that less than 5 % of the texts have, and in no other."""
    plain = [(row, name, _plain(text)) for row in rows for name, text in _sides(row)]
    spoken = [(row, name, text, _identifier().classify(text)[0]) for row, name, text in plain if text]
    counts = Counter(language for *_, language in spoken)
    if len(spoken) < _ENOUGH_ROWS:
        return []
    usual = {language for language, count in counts.items() if count >= _ACCEPTED_SHARE * len(spoken)}
    main = counts.most_common(1)[0][0]
    return [
        found("W247", f"{name} is in {language!r}, the data is in {main!r}", row=row.number, line=row.line)
        for row, name, text, language in spoken
        if language not in usual and _surely(text, language, usual) and not _asked_for(row)
    ]


def _asked_for(row: Row) -> bool:
    """Whether the user speaks of translating or of a language: then the text or its answer may be in that one."""
    return any(_ASKED_LANGUAGE.search(one.content) for one in row.prompt if one.role == "user")


def _surely(text: str, language: str, usual: set[str]) -> bool:
    """Near relatives, such as English and Pidgin, share what is likely: then nothing is sure."""
    likely = dict(_identifier().rank(text))
    return likely[language] >= _SURE and max((likely[one] for one in usual), default=0.0) <= _EXCLUDED


def _sides(row: Row) -> list[tuple[str, str]]:
    return [("prompt", "\n".join(one.content for one in row.prompt if one.role == "user")), ("answer", row.completion)]


def _plain(text: str) -> str:
    """The words of a text that show its language; nothing where they are too few."""
    plain = _URL.sub(" ", prose(text))[:_LOOKED_AT]
    # A script of syllables or words says in 10 characters what an alphabet says in 30.
    weight = sum(3 if char > "\u2e80" else 1 for char in plain if char.isalpha())
    return plain if weight >= _LETTERS else ""


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


# -- template


def template(rows: Sequence[Row]) -> tuple[Template, list[Problem]]:
    """How much the prompts have one form, and the rows that alone have another.

    A skeleton is a prompt with what differs from row to row taken out: of each line stays what stands in at least 2 %
    of all prompts, the whole line or its label ("Question:").
    """
    lines = [_prompt_lines(row) for row in rows]
    spread = Counter(piece for prompt in lines for piece in {one for line in prompt for one in _pieces(line)})
    frame = {piece for piece, count in spread.items() if count >= max(3, _FRAME_SHARE * len(rows))}
    skeletons = [_skeleton(prompt, frame) for prompt in lines]
    counts = Counter(skeletons)
    share = counts.most_common(1)[0][1] / len(rows) if rows else 0.0
    measured = Template(share, counts.most_common(5))
    if len(rows) < _ENOUGH_ROWS:
        return measured, []
    if share < _CONSISTENT:
        message = f"the most common of {len(counts)} forms of prompt covers {share:.0%} of the rows"
        return measured, [found("W152", message)]
    if share < _TEMPLATE_SHARE:
        return measured, []
    return measured, [
        found("W248", f"its prompt has the form {skeleton!r}", row=row.number, line=row.line)
        for row, skeleton in zip(rows, skeletons, strict=True)
        if counts[skeleton] <= max(1, _RARE_SHARE * len(rows))
    ]


def _prompt_lines(row: Row) -> list[str]:
    """The lines of the system prompt and of the first question, each with its role."""
    first = next((one for one in row.prompt if one.role == "user"), row.prompt[-1])
    shown = [one for one in row.prompt if one.role == "system"] + [first]
    return [
        f"{one.role}> {line.rstrip()}" for one in shown for line in one.content.strip().splitlines() if line.strip()
    ]


def _pieces(line: str) -> list[str]:
    """What may be the frame's part of a line: all of it, or its label."""
    role, _, text = line.partition("> ")
    label = _LABEL.match(text)
    return [line, f"{role}> {label[1]}: …"] if label else [line]


def _skeleton(prompt: Sequence[str], frame: set[str]) -> str:
    parts: list[str] = []
    for line in prompt:
        piece = next((one for one in _pieces(line) if one in frame), f"{line.partition('> ')[0]}> …")
        if not parts or parts[-1] != piece:
            parts.append(piece)
    return " | ".join(part if len(part) <= 60 else part[:57] + "…" for part in parts)


# -- answers


def unfinished(rows: Sequence[Row]) -> list[Problem]:
    """Answers that stop within a sentence: where nearly all others of their kind end with a mark, or beyond doubt.

    Their kind: all answers of several words, or those that are words of a sentence and no figures, code or list.
    """
    long = [row for row in rows if len(row.completion.split()) >= 5]
    cut = _unmarked(long)
    if not _unusual(cut, long):
        wordy = [row for row in long if _is_wordy(row.completion)]
        cut = _unmarked(wordy)
        if not _unusual(cut, wordy):
            cut = []
    lines = {row.line for row in cut}
    cut = [row for row in long if row.line in lines or _torn(row.completion.rstrip())]
    return [
        found("W250", f"the answer ends with {row.completion.rstrip()[-30:]!r}", row=row.number, line=row.line)
        for row in cut
    ]


def _unmarked(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if not _is_ended(row.completion.rstrip())]


def _is_ended(text: str) -> bool:
    """Whether behind its last letter or figure, or as that, stands what an answer may end with."""
    if text and not (_is_of_a_word(text[-1]) or text[-1].isspace() or text[-1] == ","):
        return True
    for char in reversed(text):
        if char in _MARKS or char.isdecimal():
            return True
        if _is_of_a_word(char):
            return False
    return False


def _is_of_a_word(char: str) -> bool:
    return char.isalnum() or char == "_"


def _unusual(few: Sequence[Row], rows: Sequence[Row]) -> bool:
    return len(rows) >= _ENOUGH_ROWS and len(few) <= (1 - _ENDED_SHARE) * len(rows)


def _is_wordy(text: str) -> bool:
    """Whether its last line is a sentence: nearly all of its parts are words of small letters."""
    last = text.rstrip().rpartition("\n")[2].split()
    plain = sum(part.strip(".,;:!?()'\"").isalpha() for part in last)
    listed = sum(part.endswith(",") for part in last)
    return len(last) >= 5 and plain >= _WORDY_SHARE * len(last) and 3 * listed < len(last)


def _torn(text: str) -> bool:
    """Whether a text stops where none can: after "and the", within brackets, within code or JSON."""
    if text.count("```") % 2 or (text[:1] in "{[" and text.count(text[0]) > text.count("}" if text[0] == "{" else "]")):
        return True
    if _is_ended(text):
        return False
    last = text.rsplit(None, 1)[-1].casefold()
    return last in _JOINING or text.endswith(",") or text.count("(") > text.count(")")


def too_short(rows: Sequence[Row]) -> list[Problem]:
    """Answers without a letter or digit, and those of a word or two where answers are otherwise long.

    Long: the logarithm of the length is more than four robust standard deviations (1.4826 times the median absolute
    deviation, Iglewicz and Hoaglin 1993) below the median, and the length below a tenth of it.
    """
    lengths = [len(row.completion.split()) for row in rows]
    if not rows:
        return []
    logs = [math.log(max(1, length)) for length in lengths]
    middle = statistics.median(logs)
    spread = 1.4826 * statistics.median(abs(one - middle) for one in logs)
    least = min(math.exp(middle - 4 * spread), math.exp(middle) / 10) if len(rows) >= _ENOUGH_ROWS else 0.0
    problems = []
    for row, length in zip(rows, lengths, strict=True):
        if not any(char.isalnum() for char in row.completion):
            problems.append(found("W243", f"the answer is {row.completion[:20]!r}", row=row.number, line=row.line))
        elif length <= least:
            message = f"the answer has {length} words, half of all have {math.exp(middle):.0f} or more"
            problems.append(found("W243", message, row=row.number, line=row.line))
    return problems
