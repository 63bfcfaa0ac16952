"""Calls about work: training runs, as people start and follow them, and the jobs that workers claim and report on."""

import time
from collections.abc import Iterator, Sequence
from urllib.parse import quote

import httpx

from registry.client.calls import ATTEMPTS, Call, Refused, Unreachable, decode_text, no_answer, raise_for
from registry.client.sender import Sender
from registry.records import (
    ClaimJob,
    CreateTraining,
    Evidence,
    FailJob,
    FaultKind,
    FinishTraining,
    Job,
    JobInfo,
    Lease,
    Page,
    PostEvidence,
    PostProgress,
    ProgressNote,
    StepProgress,
    TrainingCheckpoint,
    TrainingEvent,
    TrainingInfo,
    TrainingJob,
)


class Jobs(Sender):
    """Training runs and evaluation jobs. A worker's call is refused once its lease is another's."""

    def submit_training(self, request: CreateTraining) -> TrainingInfo:
        """Queue a run; the same adapter, recipe and data again are the same run."""
        return self._send(Call("POST", "/v1/trainings", TrainingInfo, request))

    def training(self, id_: str) -> TrainingInfo:
        return self._send(Call("GET", _training_path(id_), TrainingInfo))

    def trainings(self, *, status: str | None = None, adapter: str | None = None) -> Iterator[TrainingInfo]:
        """Newest first."""
        wanted = {"status": status, "adapter": adapter}
        given = {key: value for key, value in wanted.items() if value is not None}
        return self._pages("/v1/trainings", Page[TrainingInfo], given)

    def cancel_training(self, id_: str) -> TrainingInfo:
        return self._send(Call("POST", f"{_training_path(id_)}/cancel", TrainingInfo))

    def pause_training(self, id_: str) -> TrainingInfo:
        return self._send(Call("POST", f"{_training_path(id_)}/pause", TrainingInfo))

    def resume_training(self, id_: str) -> TrainingInfo:
        return self._send(Call("POST", f"{_training_path(id_)}/resume", TrainingInfo))

    def training_events(self, id_: str) -> Iterator[TrainingEvent]:
        """What happened so far, oldest first."""
        return self._pages(f"{_training_path(id_)}/events", Page[TrainingEvent], {})

    def training_metrics(self, id_: str, points: int = 1000) -> list[StepProgress]:
        return self._send(Call("GET", f"{_training_path(id_)}/metrics", list[StepProgress], params={"points": points}))

    def training_checkpoints(self, id_: str) -> Iterator[TrainingCheckpoint]:
        """The steps that a run was saved after, the last first."""
        return self._pages(f"{_training_path(id_)}/checkpoints", Page[TrainingCheckpoint], {})

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
                        raise_for(response)
                    for line in response.iter_lines():
                        if line == "event: end":
                            return
                        if line.startswith("id: "):
                            after, failures = line[4:], 0
                        if line.startswith("data: "):
                            yield decode_text(line[6:], TrainingEvent, self.url)
                if after == before:  # as where a service drains, which ends every stream that is opened
                    time.sleep(1.0)
            except Refused as error:
                failures += 1
                if error.status != 429 or failures == ATTEMPTS:  # too many streams are open: one may end soon
                    raise
                time.sleep(0.3 * 2**failures)
            except httpx.HTTPError as error:
                failures += 1
                if failures == ATTEMPTS:
                    raise Unreachable(no_answer(self.url, error)) from None
                time.sleep(0.3 * 2**failures)

    def claim_training(self, worker: str, base: str | None = None) -> TrainingJob | None:
        """The next run, or None; `base`: only one of an adapter of the base with this digest."""
        body = ClaimJob(kinds=["training"], worker=worker, base=base)
        return self._send(Call("POST", "/v1/jobs/claim", TrainingJob | None, body))  # type: ignore[arg-type]

    def post_progress(
        self,
        job: TrainingJob,
        notes: Sequence[ProgressNote] = (),
        log: str = "",
        log_from: int = 0,
        *,
        last_words: bool = False,
    ) -> JobInfo:
        """Tell of a run, or hold its lease. Refused with 409 once it was paused, cancelled or taken over.

        last_words: what is left to tell of a run that was paused; refused once it goes on or is cancelled.
        """
        body = PostProgress(fence=job.fence, notes=list(notes), log=log, log_from=log_from, last_words=last_words)
        return self._send(Call("POST", f"/v1/jobs/{job.id}/progress", JobInfo, body))

    def finish_training(self, job: TrainingJob, version: str) -> JobInfo:
        body = FinishTraining(fence=job.fence, version=version)
        return self._send(Call("POST", f"/v1/jobs/{job.id}/finish", JobInfo, body))

    def fail_training(self, job: TrainingJob, kind: FaultKind, code: str, reason: str, *, retry: bool) -> JobInfo:
        body = FailJob(fence=job.fence, reason=reason[:4000], retry=retry, code=code, kind=kind)
        return self._send(Call("POST", f"/v1/jobs/{job.id}/fail", JobInfo, body))

    def claim(self, kinds: list[str], worker: str, base: str | None = None) -> Job | None:
        """The next job, or None; `base`: only one about an adapter of the base with this digest."""
        body = ClaimJob(kinds=kinds, worker=worker, base=base)
        return self._send(Call("POST", "/v1/jobs/claim", Job | None, body))  # type: ignore[arg-type]

    def heartbeat(self, job: Job) -> JobInfo:
        return self._send(Call("POST", f"/v1/jobs/{job.id}/heartbeat", JobInfo, Lease(fence=job.fence)))

    def post_evidence(self, job: Job, evidence: Evidence) -> JobInfo:
        body = PostEvidence(fence=job.fence, evidence=evidence)
        return self._send(Call("POST", f"/v1/jobs/{job.id}/evidence", JobInfo, body))

    def fail(self, job: Job, reason: str, *, retry: bool) -> JobInfo:
        body = FailJob(fence=job.fence, reason=reason[:4000], retry=retry)
        return self._send(Call("POST", f"/v1/jobs/{job.id}/fail", JobInfo, body))


def _training_path(id_: str) -> str:
    return f"/v1/trainings/{quote(id_, safe='')}"
