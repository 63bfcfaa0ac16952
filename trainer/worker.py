"""The worker: claim a run, hold its lease, let a trainer do it in a process of its own, push what comes of it.

A run lives in a directory named by its id, so whichever worker of this machine claims it again continues where the
last one stopped. The registry says when to stop: a run that was paused, cancelled or taken over is refused to this
worker, and its trainer is ended, after the step that it is in where the run was paused.
"""

import codecs
import contextlib
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from os import getpid
from pathlib import Path
from types import FrameType, TracebackType
from typing import NamedTuple

import msgspec

from registry.client import Client, InvalidRequest, Refused, Unreachable
from registry.records import ProgressNote, TrainingJob, TrainingRecord, TrainingStatus
from trainer.faults import Fault, fault_of, fault_of_exit, system_error, user_error
from trainer.launchers import CannotLaunch, Launcher, Task
from trainer.recipe import Recipe, parse_recipe
from trainer.shelf import digests_of, find_base
from trainer.workspace import Ended, Order, Told, Workspace, read_whole, write_whole

_IDLE_SECONDS, _LOOK_SECONDS = 1.0, 0.2
_BEAT_SECONDS = 1.0  # how soon a pause or cancellation is noticed
_PAUSE_SECONDS = 120.0  # for the step that a trainer is in, and its checkpoint
_MOST_NOTES, _MOST_LOG = 500, 32_768
_FIRST_PAUSE, _LONGEST_PAUSE, _MOST_TRIES = 1.0, 30.0, 20  # for the word of how a run ended


class Result(NamedTuple):
    """What a run gave: the adapter, and the files that its record names."""

    adapter: str
    directory: Path
    record: TrainingRecord
    dataset: Path
    ledger: Path


class Workplace(NamedTuple):
    """runs: where runs live; bases: directories of base models.

    publish: pushes a result and returns the reference of the version. trainer: the program that does a run.
    """

    runs: Path
    bases: Sequence[Path]
    launcher: Launcher
    publish: Callable[[Result], str]
    trainer: tuple[str, ...] = (sys.executable, "-m", "trainer.child")


class Reporter(NamedTuple):
    stage: Callable[[str], None]
    step: Callable[[int, int, dict[str, float]], None]


def work(client: Client, place: Workplace, report: Reporter, *, once: bool) -> int:
    """Do runs of the bases that are here until stopped, or until there are none left; how many were claimed."""
    done, claims = 0, _Claims(client, place, report)
    with _ending_on_sigterm():
        while True:
            try:
                if job := claims.next():
                    done += 1
                    do_run(client, place, job, report)
                    continue
            except (Unreachable, Refused) as error:
                if once or (isinstance(error, Refused) and not _passes(error)):
                    raise
                report.stage(f"{error}; trying again")
            if once:
                return done
            time.sleep(_IDLE_SECONDS)


class _Claims:
    """Claims runs whose base is here, each base in its turn: no run fails for what another worker holds."""

    def __init__(self, client: Client, place: Workplace, report: Reporter) -> None:
        self._client, self._place, self._report = client, place, report
        self._name = f"{socket.gethostname()}-{getpid()}"
        self._last: str | None = None
        self._said_none = False

    def next(self) -> TrainingJob | None:
        held = digests_of(self._place.bases)
        if not held and not self._said_none:
            self._report.stage(f"no base model under {', '.join(map(str, self._place.bases))}: no run can be claimed")
        self._said_none = not held
        turn = held.index(self._last) + 1 if self._last in held else 0
        for base in [*held[turn:], *held[:turn]]:
            if job := self._client.claim_training(self._name, base):
                self._last = base
                return job
        return None


def do_run(client: Client, place: Workplace, job: TrainingJob, report: Reporter) -> None:
    """One claimed run to its end, whatever that is: finished, failed with a reason, or left to whoever resumes it."""
    with Hold(client, job) as hold:
        attempt = _Attempt(client, place, job, hold, report)
        try:
            fault = attempt.run()
        except KeyboardInterrupt:
            attempt.stop(gently=True)
            with contextlib.suppress(Unreachable, Refused):
                _fail(client, job, system_error("worker_stopped", "the worker was stopped", retry=True))
            raise
        except Exception as error:
            if _is_about_the_worker(error):
                attempt.stop(gently=False)
                raise
            # Of any other the run dies, not its worker: the next worker would die of the same.
            traceback.print_exc()
            with contextlib.suppress(Exception):
                attempt.stop(gently=False)
            fault = system_error("crashed", f"the worker met {type(error).__name__}: {error}; its output says where")
        except BaseException:
            attempt.stop(gently=False)
            raise
        if hold.lost:
            report.stage(f"{job.id}: paused, cancelled or taken over")
        elif fault is not None:
            failed = fault
            report.stage(f"{job.id}: {failed.error.message}")
            if not attempt.insist(lambda: _fail(client, job, failed)) and not hold.lost:
                report.stage(f"{job.id}: the registry could not be told; the next worker goes on with the run")


def _fail(client: Client, job: TrainingJob, fault: Fault) -> None:
    client.fail_training(job, fault.error.kind, fault.error.code, fault.error.message, retry=fault.retry)


def _is_about_the_worker(error: Exception) -> bool:
    """Its token, or a registry that cannot answer: not to be told of a run."""
    return isinstance(error, Unreachable) or (
        isinstance(error, Refused) and (error.status in (401, 403) or _passes(error))
    )


class Hold:
    """The lease of a run, held by heartbeats from a thread of its own.

    `lost`: the registry refuses it. `lapsed`: the registry has heard nothing for so long that it may be another's.
    """

    def __init__(self, client: Client, job: TrainingJob) -> None:
        self._client, self._job = client, job
        self._stop, self._lost = threading.Event(), threading.Event()
        self._held_at = time.monotonic()
        self._pause = min(_BEAT_SECONDS, job.lease_seconds / 3)
        self._thread = threading.Thread(target=self._beat, name="tunegate-heartbeat", daemon=True)

    def __enter__(self) -> "Hold":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    @property
    def lost(self) -> bool:
        return self._lost.is_set()

    @property
    def lapsed(self) -> bool:
        return time.monotonic() - self._held_at > self._job.lease_seconds

    def lose(self) -> None:
        self._lost.set()

    def wait(self, seconds: float) -> bool:
        """Whether it still holds after so long."""
        return not self._lost.wait(seconds) and not self.lapsed

    def _beat(self) -> None:
        while not self._stop.wait(self._pause) and not self.lost:
            # Where the registry cannot be reached, work goes on: the fence decides in the end. What else it refuses,
            # the worker itself meets too, and ends by.
            began = time.monotonic()
            with contextlib.suppress(Refused):
                if _went_through(self, lambda: self._client.post_progress(self._job)):
                    self._held_at = began


def _went_through(hold: Hold, call: Callable[[], object]) -> bool:
    """Whether the registry took it. If not, the hold is lost where the run is another's, or it may take it later.

    Raises Refused for what it will never take.
    """
    try:
        call()
    except Unreachable:
        return False
    except Refused as error:
        if error.status in (404, 409):
            hold.lose()
        elif not _passes(error):
            raise
        return False
    return True


def _passes(error: Refused) -> bool:
    """Whether it may be otherwise in a while."""
    return error.status >= 500 or error.status == 429


class _Attempt:
    """One claim of one run: its files prepared, its trainer watched, its result pushed."""

    def __init__(self, client: Client, place: Workplace, job: TrainingJob, hold: Hold, report: Reporter) -> None:
        self._client, self._place, self._job, self._hold, self._report = client, place, job, hold, report
        self._space = Workspace(place.runs / job.id)
        self._order = Order(fence=job.fence, base="")
        command = (*place.trainer, str(self._space.root), str(job.fence))
        self._task = Task(job.id, job.fence, command, self._space.root, self._space.log(job.fence))
        self._told = _Tail(self._space.told(job.fence))
        self._log = _Tail(self._space.log(job.fence))
        self._said = 0
        self._waiting: list[ProgressNote] = []
        self._text, self._text_at = "", 0

    def run(self) -> Fault | None:
        """Train and push; why it failed, or None where it did not, or where the run is no longer this worker's."""
        try:
            recipe = parse_recipe(self._job.recipe)
        except InvalidRequest as error:
            return user_error("recipe_invalid", str(error))
        self._say(f"worker {socket.gethostname()} prepares the run")
        try:
            if fault := self._prepare(recipe):
                return fault
            self._place.launcher.start(self._task)
        except CannotLaunch as error:
            return system_error("cannot_launch", f"{error}; resume the run once that is mended")
        except OSError as error:
            return fault_of(error, "input_invalid")
        except Refused as error:
            return system_error("registry_failed", f"the data cannot be fetched: {error}", retry=_passes(error))
        ended = self._watched()
        if isinstance(ended, Fault) or ended is None:
            return ended
        return self._pushed(Path(ended))

    def stop(self, *, gently: bool) -> None:
        """End the trainer: after its step and with a checkpoint, of which the registry hears, or at once."""
        now = read_whole(self._space.order, Order)
        if gently and now is not None and now.fence == self._job.fence:  # otherwise the next attempt has begun
            write_whole(self._space.order, msgspec.structs.replace(self._order, stop=True))
            deadline = time.monotonic() + _PAUSE_SECONDS
            while not self._place.launcher.stage(self._task).over and time.monotonic() < deadline:
                time.sleep(_LOOK_SECONDS)
        self._place.launcher.stop(self._task)
        if gently:
            with contextlib.suppress(Refused):  # by who stopped it, or has the run now
                self._tell_news(last_words=True)

    def insist(self, call: Callable[[], object]) -> bool:
        """Have the registry take how the run ended, with all that was told before: tried while the lease holds."""
        pause = _FIRST_PAUSE
        for _ in range(_MOST_TRIES):
            with contextlib.suppress(Refused):  # words that it will never take keep no run from its end
                self._tell_news()
            if not self._hold.lost and _went_through(self._hold, call):
                return True
            if not self._hold.wait(pause):
                return False
            pause = min(2 * pause, _LONGEST_PAUSE)
        return False

    # -- parts -----------------------------------------------------------------------------------------------------

    def _prepare(self, recipe: Recipe) -> Fault | None:
        space, job = self._space, self._job
        base = find_base(self._place.bases, job.base.digest, recipe.base)
        if base is None:
            searched = ", ".join(map(str, self._place.bases))
            return system_error(
                "base_missing",
                f"no base model with digest {job.base.digest} ({job.base.id}) under {searched} of "
                f"{socket.gethostname()}; put it there, or give the worker its directory, and resume the run",
            )
        space.root.mkdir(parents=True, exist_ok=True)
        for old in [*space.root.glob("told-*.jsonl"), *space.root.glob("log-*.txt"), *space.root.glob("ended-*.json")]:
            old.unlink()
        space.recipe.unlink(missing_ok=True)  # where it is a link, its target is nothing of the run's
        space.recipe.write_bytes(job.recipe.encode())
        wanted = [(space.data(recipe.data), job.dataset)] + ([(space.replay, job.replay)] if job.replay else [])
        if recipe.dpo and job.preferences:
            wanted.append((space.pairs(recipe.dpo.pairs), job.preferences))
        for path, digest in wanted:
            self._client.download(digest.removeprefix("sha256:"), path)
        saved = tuple(one.step for one in self._client.training_checkpoints(job.id))
        self._order = Order(fence=job.fence, base=str(base), saved=saved)
        write_whole(space.order, self._order)
        return None

    def _watched(self) -> Fault | str | None:
        """Watch the trainer to its end: the directory of what came of it, why it failed, or None where it was ended."""
        launcher, said = self._place.launcher, ""
        while True:
            stage = launcher.stage(self._task)  # before the files: what was written by then is read now
            self._tell_news()
            if self._hold.lost:
                self.stop(gently=self._is_paused())
                return None
            if stage.over:
                break
            if stage.name == "waiting" and said != stage.name:
                self._say("waits for a place")
            said = stage.name
            time.sleep(_LOOK_SECONDS)
        ended = read_whole(self._space.ended(self._job.fence), Ended)
        if ended is None:
            return fault_of_exit(stage.code, stage.reason, self._log.end(2000))
        if ended.error is not None:
            return Fault(ended.error, ended.retry)
        if ended.directory is None:
            return system_error("stopped", "the trainer was stopped, not by this worker", retry=True)
        return ended.directory

    def _pushed(self, directory: Path) -> Fault | None:
        record = msgspec.json.decode((directory / "training.json").read_bytes(), type=TrainingRecord)
        record = msgspec.structs.replace(record, run=self._job.id)
        result = Result(
            self._job.adapter, directory / "adapter", record, directory / "dataset.jsonl", directory / "ledger.parquet"
        )
        self._say("pushing the adapter")
        self._tell_news()
        try:
            ref = self._place.publish(result)
            finished = self.insist(lambda: self._client.finish_training(self._job, ref))
        except InvalidRequest as error:
            return user_error("version_refused", str(error))
        except Refused as error:
            if _passes(error):
                return system_error("registry_failed", str(error), retry=True)
            return user_error("version_refused", f"the registry refuses the adapter: {error}")
        if not finished:
            if not self._hold.lost:
                self._report.stage(f"{self._job.id}: {ref} could not be told; the next worker finishes the run")
            return None
        self._report.stage(f"{self._job.id}: finished as {ref}")
        shutil.rmtree(self._space.root, ignore_errors=True)
        return None

    def _is_paused(self) -> bool:
        """Whether a checkpoint of the present step is worth waiting for."""
        try:
            return self._client.training(self._job.id).status is TrainingStatus.PAUSED
        except (Refused, Unreachable):
            return False

    # -- telling ---------------------------------------------------------------------------------------------------

    def _say(self, message: str) -> None:
        self._note(Told(message=message))

    def _note(self, told: Told) -> None:
        self._said += 1
        self._waiting.append(
            ProgressNote(number=self._said, message=told.message[:4000], level=told.level, step=told.step)
        )
        if told.step is None:
            self._report.stage(told.message)
        elif not told.step.checkpoint:
            loss = {} if told.step.loss is None else {"loss": told.step.loss}
            self._report.step(told.step.step, told.step.steps, loss)

    def _tell_news(self, *, last_words: bool = False) -> None:
        """Post what is new. What cannot be posted now waits, as far as memory should go."""
        for line in self._told.lines():
            with contextlib.suppress(msgspec.DecodeError):
                self._note(msgspec.json.decode(line, type=Told))
        if not self._text:
            self._text_at, self._text = self._log.read(_MOST_LOG)
        while (self._waiting or self._text) and (last_words or not self._hold.lost):
            notes = self._waiting[:_MOST_NOTES]
            text, at = self._text, self._text_at
            post = partial(self._client.post_progress, self._job, notes, text, at, last_words=last_words)
            if not _went_through(self._hold, post):
                del self._waiting[:-20_000]
                return
            del self._waiting[: len(notes)]
            self._text_at, self._text = self._log.read(_MOST_LOG)


class _Tail:
    """Reads a file that grows, from where it stopped."""

    def __init__(self, path: Path) -> None:
        self._path, self._at, self._rest = path, 0, b""
        self._decoder, self._given = codecs.getincrementaldecoder("utf-8")("replace"), 0

    def lines(self) -> list[bytes]:
        """The whole lines that are new."""
        data = self._rest + self._new(-1)
        *found, self._rest = data.split(b"\n")
        return found

    def read(self, most: int) -> tuple[int, str]:
        """Where the next text begins, in bytes of all texts so far, and the text.

        Not in bytes of the file: each that is no character is told as U+FFFD, which has three.
        """
        start = self._given
        text = self._decoder.decode(self._new(most))  # which keeps the beginning of a character for the next time
        self._given += len(text.encode())
        return start, text

    def end(self, most: int) -> str:
        try:
            return self._path.read_bytes()[-most:].decode(errors="replace").strip()
        except OSError:
            return ""

    def _new(self, most: int) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                data = file.read(most)
        except OSError:
            return b""
        self._at += len(data)
        return data


@contextlib.contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """A supervisor's signal stops the trainer after its step, as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
