"""Tasks of lm-evaluation-harness as suites: frozen by the harness's own rules, asked through any engine, never code."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine, Faults

from evaluator.engine import EngineRefused, Prompt
from evaluator.lm_eval_bridge import EngineLM, check_documents, run_documents
from evaluator.lm_eval_import import Imported, import_task
from registry.cli import main
from registry.client import Document, InvalidRequest, SuiteContent
from registry.records import SuiteKind
from registry.suites import check_suite, read_suite
from registry.transfer import suite_files

END = 255  # no byte of a text in UTF-8
CAPITALS = [("Norway", "Oslo"), ("Italy", "Rome"), ("Greece", "Athens"), ("France", "Paris"), ("Peru", "Lima")]
OPEN = """
task: capitals
dataset_path: json
dataset_kwargs: {data_files: {test: test.json, train: train.json}}
test_split: test
fewshot_split: train
num_fewshot: 2
output_type: generate_until
doc_to_text: "Q: {{country}}?\\nA:"
doc_to_target: "{{capital}}"
description: "Capitals.\\n\\n"
generation_kwargs: {until: ["\\n"], do_sample: false, max_gen_toks: 20}
filter_list:
  - name: word
    filter:
      - {function: regex, regex_pattern: "([A-Z][a-z]+)"}
      - {function: take_first}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true}
"""
CHOICES = """
task: which
dataset_path: json
dataset_kwargs: {data_files: {test: test.json}}
test_split: test
output_type: multiple_choice
doc_to_text: "Capital of {{country}}:"
doc_to_choice: "{{[capital, 'Berlin', 'Cairo']}}"
doc_to_target: 0
metric_list: [{metric: acc}, {metric: acc_norm}, {metric: f1}]
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a tokenizer whose ids are the bytes of a text."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    folder = tmp_path_factory.mktemp("base")
    tokenizer = Tokenizer(models.BPE(vocab={sign: byte for byte, sign in bytes_to_unicode().items()}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = bytes_to_unicode()[END]
    tokenizer.add_special_tokens([AddedToken(end, special=True, normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end, "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a task's YAML beside five countries to ask and three to show."""
    for name, rows in (("test", CAPITALS), ("train", [("Spain", "Madrid"), ("Cuba", "Havana"), ("Iran", "Tehran")])):
        lines = (json.dumps({"country": country, "capital": capital}) for country, capital in rows)
        (tmp_path / f"{name}.json").write_text("\n".join(lines) + "\n")

    def written(text: str) -> Path:
        file = tmp_path / "task.yaml"
        file.write_text(text)
        return file

    return written


def suite_of(found: Imported) -> SuiteContent:
    return read_suite({"suite.toml": found.suite_toml.encode(), "items.jsonl": found.items_jsonl.encode()})


def ask(content: SuiteContent, base: Path, engine: FakeEngine, longest: int = 1000) -> dict[str, tuple[bool, str]]:
    return {item: (right, said) for item, right, said in run_documents(engine, content, None, base, longest)}


class Recorder(FakeEngine):
    """Remembers the prompts of every call."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.calls: list[list[Prompt]] = []

    def score(self, prompts: Sequence[Prompt]) -> Any:
        self.calls.append(list(prompts))
        return super().score(prompts)

    def generate(self, prompts: Sequence[Prompt], max_tokens: int, stops: Sequence[str] = ()) -> Any:
        self.calls.append(list(prompts))
        return super().generate(prompts, max_tokens, stops)


# -- freezing -----------------------------------------------------------------------------------------------------


def test_a_task_becomes_a_suite_that_holds_everything_it_asks(write: Callable[[str], Path]) -> None:
    file = write(OPEN)
    found = import_task(file, "general/capitals", "exact_match")
    files = {"suite.toml": found.suite_toml.encode(), "items.jsonl": found.items_jsonl.encode()}
    assert check_suite("general/capitals", files)[:2] == (SuiteKind.LM_EVAL, 5)
    content = suite_of(found)
    assert [one.doc["capital"] for one in content.items if isinstance(one, Document)] == [two for _, two in CAPITALS]
    assert [one.id for one in content.items][:2] == ["capitals-0", "capitals-1"]
    assert content.head.max_tokens == 20
    task = content.head.lm_eval
    assert task is not None and len(task.fewshot) == 2 and "json" not in task.task and "train" not in task.task


def test_freezing_twice_gives_the_same_bytes(write: Callable[[str], Path]) -> None:
    assert import_task(write(OPEN), "c", "exact_match") == import_task(write(OPEN), "c", "exact_match")


def test_a_frozen_suite_needs_its_data_no_more(write: Callable[[str], Path], base: Path) -> None:
    file = write(OPEN)
    content = suite_of(import_task(file, "c", "exact_match"))
    before = ask(content, base, FakeEngine(knows=lambda prompt, adapted: " Oslo"))
    for one in file.parent.iterdir():
        one.unlink()
    assert ask(content, base, FakeEngine(knows=lambda prompt, adapted: " Oslo")) == before


def test_a_document_that_is_shown_as_an_example_is_not_asked(write: Callable[[str], Path]) -> None:
    content = suite_of(
        import_task(write(OPEN.replace("fewshot_split: train", "fewshot_split: test")), "c", "exact_match")
    )
    assert content.head.lm_eval is not None
    asked = [one.doc for one in content.items if isinstance(one, Document)]
    assert len(asked) == 3 and not [one for one in content.head.lm_eval.fewshot if one in asked]


def test_an_example_without_a_value_is_no_question_either(write: Callable[[str], Path]) -> None:
    text = OPEN.replace("fewshot_split: train", "fewshot_split: test").replace(", train: train.json", "")
    file = write(text.replace('"{{capital}}"', '"{{country}}"'))
    rows = [{"country": country, "capital": None} for country, _ in CAPITALS]
    (file.parent / "test.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = suite_of(import_task(file, "c", "exact_match"))
    assert content.head.lm_eval is not None and len(content.items) == 3
    assert all(set(one) == {"country"} for one in content.head.lm_eval.fewshot)


def test_a_task_is_read_with_what_it_includes_and_its_own_settings_win(write: Callable[[str], Path]) -> None:
    file = write("include: shared.yaml\ntask: narrow\n")
    (file.parent / "shared.yaml").write_text(OPEN)
    content = suite_of(import_task(file, "c", "exact_match"))
    assert content.items[0].id == "narrow-0"


def test_odd_texts_survive_the_way_through_toml(write: Callable[[str], Path], base: Path) -> None:
    file = write(OPEN)
    odd = {"country": "a\x7f\t\"'''\\ é 𝄞", "capital": None}
    (file.parent / "train.json").write_text((json.dumps(odd) + "\n") * 2)
    (file.parent / "test.json").write_text(json.dumps({"country": "Peru", "capital": "Lima"}) + "\n")
    text = OPEN.replace('"{{capital}}"', "\"{{capital or 'none'}}\"")
    content = suite_of(import_task(write(text), "c", "exact_match"))
    assert content.head.lm_eval is not None
    assert content.head.lm_eval.fewshot[0]["country"] == odd["country"]
    engine = Recorder(knows=lambda prompt, adapted: " Lima")
    assert ask(content, base, engine) == {"capitals-0": (True, " Lima")}
    assert bytes(engine.calls[0][0].ids).decode().count(f"Q: {odd['country']}?\nA: none") == 2


def test_the_command_writes_a_suite_and_overwrites_none(
    write: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["suite", "from-lm-eval", str(write(OPEN)), "--to", str(tmp_path / "new"), "--name", "c"]
    main([*arguments, "--metric", "exact_match"])
    assert "c  5 lm-eval" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--metric", "exact_match"])
    assert left.value.code == 3 and "no suite is overwritten" in " ".join(capsys.readouterr().err.split())
    assert read_suite(suite_files(tmp_path / "new")).head.name == "c"


def test_the_command_writes_nothing_that_is_no_suite(write: Callable[[str], Path], tmp_path: Path) -> None:
    arguments = ["suite", "from-lm-eval", str(write(OPEN)), "--to", str(tmp_path / "new"), "--name", "No Name"]
    with pytest.raises(SystemExit) as left:
        main([*arguments, "--metric", "exact_match"])
    assert left.value.code == 3 and not (tmp_path / "new").exists()


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"doc_to_text": "!function tools.text"}, "a function would run on every worker"),
        ({"process_docs": "!function tools.docs"}, "a function would run on every worker"),
        ({"process_results": "anything"}, "process_results: not supported, as it may run code"),
        ({"class": "tools.Task"}, "class: not supported"),
        ({"dataset_path": "allenai/arc"}, "dataset_path allenai/arc would be looked for on a hub"),
        ({"dataset_kwargs": "{data_files: {test: https://example.org/x.json}}"}, "is no file beside it"),
        ({"output_type": "loglikelihood_rolling"}, "output_type loglikelihood_rolling has no 0 or 1"),
        ({"task": "[one, two]"}, "names no task"),
        ({"repeats": "4"}, "repeats: not supported"),
        ({"generation_kwargs": "{until: [x], do_sample: true}"}, "drawn answers differ from run to run"),
        ({"generation_kwargs": "{until: [x], top_k: 4}"}, "generation_kwargs top_k: answers are greedy"),
        ({"doc_to_text": '"{{nothing}}"'}, "'nothing' is undefined"),
        ({"doc_to_text": "\"{{ ''.__class__.__mro__ }}\""}, "unsafe"),
        ({"filter_list": "[{name: a, filter: [{function: none_such}]}]"}, "none_such"),
        ({"metric_list": "[{metric: exact_match, hf_evaluate: true}]"}, "would be loaded from a hub"),
        ({"metric_list": "[{metric: acc}]"}, "has no metric exact_match; it has acc"),
        ({"metric_list": "[acc]"}, "Expected `object`, got `str` - at `$.metric_list[0]`"),
        ({"metric_list": "[{name: acc}]"}, "missing required field `metric`"),
        ({"generation_kwargs": "[1]"}, "Expected `object | null`, got `array` - at `$.generation_kwargs`"),
        ({"generation_kwargs": "{temperature: hot}"}, "got `str` - at `$.generation_kwargs.temperature`"),
        ({"generation_kwargs": "{until: [1]}"}, "got `int` - at `$.generation_kwargs.until[0]`"),
        ({"generation_kwargs": "{max_gen_toks: many}"}, "got `str` - at `$.generation_kwargs.max_gen_toks`"),
        ({"filter_list": "3"}, "Expected `array | null`, got `int` - at `$.filter_list`"),
        ({"filter_list": "[a]"}, "got `str` - at `$.filter_list[0]`"),
        ({"filter_list": "[{name: a, filter: x}]"}, "got `str` - at `$.filter_list[0].filter`"),
        ({"filter_list": "[{name: a}]"}, "missing required field `filter`"),
        ({"fewshot_config": "[1]"}, "got `array` - at `$.fewshot_config`"),
        ({"dataset_kwargs": "[1]"}, "got `array` - at `$.dataset_kwargs`"),
        ({"num_fewshot": "two"}, "got `str` - at `$.num_fewshot`"),
        ({"output_type": "[generate_until]"}, "got `array` - at `$.output_type`"),
        ({"include": "{a: b}"}, "got `object` - at `$.include`"),
        ({"description": "2020-13-45"}, "the task's YAML cannot be read: month must be in 1..12"),
        ({"description": "[" * 5000}, "the task's YAML cannot be read"),
        ({"3": "x"}, "Expected `str`"),
    ],
)
def test_what_must_not_or_cannot_be_asked_is_refused(
    change: dict[str, str], reason: str, write: Callable[[str], Path]
) -> None:
    import yaml

    [(key, value)] = change.items()
    kept = {name: one for name, one in yaml.safe_load(OPEN).items() if name != key}
    file = write(yaml.safe_dump(kept) + f"{key}: {value}\n")
    with pytest.raises(InvalidRequest) as refused:
        import_task(file, "c", "exact_match")
    assert reason in str(refused.value)


def test_a_registered_suite_of_another_shape_is_refused_too(write: Callable[[str], Path], base: Path) -> None:
    found = import_task(write(OPEN), "c", "exact_match")
    for line in ("generation_kwargs: [1]", "metric_list: [acc]", "filter_list: 3", "fewshot_config: [1]", "4: x"):
        changed = found.suite_toml.replace("\n'''\n", f"\n{line}\n'''\n")
        with pytest.raises(InvalidRequest, match="Expected"):
            check_documents(suite_of(Imported(changed, found.items_jsonl)), base, 1000)


def test_a_function_in_an_included_file_is_refused(write: Callable[[str], Path]) -> None:
    file = write("include: shared.yaml\ntask: narrow\n")
    (file.parent / "shared.yaml").write_text(OPEN + "process_docs: !function tools.run\n")
    (file.parent / "tools.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(InvalidRequest, match="a function would run on every worker"):
        import_task(file, "c", "exact_match")


def test_a_registered_suite_cannot_bring_code_either(write: Callable[[str], Path], base: Path) -> None:
    found = import_task(write(OPEN), "c", "exact_match")
    for text in ("{{ cycler.__init__.__globals__.os }}", "{{ country.__class__.__base__.__subclasses__() }}"):
        content = suite_of(Imported(found.suite_toml.replace("Q: {{country}}?", text), found.items_jsonl))
        with pytest.raises(InvalidRequest, match=r"unsafe|undefined"):
            check_documents(content, base, 1000)
    for line in ("custom_dataset: x", "process_docs: !function os.system", "use_prompt: a:b"):
        content = suite_of(Imported(found.suite_toml.replace("task: capitals", f"task: c\n{line}"), found.items_jsonl))
        with pytest.raises(InvalidRequest, match=r"code|function"):
            check_documents(content, base, 1000)


def test_a_metric_that_is_no_yes_or_no_is_refused_and_the_others_are_named(write: Callable[[str], Path]) -> None:
    with pytest.raises(InvalidRequest, match=r"f1 is not 0 or 1 for a document.*choose one of acc, acc_norm"):
        import_task(write(CHOICES), "c", "f1")


def test_several_filters_need_a_choice(write: Callable[[str], Path]) -> None:
    more = OPEN.replace("metric_list:", "  - {name: raw, filter: [{function: take_first}]}\nmetric_list:")
    with pytest.raises(InvalidRequest, match=r"several filters \(word, raw\)"):
        import_task(write(more), "c", "exact_match")
    with pytest.raises(InvalidRequest, match="has no filter strict; it has word, raw"):
        import_task(write(more), "c", "exact_match,strict")
    text = suite_of(import_task(write(more), "c", "exact_match,raw")).head.lm_eval
    assert text is not None and "raw" in text.task and "word" not in text.task


def test_none_is_the_filter_of_a_task_without_filters(write: Callable[[str], Path]) -> None:
    assert import_task(write(CHOICES), "c", "acc,none") == import_task(write(CHOICES), "c", "acc")
    with pytest.raises(InvalidRequest, match="has no filter none; it has word"):
        import_task(write(OPEN), "c", "exact_match,none")


def test_a_context_of_white_space_is_refused_before_and_while_it_is_asked(
    write: Callable[[str], Path], base: Path
) -> None:
    from lm_eval.api.instance import Instance

    content = suite_of(import_task(write(CHOICES.replace("Capital of {{country}}:", "  ")), "c", "acc"))
    with pytest.raises(InvalidRequest, match="its context is only white space"):
        check_documents(content, base, 1000)
    with pytest.raises(InvalidRequest, match="its context is only white space"):
        ask(content, base, FakeEngine())
    with pytest.raises(InvalidRequest, match="no token before"):
        EngineLM(FakeEngine(), None, base, 100).generate_until([Instance("generate_until", {}, ("", {}), 0)])


def test_a_context_of_white_space_stands_behind_the_token_that_a_tokenizer_puts_first(
    base: Path, tmp_path: Path
) -> None:
    from lm_eval.api.instance import Instance
    from tokenizers import Tokenizer, processors

    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    end = str(tokenizer.id_to_token(END))
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{end} $A", special_tokens=[(end, END)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_bytes((base / "tokenizer_config.json").read_bytes())
    engine = Recorder()
    [(value, _)] = EngineLM(engine, None, tmp_path, 100).loglikelihood([Instance("loglikelihood", {}, (" ", "ab"), 0)])
    [(_, scores)] = FakeEngine().score([Prompt([END, *b" ab"], None)])
    assert list(engine.calls[0][0].ids) == [END, *b" ab"] and value == sum(scores.logprobs)


def test_documents_of_different_shapes_are_refused(write: Callable[[str], Path], base: Path) -> None:
    found = import_task(write(OPEN), "c", "exact_match")
    extra = '{"id": "x", "doc": {"country": "Chad"}, "tags": []}\n'
    with pytest.raises(InvalidRequest, match="document 5 differs from the first in its fields: capital"):
        check_documents(suite_of(Imported(found.suite_toml, found.items_jsonl + extra)), base, 1000)


def test_a_prompt_that_does_not_fit_is_refused_before_and_while_it_is_asked(
    write: Callable[[str], Path], base: Path
) -> None:
    for text, metric in ((OPEN, "exact_match"), (CHOICES, "acc")):
        content = suite_of(import_task(write(text), "c", metric))
        with pytest.raises(InvalidRequest, match="does not fit into 20"):
            check_documents(content, base, 20)
        with pytest.raises(InvalidRequest, match="does not fit into 20"):
            ask(content, base, FakeEngine(), longest=20)
        check_documents(content, base, 1000)


# -- asking -------------------------------------------------------------------------------------------------------


def test_an_answer_is_filtered_and_compared_as_the_task_says(write: Callable[[str], Path], base: Path) -> None:
    content = suite_of(import_task(write(OPEN), "c", "exact_match"))
    says = {"Norway": " surely OSLO", "Italy": " Rome\nQ: and?", "Greece": " Sparta", "France": " paris, Paris"}
    engine = Recorder(knows=lambda prompt, adapted: says.get(prompt.rpartition("Q: ")[2].partition("?")[0], ""))
    found = ask(content, base, engine)
    # "OSLO" has no capitalised word, so the filter finds nothing.
    assert [right for right, _ in found.values()] == [False, True, False, True, False]
    assert found["capitals-1"] == (True, " Rome")
    prompt = bytes(engine.calls[0][0].ids).decode()
    assert prompt.startswith("Capitals.\n\nQ: ") and prompt.count("Q: ") == 3 and prompt.endswith("A:")
    assert len(engine.calls) == 1


def test_the_likeliest_choice_is_right_where_it_is_the_answer(write: Callable[[str], Path], base: Path) -> None:
    content = suite_of(import_task(write(CHOICES), "c", "acc"))
    engine = Recorder()
    found = ask(content, base, engine)
    assert len(engine.calls) == 1 and len(engine.calls[0]) == 15

    def loglikelihood(context: str, continuation: str) -> float:
        ids = (context + continuation).encode()
        [(_, scores)] = FakeEngine().score([Prompt(list(ids), None)])
        return math.fsum(scores.logprobs[len(context.encode()) - 1 :])

    for (country, capital), (right, said) in zip(CAPITALS, found.values(), strict=True):
        scores = {one: loglikelihood(f"Capital of {country}:", f" {one}") for one in (capital, "Berlin", "Cairo")}
        assert right == (max(scores, key=lambda one: scores[one]) == capital)
        assert said.splitlines()[0] == f"{scores[capital]:.4f} ' {capital}'"
    assert {right for right, _ in found.values()} == {True, False}


def test_a_document_is_judged_the_same_alone_and_among_others(write: Callable[[str], Path], base: Path) -> None:
    content = suite_of(import_task(write(OPEN), "c", "exact_match"))
    knows = lambda prompt, adapted: " " + prompt[-20:].title()  # noqa: E731
    whole = ask(content, base, FakeEngine(knows=knows))
    for item in reversed(content.items):
        alone = ask(content._replace(items=[item]), base, FakeEngine(knows=knows))
        assert alone == {item.id: whole[item.id]}


def test_the_same_request_is_asked_once(base: Path) -> None:
    from lm_eval.api.instance import Instance

    engine = Recorder()
    model = EngineLM(engine, None, base, 1000)
    twice = [Instance("loglikelihood", {}, ("a b", " c"), 0)] * 3
    assert len(set(model.loglikelihood(twice))) == 1 and len(engine.calls[0]) == 1
    again = [Instance("generate_until", {}, ("a b", {"until": ["x"]}), 0)] * 3
    assert len(set(model.generate_until(again))) == 1 and len(engine.calls[1]) == 1


def test_white_space_between_context_and_continuation_counts_as_lm_eval_counts_it(base: Path) -> None:
    from lm_eval.api.instance import Instance

    model = EngineLM(FakeEngine(), None, base, 100)
    moved, plain = (
        model.loglikelihood([Instance("loglikelihood", {}, pair, 0)]) for pair in (("ab\n", "cd"), ("ab", "\ncd"))
    )
    assert moved == plain


def test_a_text_with_nothing_before_it_is_conditioned_on_the_end_token(base: Path) -> None:
    from lm_eval.api.instance import Instance

    engine = Recorder()
    model = EngineLM(engine, None, base, 100)
    [(value, _)] = model.loglikelihood([Instance("loglikelihood", {}, ("", "ab"), 0)])
    [(_, scores)] = FakeEngine().score([Prompt([END, *b"ab"], None)])
    assert list(engine.calls[0][0].ids) == [END, *b"ab"] and value == sum(scores.logprobs)
    assert model.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("ab",), 0)]) == [value]


def test_a_long_text_is_scored_in_windows_each_token_once(base: Path) -> None:
    from lm_eval.api.instance import Instance

    engine = Recorder()
    model = EngineLM(engine, None, base, 12)
    model.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("abcdefghijklmnopqrstuvwxyz",), 0)])
    assert len(engine.calls[0]) == 3 and all(len(one.ids) <= 11 for one in engine.calls[0])


def test_a_score_that_is_no_number_is_refused(write: Callable[[str], Path], base: Path) -> None:
    content = suite_of(import_task(write(CHOICES), "c", "acc"))
    with pytest.raises(EngineRefused, match="c/which-1: a score is not a number"):
        ask(content, base, FakeEngine(Faults(bad=float("nan"), bad_in=b"Italy: Rome")))
    with pytest.raises(EngineRefused, match="the engine does not score every token"):
        ask(content, base, FakeEngine(Faults(short=True)))


def test_importing_the_bridge_asks_nobody_and_loads_no_torch() -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('a connection')\n"
        "socket.socket.connect = refuse\n"
        "import evaluator.lm_eval_bridge\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env={"USE_TORCH": "0"}, timeout=120).returncode == 0
