"""docs/review.md is held to what runs: its rubric, its rules, and the auditor's program."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import reviewing_under_test as campaign
from site_under_test import running

from registry.records import Policy, ReviewRule
from registry.review import counting, standing
from registry.review.rubric import RUBRIC
from registry.settings import Home

PAGE = (Path(__file__).parent.parent / "docs" / "review.md").read_text()


def test_the_rubric_on_the_page_is_the_one_that_reviewers_see() -> None:
    for criterion in RUBRIC:
        question = criterion.question[0].lower() + criterion.question[1:]
        row = " | ".join([f"| **{criterion.title}**: {question}", *criterion.anchors])
        assert f"{row} |" in PAGE, row


def test_every_rule_that_leaves_ratings_out_is_explained() -> None:
    rules = {
        *standing.REASONS,
        counting.CHANNEL,
        counting.TOO_FAST,
        counting.FAILED_GOLD,
        counting.SAME_SCORE_STREAK,
        counting.INCOMPLETE,
        counting.TOO_FEW_RATINGS,
    }
    table = re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \|", PAGE, re.M)
    assert {name for cell in table for name in re.findall(r"`([a-z_]+)`", cell)} == rules


@pytest.mark.slow
def test_the_auditors_program_finds_the_root_of_every_seal_and_a_changed_rating(tmp_path: Path) -> None:
    """The program as it is printed, on the journal of a running registry; then on one where a rating was changed."""
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    with running(Home(tmp_path / "home")) as site:
        site.create_adapter(policy=Policy(review=ReviewRule(outputs=5, min_seconds=0.0)))
        for fill in (1, 2, 3):
            site.submit(fill=fill)
            site.evaluate(tmp_path)
        # Sealed without a rating, the last one is a tree without leaves.
        site.client("release-manager").seal("support-bot/3", "nobody has the time")
        first = site.client("reviewer").next_assignment()
        assert first is not None
        site.client("reviewer").rate(first.id, campaign.rating(1, 2, 3, 4, comment="changed my mind, ärgerlich"))
        site.client("reviewer").rate(first.id, campaign.rating(5, 5, 5, 5))
        campaign.rate(site, campaign.opinion)
        environment = {"TUNEGATE_URL": site.url, "TUNEGATE_TOKEN": site.tokens["auditor"], "PATH": os.environ["PATH"]}

        def ran(text: str) -> list[str]:
            done = subprocess.run(
                [sys.executable, "-I", "-c", text], env=environment, capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, done.stderr
            return done.stdout.splitlines()

        lines = ran(program)
        assert len(lines) == 3 and all(line.endswith(" ok") for line in lines), lines
        roots = {site.client("auditor").review_result(f"support-bot/{number}").root for number in (1, 2, 3)}
        assert {line.split()[3] for line in lines} == roots and len(roots) == 3
        spoilt = '        said["safety"] -= said["person"] == "reviewer 3"\n'
        harsher = program.replace("        del said", spoilt + "        del said")
        told = {line.split()[1]: line.split()[-1] for line in ran(harsher)}
        assert told == {"1": "DIFFERS", "2": "DIFFERS", "3": "ok"}


@pytest.mark.parametrize("name", ["open", "sealed", "disagreement", "decision"])
def test_pictures_of_the_managers_page_are_there_and_small(name: str) -> None:
    picture = Path(__file__).parent.parent / "docs" / "images" / f"campaign-{name}.png"
    assert 5_000 < picture.stat().st_size < 150_000
