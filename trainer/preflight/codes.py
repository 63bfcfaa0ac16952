"""Every finding that preflight and a recipe can have: one table of stable codes. Pure.

E: a run refuses the data unless the code is waived with a reason. W: looked at by a person, stops nothing.
A code keeps its meaning for ever; a new rule is a new line, and docs/training.md lists them all (a test compares).

>>> RULES["E230"].blocks, RULES["W220"].blocks
(True, False)
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct

from registry.client import InvalidRequest


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


class Rule(NamedTuple):
    """`weight`: what a finding takes from its row's quality score, which is 1 for a row without findings."""

    code: str
    what: str
    fix: str
    weight: float = 0.0
    fixable: bool = False

    @property
    def blocks(self) -> bool:
        return self.code.startswith("E")

    @property
    def severity(self) -> Severity:
        return Severity.ERROR if self.blocks else Severity.WARNING


class Span(Struct, frozen=True):
    """Where in a row: the field, and characters from `start` up to `end`."""

    field: str
    start: int
    end: int


class Problem(Struct, frozen=True, omit_defaults=True):
    """One finding. `row` and `line` count from 1; both are missing where it is about the whole file.

    related: lines that the finding is about as well, such as the first of two equal rows.
    """

    rule: str
    severity: Severity
    message: str
    fix: str
    row: int | None = None
    line: int | None = None
    span: Span | None = None
    related: list[int] = []


class Waiver(Struct, frozen=True):
    code: str
    reason: str


_ALL = (
    # -- the file and its lines
    Rule("E200", "the file or a line is not UTF-8 text", "save the file as UTF-8 without a byte order mark", 1),
    Rule("E201", "a line is not JSON", "write one whole JSON object on each line", 1),
    Rule("E202", "a line is JSON but no object", "write one JSON object on each line", 1),
    Rule("E203", "a key stands twice in one object", "keep one of the two values", 1),
    Rule("E204", "a line is longer than 8 MiB", "split the row, or leave it out", 1),
    Rule(
        "E205",
        "a row lacks the fields of every format",
        "give instruction and output, prompt and completion, or messages",
        1,
    ),
    Rule("E206", "a row has a field that nothing reads", "correct its spelling, move it into `meta`, or remove it", 1),
    Rule("E207", "a field has a value of the wrong type", "give text, or for messages a list of {role, content}", 1),
    Rule("W208", "a row has another format than the others, or the file is mixed", "write all rows in one format", 0.1),
    Rule("E209", "a message has an unknown role", "use system, user or assistant", 1),
    Rule(
        "E210",
        "the roles of a conversation are out of order",
        "at most one system message first, then user and assistant in turn",
        1,
    ),
    Rule(
        "E211",
        "a conversation does not end with an answer",
        "end it with a message of the assistant, or leave it out",
        1,
    ),
    Rule("E212", "a prompt is blank", "write the prompt, or leave the row out", 1),
    Rule("E213", "an answer is empty", "write the answer, or leave the row out: it would teach silence", 1),
    Rule("E214", "an id is used twice", "give every row an id of its own, or none", 1),
    Rule("E215", "the file holds no rows", "give at least one row", 1),
    Rule(
        "E216",
        "a table (CSV or Parquet) cannot be read",
        "write the file anew; quote cells that hold quotes or line breaks",
        1,
    ),
    Rule("E217", "text with a NUL or half of a surrogate pair", "remove the character", 1),
    Rule("W218", "the file begins with a byte order mark", "save it without one", 0, True),
    Rule("W219", "a column that nothing reads stands in most rows", "move it into `meta` if it is only for people"),
    # -- duplicates
    Rule("W220", "a row repeats another exactly", "leave it out: a run does so by itself", 0.6, True),
    Rule("W221", "a row nearly repeats another", "keep one of them; a run keeps them in one split", 0.3),
    Rule("W222", "one prompt has contradicting answers", "decide which answer is right and leave the other out", 0.4),
    Rule("W224", "so many rows are much alike that copies may be missed", "take out the text that they share"),
    Rule("E223", "two pairs prefer each the other's answer", "decide which is better, leave the other pair out", 0.6),
    # -- privacy
    Rule(
        "E230", "a secret: a key, a token or a password in an address", "revoke it, and replace it by a mark", 1, True
    ),
    Rule("W231", "personal data", "replace it by a mark (--mask), or record why it may be used", 0.3, True),
    Rule("W232", "what looks like a password", "replace it by a mark (--mask)", 0.3, True),
    # -- answers
    Rule("W240", "an answer refuses", "keep it only if the model shall refuse this", 0.3),
    Rule("W241", "a placeholder was never filled in", "fill it in, or leave the row out", 0.6),
    Rule("W242", "an answer speaks as an AI model", "rewrite it as the product would say it", 0.4),
    Rule("W243", "an answer is far too short", "write a whole answer, or leave the row out", 0.4),
    Rule("W244", "an answer repeats its prompt", "write an answer, or leave the row out", 0.6),
    Rule("W245", "an answer repeats itself", "cut the repetition", 0.6),
    Rule("W246", "text decoded with the wrong character set", "repair it (--fix), or write it anew", 0.4, True),
    Rule("W247", "a row is in another language than the data", "translate it, or leave it out", 0.3),
    Rule(
        "W248",
        "a prompt departs from the template of all others",
        "write every prompt in one form, the form served",
        0.2,
    ),
    Rule("W249", "marks of a chat template inside a text", "remove them: the template adds its own", 0.5),
    Rule("W250", "an answer stops in the middle of a sentence", "write its end, or leave the row out", 0.4),
    Rule("W251", "white space or control characters at the edge of a text", "remove them (--fix)", 0.05, True),
    Rule("W252", "HTML in a text, in few rows", "turn it into plain text", 0.2),
    Rule(
        "E253", "a review that is still to come", "give the day on which it was reviewed (UTC, or name the zone)", 0.6
    ),
    # -- lengths and numbers
    Rule("W121", "more than 1 % of the rows are longer than max_length", "raise max_length, or shorten them"),
    Rule("E122", "the prompt alone fills max_length: nothing of the row would be trained", "shorten the prompt", 1),
    Rule("W123", "a row is longer than max_length, so a run leaves it out", "raise max_length, or shorten it", 0.5),
    Rule("E140", "fewer than 500 distinct rows", "collect more, or waive it with a reason"),
    Rule("W151", "a split has no rows", "give more groups: a group is never divided"),
    Rule("W152", "prompts follow no common template", "write every prompt in one form, the form served"),
    Rule("W153", "rows of low quality", "look at them: the report lists every one"),
    # -- leakage
    Rule(
        "E160",
        "a row holds what a suite or a held-out file asks",
        "leave it out: it would be measured on what it learnt",
        1,
    ),
    Rule(
        "E161",
        "a row leaks between the splits that the file declares",
        "declare one split for it and what it repeats",
        1,
    ),
    Rule(
        "E162",
        "a row left the split that the manifest froze for it",
        "go back to the frozen data, or freeze it anew",
        1,
    ),
    Rule("W163", "no suite was compared with", "give --suite or --registered"),
    Rule(
        "W164",
        "a prompt could not be compared with all items: very many share its words",
        "look at it beside the suite; write prompts that are less alike",
    ),
    Rule("W165", "a pair asks what a held-out row of the data asks", "leave it out: a run does so by itself", 0.6),
    # -- the recipe, and what it will take (`trainer.lint`)
    Rule("W101", "the learning rate is one for full fine-tuning", "5e-5 to 5e-4; LoRA takes about ten times as much"),
    Rule("W102", "the learning rate is hot, and nothing holds the base's knowledge", "lower it, or add [replay]"),
    Rule("E103", "the learning rate is above 2e-3: runs diverge or forget", "2e-4, or 1e-3 with [replay]"),
    Rule("W104", "bfloat16 adapters at a small learning rate: many entries never change", "set lora.dtype to float32"),
    Rule("W105", "the recipe departs from its preset's rules of thumb", 'take preset = "evidence", or keep to them'),
    Rule("W110", "more tokens to learn than the adapter has parameters", "raise lora.rank, or train more layers"),
    Rule(
        "W111",
        "the rank wastes memory, or is above vLLM's default",
        "8 or 16; above 16 start vLLM with --max-lora-rank",
    ),
    Rule(
        "E112",
        "the rank is above what the engine that will serve it takes",
        "lower lora.rank, or start vLLM with a larger --max-lora-rank and say so in serving.max_lora_rank",
    ),
    Rule("W120", "padding_side is set, which changes nothing", "leave it out: each use pads on its own side"),
    Rule("W130", "a step takes more than 32 rows, which LoRA learns less from", "lower batch_size or accumulate"),
    Rule("W131", "fewer than 50 steps in all", "lower batch_size or accumulate, or collect more rows"),
    Rule("W132", "more than 3 epochs mostly memorise the wording", "1 to 3 epochs"),
    Rule(
        "E170",
        "the run will not fit into this machine's memory",
        "lower batch_size and raise accumulate, or max_length",
    ),
    Rule("E171", "computation in fp16 is asked for; it is never waived", "leave it out: computation is in bfloat16"),
    Rule("E180", "what the recipe asks for cannot be served; it is never waived", "rsLoRA and the linear layers are"),
    Rule(
        "W150",
        "the policy holds perplexity to an absolute limit alone",
        "set perplexity.max_ratio_to_base to 1 or less: the limit depends on tokenizer and template",
    ),
    Rule("W190", "after training fewer than 95 % of the answers ended by themselves", "look at how the rows end"),
)

RULES: Mapping[str, Rule] = {rule.code: rule for rule in _ALL}


def found(
    code: str,
    message: str,
    *,
    row: int | None = None,
    line: int | None = None,
    span: Span | None = None,
    related: Sequence[int] = (),
) -> Problem:
    """A finding of one rule; severity and fix are the rule's."""
    rule = RULES[code]
    return Problem(code, rule.severity, message, rule.fix, row, line, span, list(related))


def check_waivers(waivers: Sequence[Waiver]) -> dict[str, str]:
    """Reason by code. Raises InvalidRequest for an unknown code, one that blocks nothing, or a missing reason."""
    problems = []
    for one in waivers:
        if one.code not in RULES:
            problems.append(f"code {one.code!r} is not known; `tunegate preflight --codes` lists them")
        elif not RULES[one.code].blocks:
            problems.append(f"{one.code} is a warning and stops nothing; only codes with E are waived")
        elif not one.reason.strip():
            problems.append(f"the waiver of {one.code} has no reason; say why the data may be used all the same")
    if problems:
        raise InvalidRequest("; ".join(problems), problems)
    return {one.code: one.reason for one in waivers}


def blocking(problems: Sequence[Problem], waived: Mapping[str, str]) -> list[Problem]:
    """The findings that stop a run: errors whose code is not waived."""
    return [one for one in problems if one.severity is Severity.ERROR and one.rule not in waived]
