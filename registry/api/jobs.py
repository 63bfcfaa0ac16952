"""/v1/jobs: the evaluator's and trainer's side."""

from functools import partial
from typing import Any

from litestar import Controller, Response, get, post
from litestar.params import FromPath, JSONBody

from registry.api.door import AnyRequest, allowed, ask, principal_of, run
from registry.api.trainings import run_whole
from registry.commands import jobs, trainings
from registry.commands.context import Context
from registry.errors import NotFound
from registry.records import ClaimJob, FailJob, FinishTraining, JobInfo, Lease, PostEvidence, PostProgress, Role

WORKERS = (Role.EVALUATOR, Role.TRAINER)


class Jobs(Controller):
    """Claim under a lease, keep it alive, answer with evidence."""

    tags = ["jobs"]

    @post("/v1/jobs/claim", opt=allowed(*WORKERS))
    async def claim(self, request: AnyRequest, data: JSONBody[ClaimJob]) -> Response[Any]:
        by_role = run_whole if principal_of(request).role is Role.TRAINER else run
        return await by_role(request, partial(jobs.claim, request=data))

    @post("/v1/jobs/{job_id:str}/heartbeat", opt=allowed(*WORKERS))
    async def heartbeat(self, request: AnyRequest, job_id: FromPath[str], data: JSONBody[Lease]) -> Response[Any]:
        return await run(request, partial(jobs.heartbeat, job_id=job_id, request=data))

    @post("/v1/jobs/{job_id:str}/evidence", opt=allowed(Role.EVALUATOR))
    async def evidence(self, request: AnyRequest, job_id: FromPath[str], data: JSONBody[PostEvidence]) -> Response[Any]:
        return await run(request, partial(jobs.record_evidence, job_id=job_id, request=data))

    @post("/v1/jobs/{job_id:str}/fail", opt=allowed(*WORKERS))
    async def fail(self, request: AnyRequest, job_id: FromPath[str], data: JSONBody[FailJob]) -> Response[Any]:
        return await run(request, partial(jobs.fail, job_id=job_id, request=data))

    @post("/v1/jobs/{job_id:str}/progress", opt=allowed(Role.TRAINER))
    async def progress(self, request: AnyRequest, job_id: FromPath[str], data: JSONBody[PostProgress]) -> Response[Any]:
        """What a training run's worker tells; 409 once the run was paused, cancelled or taken over.

        `last_words` of a worker whose run was paused are taken until it goes on or is cancelled.
        """
        return Response(await ask(request, partial(trainings.progress, id_=job_id, request=data)), status_code=200)

    @post("/v1/jobs/{job_id:str}/finish", opt=allowed(Role.TRAINER))
    async def finish(self, request: AnyRequest, job_id: FromPath[str], data: JSONBody[FinishTraining]) -> Response[Any]:
        """A training run is over, and a version came of it."""
        return await run(request, partial(trainings.finish, id_=job_id, request=data))

    @get("/v1/jobs/{job_id:str}", opt=allowed(*WORKERS, Role.ADMIN, Role.RELEASE_MANAGER, Role.AUDITOR))
    async def show(self, request: AnyRequest, job_id: FromPath[str]) -> JobInfo:
        def question(context: Context) -> JobInfo:
            if context.view.training(job_id):
                return trainings.describe_job(trainings.find_training(context, job_id))
            job = context.view.job(job_id)
            if job is None or not context.principal.may_see(job.adapter):
                raise NotFound(f"job {job_id!r} does not exist or is not visible to this token")
            return jobs.describe(job)

        return await ask(request, question)
