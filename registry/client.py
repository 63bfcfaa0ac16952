"""The Python SDK: everything the HTTP API offers, as typed calls.

    from registry.client import Client

    with Client("http://127.0.0.1:8420", token="tg_…") as client:
        print(client.resolve("support-bot@approved").digest)

A call that changes something carries an Idempotency-Key, so it is sent again after a lost connection without harm.
`AsyncClient` offers the calls that services make while serving: resolve, alias, gate, download.
"""

import contextlib
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from registry.bases import describe_base
from registry.errors import InvalidRequest, TunegateError
from registry.gate.curtail import accuracy_is_lost, forgetting_is_lost
from registry.gate.summary import Sections, summarise
from registry.inspection.adapter import ACCEPTED_FILES
from registry.names import check_hex, digest_of
from registry.records import (
    AdapterInfo,
    AddKey,
    AddPublisher,
    AddReviewer,
    Adjudicate,
    AliasInfo,
    AliasMove,
    Assignment,
    AssignmentInfo,
    Bundle,
    Campaign,
    ClaimJob,
    ConsistencyProof,
    Countersign,
    CreateAdapter,
    CreateToken,
    CreateTraining,
    CreateWebhook,
    DeliveryAccepted,
    DeliveryInfo,
    Dispute,
    Envelope,
    Evidence,
    FailJob,
    FaultKind,
    FileEntry,
    FinishTraining,
    GateReport,
    InclusionProof,
    ItemRow,
    Job,
    JobInfo,
    JournalEntry,
    KeySet,
    Lease,
    MintToken,
    Page,
    Policy,
    PolicyInfo,
    PostEvidence,
    PostProgress,
    ProgressNote,
    Promote,
    Proposal,
    PublicKey,
    PublisherInfo,
    Rating,
    RegisterSuite,
    Reject,
    Resolved,
    ReviewedItem,
    ReviewerInfo,
    ReviewProgress,
    ReviewResult,
    Revoke,
    Rollback,
    SealCampaign,
    Skip,
    StepProgress,
    SubmitVersion,
    Suite,
    TokenCreated,
    TokenInfo,
    TrainingEvent,
    TrainingInfo,
    TrainingJob,
    VersionCreated,
    VersionInfo,
    WebhookCreated,
    WebhookInfo,
)
from registry.storage.files import sync_directory
from registry.suites import (
    Choice,
    Conversation,
    Document,
    Item,
    LmEvalTask,
    Message,
    Prompt,
    Question,
    Refusal,
    SuiteContent,
    read_suite,
)

__all__ = [
    "AsyncClient",
    "Choice",
    "Client",
    "Conversation",
    "Document",
    "InvalidRequest",
    "Item",
    "LmEvalTask",
    "Message",
    "Prompt",
    "Question",
    "Refusal",
    "Refused",
    "Sections",
    "SuiteContent",
    "Unreachable",
    "accuracy_is_lost",
    "describe_base",
    "describe_file",
    "digest_of",
    "forgetting_is_lost",
    "read_suite",
    "summarise",
]

T = TypeVar("T")
_ATTEMPTS = 4
_CHUNK_BYTES = 4 * 1024 * 1024
_AGAIN = (502, 503, 504)


class Refused(TunegateError):
    """The registry said no: `status`, stable `code`, all `problems`, and the gate's `report` if there is one."""

    def __init__(
        self, message: str, *, status: int, code: str, problems: list[str], report: GateReport | None, offset: int = 0
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.problems, self.report, self.offset = status, code, problems, report, offset


class Unreachable(TunegateError):
    """No answer: nothing listens, the connection broke again and again, or what answered is not a registry."""


class _Call(NamedTuple, Generic[T]):
    """One request and the type of its answer."""

    method: str
    path: str
    answer: type[T]
    body: Any = None
    params: dict[str, Any] = {}
    headers: dict[str, str] = {}


def _adapter_path(adapter: str) -> str:
    return "/v1/adapters/" + quote(adapter, safe="/")


def _version_path(ref: str) -> str:
    adapter, _, number = ref.rpartition("/")
    return f"{_adapter_path(adapter)}/versions/{int(number)}"


def _resolve(ref: str) -> _Call[Resolved]:
    return _Call("GET", "/v1/resolve", Resolved, params={"ref": ref})


def _alias(adapter: str, alias: str) -> _Call[AliasInfo]:
    return _Call("GET", f"{_adapter_path(adapter)}/aliases/{quote(alias, safe='')}", AliasInfo)


def _gate(ref: str) -> _Call[GateReport]:
    return _Call("GET", f"{_version_path(ref)}/gate", GateReport)


class Client:
    """Blocking client. Raises Refused for what the registry refuses and Unreachable where there is no answer."""

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 60.0) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(base_url=self.url, headers=_auth(token), timeout=timeout)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # -- adapters and versions ---------------------------------------------------------------------------------

    def create_adapter(self, request: CreateAdapter) -> AdapterInfo:
        return self._send(_Call("POST", "/v1/adapters", AdapterInfo, request))

    def adapter(self, adapter: str) -> AdapterInfo:
        return self._send(_Call("GET", _adapter_path(adapter), AdapterInfo))

    def adapters(self) -> Iterator[AdapterInfo]:
        return self._pages("/v1/adapters", Page[AdapterInfo], {})

    def policy(self, adapter: str) -> PolicyInfo:
        return self._send(_Call("GET", f"{_adapter_path(adapter)}/policy", PolicyInfo))

    def set_policy(self, adapter: str, policy: Policy, *, if_match: str | None = None) -> PolicyInfo:
        call = _Call("PUT", f"{_adapter_path(adapter)}/policy", PolicyInfo, policy, headers=_match(if_match))
        return self._send(call)

    def register_suite(self, request: RegisterSuite) -> Suite:
        return self._send(_Call("POST", "/v1/suites", Suite, request))

    def suites(self) -> list[Suite]:
        return self._send(_Call("GET", "/v1/suites", list[Suite]))

    def submit(self, adapter: str, request: SubmitVersion) -> VersionCreated:
        return self._send(_Call("POST", f"{_adapter_path(adapter)}/versions", VersionCreated, request))

    def complete(self, ref: str) -> VersionCreated:
        return self._send(_Call("POST", f"{_version_path(ref)}/complete", VersionCreated))

    def version(self, ref: str) -> VersionInfo:
        return self._send(_Call("GET", _version_path(ref), VersionInfo))

    def versions(
        self, adapter: str, states: list[str] | None = None, where: str | None = None
    ) -> Iterator[VersionInfo]:
        """Newest first. where: conditions on what the gate observed, as `accuracy >= 0.85 and perplexity < 6`."""
        wanted = {"state": states or []} | ({"where": where} if where is not None else {})
        return self._pages(f"{_adapter_path(adapter)}/versions", Page[VersionInfo], wanted)

    def gate(self, ref: str) -> GateReport:
        return self._send(_gate(ref))

    def bundle(self, ref: str) -> Bundle:
        """What the verdict was decided from; `evidence.rows` names the blob that belongs to it."""
        return self._send(_Call("GET", f"{_version_path(ref)}/bundle", Bundle))

    def items(self, ref: str, suite: str) -> Iterator[ItemRow]:
        return self._pages(f"{_version_path(ref)}/items", Page[ItemRow], {"suite": suite})

    def resolve(self, ref: str) -> Resolved:
        return self._send(_resolve(ref))

    # -- approvals ---------------------------------------------------------------------------------------------

    def promote(
        self, ref: str, alias: str = "approved", *, if_match: str | None = None, reason: str | None = None
    ) -> AliasInfo:
        body = Promote(alias=alias, reason=reason)
        call = _Call("POST", f"{_version_path(ref)}/promote", AliasInfo, body, headers=_match(if_match))
        return self._send(call)

    def rollback(self, adapter: str, to: int, reason: str, alias: str = "approved") -> AliasInfo:
        path = f"{_adapter_path(adapter)}/aliases/{quote(alias, safe='')}/rollback"
        return self._send(_Call("POST", path, AliasInfo, Rollback(to=to, reason=reason)))

    def revoke(self, ref: str, reason: str) -> VersionInfo:
        return self._send(_Call("POST", f"{_version_path(ref)}/revoke", VersionInfo, Revoke(reason=reason)))

    def reject(self, ref: str, reason: str) -> VersionInfo:
        """Refuse a version that was not approved yet, for good."""
        return self._send(_Call("POST", f"{_version_path(ref)}/reject", VersionInfo, Reject(reason=reason)))

    def alias(self, adapter: str, alias: str = "approved") -> AliasInfo:
        return self._send(_alias(adapter, alias))

    def freshness(self, adapter: str, alias: str = "approved") -> Envelope:
        """The registry's signed word, good for a day, on what the alias names now."""
        return self._send(_Call("GET", f"{_adapter_path(adapter)}/aliases/{quote(alias, safe='')}/freshness", Envelope))

    def proposal(self, adapter: str, alias: str = "approved") -> Proposal:
        """The move of the alias that waits for a second signature."""
        return self._send(_Call("GET", f"{_adapter_path(adapter)}/aliases/{quote(alias, safe='')}/proposal", Proposal))

    def countersign(self, ref: str, request: Countersign) -> AliasInfo:
        return self._send(_Call("POST", f"{_version_path(ref)}/countersign", AliasInfo, request))

    def history(self, adapter: str, alias: str = "approved") -> list[AliasMove]:
        path = f"{_adapter_path(adapter)}/aliases/{quote(alias, safe='')}/history"
        return self._send(_Call("GET", path, list[AliasMove]))

    # -- jobs --------------------------------------------------------------------------------------------------

    def claim(self, kinds: list[str], worker: str, base: str | None = None) -> Job | None:
        """The next job, or None; `base`: only one about an adapter of the base with this digest."""
        body = ClaimJob(kinds=kinds, worker=worker, base=base)
        return self._send(_Call("POST", "/v1/jobs/claim", Job | None, body))  # type: ignore[arg-type]

    def heartbeat(self, job: Job) -> JobInfo:
        return self._send(_Call("POST", f"/v1/jobs/{job.id}/heartbeat", JobInfo, Lease(fence=job.fence)))

    def post_evidence(self, job: Job, evidence: Evidence) -> JobInfo:
        body = PostEvidence(fence=job.fence, evidence=evidence)
        return self._send(_Call("POST", f"/v1/jobs/{job.id}/evidence", JobInfo, body))

    def fail(self, job: Job, reason: str, *, retry: bool) -> JobInfo:
        body = FailJob(fence=job.fence, reason=reason[:4000], retry=retry)
        return self._send(_Call("POST", f"/v1/jobs/{job.id}/fail", JobInfo, body))

    # -- trainings ---------------------------------------------------------------------------------------------

    def submit_training(self, request: CreateTraining) -> TrainingInfo:
        """Queue a run; the same adapter, recipe and data again are the same run."""
        return self._send(_Call("POST", "/v1/trainings", TrainingInfo, request))

    def training(self, id_: str) -> TrainingInfo:
        return self._send(_Call("GET", _training_path(id_), TrainingInfo))

    def trainings(self, *, status: str | None = None, adapter: str | None = None) -> Iterator[TrainingInfo]:
        """Newest first."""
        wanted = {"status": status, "adapter": adapter}
        given = {key: value for key, value in wanted.items() if value is not None}
        return self._pages("/v1/trainings", Page[TrainingInfo], given)

    def cancel_training(self, id_: str) -> TrainingInfo:
        return self._send(_Call("POST", f"{_training_path(id_)}/cancel", TrainingInfo))

    def pause_training(self, id_: str) -> TrainingInfo:
        return self._send(_Call("POST", f"{_training_path(id_)}/pause", TrainingInfo))

    def resume_training(self, id_: str) -> TrainingInfo:
        return self._send(_Call("POST", f"{_training_path(id_)}/resume", TrainingInfo))

    def training_events(self, id_: str) -> Iterator[TrainingEvent]:
        """What happened so far, oldest first."""
        return self._pages(f"{_training_path(id_)}/events", Page[TrainingEvent], {})

    def training_metrics(self, id_: str, points: int = 1000) -> list[StepProgress]:
        return self._send(_Call("GET", f"{_training_path(id_)}/metrics", list[StepProgress], params={"points": points}))

    def training_log(self, id_: str) -> str:
        """The end of what the trainer printed."""
        return self._exchange("GET", f"{_training_path(id_)}/logs").text

    def follow_training(self, id_: str, after: str | None = None) -> Iterator[TrainingEvent]:
        """What happens to a run, as it happens, until it is over. A broken connection is continued where it broke."""
        failures = 0
        while True:
            headers, before = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {}), after
            try:
                with self._http.stream("GET", f"{_training_path(id_)}/events", headers=headers) as response:
                    if response.status_code != 200:
                        response.read()
                        _raise_for(response)
                    for line in response.iter_lines():
                        if line == "event: end":
                            return
                        if line.startswith("id: "):
                            after, failures = line[4:], 0
                        if line.startswith("data: "):
                            yield _decode_text(line[6:], TrainingEvent, self.url)
                if after == before:  # as where a service drains, which ends every stream that is opened
                    time.sleep(1.0)
            except httpx.HTTPError as error:
                failures += 1
                if failures == _ATTEMPTS:
                    raise Unreachable(_no_answer(self.url, error)) from None
                time.sleep(0.3 * 2**failures)

    def claim_training(self, worker: str, base: str | None = None) -> TrainingJob | None:
        """The next run, or None; `base`: only one of an adapter of the base with this digest."""
        body = ClaimJob(kinds=["training"], worker=worker, base=base)
        return self._send(_Call("POST", "/v1/jobs/claim", TrainingJob | None, body))  # type: ignore[arg-type]

    def post_progress(
        self, job: TrainingJob, notes: Sequence[ProgressNote] = (), log: str = "", log_from: int = 0
    ) -> JobInfo:
        """Tell of a run, or hold its lease. Refused with 409 once it was paused, cancelled or taken over."""
        body = PostProgress(fence=job.fence, notes=list(notes), log=log, log_from=log_from)
        return self._send(_Call("POST", f"/v1/jobs/{job.id}/progress", JobInfo, body))

    def finish_training(self, job: TrainingJob, version: str) -> JobInfo:
        body = FinishTraining(fence=job.fence, version=version)
        return self._send(_Call("POST", f"/v1/jobs/{job.id}/finish", JobInfo, body))

    def fail_training(self, job: TrainingJob, kind: FaultKind, code: str, reason: str, *, retry: bool) -> JobInfo:
        body = FailJob(fence=job.fence, reason=reason[:4000], retry=retry, code=code, kind=kind)
        return self._send(_Call("POST", f"/v1/jobs/{job.id}/fail", JobInfo, body))

    # -- review ------------------------------------------------------------------------------------------------

    def next_assignment(self) -> Assignment | None:
        return self._send(_Call("GET", "/v1/review/next", Assignment | None))  # type: ignore[arg-type]

    def rate(self, assignment: str, rating: Rating) -> ReviewProgress:
        return self._send(_Call("POST", f"/v1/review/assignments/{assignment}/rating", ReviewProgress, rating))

    def skip(self, assignment: str, reason: str) -> ReviewProgress:
        body = Skip(reason=reason)
        return self._send(_Call("POST", f"/v1/review/assignments/{assignment}/skip", ReviewProgress, body))

    def review_progress(self) -> ReviewProgress:
        return self._send(_Call("GET", "/v1/review/progress", ReviewProgress))

    def assignments(self) -> list[AssignmentInfo]:
        """One's own items so far, in the order in which they were met."""
        return self._send(_Call("GET", "/v1/review/assignments", list[AssignmentInfo]))

    def assignment(self, assignment: str) -> Assignment:
        """One of one's own items, with what one said of it."""
        return self._send(_Call("GET", f"/v1/review/assignments/{quote(assignment, safe='')}", Assignment))

    def checkout(self) -> list[Assignment]:
        """All that is left for one to rate, at once."""
        return self._send(_Call("POST", "/v1/review/checkout", list[Assignment]))

    def disputes(self) -> list[Dispute]:
        """Outputs that others rated unsafe, which one may decide about."""
        return self._send(_Call("GET", "/v1/review/disputes", list[Dispute]))

    def adjudicate(self, dispute: str, ruling: Adjudicate) -> Dispute:
        return self._send(_Call("POST", f"/v1/review/disputes/{quote(dispute, safe='')}", Dispute, ruling))

    def campaign(self, ref: str) -> Campaign:
        return self._send(_Call("GET", f"{_version_path(ref)}/campaign", Campaign))

    def seal(self, ref: str, reason: str) -> Campaign:
        """End a campaign with the ratings that there are."""
        return self._send(_Call("POST", f"{_version_path(ref)}/campaign/seal", Campaign, SealCampaign(reason=reason)))

    def review_result(self, ref: str) -> ReviewResult:
        return self._send(_Call("GET", f"{_version_path(ref)}/campaign/result", ReviewResult))

    def reviewed_items(self, ref: str) -> Iterator[ReviewedItem]:
        """Every item of a sealed campaign, with all that was said of it."""
        return self._pages(f"{_version_path(ref)}/campaign/items", Page[ReviewedItem], {})

    def vouch(self, request: AddReviewer) -> ReviewerInfo:
        """Say that a person may review in a domain."""
        return self._send(_Call("POST", "/v1/reviewers", ReviewerInfo, request))

    def reviewers(self) -> list[ReviewerInfo]:
        """All records, those too that no longer count."""
        return self._send(_Call("GET", "/v1/reviewers", list[ReviewerInfo]))

    def withdraw_reviewer(self, record_id: str) -> None:
        self._send(_Call("DELETE", f"/v1/reviewers/{quote(record_id, safe='')}", type(None)))

    # -- tokens, keys, audit -----------------------------------------------------------------------------------

    def create_token(self, request: CreateToken) -> TokenCreated:
        return self._send(_Call("POST", "/v1/tokens", TokenCreated, request))

    def tokens(self) -> list[TokenInfo]:
        return self._send(_Call("GET", "/v1/tokens", list[TokenInfo]))

    def revoke_token(self, token_id: str) -> None:
        self._send(_Call("DELETE", f"/v1/tokens/{quote(token_id, safe='')}", type(None)))

    def create_webhook(self, request: CreateWebhook) -> WebhookCreated:
        return self._send(_Call("POST", "/v1/webhooks", WebhookCreated, request))

    def webhooks(self) -> list[WebhookInfo]:
        return self._send(_Call("GET", "/v1/webhooks", list[WebhookInfo]))

    def delete_webhook(self, webhook_id: str) -> None:
        self._send(_Call("DELETE", _webhook_path(webhook_id), type(None)))

    def test_webhook(self, webhook_id: str) -> DeliveryAccepted:
        return self._send(_Call("POST", f"{_webhook_path(webhook_id)}/test", DeliveryAccepted))

    def deliveries(self, webhook_id: str) -> Iterator[DeliveryInfo]:
        """Newest first."""
        return self._pages(f"{_webhook_path(webhook_id)}/deliveries", Page[DeliveryInfo], {})

    def redeliver(self, webhook_id: str, delivery: str) -> DeliveryAccepted:
        path = f"{_webhook_path(webhook_id)}/deliveries/{quote(delivery, safe='')}/redeliver"
        return self._send(_Call("POST", path, DeliveryAccepted))

    def mint(self, request: MintToken) -> TokenCreated:
        """Exchange a CI's own token for one of ours; the client needs none for it."""
        return self._send(_Call("POST", "/v1/oidc/mint", TokenCreated, request))

    def add_publisher(self, request: AddPublisher) -> PublisherInfo:
        return self._send(_Call("POST", "/v1/publishers", PublisherInfo, request))

    def publishers(self) -> list[PublisherInfo]:
        return self._send(_Call("GET", "/v1/publishers", list[PublisherInfo]))

    def remove_publisher(self, publisher_id: str) -> None:
        self._send(_Call("DELETE", f"/v1/publishers/{quote(publisher_id, safe='')}", type(None)))

    def keys(self) -> KeySet:
        return self._send(_Call("GET", "/v1/keys", KeySet))

    def add_key(self, request: AddKey) -> PublicKey:
        return self._send(_Call("POST", "/v1/keys", PublicKey, request))

    def revoke_key(self, key_id: str, reason: str) -> PublicKey:
        path = f"/v1/keys/{quote(key_id, safe='')}/revoke"
        return self._send(_Call("POST", path, PublicKey, Revoke(reason=reason)))

    def audit_events(self, after: int = 0) -> Iterator[JournalEntry]:
        while page := self._send(_Call("GET", "/v1/audit/events", list[JournalEntry], params={"after": after})):
            yield from page
            after = page[-1].seq

    def checkpoint(self) -> str:
        """A signed note of how far the journal is and of what is in it; `registry.audit.checkpoint` reads it."""
        return self._exchange("GET", "/v1/audit/checkpoint").text

    def inclusion(self, seq: int, size: int) -> InclusionProof:
        """That entry `seq` is in the tree of a checkpoint of this size."""
        return self._send(_Call("GET", "/v1/audit/proof", InclusionProof, params={"seq": seq, "size": size}))

    def consistency(self, older: int, newer: int) -> ConsistencyProof:
        """That the tree of a checkpoint of size `newer` begins with that of one of size `older`."""
        sizes = {"from": older, "to": newer}
        return self._send(_Call("GET", "/v1/audit/consistency", ConsistencyProof, params=sizes))

    def ready(self) -> bool:
        """Whether a registry answers here and can be trusted."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    # -- blobs -------------------------------------------------------------------------------------------------

    def upload(self, source: Path | bytes) -> FileEntry:
        """Store a file's bytes; a broken upload is continued where it stopped. The entry's path is the file's name."""
        data: Path | bytes = source
        entry = describe_file(source) if isinstance(source, Path) else _describe_bytes(source)
        path, offset = f"/v1/blobs/sha256:{entry.sha256}", 0
        for attempt in range(_ATTEMPTS):
            headers = {"Content-Length": str(entry.size - offset), "Content-Type": "application/octet-stream"}
            if offset:
                headers["Content-Range"] = f"bytes {offset}-{entry.size - 1}/{entry.size}"
            try:
                _raise_for(self._http.put(path, content=_chunks(data, offset), headers=headers))
                return entry
            except Refused as error:
                if error.status not in (409, 416, *_AGAIN) or attempt == _ATTEMPTS - 1:
                    raise
                if error.status != 416:  # 409: the registry has not noticed yet that the first connection broke
                    time.sleep(0.3 * 2**attempt)
                    continue
                # All bytes kept and none to send: only from the start are they hashed again and published.
                offset = error.offset if error.offset < entry.size else 0
            except httpx.TransportError as error:
                if attempt == _ATTEMPTS - 1:
                    raise Unreachable(_no_answer(self.url, error)) from None
                time.sleep(0.3 * 2**attempt)
                # Ask where to go on: an offset that cannot be right is answered with the one that is.
                offset = max(1, entry.size - 1) if entry.size > 1 else 0
        raise Unreachable(f"{self.url} did not take {entry.path}")

    def download(self, sha256: str, target: Path) -> None:
        """Fetch a blob to `target`, whole and verified or not at all."""
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        digest = hashlib.sha256()
        try:
            with (
                partial.open("xb") as file,
                self._http.stream("GET", f"/v1/blobs/sha256:{check_hex(sha256)}") as response,
            ):
                if response.status_code != 200:
                    response.read()
                    _raise_for(response)
                for chunk in response.iter_bytes(_CHUNK_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if digest.hexdigest() != sha256:
                raise Unreachable(f"blob {sha256} arrived damaged: its bytes do not hash to that; try again")
            partial.replace(target)
        except httpx.HTTPError as error:
            raise Unreachable(_no_answer(self.url, error)) from None
        finally:
            partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def download_files(self, files: Sequence[FileEntry], target: Path) -> Iterator[Path]:
        """Fetch an adapter's files into a new directory, which becomes `target` when the block ends well.

        The block may add to the directory it is given. Raises Unreachable for a name that is no adapter's.
        """
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        partial.mkdir(parents=True)
        try:
            for entry in files:
                if entry.path not in ACCEPTED_FILES:
                    raise Unreachable(f"the registry offers {entry.path!r}, no file of an adapter; it is not fetched")
                self.download(entry.sha256, partial / entry.path)
            yield partial
            partial.replace(target)
            sync_directory(target.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def suite_content(self, suite: Suite) -> SuiteContent:
        """The parsed files of a registered suite, their digests checked."""
        content = {}
        for file in suite.files:
            response = self._exchange("GET", f"/v1/blobs/sha256:{file.sha256}")
            if hashlib.sha256(response.content).hexdigest() != file.sha256:
                raise Unreachable(f"{suite.name}/{file.path} arrived damaged; try again")
            content[file.path] = response.content
        return read_suite(content)

    # -- sending -----------------------------------------------------------------------------------------------

    def _send(self, call: _Call[T]) -> T:
        response = self._exchange(
            call.method, call.path, content=_encode(call), params=call.params, headers=_headers(call)
        )
        return _decode(response, call.answer)

    def _exchange(self, method: str, path: str, **request: Any) -> httpx.Response:
        for attempt in range(_ATTEMPTS):
            try:
                response = self._http.request(method, path, **request)
                if response.status_code not in _AGAIN or attempt == _ATTEMPTS - 1:
                    return _raise_for(response)
            except httpx.ConnectError as error:
                raise Unreachable(_no_answer(self.url, error)) from None
            except httpx.HTTPError as error:
                if attempt == _ATTEMPTS - 1:
                    raise Unreachable(_no_answer(self.url, error)) from None
            time.sleep(0.3 * 2**attempt)
        raise AssertionError("unreachable")

    def _pages(self, path: str, page: type[Page[T]], params: dict[str, Any]) -> Iterator[T]:
        cursor = None
        while True:
            found = self._send(_Call("GET", path, page, params={**params, **({"cursor": cursor} if cursor else {})}))
            yield from found.items
            if (cursor := found.next_cursor) is None:
                return


class AsyncClient:
    """The calls that services make while serving."""

    def __init__(self, url: str, token: str | None = None, *, timeout: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.AsyncClient(base_url=self.url, headers=_auth(token), timeout=timeout)

    async def close(self) -> None:
        await self._http.aclose()

    async def resolve(self, ref: str) -> Resolved:
        return await self._send(_resolve(ref))

    async def alias(self, adapter: str, alias: str = "approved") -> AliasInfo:
        return await self._send(_alias(adapter, alias))

    async def gate(self, ref: str) -> GateReport:
        return await self._send(_gate(ref))

    @contextlib.asynccontextmanager
    async def download(self, sha256: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream a blob's bytes; the caller checks them against the digest."""
        async with self._http.stream("GET", f"/v1/blobs/sha256:{check_hex(sha256)}") as response:
            if response.status_code != 200:
                await response.aread()
                _raise_for(response)
            yield response.aiter_bytes(_CHUNK_BYTES)

    async def _send(self, call: _Call[T]) -> T:
        try:
            response = await self._http.request(call.method, call.path, params=call.params, headers=_headers(call))
        except httpx.HTTPError as error:
            raise Unreachable(_no_answer(self.url, error)) from None
        return _decode(_raise_for(response), call.answer)


def _training_path(id_: str) -> str:
    return f"/v1/trainings/{quote(id_, safe='')}"


def _decode_text(text: str, kind: type[T], url: str) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise Unreachable(f"{url} sent an event that a tunegate registry would not: {error}") from None


def _webhook_path(webhook_id: str) -> str:
    return f"/v1/webhooks/{quote(webhook_id, safe='')}"


def describe_file(path: Path) -> FileEntry:
    """Name, size and sha256 of a file."""
    digest, size = hashlib.sha256(), 0
    for chunk in _chunks(path, 0):
        digest.update(chunk)
        size += len(chunk)
    return FileEntry(path=path.name, size=size, sha256=digest.hexdigest())


def _describe_bytes(data: bytes) -> FileEntry:
    return FileEntry(path="data", size=len(data), sha256=hashlib.sha256(data).hexdigest())


def _chunks(source: Path | bytes, offset: int) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source[offset:]
        return
    with source.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _auth(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _match(etag: str | None) -> dict[str, str]:
    return {"If-Match": f'"{etag}"'} if etag is not None else {}


def _headers(call: _Call[Any]) -> dict[str, str]:
    changes = call.method != "GET"
    key = {"Idempotency-Key": str(uuid.uuid4())} if changes else {}
    kind = {"Content-Type": "application/json"} if call.body is not None else {}
    return {**key, **kind, **call.headers}


def _encode(call: _Call[Any]) -> bytes | None:
    return msgspec.json.encode(call.body) if call.body is not None else None


def _decode(response: httpx.Response, kind: type[T]) -> T:
    if response.status_code == 204:
        return msgspec.convert(None, kind)
    try:
        return msgspec.json.decode(response.content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreachable(f"{response.url} answered what a tunegate registry would not: {error}") from None


class _ProblemBody(msgspec.Struct):
    detail: str
    code: str
    problems: list[str] = []
    report: GateReport | None = None
    offset: int = 0


def _raise_for(response: httpx.Response) -> httpx.Response:
    if response.status_code < 400:
        return response
    try:
        problem = msgspec.json.decode(response.content, type=_ProblemBody)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unreachable(f"{response.url} answered {response.status_code}, but is not a tunegate registry") from None
    raise Refused(
        problem.detail,
        status=response.status_code,
        code=problem.code,
        problems=problem.problems,
        report=problem.report,
        offset=problem.offset,
    )


def _no_answer(url: str, error: Exception) -> str:
    return f"no answer from {url} ({error or type(error).__name__}); is `tunegate serve` running there?"
