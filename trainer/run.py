"""One training run, from recipe to adapter with its record, in a directory of its own.

The directory is named by the digest of recipe, data and base: running again after any interruption continues where it
stopped, and a finished run is finished. `training.json` is written last and marks it complete. Where there are two
stages, the first lives in `first/` and is over when its `metrics.json` is there; the second begins with its adapter.

    run/recipe.toml  dataset.jsonl  ledger.parquet  order.json  first/  checkpoints/  adapter/  training.json
"""

import contextlib
import fcntl
import gc
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from registry.client import InvalidRequest
from registry.records import TrainingRecord
from trainer.dataset import Split
from trainer.estimate import Counts, Estimate, adapter_parameters, estimate, read_base, steps_of
from trainer.examples import IGNORED
from trainer.faults import require_finite
from trainer.ledger import write_ledger
from trainer.libraries import quiet, require_known
from trainer.lint import lint, lint_estimate, lint_result, require
from trainer.machine import has_gpu, memory_bytes
from trainer.plan import Given, Plan, finished, look_at_data, look_at_pairs, plan_run
from trainer.preflight.check import require as require_admitted
from trainer.preflight.codes import Problem
from trainer.progress import Progress, Reporter, Stopped
from trainer.record import ledger, record, write_dataset
from trainer.rendering import Rendered, render_data, render_pairs, render_replay, tokenise
from trainer.trackers import require_trackers, trackers_in

__all__ = ["Given", "Plan", "Reporter", "Stopped", "finished", "plan_run", "run", "tokenise"]


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
    require_trackers(plan.recipe)
    (plan.directory / "recipe.toml").write_text(plan.text)
    findings = _admit(plan, report)
    with quiet(), trackers_in(plan.directory):
        made = _Making(plan, report)
        rendered = made.rows()
        sized = lint_size(plan, rendered)
        require(sized, plan.recipe)
        metrics = made.first_stage(rendered)
        if plan.recipe.dpo:
            metrics = made.second_stage(rendered, metrics)
    problems = [*lint(plan.recipe), *sized, *lint_result(metrics)]
    found = record(plan, rendered, metrics, problems, findings)
    _write_last(plan.directory / "training.json", msgspec.json.encode(found))
    shutil.rmtree(plan.directory / "checkpoints", ignore_errors=True)  # last: a kill in here loses nothing
    shutil.rmtree(plan.directory / "first", ignore_errors=True)
    return found


class _Making:
    """A run under way: the base in memory, the rows, and its stages one after the other."""

    def __init__(self, plan: Plan, report: Reporter) -> None:
        from trainer import model, qlora

        self._plan, self._report = plan, report
        self._tokenizer = model.load_tokenizer(plan.base)
        self._model = self._load()
        qlora.check_replay(self._model, plan.recipe, longest=1)

    def rows(self) -> list[Rendered]:
        """Every row of the input as the model sees it; data set and ledger say what became of each."""
        plan = self._plan
        answers = _replay_answers(plan, self._model, self._tokenizer, self._report)
        rendered = [
            *render_data(plan, self._tokenizer),
            *render_replay(plan, self._tokenizer, answers),
            *render_pairs(plan, self._tokenizer),
        ]
        write_dataset(plan.directory / "dataset.jsonl", rendered)
        write_ledger(plan.directory / "ledger.parquet", ledger(plan, rendered))
        _require_rows(plan, rendered)
        return rendered

    def first_stage(self, rendered: Sequence[Rendered]) -> dict[str, float]:
        """Learn the answers. Returns the metrics, also where a predecessor came through it already."""
        from trainer import qlora

        plan = self._plan
        folder = plan.directory / "first" if plan.recipe.dpo else plan.directory
        kept = folder / "metrics.json"
        if plan.recipe.dpo and kept.exists():
            return msgspec.json.decode(kept.read_bytes(), type=dict[str, float])
        train, validation = (
            [one.example for one in rendered if one.use == split and one.source != "dpo"]
            for split in (Split.TRAIN, Split.VALIDATION)
        )
        if plan.recipe.training.order == "easy-to-hard":
            train = self._easy_first(train)
        self._report.stage(f"training on {len(train)} rows")
        metrics = qlora.train(
            self._model,
            self._tokenizer,
            plan.recipe,
            train,
            validation,
            folder,
            self._steps(0, _pair_steps(plan, rendered)),
            self._report.stop,
        )
        require_finite(metrics, metrics, int(metrics["steps"]))
        if "best_step" in metrics:
            self._report.stage(_on_best(metrics))
        if plan.recipe.dpo:
            _write_last(kept, msgspec.json.encode(metrics))
        return metrics

    def second_stage(self, rendered: Sequence[Rendered], first: dict[str, float]) -> dict[str, float]:
        """Learn which answers are preferred. Begins, here and after a kill, with what the first stage left on disk."""
        from trainer import preference

        plan = self._plan
        self._model = None
        gc.collect()  # two bases may not fit
        self._model = self._load()
        pairs, held_out = (
            [one.example for one in rendered if (one.use, one.source) == (use, "dpo")]
            for use in (Split.TRAIN, "held_out")
        )
        unseen = [one for one in held_out if one.tokens <= plan.recipe.training.max_length]
        data = {split: [one.example for one in rendered if (one.use, one.source) == (split, "data")] for split in Split}
        held = data[Split.VALIDATION] or data[Split.TRAIN]
        self._report.stage(f"training on {len(pairs)} preference pairs")
        stage = preference.Stage(plan.directory / "first" / "adapter", plan.directory)
        metrics = preference.train(
            self._model,
            self._tokenizer,
            plan.recipe,
            preference.Rows(pairs, unseen, held),
            stage,
            self._steps(int(first["steps"]), 0),
            self._report.stop,
        )
        require_finite(metrics, metrics, int(metrics["dpo_steps"]))
        return {**first, **metrics, "train_seconds": first["train_seconds"] + metrics["train_seconds"]}

    def _load(self) -> Any:
        from trainer import model

        recipe = self._plan.recipe
        self._report.stage("loading the base in 4 bits" if recipe.quantization == "nf4" else "loading the base")
        return model.load_model(self._plan.base, recipe)

    def _easy_first(self, examples: Sequence[Any]) -> list[Any]:
        """In the order that is kept in the run's directory: the base's losses are taken once."""
        from trainer.curriculum import easy_to_hard

        kept = self._plan.directory / "order.json"
        if not kept.exists():
            self._report.stage(f"the base reads {len(examples)} rows, to put the easy ones first")
            _write_last(kept, json.dumps(easy_to_hard(self._model, examples)).encode())
        return [examples[place] for place in json.loads(kept.read_bytes())]

    def _steps(self, before: int, after: int) -> Callable[[Progress], None]:
        """Tells a stage's steps as those of the whole run: `before` are behind it, `after` come in the next stage."""
        began = time.monotonic()

        def on_progress(progress: Progress) -> None:
            speed = progress.tokens / max(1e-9, time.monotonic() - began)
            numbers = {"loss": progress.loss, "lr": progress.learning_rate, "tokens/s": speed}
            self._report.step(before + progress.step, before + progress.steps + after, numbers)

        return on_progress


def _require_rows(plan: Plan, rendered: Sequence[Rendered]) -> None:
    stages = [(plan.recipe.data, ("data", "replay"))] + ([(plan.recipe.dpo.pairs, ("dpo",))] if plan.recipe.dpo else [])
    for file, sources in stages:
        of_stage = [one for one in rendered if one.source in sources]
        if not any(one.use == Split.TRAIN for one in of_stage):
            raise InvalidRequest(
                f"no row of {file} is left to train on; each row's reason: {plan.directory}/ledger.parquet",
                sorted({one.reason for one in of_stage if one.reason}),
            )


def _pair_steps(plan: Plan, rendered: Sequence[Rendered]) -> int:
    pairs = sum(one.use == Split.TRAIN for one in rendered if one.source == "dpo")
    return steps_of(pairs, plan.recipe.dpo) if plan.recipe.dpo else 0


def _on_best(metrics: dict[str, float]) -> str:
    ended = "no better since, so training ended early; " if metrics["stopped_early"] else ""
    return (
        f"{ended}the adapter is that of step {metrics['best_step']:.0f} of {metrics['steps']:.0f}, "
        f"validation loss {metrics['validation_loss']:.4f}"
    )


def _admit(plan: Plan, report: Reporter) -> dict[str, int]:
    """Preflight of data and pairs, once for a run: how many findings of each code.

    Raises InvalidRequest that lists what stops it.
    """
    kept = plan.directory / "preflight.json"
    if not kept.exists():
        report.stage("looking at the data")
        reports = [one for one in (look_at_data(plan), look_at_pairs(plan)) if one is not None]
        require_admitted(reports)
        _write_last(kept, msgspec.json.encode(sum((Counter(one.counts()) for one in reports), Counter())))
    return msgspec.json.decode(kept.read_bytes(), type=dict[str, int])


def assess(plan: Plan, rendered: Sequence[Rendered]) -> Estimate | None:
    """What the run will take; None where the base's config does not say how large it is."""
    base = read_base(msgspec.json.decode((plan.base / "config.json").read_bytes()), plan.tensors)
    lora = plan.recipe.lora
    used = {
        source: [one.example for one in rendered if one.use == Split.TRAIN and one.source == source]
        for source in ("data", "replay", "dpo")
    }
    counts = Counts(
        rows=[len(one.ids) for one in used["data"]],
        trained=[sum(label != IGNORED for label in one.labels) for one in used["data"]],
        replay=[len(one.ids) for one in used["replay"]],
        pairs=[2 * len(one.prompt) + len(one.chosen) + len(one.rejected) for one in used["dpo"]],
        longest_pair=max((one.tokens for one in used["dpo"]), default=0),
    )
    adapter = adapter_parameters(plan.tensors, lora.target_modules, lora.rank, lora.first_layer)
    return estimate(plan.recipe, base, adapter, counts, on_cpu=not has_gpu()) if base else None


def lint_size(plan: Plan, rendered: Sequence[Rendered]) -> list[Problem]:
    found = assess(plan, rendered)
    return lint_estimate(plan.recipe, found, memory_bytes()) if found else []


def _replay_answers(plan: Plan, model: Any, tokenizer: Any, report: Reporter) -> list[str]:
    """The base's own greedy answers, kept in the run's directory once they are complete."""
    if plan.recipe.replay is None:
        return []
    kept = plan.directory / "replay-answers.json"
    if kept.exists():
        found: list[str] = json.loads(kept.read_text())
        return found
    from trainer.model import answer_greedily

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


def _write_last(path: Path, data: bytes) -> None:
    """Put a file in place in one step: whoever finds it finds all of it."""
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(data)
    partial.replace(path)
