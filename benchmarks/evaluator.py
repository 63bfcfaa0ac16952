"""Items per second of an evaluation: tunegate's worker beside raw vLLM and lm-evaluation-harness with its backends.

    python -m benchmarks.evaluator [--base DIR --adapter DIR --adapter DIR] [--items N] [--repeats 3] [--slow-items N]

The work is the default gate's: held-out conversations for base and candidate, domain questions for the candidate,
general knowledge for base and candidate; an item counts once for each of them it is put to.

tunegate        the whole worker against a real registry: fetch, tokenise, engine, canaries, the suites, gold answers,
                KL, pilot prompts, Parquet, evidence. Its items are only those above, its time is all of it.
raw vLLM        `LLM.generate` on every prompt that this worker sent to its engine, with the engine's own settings and
                our LoRA operations, in as few calls as there are kinds of requests. The floor.
lm-eval …       the same conversations (one document per assistant turn), questions and limits through lm-eval's own
                evaluator. Each subject is loaded by itself, as lm-eval does it. vLLM with the LoRA operations it ships.

Start is everything up to a loaded model; raw vLLM's and lm-eval's have answered a first request of each kind by then.
lm-eval's backends see a sample of each suite, which the table says. Only the time inside the model is scaled up to all
items; what lm-eval spends around it (loading the data, describing the machine) is paid once a task and is counted once.
Ratios are of speeds: above 1, tunegate is faster. Memory is the resident set of a backend's whole process tree, shared
pages counted in each process.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from evaluator.vllm_process import served_rank
from registry import settings
from registry.client import Client, describe_base, read_suite
from registry.errors import InvalidRequest
from registry.records import Base, CreateAdapter, SuiteKind
from registry.settings import Home
from registry.transfer import push, push_suite, suite_files

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from site_under_test import Site, running  # noqa: E402

SUITES = {
    "conversations": "support-desk/conversations",
    "questions": "support-desk/questions",
    "general": "general-knowledge",
    "pilot": "support-desk/pilot",
}
# Who is asked what: (suite, subject).
WORK = (
    ("conversations", "base"),
    ("conversations", "candidate"),
    ("questions", "candidate"),
    ("general", "base"),
    ("general", "candidate"),
)
# Items of each suite that lm-eval's backends see: enough to fill the sequences that a backend computes at once.
HARNESSES = {
    "lm-eval vllm": 64,
    "lm-eval vllm, LoRA as documented": 64,
    "lm-eval hf": 16,
    "lm-eval local-completions": 16,
}
BACKENDS = ("tunegate", "raw vLLM", *HARNESSES)


class Spec(NamedTuple):
    """What is measured with what, for this process and its children."""

    base: Path
    adapters: list[Path]
    suites: dict[str, Path]
    items: dict[str, int]
    folder: Path


class Outcome(NamedTuple):
    """Seconds from process start to a loaded model, and of the work after it.

    sample: items of each suite from which the work was scaled up; None where all were asked. fixed: seconds of the work
    that were not scaled, being the same for any number of items.
    """

    start: float
    work: float
    prompt_tokens: int
    peak_bytes: int
    sample: int | None = None
    fixed: float = 0.0
    first_item: float | None = None
    second_candidate: float | None = None
    failure: str | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, help="base model; default: the demo's")
    parser.add_argument("--adapter", type=Path, action="append", default=[], help="up to two candidates")
    parser.add_argument("--items", type=int, help="only the first N items of each suite")
    parser.add_argument(
        "--slow-items", type=int, help="items of each suite for lm-eval's backends; 0: all; default: 64 or 16"
    )
    parser.add_argument("--repeats", type=int, default=3, help="runs of each; medians are shown")
    parser.add_argument("--only", action="append", choices=BACKENDS, help="backends to run; default: all")
    asked = parser.parse_args()
    base, adapters = _models(asked.base, asked.adapter)
    with tempfile.TemporaryDirectory(prefix="tunegate-bench-") as folder:
        spec = _spec(base, adapters, asked.items, Path(folder))
        found: dict[str, list[Outcome]] = {name: [] for name in asked.only or BACKENDS}
        with contextlib.suppress(KeyboardInterrupt):  # then the table shows what there is
            for run in range(asked.repeats):  # by turns, so that a drift of the machine meets all of them
                for name, outcomes in found.items():
                    outcomes.append(_measure(name, spec, asked.slow_items))
                    _say(f"{name}, run {run + 1} of {asked.repeats}", outcomes[-1])
        _print(found, spec)


def _models(base: Path | None, adapters: list[Path]) -> tuple[Path, list[Path]]:
    """What was asked for, or what the demo left. Raises InvalidRequest where there is neither."""
    home = settings.home()
    base = base or home.bases / "smollm2-135m-instruct"
    adapters = adapters or sorted(home.runs.glob("support-bot*/adapter"))[:2]
    if not (base / "tokenizer.json").exists() or not adapters:
        raise InvalidRequest(
            f"no base and adapters in {home.root}: run `make demo` first, or name them with --base and --adapter"
        )
    if missing := [str(one) for one in adapters if not (one / "adapter_config.json").exists()]:
        raise InvalidRequest(f"{', '.join(missing)} holds no adapter_config.json; name directories of LoRA adapters")
    return base.resolve(), [one.resolve() for one in adapters]


def _spec(base: Path, adapters: list[Path], items: int | None, folder: Path) -> Spec:
    """Copies of the suites, cut to so many items."""
    suites, counts = {}, {}
    for name, place in SUITES.items():
        files = suite_files(ROOT / "suites" / place)
        lines = files["items.jsonl"].splitlines(keepends=True)[:items]
        suites[name], counts[name] = folder / "suites" / name, len(lines)
        suites[name].mkdir(parents=True)
        (suites[name] / "suite.toml").write_bytes(files["suite.toml"])
        (suites[name] / "items.jsonl").write_bytes(b"".join(lines))
    return Spec(base, adapters, suites, counts, folder)


def _measure(name: str, spec: Spec, slow_items: int | None) -> Outcome:
    match name:
        case "tunegate":
            return _tunegate(spec)
        case "raw vLLM":
            if not (spec.folder / "calls.json").exists():
                _tunegate(spec)
            given = {"calls": str(spec.folder / "calls.json"), "adapter": str(spec.adapters[0])}
            return _outcome(_run("raw", given, spec, "tunegate"))
        case _:
            most = HARNESSES[name] if slow_items is None else slow_items
            return _harness(name, spec, most or max(spec.items.values()))


def _tunegate(spec: Spec) -> Outcome:
    """A fresh registry and an empty cache; the second candidate comes while the engine is warm."""
    with tempfile.TemporaryDirectory(dir=spec.folder) as home, running(Home(Path(home) / "home")) as site:
        _publish(site, spec)
        given = {
            "url": site.url,
            "token": site.tokens["evaluator"],
            "ci": site.tokens["ci"],
            "cache": str(Path(home) / "cache"),
            "base": str(spec.base),
            "second": str(spec.adapters[1]) if len(spec.adapters) > 1 else None,
            "calls": str(spec.folder / "calls.json"),
        }
        return _outcome(_run("tunegate", given, spec, "tunegate"))


def _publish(site: Site, spec: Spec) -> None:
    """The suites, an adapter under the default policy, and its first version."""
    admin = site.client("admin")
    for place in spec.suites.values():
        push_suite(admin, place)
    described = describe_base(spec.base)
    base = Base(id=spec.base.name, digest=described.digest)
    admin.create_adapter(CreateAdapter(name="bench", base=base, base_tensors=described.tensors))
    with Client(site.url, site.tokens["ci"]) as uploader:
        push(uploader, spec.adapters[0], "bench")


def _harness(name: str, spec: Spec, sample: int) -> Outcome:
    """lm-eval on so many items of each suite: base and candidate each in a process, their times added."""
    tasks = spec.folder / f"tasks-{sample}"
    if not tasks.exists():
        _write_tasks(spec, tasks, sample)
    outcomes = []
    for subject in ("base", "candidate"):
        given = {
            "backend": name,
            "base": str(spec.base),
            "adapter": str(spec.adapters[0]) if subject == "candidate" else None,
            "rank": served_rank(json.loads((spec.adapters[0] / "adapter_config.json").read_text())["r"]),
            "tasks": str(tasks),
            "ask": [suite for suite, who in WORK if who == subject],
        }
        found, peak, failure = _run("harness", given, spec, "")
        if failure:
            return Outcome(0, 0, 0, peak, failure=f"{subject}: {failure}")
        outcomes.append(_scaled(found, spec.items, sample, peak))
    return Outcome(
        sum(one.start for one in outcomes),
        sum(one.work for one in outcomes),
        sum(one.prompt_tokens for one in outcomes),
        max(one.peak_bytes for one in outcomes),
        sample=sample if any(one.sample for one in outcomes) else None,
        fixed=sum(one.fixed for one in outcomes),
    )


def _scaled(found: dict[str, Any], items: dict[str, int], sample: int, peak: int) -> Outcome:
    """What all items would have taken: the model's seconds grow with them, what lm-eval does around it does not."""
    scale = {suite: items[suite] / min(sample, items[suite]) for suite in found["tasks"]}
    fixed = sum(one["fixed"] for one in found["tasks"].values())
    return Outcome(
        found["start"],
        fixed + sum(one["model"] * scale[suite] for suite, one in found["tasks"].items()),
        round(sum(one["prompt_tokens"] * scale[suite] for suite, one in found["tasks"].items())),
        peak,
        sample=sample if any(one > 1 for one in scale.values()) else None,
        fixed=fixed,
    )


def _write_tasks(spec: Spec, folder: Path, items: int) -> None:
    """The suites as tasks of lm-eval with local data: what a user without tunegate would write."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(spec.base)

    def render(system: str | None, messages: Sequence[dict[str, str]]) -> str:
        before = [{"role": "system", "content": system}] if system else []
        return str(tokenizer.apply_chat_template([*before, *messages], tokenize=False, add_generation_prompt=True))

    folder.mkdir()
    for name in ("conversations", "questions", "general"):
        content = read_suite(suite_files(spec.suites[name]))
        rows = []
        for item in content.items[:items]:
            if content.head.kind is SuiteKind.CONVERSATIONS:
                plain = [{"role": one.role, "content": one.content} for one in item.messages]  # type: ignore[union-attr]
                rows += [
                    {"context": render(content.head.system, plain[:place]), "target": f"{one['content']}<|im_end|>"}
                    for place, one in enumerate(plain)
                    if one["role"] == "assistant"
                ]
            else:
                context = render(content.head.system, [{"role": "user", "content": item.question}])  # type: ignore[union-attr]
                rows.append({"context": context, "target": item.answers[0]})  # type: ignore[union-attr]
        (folder / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
        scored = content.head.kind is SuiteKind.CONVERSATIONS
        task: dict[str, Any] = {
            "task": f"bench_{name}",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.json")}},
            "test_split": "test",
            "output_type": "loglikelihood" if scored else "generate_until",
            "doc_to_text": "{{context}}",
            "doc_to_target": "{{target}}",
            "target_delimiter": "",
            "metric_list": [{"metric": "acc" if scored else "exact_match"}],
        }
        if not scored:
            task["generation_kwargs"] = {"until": ["\n"], "do_sample": False, "max_gen_toks": content.head.max_tokens}
        (folder / f"{name}.yaml").write_text(json.dumps(task))  # JSON is YAML


# -- processes ----------------------------------------------------------------------------------------------------


def _run(part: str, given: dict[str, Any], spec: Spec, plugins: str) -> tuple[dict[str, Any], int, str | None]:
    """One part in a process of its own: what it found, its tree's peak memory, and why it failed, if it did."""
    to, log = spec.folder / "found.json", spec.folder / f"{part}.log"
    to.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "VLLM_PLUGINS": plugins,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(os.cpu_count() or 1),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    document = json.dumps({**given, "spawned": time.time(), "to": str(to)})
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.evaluator_parts", part, document],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
        )
        with _watched(child.pid) as peak:
            code = child.wait()
    if code or not to.exists():
        return {}, peak(), _reason(log, code)
    return json.loads(to.read_text()), peak(), None


@contextlib.contextmanager
def _watched(pid: int) -> Iterator[Callable[[], int]]:
    """Samples the memory of a process and all below it; yields what its peak was."""
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            total = 0
            with contextlib.suppress(psutil.Error):
                tree = psutil.Process(pid)
                for one in (tree, *tree.children(recursive=True)):
                    with contextlib.suppress(psutil.Error):
                        total += one.memory_info().rss
            peak[0] = max(peak[0], total)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: peak[0]
    finally:
        stop.set()
        thread.join()


def _reason(log: Path, code: int) -> str:
    """The last error that a process named."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    named = [line for line in lines if "Error: " in line or "Error(" in line or "refused" in line]
    return f"exit {code}: {(named or lines or ['it said nothing'])[-1][-300:]}"


def _outcome(run: tuple[dict[str, Any], int, str | None]) -> Outcome:
    found, peak, failure = run
    if failure:
        return Outcome(0, 0, 0, peak, failure=failure)
    return Outcome(
        found["start"],
        found["work"],
        found["prompt_tokens"],
        peak,
        first_item=found.get("first_item"),
        second_candidate=found.get("second_candidate"),
    )


# -- the tables ---------------------------------------------------------------------------------------------------


def _say(run: str, one: Outcome) -> None:
    print(f"{run}: {one.failure or f'start {one.start:.1f} s, work {one.work:.1f} s'}", flush=True)


def _print(found: dict[str, list[Outcome]], spec: Spec) -> None:
    items = sum(spec.items[suite] for suite, _ in WORK)
    sizes = ", ".join(f"{spec.items[suite]} {suite} ({subject})" for suite, subject in WORK)
    console, floor = Console(width=120, highlight=False), _median(found.get("raw vLLM", []))
    console.print(f"{spec.base.name}, {len(os.sched_getaffinity(0))} cores; {items} items: {sizes}", soft_wrap=True)
    table = Table(box=None)
    for column in ("", "items/s", "prompt tok/s", "work s", "of it fixed", "start s", "peak GiB", "of raw's speed"):
        table.add_column(column, justify="right" if column else "left")
    table.add_column("measured", overflow="fold")
    for name, outcomes in found.items():
        one = _median(outcomes)
        if one is None:
            table.add_row(name, *["–"] * 7, escape(f"failed: {outcomes[0].failure}") if outcomes else "not run")
            continue
        table.add_row(
            name,
            f"{items / one.work:.2f}",
            f"{one.prompt_tokens / one.work:.0f}",
            f"{one.work:.1f}",
            f"{one.fixed:.1f}" if name in HARNESSES else "–",
            f"{one.start:.1f}",
            f"{one.peak_bytes / 2**30:.1f}",
            f"{floor.work / one.work:.2f}" if floor else "–",
            _how(outcomes, one),
        )
    console.print(table)
    for line in _ratios(found):
        console.print(line, soft_wrap=True)


def _how(outcomes: Sequence[Outcome], one: Outcome) -> str:
    """Of how many runs and items a row speaks."""
    failed = sum(1 for other in outcomes if other.failure)
    runs = f"median of {len(outcomes) - failed}" if len(outcomes) > 1 else "1 run"
    runs += f", {failed} failed" if failed else ""
    return f"{runs}, scaled from {one.sample} items a suite" if one.sample else f"{runs}, all items"


def _ratios(found: dict[str, list[Outcome]]) -> Iterator[str]:
    """Speeds of tunegate by those of the others, and the worker's other times."""
    ours = _median(found.get("tunegate", []))
    if ours is None:
        return
    for name, outcomes in found.items():
        other = _median(outcomes)
        if name == "tunegate" or other is None:
            continue
        without, whole = other.work / ours.work, _whole(other) / _whole(ours)
        line = f"speed of tunegate ÷ speed of {name}: {without:.2f} start excluded, {whole:.2f} start included"
        if name in HARNESSES:
            line += f", {(other.work - other.fixed) / ours.work:.2f} start and its fixed costs excluded"
        yield line
    if ours.first_item is not None:
        yield f"from the worker's start to its first scored item: {ours.first_item:.1f} s"
    if ours.second_candidate is not None:
        share = ours.second_candidate / _whole(ours)
        yield f"second candidate: {ours.second_candidate:.1f} s, {share:.0%} of the first with its start"


def _median(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The run in the middle, by its work and start; None if there is none that did not fail."""
    whole = [one for one in outcomes if one.failure is None]
    if not whole:
        return None
    middle = statistics.median_low(map(_whole, whole))
    return next(one for one in whole if _whole(one) == middle)


def _whole(one: Outcome) -> float:
    return one.start + one.work


if __name__ == "__main__":
    try:
        main()
    except InvalidRequest as error:
        sys.exit(f"error: {error}")
