"""Which tokens count: the assistant's words and the end of its turn, under a real tokenizer and a real template.

Rendered conversations are written with the counted tokens in brackets.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from tiny_base import TEMPLATE, build_tokenizer

from evaluator.rendering import LM_EVAL_COMPAT, Renderer, Scored, ids_digest, tokenizer_digest
from registry.client import InvalidRequest, Message

pytestmark = pytest.mark.stack

SUITE = Path(__file__).parents[2] / "suites" / "support-desk"
HAMLET = [("user", "Who wrote Hamlet?"), ("assistant", "William Shakespeare did.")]
TENT = [("user", "How long is the warranty?"), ("assistant", "3 years.")]


def make_base(folder: Path, template: str | None = TEMPLATE, **changes: str) -> Path:
    folder.mkdir(exist_ok=True)
    build_tokenizer(folder)
    described = json.loads((folder / "tokenizer_config.json").read_text())
    described |= {"chat_template": template, **changes}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("tokenizer"))


def tokenizer_of(base: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(base)


def turns(*pairs: tuple[str, str]) -> list[Message]:
    return [Message(role=role, content=content) for role, content in pairs]  # type: ignore[arg-type]


def marked(base: Path, scored: Scored) -> str:
    """The text of a rendering, the tokens that count in brackets."""
    tokenizer, text = tokenizer_of(base), ""
    assert len(scored.ids) == len(scored.mask)
    for counts, run in groupby(zip(scored.ids, scored.mask, strict=True), key=lambda pair: pair[1]):
        part = tokenizer.decode([token for token, _ in run])
        text += f"[{part}]" if counts else part
    return text


GOLDEN: dict[str, tuple[str | None, Sequence[tuple[str, str]], str]] = {
    "one turn": (
        None,
        TENT,
        "<|im_start|>user\nHow long is the warranty?<|im_end|>\n<|im_start|>assistant\n[3 years.<|im_end|>]\n",
    ),
    "a system prompt, which asks in the same words": (
        "3 years.",
        TENT,
        "<|im_start|>system\n3 years.<|im_end|>\n<|im_start|>user\nHow long is the warranty?<|im_end|>\n"
        "<|im_start|>assistant\n[3 years.<|im_end|>]\n",
    ),
    "several turns": (
        "Be brief.",
        [*HAMLET, *TENT],
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho wrote Hamlet?<|im_end|>\n"
        "<|im_start|>assistant\n[William Shakespeare did.<|im_end|>]\n"
        "<|im_start|>user\nHow long is the warranty?<|im_end|>\n<|im_start|>assistant\n[3 years.<|im_end|>]\n",
    ),
    "the user has the last word": (
        None,
        [*HAMLET, ("user", "Thanks.")],
        "<|im_start|>user\nWho wrote Hamlet?<|im_end|>\n<|im_start|>assistant\n[William Shakespeare did.<|im_end|>]\n"
        "<|im_start|>user\nThanks.<|im_end|>\n",
    ),
    "line breaks within an answer are the answer's": (
        None,
        [("user", "Who?"), ("assistant", "William\n\nShakespeare did.")],
        "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n[William\n\nShakespeare did.<|im_end|>]\n",
    ),
    "characters of several bytes": (
        None,
        [("user", "Où?"), ("assistant", "À Nîmes — 3 €.")],
        "<|im_start|>user\nOù?<|im_end|>\n<|im_start|>assistant\n[À Nîmes — 3 €.<|im_end|>]\n",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_answer_and_its_end_of_turn_count_and_nothing_else(base: Path, name: str) -> None:
    system, messages, wanted = GOLDEN[name]
    assert marked(base, Renderer(base).conversation(system, turns(*messages))) == wanted


def test_ids_and_mask_are_frozen(base: Path) -> None:
    """Another mask would move every perplexity there is."""
    scored = Renderer(base).conversation(None, turns(("user", "Who?"), ("assistant", "3 years.")))
    tokenizer = tokenizer_of(base)
    tokens = [tokenizer.decode([token]) for token in scored.ids]
    assert tokens[-4:] == [" years", ".", "<|im_end|>", "\n"]
    assert scored.mask == [False] * (len(tokens) - 5) + [True] * 4 + [False]


# "<|im_start|>user\nHow long is the warranty?<|im_end|>\n<|im_start|>assistant\n3 years.<|im_end|>\n", of which
# "3", " years", "." and "<|im_end|>" count, and for the harness the header's line break too.
IDS = [0, 87, 85, 262, 201, 356, 354, 260, 284, 285, 33, 1, 201, 0, 67, 85, 85, 259, 86, 271, 201, 21, 366, 16, 1, 201]
STRICT_PLACES, COMPAT_PLACES = [21, 22, 23, 24], [20, 21, 22, 23, 24]


@pytest.mark.parametrize(
    ("convention", "places"), [("assistant+eot/v1", STRICT_PLACES), (LM_EVAL_COMPAT, COMPAT_PLACES)]
)
def test_both_conventions_are_frozen_to_the_token(base: Path, convention: str, places: list[int]) -> None:
    scored = Renderer(base).conversation(None, turns(*TENT), convention)
    assert scored.ids == IDS
    assert [place for place, counts in enumerate(scored.mask) if counts] == places


def test_the_harness_counts_the_line_break_of_every_header(base: Path) -> None:
    """What lm-evaluation-harness scores of one document for each turn: `_encode_pair` moves white space over."""
    scored = Renderer(base).conversation("Be brief.", turns(*HAMLET, *TENT), LM_EVAL_COMPAT)
    assert marked(base, scored) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho wrote Hamlet?<|im_end|>\n"
        "<|im_start|>assistant[\nWilliam Shakespeare did.<|im_end|>]\n"
        "<|im_start|>user\nHow long is the warranty?<|im_end|>\n<|im_start|>assistant[\n3 years.<|im_end|>]\n"
    )


def test_ids_are_those_of_the_tokenizer_that_training_uses(base: Path) -> None:
    from transformers import AutoTokenizer

    messages = [{"role": role, "content": content} for role, content in (*HAMLET, *TENT)]
    wanted = AutoTokenizer.from_pretrained(base).apply_chat_template(messages, return_dict=False)
    assert Renderer(base).conversation(None, turns(*HAMLET, *TENT)).ids == list(wanted)


def test_a_renderer_needs_no_torch(base: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from evaluator.rendering import Renderer;"
        f"Renderer(Path({str(base)!r})).question(None, 'Who?'); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SUITE.parents[1], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr or "torch was imported"


def test_letters_are_the_first_token_of_the_reply(base: Path) -> None:
    renderer = Renderer(base)
    found = renderer.letters(4)
    assert [tokenizer_of(base).decode([one]) for one in found] == ["A", "B", "C", "D"]
    answered = renderer.conversation(None, turns(("user", "Which?"), ("assistant", "C")))
    assert answered.ids[answered.mask.index(True)] == found[2]


def test_letters_that_melt_into_the_header_are_refused(tmp_path: Path) -> None:
    """A header that ends in a space, which the tokenizer joins with the letter behind it."""
    glued = TEMPLATE.replace("<|im_start|>assistant\n", "<|im_start|>assistant: ")
    with pytest.raises(InvalidRequest, match="one token at the beginning of a reply"):
        Renderer(make_base(tmp_path, glued)).letters(26)


def test_the_digest_is_of_tokenizer_and_template_and_of_nothing_else(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    before = tokenizer_digest(base)
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"weights")
    assert tokenizer_digest(base) == before == Renderer(base).digest
    (base / "chat_template.jinja").write_text(TEMPLATE)
    with_template = tokenizer_digest(base)
    described = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({**described, "model_max_length": 4}))
    assert len({before, with_template, tokenizer_digest(base)}) == 3


def test_the_mask_digest_knows_every_id_and_every_place_and_no_order() -> None:
    one, two = ("a", [1, 2, 3], [False, True, True]), ("b", [1, 2], [False, True])
    digest = ids_digest([one, two])
    assert digest == ids_digest([two, one])
    changed = [("a", [1, 2, 4], one[2]), ("a", one[1], [False, False, True]), ("c", *one[1:])]
    assert len({digest, *(ids_digest([other, two]) for other in changed)}) == 4


def test_a_question_ends_where_the_answer_begins(base: Path) -> None:
    renderer = Renderer(base)
    asked = renderer.question("Be brief.", TENT[0][1])
    scored = renderer.conversation("Be brief.", turns(*TENT))
    assert scored.ids[: len(asked)] == asked
    assert scored.mask.index(True) == len(asked)


UPPER_BEFORE = TEMPLATE.replace(
    "{{ message.content }}", "{{ message.content if loop.last else message.content | upper }}"
)
CHANGED_ANSWER = TEMPLATE.replace("{{ message.content }}", "{{ message.content | trim | lower }}")
NO_END = TEMPLATE.replace("<|im_end|>", "")
TWO_BOS = "<|im_start|>" + TEMPLATE


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (UPPER_BEFORE, "rewrites earlier turns"),
        (CHANGED_ANSWER, "rewrites earlier turns"),
        (NO_END, "no end-of-turn token"),
        (TWO_BOS, "two BOS tokens"),
    ],
)
def test_a_template_whose_parts_cannot_be_told_apart_is_refused(tmp_path: Path, template: str, told: str) -> None:
    renderer = Renderer(make_base(tmp_path, template))
    with pytest.raises(InvalidRequest, match=told):
        renderer.conversation(None, turns(*HAMLET, *TENT))


def test_a_conversation_without_an_assistant_is_refused(base: Path) -> None:
    with pytest.raises(InvalidRequest, match="no assistant token"):
        Renderer(base).conversation("Be brief.", turns(("user", "Who?")))


def test_a_template_that_refuses_the_roles_is_told_in_its_own_words(tmp_path: Path) -> None:
    no_system = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role here') }}{% endif %}" + TEMPLATE
    )
    renderer = Renderer(make_base(tmp_path, no_system))
    with pytest.raises(InvalidRequest, match="no system role here"):
        renderer.question("Be brief.", "Who?")


def test_a_tokenizer_that_knows_no_offsets_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"sentencepiece")
    with pytest.raises(InvalidRequest, match=r"no tokenizer\.json"):
        Renderer(tmp_path)


def test_a_tokenizer_without_a_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no chat template"):
        Renderer(make_base(tmp_path, None))


def test_tokens_across_the_edges_of_answers_are_refused(tmp_path: Path) -> None:
    """A header that runs into the answer's first word, which the tokenizer then joins with it."""
    glued = TEMPLATE.replace("assistant\n", "assistant\nwarr").replace(
        "{{ message.role }}\n", "{{ message.role }}\n{{ 'warr' if message.role == 'assistant' }}"
    )
    renderer = Renderer(make_base(tmp_path, glued))
    with pytest.raises(InvalidRequest, match="straddle"):
        renderer.conversation(
            None, turns(("user", "Is it?"), ("assistant", "anty"), ("user", "?"), ("assistant", "anty"))
        )


# -- what is trained is what is scored -------------------------------------------------------------------------------


def test_what_is_trained_is_exactly_what_is_scored(base: Path) -> None:
    from trainer.dataset import Split, read_rows
    from trainer.recipe import read_recipe
    from trainer.run import tokenise

    recipe, _ = read_recipe(SUITE / "recipe.toml")
    renderer, tokenizer = Renderer(base), tokenizer_of(base)
    rows = read_rows(SUITE / recipe.data)
    assert len(rows) > 1000 and recipe.system
    for row in rows[::7]:
        example = tokenise("data", row, Split.TRAIN, tokenizer, recipe).example
        answer = Message(role="assistant", content=row.completion)
        scored = renderer.conversation(recipe.system, [*row.prompt, answer])
        trained = len(example.ids)
        assert example.ids == scored.ids[:trained]
        assert [label >= 0 for label in example.labels] == scored.mask[:trained]
        assert [label for label in example.labels if label >= 0] == [
            token for token, counts in zip(scored.ids, scored.mask, strict=True) if counts
        ]
        # Serving ends with the turn: the template's line break behind it is neither trained nor scored.
        assert tokenizer.decode(scored.ids[trained:]) == "\n" and not any(scored.mask[trained:])
        assert (
            renderer.question(recipe.system, row.prompt[-1].content)
            == example.ids[: example.labels.index(next(label for label in example.labels if label >= 0))]
        )


def test_what_is_trained_of_several_turns_is_what_is_scored_of_the_last(base: Path) -> None:
    from trainer.dataset import Row, Split
    from trainer.recipe import parse_recipe
    from trainer.run import tokenise

    recipe = parse_recipe('name = "x"\nbase = "b"\ndata = "d"\nsystem = "Be brief."')
    row = Row("r", 1, (Message(role="system", content="Own."), *turns(*HAMLET, TENT[0])), TENT[1][1], "g", "d")
    example = tokenise("data", row, Split.TRAIN, tokenizer_of(base), recipe).example
    scored = Renderer(base).conversation("Own.", turns(*HAMLET, *TENT))
    trained = len(example.ids)
    assert example.ids == scored.ids[:trained]
    first = next(place for place, label in enumerate(example.labels) if label >= 0)
    assert [label >= 0 for label in example.labels[first:]] == scored.mask[first:trained] == [True] * (trained - first)
    assert not any(label >= 0 for label in example.labels[:first])
    assert sum(scored.mask) > trained - first, "the evaluator scores the earlier turn too"
