"""The worker: claim a job, materialise what it names, measure, post the evidence. It never judges."""

import contextlib
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from evaluator.canaries import TEXTS, run_canaries, trusted
from evaluator.contamination import TrainingIndex, training_prompts
from evaluator.engine import Engine, EngineDied, EngineRefused
from evaluator.evidence import Measurements, build_evidence, item_rows, write_rows
from evaluator.measure import Subject, answer_all, score_all
from evaluator.rendering import Renderer
from evaluator.results import Answered, Measured
from evaluator.suites import Loaded, load_suite
from evaluator.vllm_process import EngineSettings, VllmProcess, served_rank
from registry.client import Client, InvalidRequest, Refused, Unreachable, describe_base
from registry.records import Job, SuiteKind

_IDLE_SECONDS = 2.0
_ENGINE_STARTS = 2


class Reporter(NamedTuple):
    """Where the worker says what it does: stages in words, and steps as (done, of, numbers)."""

    stage: Callable[[str], None]
    step: Callable[[int, int, dict[str, float]], None]


class Workplace(NamedTuple):
    """Where results, adapters and logs are kept, and where base models are looked for."""

    cache: Path
    bases: Sequence[Path]


class LeaseLost(Exception):
    """Another worker has the job; whatever this one found is of no use any more."""


class Desk:
    """One worker's tools: bases it knows by content, and an engine that stays warm while jobs want the same one."""

    def __init__(self, place: Workplace, start: Callable[[EngineSettings, Path], Engine] = VllmProcess) -> None:
        self.place = place
        self._start = start
        self._known: dict[str, Path] = {}
        self._engine: Engine | None = None
        self._settings: EngineSettings | None = None

    def base(self, digest: str) -> Path:
        """The directory whose content is this base. Raises InvalidRequest if there is none here."""
        if digest not in self._known:
            for folder in self.place.bases:
                for one in [folder, *sorted(folder.iterdir())] if folder.is_dir() else []:
                    with contextlib.suppress(InvalidRequest):
                        self._known[describe_base(one).digest] = one
        if digest not in self._known:
            searched = ", ".join(map(str, self.place.bases))
            raise InvalidRequest(f"no base model with digest {digest} under {searched}; give its directory with --base")
        return self._known[digest]

    def engine(self, settings: EngineSettings) -> Engine:
        """A running engine with these settings."""
        if self._engine is None or self._settings != settings:
            self.close()
            self._engine = self._start(settings, self.place.cache / "logs" / f"engine-{os.getpid()}.log")
            self._settings = settings
        return self._engine

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
        self._engine = self._settings = None


def work(client: Client, place: Workplace, report: Reporter, *, once: bool) -> int:
    """Do jobs until stopped, or until there are none left; how many were done."""
    desk, done = Desk(place), 0
    try:
        while True:
            try:
                job = client.claim(["evaluation"], f"{socket.gethostname()}:{os.getpid()}")
                if job is not None:
                    do_job(client, desk, job, report)
                    done += 1
                    continue
            except (Unreachable, Refused) as error:
                if once or (isinstance(error, Refused) and error.status < 500):
                    raise
                report.stage(f"{error}; trying again")
            if once:
                return done
            time.sleep(_IDLE_SECONDS)
    finally:
        desk.close()


def do_job(client: Client, desk: Desk, job: Job, report: Reporter) -> None:
    """One job to its end: evidence posted, or the failure told with its reason."""
    try:
        with _lease(client, job) as check_lease:
            evaluate(client, desk, job, report, check_lease)
    except LeaseLost:
        report.stage(f"{job.ref}: another worker has taken the job over")
    except (EngineRefused, InvalidRequest) as error:
        _tell(client, job, f"cannot be evaluated: {error}", retry=False, report=report)
    except EngineDied as error:
        _tell(client, job, str(error), retry=True, report=report)
    except Unreachable:
        raise
    except Exception as error:
        # One job that breaks a worker must not break the next one without a word.
        desk.close()
        _tell(client, job, f"the worker failed: {type(error).__name__}: {error}", retry=True, report=report)


def evaluate(client: Client, desk: Desk, job: Job, report: Reporter, check_lease: Callable[[], None]) -> None:
    """Measure everything the job's policy asks for and post it."""
    started = time.monotonic()
    base, adapter = desk.base(job.base.digest), _adapter(client, desk.place, job)
    settings = EngineSettings(base=base, base_digest=job.base.digest, rank=_rank(adapter))
    renderer = Renderer(base)
    suites = {suite.ref: load_suite(client, suite, renderer, settings.max_model_len) for suite in job.suites}
    contaminated = _contamination(client, desk.place, job, suites)
    for attempt in range(1, _ENGINE_STARTS + 1):
        try:
            report.stage(f"{job.ref}: starting vLLM")
            engine = desk.engine(settings)
            report.stage(f"{job.ref}: canaries")
            canaries = run_canaries(engine, _canary_texts(suites), adapter)
            measured = Measurements(suites, {}, {}, contaminated)
            if trusted(canaries):
                measured = _measure(engine, desk.place, job, measured, adapter, report, check_lease)
            break
        except EngineDied:
            desk.close()
            # What was finished is kept, so a second start goes on from there.
            if attempt == _ENGINE_STARTS:
                raise
        except (EngineRefused, LeaseLost):
            # Left in the middle of a call, whose replies would be taken for those of the next job.
            desk.close()
            raise
    rows = item_rows(measured)
    with tempfile.TemporaryDirectory() as folder:
        parquet = Path(folder) / "rows.parquet"
        write_rows(parquet, rows)
        stored = client.upload(parquet)
    evidence = build_evidence(job, measured, rows, stored.sha256, engine.info, canaries, time.monotonic() - started)
    check_lease()
    client.post_evidence(job, evidence)
    report.stage(f"{job.ref}: evidence posted")


def _measure(
    engine: Engine,
    place: Workplace,
    job: Job,
    empty: Measurements,
    adapter: Path,
    report: Reporter,
    check_lease: Callable[[], None],
) -> Measurements:
    """Candidate on every suite, base on those that are compared with it."""
    policy = job.document
    compared = {policy.perplexity.suite, policy.forgetting.suite}
    candidate = Subject(job.base.digest, job.digest, adapter)
    base = Subject(job.base.digest, "base", None)
    answers: dict[tuple[str, str], dict[str, Answered]] = {}
    scores: dict[tuple[str, str], dict[str, Measured]] = {}
    for ref, loaded in empty.suites.items():
        for name, subject in (("base", base), ("candidate", candidate)):
            if name == "base" and ref not in compared:
                continue
            report.stage(f"{job.ref}: {loaded.suite.name}, {name}")

            def step(done: int, total: int) -> None:
                check_lease()
                report.step(done, total, {})

            if loaded.suite.kind is SuiteKind.CONVERSATIONS:
                scores[ref, name] = score_all(engine, loaded, subject, place.cache / "results", step)
            else:
                answers[ref, name] = answer_all(engine, loaded, subject, place.cache / "results", step)
    return empty._replace(answers=answers, scores=scores)


def _contamination(client: Client, place: Workplace, job: Job, suites: dict[str, Loaded]) -> dict[str, set[str]] | None:
    """Items that were in the training data, by suite; None where that is not known. Pilot prompts prove nothing."""
    if job.training is None:
        return None
    sha256 = job.training.dataset.removeprefix("sha256:")
    target = place.cache / "datasets" / sha256
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        client.download(sha256, target)
    try:
        index = TrainingIndex(training_prompts(target.read_bytes()))
    except ValueError as error:
        raise InvalidRequest(f"the training data of {job.ref} cannot be compared with the suites: {error}") from None
    return {
        ref: {ask.item for ask in loaded.asks if index.holds(ask.text)}
        | {read.item for read in loaded.reads if any(map(index.holds, read.texts))}
        for ref, loaded in suites.items()
        if loaded.suite.kind is not SuiteKind.PROMPTS
    }


def _canary_texts(suites: dict[str, Loaded]) -> list[list[int]]:
    """A few texts of the job's own suites, the longest ones, which show most."""
    texts = [one.ids for loaded in suites.values() for one in loaded.reads]
    texts += [one.ids for loaded in suites.values() for one in loaded.asks]
    return sorted(texts, key=len, reverse=True)[:TEXTS]


def _adapter(client: Client, place: Workplace, job: Job) -> Path:
    """The adapter's files in a directory named by the manifest digest, without its README."""
    target = place.cache / "adapters" / job.digest.replace(":", "-")
    if not target.is_dir():
        with client.download_files([file for file in job.files if file.path != "README.md"], target):
            pass
    return target


def _rank(adapter: Path) -> int:
    return served_rank(int(json.loads((adapter / "adapter_config.json").read_text())["r"]))


@contextlib.contextmanager
def _lease(client: Client, job: Job) -> Iterator[Callable[[], None]]:
    """Heartbeats from a thread of their own while the work goes on; the yielded check raises LeaseLost."""
    stop, lost = threading.Event(), threading.Event()

    def beat() -> None:
        while not stop.wait(job.lease_seconds / 3):
            try:
                client.heartbeat(job)
            except Refused as error:
                if error.status in (404, 409):
                    lost.set()
                    return
            except Unreachable:
                pass  # the fence decides in the end

    def check() -> None:
        if lost.is_set():
            raise LeaseLost

    thread = threading.Thread(target=beat, name="tunegate-heartbeat", daemon=True)
    thread.start()
    try:
        yield check
    except Refused as error:
        if error.code == "stale_lease":
            raise LeaseLost from None
        raise
    finally:
        stop.set()
        thread.join(timeout=5)


def _tell(client: Client, job: Job, reason: str, *, retry: bool, report: Reporter) -> None:
    report.stage(f"{job.ref}: {reason}")
    try:
        client.fail(job, reason, retry=retry)
    except Refused as error:
        if error.code != "stale_lease":
            raise
