"""Registry: the one door. Every use case is a command: look up, decide, apply and append.

    registry.execute(principal, partial(versions.submit, adapter="support-bot", request=...))

Commands run one after another on one thread, several to a transaction, so each decides on the state that the one
before it left. Reads run beside them, each thread on a cursor of its own.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import duckdb
import msgspec

from registry.access import SERVICE, Principal, authenticate, check_token
from registry.approval.attestation import Signer
from registry.commands.context import Command, Context, Outcome, Services
from registry.commands.erasure import is_needed
from registry.commands.leases import Leases
from registry.errors import (
    Conflict,
    IdempotencyMismatch,
    InvalidRequest,
    StorageDamaged,
    StorageFull,
    TunegateError,
    Unavailable,
)
from registry.events import Actor, Entry, Receipt
from registry.kept import Changes, Kept, token_subject
from registry.names import digest_of, sha256_hex
from registry.records import Role
from registry.settings import Home
from registry.storage.blobs import LocalBlobs
from registry.storage.catalog import Catalog
from registry.storage.journal import Head, Journal, Line, line_of
from registry.storage.progress import ProgressFiles
from registry.storage.views import StoredToken, View

T = TypeVar("T")
SYSTEM = Principal(token=None, person=SERVICE, role=Role.ADMIN)
_GROUP = 64
_TIMEOUT_SECONDS = 30.0
_MAX_KEY = 200
_NO_CONTENT = 204
_TOKENS_KEPT = 10_000
_CLOSED = "the registry is shutting down; ask again in a moment"


class Answer(NamedTuple):
    """What a command returned; `repeated` when an Idempotency-Key was seen before and nothing was done again."""

    value: Any
    status: int
    repeated: bool


class Repeat(NamedTuple):
    """An Idempotency-Key with a digest of the request it came with."""

    key: str
    request: str


class _Task(NamedTuple):
    principal: Principal
    command: Command
    repeat: Repeat | None
    answer: "Future[Answer]"


class _Decided(NamedTuple):
    """What a task comes to. discard: as of its Outcome."""

    entry: Entry | None
    answer: Answer | TunegateError
    discard: Sequence[str] = ()


class Registry:
    """Owns journal, catalog and blobs for as long as it lives. Thread-safe."""

    def __init__(
        self,
        *,
        journal: Journal,
        catalog: Catalog,
        blobs: LocalBlobs,
        signer: Signer,
        draw_secret: bytes,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        lease_seconds: float = 30.0,
        approval_days: int = 365,
        home: Home | None = None,
    ) -> None:
        self.blobs, self.home = blobs, home
        self._journal, self._catalog, self._clock = journal, catalog, clock
        leases = Leases(lease_seconds, time.monotonic)
        self._services = Services(
            blobs,
            signer,
            draw_secret,
            leases,
            catalog.read_rows,
            approval_days,
            ProgressFiles(home.trainings if home else None),
        )
        self.changes = Changes(journal.head.seq)
        # When each token was last let in, since this process started: worth knowing, not worth an entry.
        self.last_used: dict[str, datetime] = {}
        self._tokens: Kept[tuple[StoredToken, Principal]] = Kept(self.changes, _TOKENS_KEPT)
        self._damage: str | None = None
        self._closing = self.draining = False
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="tunegate-writer", daemon=True)
        self._writer.start()

    # -- the door ----------------------------------------------------------------------------------------------

    def execute(self, principal: Principal, command: Command, repeat: Repeat | None = None) -> Answer:
        """Run one command and return when its events are durable.

        Raises the TunegateError that the command decided on; nothing was changed then.
        """
        try:
            return self.submit(principal, command, repeat).result(timeout=_TIMEOUT_SECONDS)
        except TimeoutError:
            raise Unavailable("the registry is too busy to answer; the outcome is unknown, ask again") from None

    def submit(self, principal: Principal, command: Command, repeat: Repeat | None = None) -> "Future[Answer]":
        """As `execute`, without waiting: the future holds the answer or the error."""
        if self._damage:
            raise StorageDamaged(self._damage)
        if self._closing:
            raise Unavailable(_CLOSED)
        if repeat and not 0 < len(repeat.key) <= _MAX_KEY:
            raise InvalidRequest(f"Idempotency-Key must have 1 to {_MAX_KEY} characters; a UUID is usual")
        task = _Task(principal, command, repeat, Future())
        self._tasks.put(task)
        return task.answer

    def view(self) -> View:
        """The committed state, for the calling thread."""
        self._require_trust()
        return self._catalog.view()

    def ask(self, principal: Principal, question: Callable[[Context], T]) -> T:
        """Answer a question about the committed state, the same state for all that it looks at."""
        now = self._clock()
        self._require_trust()
        with self._explaining(), self._catalog.snapshot() as view:
            return question(Context(view, principal, _stamp(now), now, self._services))

    def glance(self, principal: Principal, question: Callable[[Context], T]) -> T:
        """As `ask`, mostly from memory, for what needs no single state: a look ahead that a command checks again."""
        now = self._clock()
        self._require_trust()
        with self._explaining():
            return question(Context(self._catalog.glance(), principal, _stamp(now), now, self._services))

    def authenticate(self, token: str) -> Principal:
        """The principal of a token's text; Unauthenticated says what is wrong with it."""
        seq = self.changes.visible
        view = self.view()
        now = self._clock()
        with self._explaining():
            principal = authenticate(view, token, now)
            stored = view.token(principal.token) if principal.token else None
        if stored:
            self._note_use(stored.id, now)
            subject = token_subject(stored.id)
            self._tokens.put(sha256_hex(token.encode()), (stored, principal), subject=subject, seq=seq)
        return principal

    def recognise(self, token: str) -> Principal | None:
        """As `authenticate`, from memory; None for a token that has to be looked up."""
        self._require_trust()
        known = self._tokens.get(sha256_hex(token.encode()))
        if known is None:
            return None
        stored, principal = known
        now = self._clock()
        check_token(stored, now)
        self._note_use(stored.id, now)
        return principal

    def _note_use(self, token: str, now: datetime) -> None:
        if len(self.last_used) >= _TOKENS_KEPT:
            self.last_used.clear()
        self.last_used[token] = now

    def now(self) -> datetime:
        """What this registry's clock says."""
        return self._clock()

    def _require_trust(self) -> None:
        if self._damage:
            raise StorageDamaged(self._damage)

    @property
    def journal(self) -> Journal:
        return self._journal

    @property
    def services(self) -> Services:
        return self._services

    @property
    def damage(self) -> str | None:
        """Why nothing can be served any more, or None."""
        return self._damage

    @property
    def waiting(self) -> int:
        """Commands that nobody has begun to run."""
        return self._tasks.qsize()

    def drain(self) -> None:
        """Go on, but say that the end is near; `draining` tells."""
        self.draining = True

    def close(self) -> None:
        """Finish what was accepted, then close journal and catalog."""
        self._closing = True
        self._tasks.put(None)
        self._writer.join(timeout=_TIMEOUT_SECONDS)
        while not self._tasks.empty():
            # Came between the flag and the writer's end; nobody will run it any more.
            if task := self._tasks.get():
                task.answer.set_exception(Unavailable(_CLOSED))
        self._catalog.close()
        self._journal.close()

    # -- the writer --------------------------------------------------------------------------------------------

    def _write(self) -> None:
        stopping = False
        while not stopping:
            group: list[_Task] = []
            task = self._tasks.get()
            while task is not None:
                group.append(task)
                if len(group) == _GROUP:
                    break
                with contextlib.suppress(queue.Empty):
                    task = self._tasks.get_nowait()
                    continue
                break
            stopping = task is None
            if group:
                self._run(group)

    def _run(self, group: Sequence[_Task]) -> None:
        """All tasks in one transaction and one fsync; if one cannot be applied, each on its own."""
        try:
            answers = self._commit(group)
        except Exception as error:
            if len(group) > 1 and self._damage is None:
                for task in group:
                    self._run([task])
                return
            for task in group:
                task.answer.set_exception(self._explained(error))
            return
        for task, answer in zip(group, answers, strict=True):
            if isinstance(answer, TunegateError):
                task.answer.set_exception(answer)
            else:
                task.answer.set_result(answer)

    def _commit(self, group: Sequence[_Task]) -> list[Answer | TunegateError]:
        if self._damage:
            raise StorageDamaged(self._damage)
        appended = False
        decided: list[_Decided] = []
        try:
            with self._catalog.explaining(), self._catalog.transaction() as view:
                head, lines = self._journal.head, list[Line]()
                for task in group:
                    decided.append(self._decide(view, task, head))
                    if (entry := decided[-1].entry) is not None:
                        # Fold what a rebuild will read.
                        line = line_of(entry)
                        head = Head(line.entry.seq, line.hash)
                        self._catalog.apply(line.entry, line.hash)
                        lines.append(line)
                if lines:
                    # Now the keys speak: what they refuse is not journalled.
                    self._catalog.write_out()
                    self._append(lines)
                    appended = True
                    self.changes.begin([line.entry for line in lines])
            self.changes.end(head.seq)
        except StorageDamaged as error:
            self._damage = str(error)
            if not appended:
                raise
        except Exception as error:
            if not appended:
                raise
            # The journal has it, so it is accepted; the catalog folds it at the next start.
            self._damage = f"the catalog failed after the journal accepted: {error}; restart the service"
        return [self._answered(one) for one in decided]

    def _answered(self, one: _Decided) -> Answer | TunegateError:
        """What to answer after the commit, with what is to go deleted; here nothing can name it in between."""
        if not one.discard:
            return one.answer
        try:
            view = self.view()
            for sha256 in one.discard:
                if not is_needed(view, sha256):
                    self.blobs.discard(sha256)
        except TunegateError as error:
            return error
        except duckdb.Error as error:
            return StorageDamaged(f"what is to be deleted could not be looked up: {error}; ask again")
        return one.answer

    def _append(self, lines: Sequence[Line]) -> None:
        """Append, or stop for good: after any error but a full disk it is unknown what the journal holds."""
        try:
            self._journal.append(lines)
        except (StorageFull, StorageDamaged):
            raise
        except Exception as error:
            raise StorageDamaged(f"the journal could not be written: {error}; restart the service") from error

    def _decide(self, view: View, task: _Task, head: Head) -> _Decided:
        """The entry to append and what to answer; a refusal is an answer too, and appends nothing."""
        now = self._clock()
        actor = Actor(person=task.principal.person, role=task.principal.role, token=task.principal.token)
        try:
            if task.repeat and (earlier := _earlier(view, actor, task.repeat)):
                return _Decided(None, earlier)
            outcome = task.command(Context(view, task.principal, _stamp(now), now, self._services))
        except TunegateError as error:
            return _Decided(None, error)
        answer = Answer(outcome.answer, outcome.status, repeated=False)
        if not outcome.events:
            return _Decided(None, answer, outcome.discard)
        receipt = _receipt(task.repeat, outcome) if task.repeat else None
        entry = Entry(
            seq=head.seq + 1, prev=head.hash, at=_stamp(now), actor=actor, events=list(outcome.events), receipt=receipt
        )
        return _Decided(entry, answer, outcome.discard)

    def _explained(self, error: Exception) -> Exception:
        if isinstance(error, TunegateError):
            return error
        if isinstance(error, duckdb.ConstraintException):
            return Conflict("another change took this name, number or digest first; read again and retry")
        if isinstance(error, duckdb.FatalException):
            self._damage = f"the catalog failed: {error}; restart the service"
            return StorageDamaged(self._damage)
        return error

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        """What an error of the database means to whoever asked."""
        try:
            with self._catalog.explaining():
                yield
        except StorageDamaged as error:
            self._damage = str(error)
            raise
        except duckdb.Error as error:
            raise self._explained(error) from error


def request_digest(method: str, path: str, body: bytes) -> str:
    """What makes two requests the same under one Idempotency-Key."""
    return digest_of([method, path, body.hex()]).removeprefix("sha256:")


def _earlier(view: View, actor: Actor, repeat: Repeat) -> Answer | None:
    receipt = view.receipt(actor.token or actor.person, repeat.key)
    if receipt is None:
        return None
    if receipt.request != repeat.request:
        raise IdempotencyMismatch(
            f"Idempotency-Key {repeat.key!r} was used with another request; use a new key for a new request"
        )
    value = None if receipt.status == _NO_CONTENT else msgspec.Raw(receipt.answer)
    return Answer(value, receipt.status, repeated=True)


def _receipt(repeat: Repeat, outcome: Outcome) -> Receipt:
    kept = outcome.answer if outcome.remembered is None else outcome.remembered
    answer = {} if kept is None else msgspec.to_builtins(kept)
    return Receipt(key=repeat.key, request=repeat.request, status=outcome.status, answer=answer)


def _stamp(now: datetime) -> str:
    return now.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
