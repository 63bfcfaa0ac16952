"""Runs over HTTP: the same submission is the same run, a stale worker is refused, events continue where one stopped."""

from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
from factories import BASE
from site_under_test import DATASET, LEDGER, Site, body, running

from registry.client import Refused
from registry.commands import trainings
from registry.records import (
    ClaimJob,
    CreateAdapter,
    CreateTraining,
    FaultKind,
    PostProgress,
    ProgressNote,
    Role,
    StepProgress,
    SubmitVersion,
    TrainingInfo,
    TrainingJob,
    TrainingStatus,
)
from registry.settings import Home

RECIPE = 'name = "r"\nbase = "b"\ndata = "d.jsonl"\n'
_numbers = iter(range(10**6))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("trainings") / "home")) as found:
        found.create_adapter()
        yield found


@pytest.fixture(autouse=True)
def _queue_is_empty_afterwards(site: Site) -> Iterator[None]:
    yield
    for status in ("queued", "running", "paused"):
        for run in site.client("trainer").trainings(status=status):
            site.client("trainer").cancel_training(run.id)


@pytest.fixture
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A registry that takes a run from a worker that is silent for half a second."""
    with running(Home(tmp_path_factory.mktemp("hasty") / "home"), lease_seconds=0.5) as found:
        found.create_adapter()
        yield found


def request(site: Site, **changes: Any) -> CreateTraining:
    """Another run with each call, of a data set that is stored."""
    dataset = "sha256:" + site.client("trainer").upload(DATASET).sha256
    given = {"adapter": "support-bot", "recipe": f"{RECIPE}# {next(_numbers)}\n", "dataset": dataset, **changes}
    return CreateTraining(**given)


def submitted(site: Site, **changes: Any) -> TrainingInfo:
    return site.client("trainer").submit_training(request(site, **changes))


def claimed(site: Site) -> TrainingJob:
    """A new run in the hands of a worker; the queue holds nothing else."""
    run = submitted(site)
    job = site.client("trainer").claim_training("w")
    assert job is not None and job.id == run.id
    return job


def step(number: int, of: int = 100) -> ProgressNote:
    at = StepProgress(step=number, steps=of, loss=5.0 / number, learning_rate=1e-4)
    return ProgressNote(number=number, message="training", step=at)


def refusal(call: Any, *given: Any, **named: Any) -> Refused:
    with pytest.raises(Refused) as refused:
        call(*given, **named)
    return refused.value


# -- submitting ----------------------------------------------------------------------------------------------------


def test_the_same_submission_is_the_same_run_and_any_other_is_another(site: Site) -> None:
    asked = request(site)
    first = site.http("POST", "/v1/trainings", "trainer", json=msgspec.to_builtins(asked))
    assert first.status_code == 201 and body(first)["status"] == "queued"
    head = site.registry.journal.head
    again = site.http("POST", "/v1/trainings", "admin", json=msgspec.to_builtins(asked))
    assert (again.status_code, body(again)) == (200, body(first)), "whoever asks, with or without a key"
    assert site.registry.journal.head == head
    replay = "sha256:" + site.client("trainer").upload(LEDGER).sha256
    with_replay = asked.recipe + '[replay]\nprompts = "p.jsonl"\n'
    others = [
        submitted(site, recipe=asked.recipe + "#"),
        submitted(site, recipe=asked.recipe, dataset=replay),
        submitted(site, recipe=with_replay, replay=replay),
    ]
    assert len({body(first)["id"], *(one.id for one in others)}) == 4
    for one in others:
        site.client("trainer").cancel_training(one.id)
    site.client("trainer").cancel_training(body(first)["id"])
    assert submitted(site, recipe=asked.recipe).status is TrainingStatus.CANCELLED, "it is still the same run"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recipe": "name = "}, "not valid TOML"),
        ({"recipe": 'name = "r"\nbase = 5\n'}, "'base'"),
        ({"recipe": 'name = "r"\nbase = "b"\n'}, "'data'"),
        ({"recipe": RECIPE + "[replay]\n"}, "without a replay digest"),
        ({"replay": "sha256:" + "0" * 64}, "without [replay]"),
        ({"dataset": "sha256:" + "0" * 64}, "not stored here"),
    ],
)
def test_what_cannot_be_run_is_refused_with_every_reason(site: Site, changes: dict[str, Any], said: str) -> None:
    head = site.registry.journal.head
    error = refusal(submitted, site, **changes)
    assert (error.status, error.code) == (422, "invalid_request") and said in str(error)
    assert any(said in problem for problem in error.problems) or "stored" in said
    assert site.registry.journal.head == head


def test_held_out_data_cannot_be_trained_on_and_the_answer_does_not_tell_that_they_are_there(site: Site) -> None:
    suite = site.client("admin").suites()[0]
    held_out = next(file.sha256 for file in suite.files if file.path == "items.jsonl")
    error, unknown = (refusal(submitted, site, dataset=f"sha256:{one}") for one in (held_out, "0" * 64))
    assert str(error).replace(held_out, "X") == str(unknown).replace("0" * 64, "X")


def test_runs_of_another_project_do_not_exist(site: Site) -> None:
    site.client("admin").create_adapter(CreateAdapter(name="team/bot", base=BASE))
    token = site.add_token("team-trainer", Role.TRAINER, "team trainer", scope="team")
    outside, headers = submitted(site), {"Authorization": f"Bearer {token}"}
    inside = submitted(site, adapter="team/bot")
    paths = ["", "/events", "/metrics", "/logs"]
    for id_ in (outside.id, "0" * 32):
        for path in paths:
            answer = site.http("GET", f"/v1/trainings/{id_}{path}", headers=headers)
            assert (answer.status_code, body(answer)["detail"]) == (
                404,
                f"training {id_!r} does not exist or is not visible to this token",
            )
        for action in ("cancel", "pause", "resume"):
            assert site.http("POST", f"/v1/trainings/{id_}/{action}", headers=headers).status_code == 404
    listed = body(site.http("GET", "/v1/trainings", headers=headers))
    assert [one["id"] for one in listed["items"]] == [inside.id]
    # A data set that this project never had cannot be named, nor can another's adapter.
    foreign = "sha256:" + site.client("trainer").upload(b"another project's").sha256
    asked = msgspec.to_builtins(request(site, adapter="team/bot", dataset=foreign))
    assert site.http("POST", "/v1/trainings", json=asked, headers=headers).status_code == 422
    asked = msgspec.to_builtins(request(site, adapter="support-bot"))
    assert site.http("POST", "/v1/trainings", json=asked, headers=headers).status_code == 404
    # Its worker is given its own runs only.
    client = site.client("team-trainer")
    job = client.claim_training("w")
    assert job is not None and job.id == inside.id and client.claim_training("w") is None
    assert site.client("trainer").claim_training("w", base="sha256:" + "0" * 64) is None
    first = site.client("trainer").claim_training("w", base=BASE.digest)
    assert first is not None and first.id == outside.id


def test_runs_are_listed_newest_first_in_pages_and_by_status_and_adapter(site: Site) -> None:
    client, runs = site.client("trainer"), [submitted(site) for _ in range(5)]
    for run in runs[:2]:
        client.pause_training(run.id)
    path, seen, cursor = "/v1/trainings?limit=2&status=queued&adapter=support-bot", [], ""
    while True:
        page = body(site.http("GET", path + cursor, "auditor"))
        seen += [one["id"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == [run.id for run in reversed(runs[2:])]
    assert [one.id for one in client.trainings(status="paused")] == [runs[1].id, runs[0].id]
    assert list(client.trainings(adapter="no-bot")) == []


def test_a_project_has_so_many_unfinished_runs_and_no_more(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainings, "MOST_UNFINISHED", 3)
    client, runs = site.client("trainer"), [submitted(site) for _ in range(3)]
    client.pause_training(runs[0].id)
    error = refusal(submitted, site)
    assert error.status == 409 and "'support-bot' has 3 unfinished runs" in str(error) and "cancel one" in str(error)
    client.resume_training(runs[0].id)
    client.cancel_training(runs[0].id)
    more = submitted(site)
    assert refusal(client.resume_training, runs[0].id).status == 409
    client.cancel_training(more.id)
    assert client.resume_training(runs[0].id).status is TrainingStatus.QUEUED


def test_a_repeated_call_is_answered_whole_and_the_journal_has_a_recipe_once(site: Site) -> None:
    asked, key = request(site), lambda: {"Idempotency-Key": f"key-{next(_numbers)}"}
    before = site.registry.journal.head.seq

    def twice(path: str, content: Any) -> Any:
        headers = key()
        first, again = (
            site.http("POST", path, "trainer", json=msgspec.to_builtins(content), headers=headers) for _ in range(2)
        )
        assert again.headers["Idempotency-Replayed"] == "true" and again.status_code == first.status_code
        assert body(again) == {**body(first), **({"progress": None} if "progress" in body(first) else {})}
        assert body(again)["recipe"] == asked.recipe
        return body(first)

    id_ = twice("/v1/trainings", asked)["id"]
    job = twice("/v1/jobs/claim", ClaimJob(kinds=["training"], worker="w"))
    site.http(
        "POST",
        f"/v1/jobs/{id_}/progress",
        "trainer",
        json={
            "fence": job["fence"],
            "notes": [{"number": 1, "message": "m", "step": {"step": 1, "steps": 2, "loss": 0.123454321}}],
        },
    )
    assert twice(f"/v1/trainings/{id_}/pause", None)["progress"]["loss"] == 0.123454321
    twice(f"/v1/trainings/{id_}/resume", None)
    twice(f"/v1/trainings/{id_}/cancel", None)
    told = b"".join(line.body for line in site.registry.journal.read(after=before))
    assert told.count(asked.recipe.splitlines()[-1].encode()) == 1 and b"0.123454321" not in told


# -- workers -------------------------------------------------------------------------------------------------------


def test_a_worker_is_given_everything_and_only_the_newest_holder_is_heard(hasty: Site) -> None:
    client, run = hasty.client("trainer"), submitted(hasty, notes="why not")
    job = client.claim_training("first")
    assert job is not None and (job.recipe, job.dataset, job.base, job.fence) == (run.recipe, run.dataset, BASE, 1)
    other = None
    while other is None:  # a worker that says nothing for the time of a lease has lost it
        other = client.claim_training("second")
    assert (other.id, other.fence) == (job.id, 2)
    for call in (
        lambda: client.post_progress(job, [step(1)]),
        lambda: client.fail_training(job, FaultKind.SYSTEM_ERROR, "killed", "no", retry=False),
        lambda: client.finish_training(job, "support-bot/1"),
    ):
        assert (refusal(call).status, refusal(call).code) == (409, "stale_lease")
    client.post_progress(other, [step(1)])
    now = client.training(run.id)
    assert (now.status, now.worker, now.attempts) == (TrainingStatus.RUNNING, "second", 2)
    assert now.progress is not None and now.progress.step == 1


def test_data_of_a_run_can_be_fetched_by_its_workers(site: Site, tmp_path: Any) -> None:
    client = site.client("trainer")
    data = client.upload(b'{"instruction": "only here", "output": "x"}')
    submitted(site, dataset=f"sha256:{data.sha256}")
    client.download(data.sha256, tmp_path / "data")
    assert (tmp_path / "data").read_bytes().startswith(b'{"instruction": "only here"')
    assert site.http("GET", f"/v1/blobs/sha256:{data.sha256}", "ci").status_code == 404


@pytest.mark.parametrize("action", ["pause", "cancel"])
def test_a_worker_is_refused_once_its_run_was_stopped_and_hears_of_it(site: Site, action: str) -> None:
    client, job = site.client("trainer"), claimed(site)
    client.post_progress(job, [step(1)])
    stop = client.pause_training if action == "pause" else client.cancel_training
    status = stop(job.id).status
    assert status == {"pause": "paused", "cancel": "cancelled"}[action] and stop(job.id).status is status
    error = refusal(client.post_progress, job, [step(2)])
    assert error.code == "stale_lease" and status.value in str(error)
    assert client.training(job.id).progress == step(1).step
    assert client.resume_training(job.id).status is TrainingStatus.QUEUED
    again = client.claim_training("w")
    assert again is not None and (again.id, again.fence) == (job.id, 2)
    assert client.training(job.id).finished_at is None


def test_the_last_words_of_a_paused_run_are_taken_until_another_worker_claims_it(site: Site) -> None:
    client, job = site.client("trainer"), claimed(site)
    client.post_progress(job, [step(1)])
    client.pause_training(job.id)
    last = [step(2), saved_at(3, 2, 2.5)]
    for _ in range(2):
        client.post_progress(job, last, last_words=True)
    assert [one.step for one in client.training_checkpoints(job.id)] == [2]
    assert [one.step for one in client.training_metrics(job.id)] == [1, 2]
    said = [one.message for one in client.training_events(job.id)]
    assert said[-2:] == ["saved step 2", said[-1]] and said[-1].startswith("paused"), "told of before it was stopped"
    assert client.training(job.id).status is TrainingStatus.PAUSED
    client.resume_training(job.id)
    again = client.claim_training("w")
    assert again is not None and again.id == job.id
    for _ in range(2):  # also once the new one is stopped
        error = refusal(client.post_progress, job, [saved_at(4, 4, 2.0)], last_words=True)
        assert (error.status, error.code) == (409, "stale_lease")
        client.pause_training(job.id)
    assert [one.step for one in client.training_checkpoints(job.id)] == [2]


def test_a_cancelled_run_has_no_last_words_also_where_it_was_paused_before(site: Site) -> None:
    client = site.client("trainer")
    for stops in ([client.cancel_training], [client.pause_training, client.cancel_training]):
        job = claimed(site)
        for stop in stops:
            stop(job.id)
        error = refusal(client.post_progress, job, [step(2)], last_words=True)
        assert (error.status, error.code) == (409, "stale_lease") and list(client.training_metrics(job.id)) == []


def test_a_post_of_progress_holds_no_key_that_a_registry_of_before_would_refuse(site: Site) -> None:
    assert msgspec.json.encode(PostProgress(fence=3)) == b'{"fence":3}'
    assert msgspec.json.encode(PostProgress(fence=3, last_words=True)) == b'{"fence":3,"last_words":true}'
    asked = CreateTraining(adapter="a", recipe="r", dataset="sha256:" + "0" * 64)
    assert set(msgspec.json.decode(msgspec.json.encode(asked))) == {"adapter", "recipe", "dataset"}


def test_a_run_that_no_worker_had_or_that_is_over_has_no_last_words(site: Site) -> None:
    client, run = site.client("trainer"), submitted(site)
    client.pause_training(run.id)
    path, words = f"/v1/jobs/{run.id}/progress", {"fence": 0, "last_words": True}
    assert site.http("POST", path, "trainer", json=words).status_code == 409
    client.cancel_training(run.id)
    assert site.http("POST", path, "trainer", json=words).status_code == 409
    job = claimed(site)
    client.fail_training(job, FaultKind.USER_ERROR, "diverged", "the loss is nan", retry=False)
    assert refusal(client.post_progress, job, [step(1)], last_words=True).code == "stale_lease"


def test_a_run_that_failed_says_why_and_can_be_resumed(site: Site) -> None:
    client, job = site.client("trainer"), claimed(site)
    client.fail_training(job, FaultKind.SYSTEM_ERROR, "worker_stopped", "stopped", retry=True)
    assert client.training(job.id).status is TrainingStatus.QUEUED
    job = client.claim_training("w") or job
    client.fail_training(job, FaultKind.USER_ERROR, "diverged", "the loss is nan", retry=False)
    failed = client.training(job.id)
    assert failed.status is TrainingStatus.FAILED and failed.error is not None and failed.finished_at
    assert msgspec.to_builtins(failed.error) == {"kind": "user_error", "code": "diverged", "message": "the loss is nan"}
    assert refusal(client.cancel_training, job.id).status == 409
    again = client.resume_training(job.id)
    assert (again.status, again.error, again.attempts) == (TrainingStatus.QUEUED, None, 0)


def test_a_run_that_ends_every_worker_is_given_up(hasty: Site) -> None:
    client, run, claims = hasty.client("trainer"), submitted(hasty), 0
    while client.training(run.id).status in (TrainingStatus.QUEUED, TrainingStatus.RUNNING):
        claims += client.claim_training("w") is not None
    failed = client.training(run.id)
    assert claims == 10 and failed.error is not None and failed.error.code == "worker_lost"


def test_a_run_finishes_with_a_sealed_version_of_its_own_recipe(site: Site) -> None:
    client, job = site.client("trainer"), claimed(site)
    foreign = site.submit(fill=71)  # trained with another recipe
    assert refusal(client.finish_training, job, foreign).status == 422
    assert refusal(client.finish_training, job, "support-bot/999").status == 422
    ref = pushed(site, job, complete=False)
    assert "no complete version" in str(refusal(client.finish_training, job, ref))
    client.complete(ref)
    client.finish_training(job, ref)
    done = client.training(job.id)
    assert (done.status, done.version) == (TrainingStatus.SUCCEEDED, ref) and done.finished_at is not None
    assert client.version(ref).training.run == job.id  # type: ignore[union-attr]
    assert refusal(client.resume_training, job.id).status == 409
    assert list(client.training_events(job.id))[-1].message.startswith("finished as version")


def test_a_record_cannot_name_a_run_that_it_cannot_have_come_of(site: Site) -> None:
    job = claimed(site)
    site.client("admin").create_adapter(CreateAdapter(name="another-bot", base=BASE))
    other = submitted(site, adapter="another-bot", recipe=job.recipe)
    for foreign in ("0" * 32, other.id):
        with pytest.raises(Refused, match="which is no run of"):
            pushed(site, msgspec.structs.replace(job, id=foreign))
    with pytest.raises(Refused, match="which has another recipe"):
        pushed(site, msgspec.structs.replace(job, recipe=job.recipe + "#"))
    waiting = submitted(site)
    with pytest.raises(Refused, match="which no worker has claimed yet"):
        pushed(site, msgspec.structs.replace(job, id=waiting.id, recipe=waiting.recipe))
    pushed(site, job)


def test_a_run_finishes_only_with_a_version_whose_record_names_it(site: Site) -> None:
    """The text of a recipe is no secret, and is the same for runs on other data."""
    client, job = site.client("trainer"), claimed(site)
    other_data = "sha256:" + client.upload(LEDGER).sha256
    submitted(site, recipe=job.recipe, dataset=other_data)
    twin = client.claim_training("w")
    assert twin is not None and twin.recipe == job.recipe and twin.id != job.id
    for version in (pushed(site, job), pushed(site, job, record={"run": None})):
        with pytest.raises(Refused, match=f"does not name run {twin.id}"):
            client.finish_training(twin, version)
    # The same files, pushed before by hand: their record was sealed without a run.
    assert client.finish_training(job, version).state == "succeeded"


def pushed(site: Site, job: TrainingJob, *, complete: bool = True, record: dict[str, Any] | None = None) -> str:
    """A version as a worker would push it."""
    from factories import entry_of, make_adapter, make_training

    client, files = site.client("trainer"), make_adapter(fill=100 + next(_numbers) % 100)
    made = make_training(dataset=DATASET, ledger=LEDGER)
    made = msgspec.structs.replace(made, **{"recipe": job.recipe, "run": job.id, **(record or {})})
    entries = [entry_of(path, data) for path, data in files.items()]
    created = client.submit(job.adapter, SubmitVersion(files=entries, training=made))
    for data in (*files.values(), DATASET, LEDGER):
        client.upload(data)
    return client.complete(created.ref).ref if complete else created.ref


def test_who_submitted_a_run_can_neither_promote_nor_review_what_came_of_it(hasty: Site, tmp_path: Any) -> None:
    site = hasty
    asked = request(site)
    site.add_token("both-trainer", Role.TRAINER, "both")
    run = site.client("both-trainer").submit_training(asked)
    job = site.client("trainer").claim_training("w")
    assert job is not None and job.id == run.id
    ref = pushed(site, job)
    site.client("trainer").finish_training(job, ref)
    site.add_token("both-manager", Role.RELEASE_MANAGER, "both")
    site.add_token("both-reviewer", Role.REVIEWER, "both")
    report = site.evaluate(tmp_path)
    assert report.ref == ref
    assert site.client("both-reviewer").next_assignment() is None
    assert site.client("reviewer").next_assignment() is not None
    site.review()
    assert refusal(site.client("both-manager").promote, ref).status == 403
    site.client("release-manager").promote(ref)


# -- following -----------------------------------------------------------------------------------------------------


def test_progress_is_told_once_however_often_it_is_sent_and_is_in_no_journal(site: Site) -> None:
    client, job = site.client("trainer"), claimed(site)
    head = site.registry.journal.head
    client.post_progress(job, [step(1), step(2)], log="ab", log_from=0)
    client.post_progress(job, [step(1), step(2), step(3)], log="abc", log_from=0)
    client.post_progress(job)
    assert site.registry.journal.head == head
    assert [one.step for one in client.training_metrics(job.id)] == [1, 2, 3]
    assert client.training_log(job.id) == "abc"


@pytest.mark.parametrize("loss", ["NaN", "1e999", '"5"'])
def test_a_loss_that_is_no_number_is_refused(site: Site, loss: str) -> None:
    job = claimed(site)
    note = f'{{"number": 1, "message": "m", "step": {{"step": 1, "steps": 2, "loss": {loss}}}}}'
    content = f'{{"fence": {job.fence}, "notes": [{note}]}}'
    headers = {"Content-Type": "application/json"}
    answer = site.http("POST", f"/v1/jobs/{job.id}/progress", "trainer", content=content, headers=headers)
    assert answer.status_code in (400, 422)


def test_metrics_can_be_thinned_and_keep_the_first_and_the_last(site: Site) -> None:
    client, job = site.client("trainer"), claimed(site)
    client.post_progress(job, [step(number) for number in range(1, 101)])
    found = client.training_metrics(job.id, points=10)
    assert len(found) == 10 and (found[0].step, found[-1].step) == (1, 100)


def test_a_step_that_is_told_with_other_words_begins_another_stage_of_the_curve(site: Site) -> None:
    client, job = site.client("trainer"), claimed(site)
    words = ["training on 9 rows", "training on 9 rows", "training on 4 pairs", "training on 4 pairs"]
    told = [msgspec.structs.replace(step(n), message=message) for n, message in enumerate(words, 1)]
    told.insert(1, saved_at(9, 1, 0.5))  # a checkpoint's words are no stage's
    notes = [msgspec.structs.replace(note, number=number) for number, note in enumerate(told, 1)]
    client.post_progress(job, notes)
    client.post_progress(job, [msgspec.structs.replace(step(2), number=9, message=words[0])])  # done again
    assert [(one.step, one.stage) for one in client.training_metrics(job.id)] == [(1, 1), (2, 1), (3, 2), (4, 2)]


def saved_at(number: int, at: int, loss: float | None, validation: float | None = None) -> ProgressNote:
    told = StepProgress(step=at, steps=9, loss=loss, validation_loss=validation, checkpoint=True)
    return ProgressNote(number=number, message=f"saved step {at}", step=told)


def test_checkpoints_are_listed_from_the_last_and_one_saved_again_counts_once(site: Site) -> None:
    client, job = site.client("trainer"), claimed(site)
    assert list(client.training_checkpoints(job.id)) == []
    client.post_progress(job, [step(1), saved_at(2, 1, 0.9, 1.1), step(3), saved_at(4, 3, None), saved_at(5, 1, 0.8)])
    found = list(client.training_checkpoints(job.id))
    assert [(one.step, one.metrics, one.training) for one in found] == [(3, {}, job.id), (1, {"loss": 0.8}, job.id)]
    assert len({one.id for one in found}) == 2 and all(one.created_at for one in found)
    assert [one.step for one in client.training_metrics(job.id)] == [1, 3], "a checkpoint is no step of the curve"
    assert client.training(job.id).progress.step == 3 and client.training(job.id).progress.checkpoint is False
    words = [one for one in client.training_events(job.id) if one.type == "message"]
    assert [one.message for one in words] == ["saved step 1", "saved step 3", "saved step 1"]


def test_checkpoints_come_in_pages(site: Site) -> None:
    client, job = site.client("trainer"), claimed(site)
    client.post_progress(job, [saved_at(number, number, 1.0) for number in range(1, 8)])
    path = f"/v1/trainings/{job.id}/checkpoints?limit=3"
    first = site.http("GET", path, "trainer").json()
    second = site.http("GET", f"{path}&cursor={first['next_cursor']}", "trainer").json()
    third = site.http("GET", f"{path}&cursor={second['next_cursor']}", "trainer").json()
    pages = [[one["step"] for one in page["items"]] for page in (first, second, third)]
    assert pages == [[7, 6, 5], [4, 3, 2], [1]] and third["next_cursor"] is None


def lines_of(response: httpx.Response) -> list[str]:
    return [line[4:] for line in response.text.splitlines() if line.startswith("id: ")]


def test_events_come_as_pages_and_as_a_stream_that_a_last_id_continues(site: Site) -> None:
    client, job = site.client("trainer"), claimed(site)
    client.post_progress(job, [step(1), step(2)])
    client.pause_training(job.id)
    client.resume_training(job.id)
    again = client.claim_training("w")
    assert again is not None
    client.post_progress(again, [step(1)])
    client.cancel_training(job.id)
    path = f"/v1/trainings/{job.id}/events"
    events = list(client.training_events(job.id))
    assert [one.type for one in events] == [*["status"] * 2, *["metrics"] * 2, *["status"] * 3, "metrics", "status"]
    first = body(site.http("GET", path + "?limit=4"))
    rest = body(site.http("GET", f"{path}?limit=100&cursor={first['next_cursor']}"))
    assert [one["id"] for one in first["items"] + rest["items"]] == [one.id for one in events]
    stream = {"Accept": "text/event-stream"}
    whole = site.http("GET", path, headers=stream)
    assert whole.headers["Content-Type"].startswith("text/event-stream")
    assert lines_of(whole) == [one.id for one in events] and '"cancelled"' in whole.text.splitlines()[-2]
    for place, event in enumerate(events):
        part = site.http("GET", path, headers={**stream, "Last-Event-ID": event.id})
        assert lines_of(part) == [one.id for one in events[place + 1 :]]
    assert site.http("GET", path, headers={**stream, "Last-Event-ID": "x"}).status_code == 422
    assert list(client.follow_training(job.id)) == events


def test_a_stream_tells_what_happens_while_it_is_open(site: Site) -> None:
    client, job = site.client("trainer"), claimed(site)
    seen = []
    for event in site.client("admin").follow_training(job.id):
        seen.append(event.message)
        if event.message.startswith("claimed"):
            client.post_progress(job, [step(1)])
        if event.type == "metrics":
            client.cancel_training(job.id)
    assert seen[2] == "training" and seen[-1].startswith("cancelled by")


def test_what_was_told_survives_a_restart_and_a_torn_last_line_is_left_out(tmp_path: Any) -> None:
    home = Home(tmp_path / "home")
    with running(home) as site:
        site.create_adapter()
        job = claimed(site)
        site.client("trainer").post_progress(job, [step(1), step(2)])
        events = list(site.client("trainer").training_events(job.id))
    with (home.trainings / f"{job.id}.jsonl").open("ab") as file:
        file.write(b'{"claim":5,"number":3,"at":"20')
    with running(home) as site:
        client = site.client("trainer")
        assert list(client.training_events(job.id)) == events
        client.post_progress(job, [step(2), step(3)])
        assert [one.step for one in client.training_metrics(job.id)] == [1, 2, 3]
