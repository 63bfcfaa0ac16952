"""What a suite of kind lm-eval may ask: the harness's task, rebuilt from the suite alone.

Whoever registers a suite decides what its YAML says, so nothing in there may run code: only settings that are known to
be text are taken, templates are rendered in Jinja's sandbox, and metrics are the harness's own.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

# Read when the libraries below are imported.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_DATASETS_DISABLE_PROGRESS_BARS="1",
)

import lm_eval.utils
import msgspec
import yaml
from jinja2.sandbox import ImmutableSandboxedEnvironment
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from registry.client import Document, InvalidRequest, LmEvalTask, SuiteContent

# Values of one document are 0 or 1, which is what the gate counts.
METRICS = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match")
OUTPUT_TYPES = ("loglikelihood", "multiple_choice", "generate_until")
FORMAT = {
    "doc_to_text",
    "doc_to_target",
    "doc_to_choice",
    "target_delimiter",
    "fewshot_delimiter",
    "gen_prefix",
}
_ASKED = FORMAT | {
    "task",
    "output_type",
    "description",
    "num_fewshot",
    "generation_kwargs",
    "metric_list",
    "filter_list",
    "fewshot_config",
}
_GENERATION = {"until", "do_sample", "temperature", "max_gen_toks"}
SPLIT = "test"
FEWSHOT_SEED = 1234  # lm-eval's own

_sandbox = ImmutableSandboxedEnvironment(
    loader=lm_eval.utils.env.loader, undefined=lm_eval.utils.env.undefined, keep_trailing_newline=True
)
_sandbox.filters["regex_replace"] = lm_eval.utils.regex_replace
# lm-eval renders with an environment in which a template can reach any Python object, and through it the machine.
lm_eval.utils.env = _sandbox
# It warns of every setting that was left to its default.
logging.getLogger("lm_eval").setLevel(logging.ERROR)


def rebuild(content: SuiteContent) -> tuple[ConfigurableTask, list[Document]]:
    """The task of a suite, and the suite's items in its order. Raises InvalidRequest for one that cannot be asked."""
    head = content.head
    items = [one for one in content.items if isinstance(one, Document)]
    if head.lm_eval is None or len(items) != len(content.items):
        raise InvalidRequest(f"suite {head.name} is of kind {head.kind}, not lm-eval")
    if head.system is not None:
        raise InvalidRequest(
            f"suite {head.name} has a system prompt, but lm-eval asks its documents without a chat; leave `system` out"
        )
    task = _build(read_yaml(head.lm_eval.task), head.lm_eval, [one.doc for one in items], head.max_tokens)
    return task, items


def requests_of(task: ConfigurableTask) -> list[list[Instance]]:
    """The requests of each document, in the order of the documents."""
    found = []
    for number, doc in enumerate(task.eval_docs):
        try:
            context = task.fewshot_context(
                doc=doc, num_fewshot=task.config.num_fewshot, gen_prefix=task.doc_to_prefix(doc)
            )
            made = task.construct_requests(doc=doc, ctx=context, metadata=(task.config.task, number, 1))
        except Exception as error:  # templates are the author's, and so is whatever they raise
            raise InvalidRequest(
                f"task {task.config.task}: {short(doc)} cannot be asked ({type(error).__name__}: {error}); compare "
                "doc_to_text, doc_to_target and doc_to_choice with the document"
            ) from None
        found.append(made if isinstance(made, list) else [made])
    return found


def judge(task: ConfigurableTask, doc: Mapping[str, object], group: Sequence[Instance]) -> bool:
    """Whether the task's metric says 1 of a document, from the replies in its requests (`resps`).

    Raises InvalidRequest for a value that is neither 0 nor 1: it cannot be counted.
    """
    [metric] = task.higher_is_better()
    [filters] = task._filters
    try:
        filters.apply(list(group))
        found = task.process_results(doc, [one.filtered_resps[filters.name] for one in group])
    except Exception as error:  # filters and metrics are called with what the author's YAML says
        raise InvalidRequest(
            f"task {task.config.task}: {short(doc)} cannot be judged ({type(error).__name__}: {error}); compare "
            "filter_list and metric_list with the task's documents"
        ) from None
    if metric not in found or float(found[metric]) not in (0.0, 1.0):
        raise InvalidRequest(
            f"task {task.config.task}: {metric} is {found.get(metric)!r} for {short(doc)}, neither 0 nor 1; "
            f"choose one of {', '.join(METRICS)}"
        )
    return float(found[metric]) == 1.0


class _Documents(list[dict[str, object]]):
    """Documents as ConfigurableTask wants them. All have the same fields, so that the first speaks for the others."""

    @property
    def features(self) -> dict[str, object]:
        return self[0]


class _Frozen(ConfigurableTask):  # type: ignore[misc]  # lm-eval has no types
    """A task whose documents are given, not loaded."""

    def __init__(self, config: dict[str, Any], docs: Sequence[dict[str, object]]) -> None:
        self._given = _Documents(docs)
        super().__init__(config=config)

    def download(self, *_: Any, **__: Any) -> None:
        self.dataset = {SPLIT: self._given}


def _build(
    config: dict[str, Any], task: LmEvalTask, docs: Sequence[dict[str, object]], max_tokens: int
) -> ConfigurableTask:
    """The task with these documents, its examples and this metric. Raises InvalidRequest for what cannot be asked."""
    check_config(config)
    fields = list(docs[0])
    for number, doc in enumerate(docs):
        if set(doc) != set(fields):
            different = sorted(set(doc) ^ set(fields))
            raise InvalidRequest(
                f"document {number} differs from the first in its fields: {', '.join(different)}; "
                "give every document the same fields, null where there is nothing"
            )
    # TOML has no null, so an example lacks the fields that had none.
    samples = [dict.fromkeys(fields) | one for one in task.fewshot]
    settings = {
        **config,
        "test_split": SPLIT,
        "num_fewshot": len(samples),
        "fewshot_config": {**config.get("fewshot_config", {}), "sampler": "first_n", "samples": samples},
        "metric_list": [{"aggregation": "mean", "higher_is_better": True, **metric_entry(config, task.metric)}],
    }
    if config.get("output_type", "generate_until") == "generate_until":
        given = config.get("generation_kwargs") or {}
        stops = given.get("until", config.get("fewshot_delimiter", "\n\n"))
        settings["generation_kwargs"] = {
            "until": stops if isinstance(stops, list) else [stops],
            "do_sample": False,
            "temperature": 0.0,
            "max_gen_toks": max_tokens,
        }
    try:
        built = _Frozen(settings, docs)
        built.set_fewshot_seed(FEWSHOT_SEED)
        lists = {isinstance(built.doc_to_target(doc), list) for doc in docs}
    except InvalidRequest:
        raise
    except Exception as error:
        raise InvalidRequest(
            f"task {config.get('task')}: lm-eval cannot build it from its documents "
            f"({type(error).__name__}: {error}); compare its templates with the fields {', '.join(fields)}"
        ) from None
    if len(lists) > 1:
        raise InvalidRequest(
            f"task {config.get('task')}: doc_to_target is a list for some documents and none for others, which lm-eval "
            "judges by the first document; make it the same for all"
        )
    return built


class _Generation(TypedDict, total=False):
    until: str | list[str] | None
    do_sample: bool | None
    temperature: float | None
    max_gen_toks: int | None


class _Step(TypedDict):
    function: str


class _Filter(TypedDict):
    name: str
    filter: list[_Step]


class _Metric(TypedDict):
    metric: str


class _Shape(TypedDict, total=False):
    """What is read of a task's settings, in the shape that lm-eval reads."""

    include: str | list[str] | None
    dataset_kwargs: dict[str, Any] | None
    num_fewshot: int | None
    fewshot_config: dict[str, Any] | None
    output_type: str | None
    generation_kwargs: _Generation | None
    filter_list: list[_Filter] | None
    metric_list: list[_Metric] | None


def check_shape(config: Mapping[str, Any]) -> None:
    """Raises InvalidRequest for a setting that is no list, table, text or number where lm-eval wants one."""
    try:
        msgspec.convert(config, _Shape)
    except msgspec.ValidationError as error:
        raise InvalidRequest(
            f"task {config.get('task')}: {error}, $ being the task's YAML; write it as lm-eval's task guide does"
        ) from None


def check_config(config: Mapping[str, Any]) -> None:
    """Raises InvalidRequest with everything that a worker must not, or cannot, do."""
    check_shape(config)
    problems = []
    unknown = sorted(set(config) - _ASKED)
    if unknown:
        problems.append(f"{', '.join(unknown)}: not supported, as it may run code or need more than text; leave it out")
    if (kind := config.get("output_type", "generate_until")) not in OUTPUT_TYPES:
        problems.append(f"output_type {kind} has no 0 or 1 for a document; use one of {', '.join(OUTPUT_TYPES)}")
    problems += [
        f"{key} is {config[key]!r}, neither a text nor a list of texts"
        for key in sorted((FORMAT | {"task", "description"}) & set(config))
        if not _is_plain(config[key])
    ]
    fewshot = config.get("fewshot_config") or {}
    if not set(fewshot) <= FORMAT or not all(map(_is_plain, fewshot.values())):
        problems.append(f"fewshot_config may hold only {', '.join(sorted(FORMAT))}, as texts")
    generation = config.get("generation_kwargs") or {}
    if other := sorted(set(generation) - _GENERATION):
        problems.append(
            f"generation_kwargs {', '.join(other)}: answers are greedy; use {', '.join(sorted(_GENERATION))}"
        )
    if generation.get("do_sample") or (generation.get("temperature") or 0) > 0:
        problems.append("generation_kwargs: drawn answers differ from run to run; set do_sample: false, temperature: 0")
    if len(config.get("filter_list") or []) > 1:
        names = ", ".join(one["name"] for one in config["filter_list"])
        problems.append(
            f"there are several filters ({names}); choose one by METRIC,FILTER, such as exact_match,{names}"
        )
    if problems:
        raise InvalidRequest(f"task {config.get('task')}: " + "; ".join(problems), problems)


def _is_plain(value: object) -> bool:
    match value:
        case str() | int() | None:
            return True
        case list():
            return all(isinstance(one, str) for one in value)
        case dict():
            return all(isinstance(one, str) for one in value.values())
    return False


def metric_entry(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The task's entry for a metric. Raises InvalidRequest for one that it does not have, or that is not 0 or 1."""
    defaults = {"multiple_choice": ["acc", "acc_norm"], "loglikelihood": ["acc"]}
    kind = str(config.get("output_type", "generate_until"))
    listed = config.get("metric_list") or [{"metric": one} for one in defaults.get(kind, ["exact_match"])]
    entries = {str(one.get("metric")): one for one in listed}
    if name not in METRICS:
        raise InvalidRequest(
            f"{name} is not 0 or 1 for a document, so it cannot be counted; choose one of "
            f"{', '.join(one for one in entries if one in METRICS) or 'none: this task has no such metric'}"
        )
    if name not in entries:
        raise InvalidRequest(f"task {config.get('task')} has no metric {name}; it has {', '.join(entries)}")
    if entries[name].get("hf_evaluate"):
        raise InvalidRequest(f"{name} would be loaded from a hub (hf_evaluate); use lm-eval's own")
    return {key: value for key, value in entries[name].items() if key not in ("aggregation", "higher_is_better")}


def short(doc: Mapping[str, object]) -> str:
    text = repr(dict(doc))
    return text if len(text) <= 80 else text[:79] + "…"


def read_yaml(text: str) -> dict[str, Any]:
    """A task's YAML, which may name no Python function."""
    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none, too many brackets
        reason = " ".join(str(error).split())
        if "!function" in reason:
            raise InvalidRequest(
                f"{reason}: a function would run on every worker; write templates and filters of lm-eval instead, or "
                "put what it computes into the data"
            ) from None
        raise InvalidRequest(f"the task's YAML cannot be read: {reason}") from None
    if not isinstance(config, dict):
        raise InvalidRequest(f"a task's YAML is a table of settings, not {type(config).__name__}")
    return config
