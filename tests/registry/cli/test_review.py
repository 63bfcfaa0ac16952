"""`tunegate review` and `tunegate reviewer` as reviewers, release managers and admins type them."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import reviewing_under_test as campaign
from reviewing_under_test import rating
from site_under_test import Site, running

from registry.cli import main
from registry.cli.sheets import COLUMNS
from registry.events import RatingRecorded, decode_entry
from registry.records import CRITERIA, Channel, Policy, ReviewRule, State
from registry.settings import Home

# All outputs are those that the fixture writes.
POLICY = Policy(review=ReviewRule(outputs=5, min_seconds=0.0, from_accuracy=0.0))
SCORES = ["--clarity", "5", "--relevance", "4", "--safety", "5", "--accuracy", "4"]
HOSTILE = "=1+1 \x1b]0;owned\x07\x1b[2J [bold]no markup[/] \u202e"


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


class Terminal(io.StringIO):
    """Someone who types these lines."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("rows")
    with running(Home(tmp_path_factory.mktemp("review") / "home")) as found:
        found.create_adapter(policy=POLICY)
        found.submit(fill=1)
        campaign.evaluate(found, folder, lambda number: (f"{HOSTILE} {number}", f"{HOSTILE}\nsays {number}"))
        yield found


@pytest.fixture
def tunegate(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object, who: str = "reviewer", types: str | None = None) -> Ran:
        monkeypatch.setenv("TUNEGATE_URL", site.url)
        monkeypatch.setenv("TUNEGATE_TOKEN", site.tokens[who])
        monkeypatch.setattr(sys, "stdin", io.StringIO() if types is None else Terminal(types))
        capsys.readouterr()
        code = 0
        try:
            main([str(one) for one in arguments])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        return Ran(code, *capsys.readouterr())

    return run


def recorded(site: Site) -> list[RatingRecorded]:
    entries = [decode_entry(line.body) for line in site.registry.journal.read()]
    return [event for entry in entries for event in entry.events if isinstance(event, RatingRecorded)]


def rows_of(sheet: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(sheet.read_text(encoding="utf-8-sig"), newline="")))


def fill_in(sheet: Path, rows: list[dict[str, str]], *, delimiter: str = ",") -> None:
    with sheet.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


# -- one at a time ----------------------------------------------------------------------------------------------------


def test_an_item_is_shown_with_what_scores_mean_and_nothing_of_whose_it_is(site: Site, tunegate: Run) -> None:
    shown = tunegate("review", "next")
    item = tunegate("--json", "review", "next").json
    assert shown.code == 0 and f"tunegate review rate {item['id']} --clarity 1..5" in " ".join(shown.out.split())
    assert f"1 of {item['total']}" in shown.out and "says" in shown.out
    for words in ("Cannot be understood", "Nothing in it could do harm", "Factual accuracy"):
        assert words in " ".join(shown.out.split())
    assert (
        not {"\x1b", "\x07", "\u202e"} & set(shown.out) and "[U+001B]" in shown.out and "[bold]no markup" in shown.out
    )
    for secret in ("support-bot", "ci person", "candidate", "sha256:"):
        assert secret not in shown.out
    # Markup of others is text in what JSON carries, too: unchanged.
    assert item["output"].startswith(HOSTILE)


def test_a_rating_is_recorded_and_the_next_one_takes_its_place(site: Site, tunegate: Run) -> None:
    item = tunegate("--json", "review", "next").json
    first = tunegate("review", "rate", item["id"], *SCORES, "--comment", "a little long")
    assert first.code == 0 and "1 of" in first.out
    again = tunegate("review", "rate", item["id"], *SCORES, "--unsafe", "--discuss", "--hallucination")
    assert again.code == 0 and "1 of" in again.out
    one, two = recorded(site)[-2:]
    assert one.assignment == two.assignment == item["id"] and one.channel is Channel.API
    assert (one.unsafe, one.discuss, one.hallucination) == (False, False, False)
    assert (two.unsafe, two.discuss, two.hallucination) == (True, True, True)
    assert tunegate("review", "rate", item["id"], *SCORES).code == 0


def test_what_is_missing_is_named_where_nobody_can_be_asked(tunegate: Run) -> None:
    item = tunegate("--json", "review", "next").json
    for arguments, missing in (
        ([], ["ASSIGNMENT", "--clarity", "--relevance", "--safety", "--accuracy"]),
        ([item["id"], "--clarity", "5"], ["--relevance", "--safety", "--accuracy"]),
        (SCORES, ["ASSIGNMENT"]),
    ):
        refused = tunegate("review", "rate", *arguments)
        assert refused.code == 3 and f"missing: {', '.join(missing)};" in " ".join(refused.err.split())
    for value in ("0", "6", "x"):
        assert tunegate("review", "rate", item["id"], "--clarity", value).code == 3


def test_in_a_terminal_it_shows_the_next_item_and_asks(site: Site, tunegate: Run) -> None:
    item = tunegate("--json", "review", "next").json
    before = len(recorded(site))
    ran = tunegate("review", "rate", types="9\n5\n4\n3\n2\ny\n\nn\ngood, but long\n")
    assert ran.code == 0 and "says" in ran.out and "9" in ran.err, ran.err
    (event,) = recorded(site)[before:]
    assert event.assignment == item["id"]
    assert [getattr(event, name) for name in CRITERIA] == [5, 4, 3, 2]
    assert (event.hallucination, event.unsafe, event.discuss) == (True, False, False) and event.comment is not None
    own = tunegate("--json", "review", "rate", item["id"], types="4\n4\n4\n4\n\n\n\n\n")
    assert own.code == 0 and own.json["rated"] >= 2 and "rating it again replaces that" in own.err
    stopped = tunegate("review", "rate", types="5\n")
    assert stopped.code == 130 and len(recorded(site)) == before + 2


def test_a_skip_needs_a_reason_and_progress_tells_of_it(site: Site, tunegate: Run) -> None:
    who = "reviewer-4"
    item = tunegate("--json", "review", "next", who=who).json
    assert tunegate("review", "skip", item["id"], who=who).code == 3
    skipped = tunegate("review", "skip", item["id"], "--reason", "not my field", who=who)
    assert skipped.code == 0 and "1 skipped" in skipped.out
    assert "1 skipped" in tunegate("review", "progress", who=who).out
    assert tunegate("--json", "review", "progress", who=who).json["skipped"] == 1
    other = tunegate("review", "rate", item["id"], *SCORES, who="reviewer-2")
    assert other.code == 3 and "not yours" in other.err


# -- on a sheet -------------------------------------------------------------------------------------------------------


def test_the_whole_way_of_a_sheet(site: Site, tunegate: Run, tmp_path: Path) -> None:
    """Exported, filled in by a spreadsheet that saves semicolons, imported twice, changed, imported again."""
    sheet, who = tmp_path / "mine.csv", "reviewer-2"
    exported = tunegate("--json", "review", "export", sheet, who=who)
    rows = rows_of(sheet)
    assert exported.code == 0 and exported.json["items"] == len(rows) >= 5
    assert all(not row[name].startswith(("=", "+", "-", "@")) for row in rows for name in row)
    assert all(row["output"].startswith("'=1+1") for row in rows if "says" in row["output"])
    assert tunegate("review", "export", sheet, who=who).code == 3, "an old sheet may hold ratings"
    before = len(recorded(site))
    for number, row in enumerate(rows):
        row |= {"clarity": "5", "relevance": "4", "safety": "5", "accuracy": "5", "comment": f"no. {number}; fine"}
    rows[0]["discuss"] = "x"
    fill_in(sheet, [*rows[:3], {**rows[3], **dict.fromkeys(CRITERIA, ""), "comment": ""}], delimiter=";")
    first = tunegate("review", "import", sheet, who=who)
    assert first.code == 0 and "3 imported, 0 unchanged, 1 unrated; 3 of" in first.out, first.err
    new = recorded(site)[before:]
    assert len(new) == 3 and {event.channel for event in new} == {Channel.CSV} and new[0].discuss
    assert all(event.seconds is not None for event in new)
    again = tunegate("--json", "review", "import", sheet, who=who)
    assert (again.json["imported"], again.json["unchanged"]) == (0, 3) and len(recorded(site)) == before + 3
    rows[1]["accuracy"] = "2"
    fill_in(sheet, rows)
    changed = tunegate("--json", "review", "import", sheet, who=who)
    assert (changed.json["imported"], changed.json["unchanged"]) == (len(rows) - 2, 2)
    assert [one.accuracy for one in recorded(site) if one.assignment == rows[1]["assignment"]] == [5, 2]
    own = site.client(who).assignment(rows[1]["assignment"])
    assert own.rating is not None and own.rating.comment == "no. 1; fine"
    assert tunegate("--json", "review", "import", sheet, who=who).json["imported"] == 0
    empty = tunegate("--json", "review", "export", tmp_path / "rest.csv", who=who)
    assert empty.json["items"] == 0 and rows_of(tmp_path / "rest.csv") == []


def test_nothing_of_a_sheet_is_imported_where_anything_is_wrong(site: Site, tunegate: Run, tmp_path: Path) -> None:
    sheet, who = tmp_path / "mine.csv", "reviewer-3"
    assert tunegate("review", "export", sheet, who=who).code == 0
    rows = rows_of(sheet)
    for row in rows:
        row |= dict.fromkeys(CRITERIA, "5")
    before = len(recorded(site))
    foreign = site.client("reviewer-2").assignments()[0].id
    wrong = [
        rows[0],
        {**rows[1], "hash": rows[2]["hash"]},
        {**rows[2], "assignment": foreign},
        {**rows[3], "assignment": "f" * 32},
    ]
    fill_in(sheet, wrong)
    refused = tunegate("review", "import", sheet, who=who)
    said = " ".join(refused.err.split())
    assert refused.code == 3 and len(recorded(site)) == before
    assert "3 problems" in said and "Traceback" not in said
    # Texts of two lines: item n begins on line 2 + 2n.
    lines = [2 + sum(row["output"].count("\n") + 1 for row in wrong[:n]) for n in range(4)]
    assert f"line {lines[1]}: the hash is not that of the item" in said
    assert f"line {lines[2]}: assignment" in said and f"line {lines[3]}: assignment" in said
    fill_in(sheet, [{**rows[0], "clarity": "7"}])
    refused = tunegate("review", "import", sheet, who=who)
    assert refused.code == 3 and "line 2: clarity '7' is no score" in refused.err and len(recorded(site)) == before
    missing = tunegate("review", "import", tmp_path / "none.csv", who=who)
    assert missing.code == 3 and "cannot be read" in missing.err
    skipped = rows[0]["assignment"]
    site.client(who).skip(skipped, "not my field")
    fill_in(sheet, rows[:1])
    refused = tunegate("review", "import", sheet, who=who)
    assert refused.code == 3 and "you skipped this item" in refused.err and len(recorded(site)) == before


# -- for release managers ---------------------------------------------------------------------------------------------


def test_a_manager_follows_ends_and_reads_a_campaign(site: Site, tunegate: Run, tmp_path: Path) -> None:
    """Last in this file: it ends the campaign that the tests before it rate in."""
    manager = "release-manager"
    followed = tunegate("review", "progress", "support-bot/1", who=manager)
    assert followed.code == 0 and "Review of support-bot/1  open" in followed.out and "reviewer 2" in followed.out
    for command in (["result", "support-bot/1"], ["result", "support-bot/1", "--csv", str(tmp_path / "no.csv")]):
        early = tunegate("review", *command, who=manager)
        assert early.code == 3 and "not sealed" in early.err and not (tmp_path / "no.csv").exists()
    assert tunegate("review", "seal", "support-bot/1", who=manager).code == 3, "a reason is needed"
    refused = tunegate("review", "seal", "support-bot/1", "--reason", "x", who="reviewer")
    assert refused.code == 3 and site.client(manager).campaign("support-bot/1").sealed_at is None
    sealed = tunegate("review", "seal", "support-bot/1", "--reason", "holidays", who=manager)
    assert sealed.code == 0 and "sealed at" in sealed.out
    target = tmp_path / "ratings.csv"
    shown = tunegate("review", "result", "support-bot/1", "--csv", target, who=manager)
    found = tunegate("--json", "review", "result", "support-bot/1", who="auditor").json
    text = " ".join(shown.out.split())
    assert shown.code == 0 and found["root"] in text
    for one in found["excluded"]:
        assert one["reason"] in text
    rows = rows_of(target)
    last = {event.assignment: event for event in recorded(site)}
    assert len(rows) == len(last) and {row["person"] for row in rows} == {"reviewer person", "reviewer 2"}
    assert sorted(int(row["accuracy"]) for row in rows) == sorted(event.accuracy for event in last.values())
    assert all(not cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())
    assert "no. 1; fine" in {row["comment"] for row in rows}
    assert site.client("admin").version("support-bot/1").state is not State.IN_REVIEW
    done = tunegate("review", "next")
    assert done.code == 0 and "you are done" in done.out
    assert tunegate("review", "rate", types="").out.strip() == "nothing to rate: you are done"


def test_a_result_with_numbers_is_shown_whole(site: Site, tunegate: Run, tmp_path: Path) -> None:
    site.submit(fill=2)
    campaign.evaluate(site, tmp_path)
    campaign.rate(site, lambda person, item: msgspec.structs.replace(rating(5, 4, 5, 4), discuss=person == "reviewer"))
    found = tunegate("--json", "review", "result", "support-bot/2", who="release-manager").json
    shown = tunegate("review", "result", "support-bot/2", who="release-manager")
    text = " ".join(shown.out.split())
    for one in found["criteria"]:
        assert f"{one['criterion']} {one['mean']:.2f}" in text and " ".join(map(str, one["histogram"])) in text
    assert "hallucination 0.0%" in text and f"{found['ratings']} ratings" in text


# -- for admins -------------------------------------------------------------------------------------------------------


def test_an_admin_vouches_lists_and_withdraws(tunegate: Run) -> None:
    what = ["--domain", "medicine", "--credential", "licence [42]", "--issuer", "the chamber"]
    when = ["--from", "2026-01-01", "--until", "2099-12-31"]
    added = tunegate("--json", "reviewer", "add", "--person", "Ada", *what, *when, "--scope", "team", who="admin")
    assert added.code == 0 and added.json["person"] == "Ada"
    listed = " ".join(tunegate("reviewer", "list", who="auditor").out.split())
    assert "Ada medicine licence [42] (the chamber) from 2026-01-01 until 2099-12-31 team, vouched for by" in listed
    assert "may review in medicine" in tunegate("reviewer", "add", "--person", "Eve", *what, *when, who="admin").out
    withdrawn = tunegate("reviewer", "withdraw", added.json["id"], who="admin")
    assert withdrawn.code == 0 and "counts no more" in withdrawn.out
    assert "withdrawn 20" in tunegate("reviewer", "list", who="admin").out
    assert tunegate("reviewer", "withdraw", "none", who="admin").code == 3
    refused = tunegate("reviewer", "add", "--person", "Ada", *what, "--from", "x", "--until", "y", who="admin")
    assert refused.code == 3 and "valid_from" in refused.err and "valid_until" in refused.err
    assert tunegate("reviewer", "add", "--person", "Ada", *what, *when, who="release-manager").code == 3
