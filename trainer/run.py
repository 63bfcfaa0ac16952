"""One training run, from recipe to adapter with its record, in a directory of its own.

The directory is named by the digest of recipe, data and base: running again after any interruption continues where it
stopped, and a finished run is finished. `training.json` is written last and marks it complete.

    run/recipe.toml  dataset.jsonl  ledger.parquet  checkpoints/  adapter/  training.json
"""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from registry.client import InvalidRequest, describe_base, describe_file
from registry.records import Finding, TrainingRecord
from trainer.dataset import Data, Filled, Row, Split, prepare, read_rows
from trainer.estimate import Counts, Estimate, adapter_parameters, estimate, read_base
from trainer.ledger import LedgerRow, write_ledger
from trainer.libraries import quiet, require_known
from trainer.lint import lint, lint_estimate, lint_result, require
from trainer.machine import has_gpu, memory_bytes
from trainer.preflight.check import Options, admit
from trainer.preflight.codes import Problem, Waiver
from trainer.recipe import Recipe

_LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets")


class Stopped(Exception):
    """The run was asked to stop and did, with a checkpoint; running it again continues."""


class Reporter(NamedTuple):
    """Where a run says what it does: stages in words, and steps as (done, of, what is known so far).

    stop: whether it should end after the step that it is in.
    """

    stage: Callable[[str], None]
    step: Callable[[int, int, dict[str, float]], None]
    stop: Callable[[], bool] = lambda: False


class Plan(NamedTuple):
    """What a run will use. `directory` is where it lives; tensors: the shapes of the base's weights."""

    recipe: Recipe
    text: str
    base: Path
    base_digest: str
    rows: list[Row]
    data: Data
    prompts: list[str]
    directory: Path
    data_file: Path
    tensors: dict[str, list[int]]


class Given(NamedTuple):
    """Files that stand in for those that a recipe names, where they came by themselves."""

    data: Path
    replay: Path


def plan_run(recipe: Recipe, text: str, folder: Path, base: Path, runs: Path, given: Given | None = None) -> Plan:
    """Read everything a run needs and name its directory. `folder`: where the recipe's relative paths begin."""
    data_file = given.data if given else folder / recipe.data
    rows = read_rows(data_file)
    prompts = []
    if recipe.replay:
        prompts = _read_prompts(given.replay if given else folder / recipe.replay.prompts, recipe.replay.rows)
    described = describe_base(base)
    key = hashlib.sha256()
    for part in (text, described.digest, *(row.digest + row.group for row in rows), *prompts):
        key.update(part.encode() + b"\0")
    directory = runs / f"{recipe.name}-{key.hexdigest()[:12]}"
    data = prepare(rows, recipe.seed)
    return Plan(recipe, text, base, described.digest, rows, data, prompts, directory, data_file, described.tensors)


def finished(plan: Plan) -> bool:
    return (plan.directory / "training.json").exists()


def run(plan: Plan, report: Reporter) -> TrainingRecord:
    """Train, or continue, or do nothing where the run is finished; the record of the run."""
    if not finished(plan):
        plan.directory.mkdir(parents=True, exist_ok=True)
        with _alone(plan.directory):
            if not finished(plan):  # another process may have come to its end since
                return _run(plan, report)
    return msgspec.json.decode((plan.directory / "training.json").read_bytes(), type=TrainingRecord)


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One process in a run's directory at a time: two would write each other's checkpoints."""
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidRequest(f"another process trains in {directory}; wait for it") from None
        yield


def _run(plan: Plan, report: Reporter) -> TrainingRecord:
    require_known()
    require(lint(plan.recipe), plan.recipe)
    (plan.directory / "recipe.toml").write_text(plan.text)
    findings = _admit(plan, report)
    report.stage("loading the base in 4 bits" if plan.recipe.quantization == "nf4" else "loading the base")
    with quiet():
        from trainer import qlora

        tokenizer = qlora.load_tokenizer(plan.base)
        model = qlora.load_model(plan.base, plan.recipe)
        qlora.check_replay(model, plan.recipe, longest=1)
        answers = _replay_answers(plan, model, tokenizer, report)
        rendered = _render(plan, tokenizer, answers)
        usable = {split: [one.example for one in rendered if one.use == split] for split in Split}
        _write_dataset(plan.directory / "dataset.jsonl", rendered)
        write_ledger(plan.directory / "ledger.parquet", _ledger(plan, rendered))
        if not usable[Split.TRAIN]:
            raise InvalidRequest(
                f"no row of {plan.recipe.data} is left to train on; each row's reason: {plan.directory}/ledger.parquet",
                sorted({one.reason for one in rendered if one.reason}),
            )
        problems = lint_size(plan, rendered)
        require(problems, plan.recipe)
        report.stage(f"training on {len(usable[Split.TRAIN])} rows")

        def on_progress(progress: Any) -> None:
            speed = progress.tokens / max(1e-9, time.monotonic() - trained_from)
            numbers = {"loss": progress.loss, "lr": progress.learning_rate, "tokens/s": speed}
            report.step(progress.step, progress.steps, numbers)

        trained_from = time.monotonic()
        metrics = qlora.train(
            model,
            tokenizer,
            plan.recipe,
            usable[Split.TRAIN],
            usable[Split.VALIDATION],
            plan.directory,
            on_progress,
            report.stop,
        )
    problems = [*lint(plan.recipe), *problems, *lint_result(metrics)]
    record = _record(plan, rendered, metrics, problems, findings)
    _write_last(plan.directory / "training.json", msgspec.json.encode(record))
    shutil.rmtree(plan.directory / "checkpoints", ignore_errors=True)  # last: a kill in here loses nothing
    return record


def _admit(plan: Plan, report: Reporter) -> dict[str, int]:
    """Preflight, once for a run: how many findings of each code. Raises InvalidRequest that lists what stops it."""
    kept = plan.directory / "preflight.json"
    if not kept.exists():
        report.stage("looking at the data")
        options = Options(
            plan.recipe.seed,
            plan.recipe.training.max_length,
            plan.base,
            waivers=[Waiver(code, reason) for code, reason in plan.recipe.waivers.items()],
        )
        _write_last(kept, msgspec.json.encode(admit(plan.data_file, options).counts()))
    return msgspec.json.decode(kept.read_bytes(), type=dict[str, int])


def assess(plan: Plan, rendered: Sequence["Rendered"]) -> Estimate | None:
    """What the run will take; None where the base's config does not say how large it is."""
    base = read_base(msgspec.json.decode((plan.base / "config.json").read_bytes()), plan.tensors)
    lora = plan.recipe.lora
    used = [one for one in rendered if one.use == Split.TRAIN]
    answers = [sum(label >= 0 for label in one.example.labels) for one in used if one.source == "data"]
    counts = Counts(
        [len(one.example.ids) for one in used if one.source == "data"],
        answers,
        [len(one.example.ids) for one in used if one.source == "replay"],
    )
    adapter = adapter_parameters(plan.tensors, lora.target_modules, lora.rank, lora.first_layer)
    return estimate(plan.recipe, base, adapter, counts, on_cpu=not has_gpu()) if base else None


def lint_size(plan: Plan, rendered: Sequence["Rendered"]) -> list[Problem]:
    found = assess(plan, rendered)
    return lint_estimate(plan.recipe, found, memory_bytes()) if found else []


class Rendered(NamedTuple):
    """A row as the model sees it. `use` is a split, or what became of it otherwise."""

    source: str
    row: Row
    use: str
    reason: str
    example: Any
    sha256: str


def _render(plan: Plan, tokenizer: Any, answers: Sequence[str]) -> list[Rendered]:
    """Tokenise every row once, here, so that nothing is cut or dropped behind our back."""
    return [*render_data(plan, tokenizer), *render_replay(plan, tokenizer, answers)]


def render_data(plan: Plan, tokenizer: Any) -> list[Rendered]:
    return [
        _block(plan.recipe, tokenise("data", row, split, tokenizer, plan.recipe))
        for row, split in zip(plan.data.rows, plan.data.splits, strict=True)
    ]


def render_replay(plan: Plan, tokenizer: Any, answers: Sequence[str]) -> list[Rendered]:
    """answers: the base's own; a prompt without one is not used."""
    rendered = []
    for number, (prompt, answer) in enumerate(zip(plan.prompts, answers, strict=True), start=1):
        row = _replay_row(number, prompt, answer)
        use = Split.TRAIN if answer else "empty"
        one = tokenise("replay", row, use, tokenizer, plan.recipe)
        rendered.append(one if answer else one._replace(reason="the base gave no whole sentence"))
    return rendered


def _block(recipe: Recipe, one: Rendered) -> Rendered:
    """Keep a row out of every split where the recipe asks for provenance that it lacks."""
    missing = [key for key in recipe.provenance.require if not one.row.provenance.get(key, "").strip()]
    return one._replace(use="blocked", reason=f"without {', '.join(missing)}") if missing else one


def tokenise(source: str, row: Row, use: str, tokenizer: Any, recipe: Recipe) -> Rendered:
    """Render once, tokenise once; the completion's tokens are those behind the rendered prompt."""
    from trainer.loss import IGNORED
    from trainer.qlora import Example

    messages = [{"role": one.role, "content": one.content} for one in row.prompt]
    if source == "data" and recipe.system and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": recipe.system})
    head = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": row.completion}], tokenize=False)
    if not whole.startswith(head):
        raise InvalidRequest(
            f"the chat template of {recipe.base} renders line {row.line} so that the prompt is no prefix of the whole; "
            "such templates cannot be trained completion-only"
        )
    tail = whole[len(head) :]
    # Behind the end-of-turn token a template may add a line break, which serving never sees.
    end = tail.rfind(tokenizer.eos_token) if tokenizer.eos_token else -1
    tail = tail[: end + len(tokenizer.eos_token)] if end >= 0 else tail
    prompt = tokenizer(head, add_special_tokens=False)["input_ids"]
    ids = prompt + tokenizer(tail, add_special_tokens=False)["input_ids"]
    reason = ""
    if len(ids) > recipe.training.max_length:
        use, reason = "too_long", f"{len(ids)} tokens, max_length is {recipe.training.max_length}"
    labels = [IGNORED] * len(ids) if source == "replay" else [IGNORED] * len(prompt) + ids[len(prompt) :]
    # The template's own system prompt is the same in every replay row; there is nothing to hold there.
    start = _common_start(tokenizer) if source == "replay" else 0
    example = Example(ids, labels, source == "replay", min(start, len(ids) - 2))
    return Rendered(source, row, str(use), reason, example, hashlib.sha256((head + tail).encode()).hexdigest())


def _common_start(tokenizer: Any) -> int:
    """How many tokens every conversation without a system message has in common."""
    rendered = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False) for text in ("a", "b")
    ]
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in rendered)
    return next(place for place, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1])


def _replay_answers(plan: Plan, model: Any, tokenizer: Any, report: Reporter) -> list[str]:
    """The base's own greedy answers, kept in the run's directory once they are complete."""
    if plan.recipe.replay is None:
        return []
    kept = plan.directory / "replay-answers.json"
    if kept.exists():
        found: list[str] = json.loads(kept.read_text())
        return found
    from trainer.qlora import answer_greedily

    report.stage(f"the base answers {len(plan.prompts)} replay prompts")
    prompts = [
        tokenizer(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
            ),
            add_special_tokens=False,
        )["input_ids"]
        for prompt in plan.prompts
    ]
    limit = plan.recipe.replay.max_new_tokens
    answers = answer_greedily(model, tokenizer, prompts, limit, lambda done: report.step(done, len(prompts), {}))
    _write_last(kept, json.dumps(answers).encode())
    return answers


def _replay_row(number: int, prompt: str, answer: str) -> Row:
    from registry.client import Message

    digest = hashlib.sha256(f"{prompt}\0{answer}".encode()).hexdigest()
    return Row(f"replay-{number}", number, (Message(role="user", content=prompt),), answer or "-", "replay", digest)


class _ReplayLine(msgspec.Struct):
    prompt: Filled


def _read_prompts(path: Path, most: int) -> list[str]:
    """The first prompts of a JSONL file whose lines have a `prompt`."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InvalidRequest(f"replay prompts {path} cannot be read: {error.strerror}") from None
    prompts = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                prompts.append(msgspec.json.decode(line, type=_ReplayLine).prompt)
            except ValueError:
                raise InvalidRequest(f"{path} line {number}: not an object with a 'prompt'") from None
    return prompts[:most]


def _write_dataset(path: Path, rendered: Sequence[Rendered]) -> None:
    """The rows that were used, as one line each: what a contamination check compares suites with."""
    with path.open("w") as file:
        for one in rendered:
            messages = [{"role": message.role, "content": message.content} for message in one.row.prompt]
            messages.append({"role": "assistant", "content": one.row.completion})
            line = {"id": one.row.id, "source": one.source, "use": one.use, "messages": messages}
            file.write(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n")


def _ledger(plan: Plan, rendered: Sequence[Rendered]) -> list[LedgerRow]:
    rows = [
        LedgerRow(
            source=one.source,
            id=one.row.id,
            line=one.row.line,
            group=one.row.group,
            disposition="trained" if one.use == Split.TRAIN else one.use,
            reason=one.reason,
            content_sha256=one.row.digest,
            rendered_sha256=one.sha256,
            tokens=len(one.example.ids),
            trained_tokens=sum(label >= 0 for label in one.example.labels) if one.use == Split.TRAIN else 0,
            **_provenance(one.row),
        )
        for one in rendered
    ]
    by_line = {row.line: row for row in plan.rows}
    for line, first in plan.data.duplicates:
        row = by_line[line]
        reason = f"the same as line {first}"
        told = _provenance(row)
        rows.append(LedgerRow("data", row.id, line, row.group, "duplicate", reason, row.digest, "", 0, 0, **told))
    return rows


def _provenance(row: Row) -> dict[str, str]:
    told = row.provenance
    rest = {key: told.get(key, "") for key in ("licence", "collector", "reviewer", "credential")}
    return {"origin": told.get("source", ""), **rest}


def _record(
    plan: Plan,
    rendered: Sequence[Rendered],
    metrics: dict[str, float],
    problems: Sequence[Problem],
    findings: dict[str, int],
) -> TrainingRecord:
    seconds = metrics.pop("train_seconds")
    counts = Counter(one.use if one.source == "data" or one.use != Split.TRAIN else "replay" for one in rendered)
    counts["duplicate"] = len(plan.data.duplicates)
    return TrainingRecord(
        base=plan.base_digest,
        dataset="sha256:" + describe_file(plan.directory / "dataset.jsonl").sha256,
        ledger="sha256:" + describe_file(plan.directory / "ledger.parquet").sha256,
        recipe=plan.text,
        seed=plan.recipe.seed,
        versions={name: importlib.metadata.version(name) for name in _LIBRARIES},
        rows=dict(counts),
        metrics=metrics,
        seconds=round(seconds, 1),
        waived=plan.recipe.waivers,
        lint=[Finding(code=one.rule, severity=one.severity, message=one.message) for one in problems],
        preflight=findings,
    )


def _write_last(path: Path, data: bytes) -> None:
    """Put a file in place in one step: whoever finds it finds all of it."""
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(data)
    partial.replace(path)
