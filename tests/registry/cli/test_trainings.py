"""`tunegate train --submit` and `tunegate training …`: runs sent, followed, stopped and compared from a terminal."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from site_under_test import Site, running

from registry.cli import main
from registry.records import FaultKind, PerplexityRule, Policy, ProgressNote, StepProgress, TrainingJob
from registry.settings import Home


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("cli") / "home")) as found:
        found.create_adapter()
        yield found


@pytest.fixture
def tunegate(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("TUNEGATE_URL", site.url)
    monkeypatch.setenv("TUNEGATE_TOKEN", site.tokens["trainer"])

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        code = 0
        try:
            main(list(arguments))
        except SystemExit as exit:
            code = int(exit.code or 0)
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return run


@pytest.fixture
def recipe(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Another recipe for each test: another run."""
    (tmp_path / "rows.jsonl").write_text('{"instruction": "q", "output": "a"}\n')
    file = tmp_path / "recipe.toml"
    file.write_text(f'name = "r"\nbase = "b"\ndata = "rows.jsonl"\n# {request.node.name}\n')
    return file


def claimed(site: Site, id_: str, *losses: float) -> TrainingJob:
    job = site.client("trainer").claim_training("w")
    assert job is not None and job.id == id_
    steps = [StepProgress(step=n, steps=10, loss=loss, learning_rate=1e-4) for n, loss in enumerate(losses, start=1)]
    notes = [ProgressNote(number=step.step, message="training", step=step) for step in steps]
    site.client("trainer").post_progress(job, notes, "what it printed\n", 0)
    return job


def test_a_recipe_is_sent_with_its_data_once(tunegate: Run, site: Site, recipe: Path) -> None:
    first = tunegate("--json", "train", str(recipe), "--submit", "support-bot")
    again = tunegate("--json", "train", str(recipe), "--submit", "support-bot")
    assert first.code == again.code == 0 and first.json == again.json and first.json["status"] == "queued"
    assert first.json["recipe"] == recipe.read_text() and first.json["adapter"] == "support-bot"
    run = first.json["id"]
    assert [one["id"] for one in tunegate("--json", "training", "list", "--status", "queued").json] == [run]
    assert tunegate("training", "pause", run).out.strip() == f"{run} is paused"
    assert tunegate("training", "resume", run).out.strip() == f"{run} is queued"
    assert "tunegate worker --kind training" in tunegate("training", "show", run).out
    assert tunegate("training", "cancel", run).out.strip() == f"{run} is cancelled"
    assert tunegate("--json", "training", "list", "--adapter", "no-bot").json == []


def test_a_policy_that_trusts_perplexity_alone_is_told_of_before_the_hours_of_a_run(
    tunegate: Run, site: Site, recipe: Path
) -> None:
    assert "W150" not in tunegate("train", str(recipe), "--submit", "support-bot").out
    site.create_adapter("lax-bot", Policy(perplexity=PerplexityRule(max_ratio_to_base=2.0)))
    told = tunegate("train", str(recipe), "--submit", "lax-bot")
    assert told.code == 0 and "W150 warning: max_ratio_to_base = 2" in " ".join(told.out.split())
    missing = tunegate("train", str(recipe), "--push", "no-bot")
    assert missing.code == 3 and "no-bot" in missing.err
    for run in site.client("trainer").trainings(status="queued"):
        site.client("trainer").cancel_training(run.id)


def test_a_run_is_followed_to_its_end_and_the_exit_code_says_which(tunegate: Run, site: Site, recipe: Path) -> None:
    run = tunegate("--json", "train", str(recipe), "--submit", "support-bot").json["id"]
    job = claimed(site, run, 4.0, 3.0, 2.0)
    site.client("trainer").fail_training(job, FaultKind.USER_ERROR, "diverged", "the loss [is] nan", retry=False)
    ended = tunegate("training", "follow", run)
    assert ended.code == 1 and "the loss [is] nan" in ended.out and "user_error diverged" in ended.out
    assert "claimed by w, attempt 1" in ended.out
    assert tunegate("train", str(recipe), "--submit", "support-bot", "--follow").code == 1
    shown = tunegate("training", "show", run, "--log")
    assert "step 3 of 10" in shown.out and "what it printed" in shown.out
    as_json = tunegate("--json", "training", "follow", run)
    assert as_json.json["error"]["code"] == "diverged" and "claimed by w" in as_json.err


def test_runs_are_compared_by_what_differs_and_by_their_losses(tunegate: Run, site: Site, recipe: Path) -> None:
    runs = []
    for rank, losses in ((8, (4.0, 2.0, 1.0)), (16, (4.0, 1.0, 0.5))):
        recipe.write_text(f'name = "r"\nbase = "b"\ndata = "rows.jsonl"\n[lora]\nrank = {rank}\n')
        runs.append(tunegate("--json", "train", str(recipe), "--submit", "support-bot").json["id"])
        job = claimed(site, runs[-1], *losses)
        saved = [(4, 2.5), (8, 2.0 + rank / 100), (10, 2.75)]
        site.client("trainer").post_progress(
            job,
            [
                ProgressNote(
                    number=50 + at,
                    message=f"saved step {at}",
                    step=StepProgress(step=at, steps=10, loss=1.0, validation_loss=loss, checkpoint=True),
                )
                for at, loss in saved
            ],
        )
        site.client("trainer").cancel_training(job.id)
    shown = tunegate("training", "compare", *runs).out
    rank = next(line for line in shown.splitlines() if "lora.rank" in line)
    assert "8" in rank and "16" in rank and '"r"' not in shown
    last = next(line for line in shown.splitlines() if "loss at 100 %" in line)
    assert "1" in last and "0.5" in last
    best = next(line for line in shown.splitlines() if "validation loss" in line)
    assert "2.08 at step 8" in best and "2.16 at step 8" in best
    values = tunegate("--json", "training", "compare", *runs).json
    assert [one["metrics"][-1]["loss"] for one in values] == [1.0, 0.5]
    assert [one["step"] for one in values[0]["checkpoints"]] == [10, 8, 4]
    for wrong in (runs[:1], [runs[0]] * 2, [*runs, *"abcd"]):
        assert tunegate("training", "compare", *wrong).code == 3
    listed = tunegate("training", "checkpoints", runs[0])
    assert listed.code == 0 and "2.75" in listed.out
    assert tunegate("--json", "training", "checkpoints", runs[0]).json[0]["id"] == f"{runs[0]}-step-10"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--push", "x", "--submit", "support-bot"], "leave --push out"),
        (["--follow"], "add --submit ADAPTER"),
    ],
)
def test_what_does_not_go_together_is_refused(tunegate: Run, recipe: Path, arguments: list[str], said: str) -> None:
    ran = tunegate("train", str(recipe), *arguments)
    assert ran.code == 3 and said in ran.err


def test_a_recipe_or_data_that_cannot_be_read_are_refused_before_anything_is_sent(
    tunegate: Run, site: Site, recipe: Path
) -> None:
    head = site.registry.journal.head
    (recipe.parent / "rows.jsonl").unlink()
    ran = tunegate("train", str(recipe), "--submit", "support-bot")
    assert ran.code == 3 and "rows.jsonl cannot be read" in ran.err
    recipe.write_text("name = ")
    assert "not valid TOML" in tunegate("train", str(recipe), "--submit", "support-bot").err
    assert site.registry.journal.head == head


def test_a_worker_of_no_known_kind_and_one_without_its_cluster_are_refused(tunegate: Run) -> None:
    ran = tunegate("worker", "--kind", "cooking", "--once")
    assert ran.code == 3 and "either evaluation or training" in ran.err
    assert tunegate("--json", "worker", "--kind", "training", "--once").json == {"jobs": 0}
