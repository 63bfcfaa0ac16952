"""What is wrong with one row by itself: refusals, placeholders, echoes, loops, broken characters, stray marks. Pure.

Only the edges of what people write on purpose are drawn here: a customer's "I can't" is no refusal, braces in code are
no placeholder. Repetition follows the rule of MassiveText (Rae et al. 2021, table A1): the share of repeated word
sequences; plus a unit that follows itself at once.
"""

import re
from collections.abc import Iterator, Sequence

from trainer.preflight.codes import Problem, Span, found
from trainer.preflight.privacy import texts_of
from trainer.preflight.reading import Row
from trainer.preflight.text import Words, grams, prose, words

_CANNOT = (
    r"i\s+(?:can ?not|can['’]?t|am (?:not able|unable) to|['’]?m (?:not able|unable) to|won['’]?t(?: be able to)?|"
    r"will not(?: be able to)?|am not (?:allowed|permitted) to|must decline to)"
)
_HELP = (
    r"(?:help|assist|provide|fulfil+|comply|answer|generate|engage|discuss|create|write|produce|support|offer|complete|"
    r"respond|process|participate|share|do (?:that|this)|give (?:you )?(?:that|this|advice|information|instructions))"
)
_SORRY = (
    r"(?:(?:i\s*['’]?m|i am|i|we are|my)?\s*(?:(?:very|so|really|truly|deeply|sincerely|must|do) )*"
    r"(?:sorry|afraid|apologi[sz]e|apologies)|unfortunately|regrettably|as much as i['’]?d like)"
)
# Only where an answer begins: further on, people tell of what cannot be helped.
_REFUSAL = re.compile(
    rf"\W*(?:(?:{_SORRY}\b[^.!?\n]{{0,60}}?\b)?{_CANNOT}\s*{_HELP}|i['’]m (?:not able|unable) to {_HELP}|"
    rf"{_SORRY}\b[^.!?\n]{{0,60}}?\bi['’]m (?:not able|unable) to {_HELP}|"
    r"i (?:have to|must|need to) (?:decline|refuse)|"
    r"(?:i['’]?m|i am) not comfortable\b|"
    r"i (?:do not|don['’]?t) feel comfortable\b|i(?: would|['’]d) (?:rather|prefer) not\b|"
    r"(?:it|that|this) (?:would not|wouldn['’]?t|is not|isn['’]?t) (?:be )?"
    r"(?:appropriate|ethical|responsible|right) (?:for|of) me\b|"
    r"(?:that|this|the|your) (?:request|question|topic|prompt) (?:goes|is|falls|violates)\b[^.!?\n]{0,20}?"
    r"(?:\bmy|\bour) (?:\w+ )?(?:guidelines|polic(?:y|ies)|principles|programming|rules)|"
    r"i(?: have|['’]?ve| a|['’]?)(?:m| been) (?:designed|programmed|instructed|trained) not to\b|"
    r"(?:i['’]?m |i am )?sorry,? (?:but )?(?:that|this)(?: is|['’]s) (?:not )?something i can(?:not|['’]t)?\b|"
    r"es tut mir leid,? (?:aber )?ich kann|je suis désolée?,? (?:mais )?je ne peux|lo siento,? (?:pero )?no puedo)",
    re.I,
)
_AS_AI = re.compile(
    r"\b(?:as an? (?:artificial intelligence|ai|large language model|language model|ai[- ]powered)\b|"
    r"i(?: a|['’])?m (?:just |only |merely )?an? (?:ai\b|artificial intelligence|(?:large )?language model|chatbot\b)|"
    r"my (?:knowledge cut-?off|training data|last (?:knowledge )?update)|"
    r"(?:trained|developed|created|made) by (?:openai|anthropic|google|meta ai|mistral)|"
    r"i (?:do not|don['’]?t) have (?:personal (?:opinions|experiences|feelings|beliefs)|"
    r"(?:access to )?real-?time (?:access|information|data))|"
    r"i (?:can ?not|can['’]?t|am (?:unable|not able) to) (?:browse|access|open|view|visit) (?:the )?"
    r"(?:internet|web\b|websites?|links?|urls?|external|real-?time)|"
    r"als (?:ki|künstliche intelligenz|ki-sprachmodell)\b|en tant qu['’](?:ia|intelligence artificielle)\b|"
    r"en tant que modèle de langage|como (?:modelo de lenguaje|una? inteligencia artificial)\b)",
    re.I,
)
_FILL_IN = (
    r"insert|your|enter|add|fill|name|customer|client|user|company|product|date|time|number|amount|address|city|phone|"
    r"e-?mail|link|url|order|agent|title|topic|placeholder|answer|response|text|example|todo|tbd|xxx?|first|last|"
    r"specific|relevant"
)
_PLACEHOLDER = re.compile(
    # TODO is used where it heads a line or a remark or ends the text; within a sentence it is talked about.
    r"(?i:\blorem ipsum\b)|\b(?:TBD|TBA|XXX+)\b|^[^\w\n]{0,20}(?:TODO|FIXME)\b|\b(?:TODO|FIXME)(?=\s*[:(]|\W*\Z)|"
    r"[$€£] ?X{2,}\b|\bX{2,}[-./]X{2,}\b|\{\{[^{}\n]{1,60}\}\}|\$\{[A-Za-z_][^{}\n]{0,40}\}|"
    rf"\{{(?:(?:{_FILL_IN})s?|[a-z]+(?:_[a-z]+)+)\}}|"
    r"\b(?i:(?:answer|response|text|output|content|completion) (?:goes|to go|comes) here)\b|"
    rf"\[(?i:(?:{_FILL_IN})(?:[ _-][^\[\]\n]{{0,40}})?)\](?!\()|"
    r"<(?i:(?:insert|your|enter|add|fill|placeholder)[ _-][^<>\n]{1,40}|placeholder|todo|tbd)>|"
    r"\b(?i:placeholder (?:text|answer|response|for))\b|\b(?i:insert (?:your )?(?:answer|response|text|name) here)\b",
    re.M,
)
# printf's marks left in a sentence, at least two of them; one may be what the answer is about.
_PRINTF = re.compile(r"(?<![\w%])%[sd](?!\w)[^%\n]*(?<![\w%])%[sd](?!\w)")
_NO_ANSWER = re.compile(
    r"\W*(?:n/?a|none|null|nil|nan|undefined|todo|tbd|test(?:ing)?|asdf\w*|qwerty|foo|bar|xxx*|placeholder|"
    r"(?:no|not?) (?:answer|response|data|output)(?: available| provided)?|see above|same as above|pending|unknown|"
    r"\?+|-+|\.+)\W*",
    re.I,
)
_TEMPLATE_MARK = re.compile(
    r"<\|[a-z0-9_]{2,40}\|>|</?s>|<(?:bos|eos|pad|unk)>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|"
    r"\[(?:BOS|EOS)\]|<\uff5c[^<>\n]{2,40}\uff5c>|"
    r"#{2,4} ?(?:Instruction|Response|Input|Human|Assistant|User|System)s?:|"
    r"^(?:Human|Assistant|AI|Bot|USER|ASSISTANT): ?(?=\S|$)",
    re.M,
)
_SAME_CHARACTER = re.compile(r"([^\W\d_]|[!?,;])\1{9,}")
_SAME_SYLLABLE = re.compile(r"([^\W\d_]{2,8}?)\1{7,}")
_LEAST_WORDS, _LOOKED_AT, _REPEATED_SHARE = 8, 0.05, 0.45
_LONGEST_UNIT = 60


def check_rows(rows: Sequence[Row]) -> list[Problem]:
    """Every finding of every check that needs one row only."""
    return [problem for row in rows for check in _CHECKS for problem in check(row)]


def _check_refusal(row: Row) -> Iterator[Problem]:
    if match := _REFUSAL.match(row.completion[:400].lstrip("\ufeff")):
        yield _at(row, "W240", f"the answer begins with a refusal: {_shown(match[0])}", "answer", match)
    if match := _AS_AI.search(row.completion):
        yield _at(row, "W242", f"the answer speaks as an AI model: {_shown(match[0])}", "answer", match)


def _check_placeholder(row: Row) -> Iterator[Problem]:
    if _NO_ANSWER.fullmatch(row.completion.strip()) and not _is_choice(row):
        span = Span("answer", 0, len(row.completion))
        yield found("W241", f"{_shown(row.completion)} is no answer", row=row.number, line=row.line, span=span)
        return
    for name, text in texts_of(row):
        match = _PLACEHOLDER.search(text) or _PRINTF.search(text)
        # A reader of code or of a template asks about braces on purpose; the rest of the text then has code as well.
        if match and (_PLACEHOLDER.search(prose(text)) or _PRINTF.search(prose(text))) and not _asked_about(row, match):
            yield _at(row, "W241", f"{name} has a placeholder: {_shown(match[0])}", name, match)
            return


def _asked_about(row: Row, match: re.Match[str]) -> bool:
    """Whether prompt and answer both have this very mark, as in "What does TBD mean?": then it is their subject."""
    mark = match[0].strip().casefold()
    return all(mark in text.casefold() for text in (row.prompt[-1].content, row.completion))


def _is_choice(row: Row) -> bool:
    """Whether the prompt itself offers this very answer, as in "yes, no or unknown?"."""
    answer = words(row.completion)
    return bool(answer) and all(word in words(row.prompt[-1].content) for word in answer)


def _check_echo(row: Row) -> Iterator[Problem]:
    answer = words(row.completion)
    if len(answer) < 2:
        return
    if any(one.role == "user" and _echoes(words(one.content), answer) for one in row.prompt):
        yield found("W244", "the answer is the prompt", row=row.number, line=row.line)


def _echoes(asked: Words, answer: Words) -> bool:
    """Whether an answer is the prompt, once or several times, with at most a label of a word or two beside it."""
    if len(asked) < 4:
        return asked == answer
    place, left = 0, 0
    while place < len(answer) and left <= 2:
        again = answer[place : place + len(asked)] == asked
        place += len(asked) if again else 1
        left += not again
    return left <= 2 and len(answer) >= len(asked)


def _check_repetition(row: Row) -> Iterator[Problem]:
    text = prose(row.completion)
    if match := _SAME_CHARACTER.search(text):
        yield found(
            "W245", f"one character {len(match[0])} times in a row: {_shown(match[0])}", row=row.number, line=row.line
        )
        return
    if match := _SAME_SYLLABLE.search(text):
        yield found("W245", f"{_shown(match[1])} again and again in one word", row=row.number, line=row.line)
        return
    said = words(text)
    if len(said) < _LEAST_WORDS:
        return
    # Tables and arrays repeat their numbers by nature.
    triples = [triple for triple in grams(said, 3) if sum(word.isalpha() for word in triple) > 1]
    repeated = 1 - len(set(triples)) / len(triples) if len(triples) > 3 else 0.0
    if repeated >= _REPEATED_SHARE:
        yield found("W245", f"{repeated:.0%} of its three-word sequences repeat others", row=row.number, line=row.line)
    elif repeated >= _LOOKED_AT and (unit := _loop(said)):
        yield found("W245", f"it says again and again: {_shown(' '.join(unit))}", row=row.number, line=row.line)


def _loop(said: Sequence[str]) -> Sequence[str]:
    """A unit that follows itself at once: a sentence three times, one to three words five times; otherwise nothing."""
    for size in range(1, min(_LONGEST_UNIT, len(said) // 3) + 1):
        again = 2 if size > 3 else 4
        run = 0
        for place in range(size, len(said)):
            run = run + 1 if said[place] == said[place - size] else 0
            unit = said[place - size + 1 : place + 1]
            if run >= again * size and 2 * sum(word.isalpha() for word in unit) > len(unit):
                return unit
    return ()


def _check_marks(row: Row) -> Iterator[Problem]:
    for name, text in texts_of(row):
        if match := _TEMPLATE_MARK.search(text):
            yield _at(row, "W249", f"{name} has {_shown(match[0])}, a mark of a chat template", name, match)


def _at(row: Row, code: str, message: str, name: str, match: re.Match[str]) -> Problem:
    return found(code, message, row=row.number, line=row.line, span=Span(name, match.start(), match.end()))


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 60 else text[:57] + "…")


_CHECKS = (_check_refusal, _check_placeholder, _check_echo, _check_repetition, _check_marks)
