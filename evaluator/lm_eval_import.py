"""A task of lm-evaluation-harness becomes a suite: its documents the items, its examples and YAML in suite.toml.

From then on nothing outside the suite is read, so the suite's digest covers all that is asked.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from evaluator.lm_eval_tasks import (  # first: it takes the harness offline
    FEWSHOT_SEED,
    FORMAT,
    SPLIT,
    check_config,
    check_shape,
    judge,
    metric_entry,
    read_yaml,
    rebuild,
    requests_of,
    short,
)

# isort: split
from lm_eval.api.task import ConfigurableTask

from registry.client import InvalidRequest, LmEvalTask, SuiteContent, read_suite

# Where the data lies and how a task is listed: of no use once its documents are items.
_DATA = {"dataset_path", "dataset_name", "dataset_kwargs", "training_split", "validation_split", "test_split"}
_LEFT_OUT = _DATA | {
    "fewshot_split",
    "tag",
    "group",
    "task_alias",
    "task_list",
    "metadata",
    "should_decontaminate",
    "doc_to_decontamination_query",
}
_FILES = ("json", "csv", "parquet", "arrow", "text")
_MAX_GEN_TOKENS = 256  # lm-eval's own
_NO_FILTER = "none"  # what lm-eval prints of a task without filters


class Imported(NamedTuple):
    """A task as the two files of a suite."""

    suite_toml: str
    items_jsonl: str


def import_task(file: Path, name: str, metric: str) -> Imported:
    """A task's YAML and the local data it names, as a suite `name` that is judged by `metric`.

    metric: one of METRICS that the task has; "METRIC,FILTER", as lm-eval prints it, where the task has several filters.
    Where the task draws examples for each document, one draw (lm-eval's first, with its own seed) stands before all of
    them, and the documents drawn are asked no more.

    Raises InvalidRequest for a task that runs code, needs data from elsewhere, or has no such metric.
    """
    config = _read_file(file, ())
    if not isinstance(config.get("task"), str):
        raise InvalidRequest(f"{file} names no task; write `task: NAME`, and import the tasks of a group one by one")
    name_of_metric, _, name_of_filter = metric.partition(",")
    asked = {key: value for key, value in config.items() if key not in _LEFT_OUT and value is not None}
    asked["filter_list"] = _chosen_filter(config, name_of_filter)
    asked["fewshot_config"] = {
        key: value for key, value in (config.get("fewshot_config") or {}).items() if key in FORMAT
    }
    if asked.get("repeats") == 1:
        del asked["repeats"]
    check_config(asked)
    asked["metric_list"] = [metric_entry(config, name_of_metric)]
    docs, examples = _documents(file, config)
    generation = dict(asked.pop("generation_kwargs", None) or {})
    max_tokens = generation.pop("max_gen_toks", _MAX_GEN_TOKENS)
    asked.pop("num_fewshot", None)
    frozen = {**asked, "generation_kwargs": generation}
    text = yaml.safe_dump(
        {key: value for key, value in frozen.items() if value not in ({}, [])}, sort_keys=False, allow_unicode=True
    )
    items = [
        {"id": f"{asked['task']}-{number}", "doc": doc, "tags": []}
        for number, doc in enumerate(docs)
        if doc not in examples
    ]
    shown = [{key: value for key, value in one.items() if value is not None} for one in examples]
    found = Imported(
        _suite_toml(name, str(asked["task"]), int(max_tokens), LmEvalTask(text, name_of_metric, shown)),
        "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in items),
    )
    _check_judged(read_suite({"suite.toml": found.suite_toml.encode(), "items.jsonl": found.items_jsonl.encode()}))
    return found


def _check_judged(content: SuiteContent) -> None:
    """Judge made-up replies to every document, so that a metric that cannot be counted shows now, not on a worker."""
    task, items = rebuild(content)
    for item, group in zip(items, requests_of(task), strict=True):
        for place, one in enumerate(group):
            one.resps.append("" if one.request_type == "generate_until" else (-1.0 - place, False))
        judge(task, item.doc, group)


def _documents(file: Path, config: Mapping[str, Any]) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """The documents to ask, in the order of their split, and the examples before them, both as plain JSON."""
    path = config.get("dataset_path")
    if path not in _FILES:
        raise InvalidRequest(
            f"dataset_path {path} would be looked for on a hub; use one of {', '.join(_FILES)} with data_files in "
            "dataset_kwargs"
        )
    given = dict(config.get("dataset_kwargs") or {})
    try:
        with tempfile.TemporaryDirectory() as cache:
            # lm-eval's own building, so that splits and samplers mean what they mean there.
            plain = {key: value for key, value in config.items() if key != "repeats"}
            settings = {**plain, "dataset_kwargs": {**given, "data_files": _beside(file, given), "cache_dir": cache}}
            task = ConfigurableTask(config=settings)
            task.set_fewshot_seed(FEWSHOT_SEED)
            docs = [dict(one) for one in task.eval_docs]
            examples = [dict(one) for one in task.sampler.sample(n=int(config.get("num_fewshot") or 0))]
    except InvalidRequest:
        raise
    except Exception as error:  # lm-eval and datasets raise whatever comes
        raise InvalidRequest(f"{file}: lm-eval cannot load it: {type(error).__name__}: {error}") from None
    return [_plain(one) for one in docs], [_plain(one) for one in examples]


def _beside(file: Path, given: Mapping[str, Any]) -> dict[str, list[str]]:
    """The data files of each split; relative ones lie beside the YAML file."""
    files = given.get("data_files")
    by_split = files if isinstance(files, dict) else {SPLIT: files}
    found: dict[str, list[str]] = {}
    for split, paths in by_split.items():
        for path in paths if isinstance(paths, list) else [paths]:
            if not isinstance(path, str) or not (file.parent / path).is_file():
                raise InvalidRequest(
                    f"{file}: data_files of split {split}: {path} is no file beside it, nor a full path"
                )
            found.setdefault(str(split), []).append(str(file.parent / path))
    return found


def _plain(doc: dict[str, object]) -> dict[str, object]:
    try:
        found: dict[str, object] = json.loads(json.dumps(doc, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"document {short(doc)} is not plain JSON: {error}; write its values as text") from None
    return found


def _chosen_filter(config: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    filters = [dict(one) for one in config.get("filter_list") or []]
    if not name or (name == _NO_FILTER and not filters):
        return filters
    if chosen := [one for one in filters if one["name"] == name]:
        return chosen
    names = ", ".join(one["name"] for one in filters) or _NO_FILTER
    raise InvalidRequest(f"task {config.get('task')} has no filter {name}; it has {names}")


def _read_file(file: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """A task's YAML with what it includes; its own settings win."""
    file = file.resolve()
    if file in seen:
        raise InvalidRequest(f"{file} includes itself")
    try:
        config = read_yaml(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{file} cannot be read: {error}") from None
    check_shape(config)
    included = config.pop("include", None) or []
    merged: dict[str, Any] = {}
    for one in included if isinstance(included, list) else [included]:
        merged |= _read_file(file.parent / one, (*seen, file))
    return merged | config


def _suite_toml(name: str, task: str, max_tokens: int, described: LmEvalTask) -> str:
    head = {
        "name": name,
        "kind": "lm-eval",
        "title": task,
        "description": f"The task {task} of lm-evaluation-harness, judged by {described.metric}.",
        "licence": "not stated; look at where the data comes from",
        "source": f"tunegate suite from-lm-eval, task {task}",
        "max_tokens": max_tokens,
    }
    lines = [f"{key} = {_toml(value)}" for key, value in head.items()]
    lines += ["", "[lm_eval]", f"metric = {_toml(described.metric)}", f"task = {_toml_block(described.task)}"]
    if described.fewshot:
        lines += ["fewshot = [", *(f"  {_toml(one)}," for one in described.fewshot), "]"]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{_toml(str(key))} = {_toml(one)}" for key, one in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case None:
            raise InvalidRequest(
                "an example has null inside a list or a table, which suite.toml cannot hold; leave it out"
            )
    # A JSON string, number or truth value is TOML, but for one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml_block(text: str) -> str:
    """A text as TOML that a person can read, where it can be written without escapes."""
    readable = "'''" not in text and all(sign == "\n" or sign.isprintable() for sign in text)
    return f"'''\n{text}'''" if readable else _toml(text)
