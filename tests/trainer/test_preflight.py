"""What a person learns before a run, that looking changes nothing, and that known faults are found."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from faulty_data import EXPECTED, KINDS, judge, make_clean, make_dataset

from registry.client import InvalidRequest
from trainer.preflight.check import LEAST_ROWS, LOW_SCORE, Manifest, Options, Report, admit, check, freeze, preflight
from trainer.preflight.codes import RULES, Problem, Severity, Waiver
from trainer.preflight.leakage import read_suite_folder
from trainer.preflight.report import code_lines, page, summary, write_problems

DOCS = Path(__file__).parent.parent.parent / "docs" / "training.md"


def write(folder: Path, rows: list[dict[str, Any]], name: str = "data.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def make_rows(n: int, **more: Any) -> list[dict[str, Any]]:
    """Rows that nothing is wrong with."""
    chance = random.Random(n)
    rows = [make_clean(chance, 4) for _ in range(n)]
    return [{**row, "instruction": f"Machine {i} of hall {i % 7}: what now?", **more} for i, row in enumerate(rows)]


def rules_by_line(report: Report) -> dict[int | None, set[str]]:
    found: dict[int | None, set[str]] = {}
    for one in report.problems:
        found.setdefault(one.line, set()).add(one.rule)
    return found


def test_data_that_nothing_is_wrong_with_is_taken_without_a_finding(tmp_path: Path) -> None:
    path = write(tmp_path, make_rows(LEAST_ROWS))
    before = path.read_bytes()
    suite = make_dataset(60, 0, 1).write_suite(tmp_path / "suite")
    report = preflight(path, Options(suites=[read_suite_folder(suite)]))
    assert report.problems == [] and not report.blocked and report.compared == ["help-desk"]
    assert (report.lines, report.rows, report.distinct) == (LEAST_ROWS,) * 3 and report.low == []
    assert sum(report.splits.values()) == LEAST_ROWS and all(report.splits.values())
    assert len(report.lengths) == LEAST_ROWS and report.lengths_by == "estimate"
    assert path.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12])
def test_known_faults_are_found_and_clean_rows_are_left_alone(tmp_path: Path, seed: int) -> None:
    """The bars of the benchmark on fewer rows: 95 % found, at most 1 % false alarms; and no kind left out."""
    data = make_dataset(1_500, 200, seed)
    suite = read_suite_folder(data.write_suite(tmp_path / "suite"))
    report = preflight(data.write(tmp_path / "data.jsonl"), Options(suites=[suite]))
    outcome = judge(data, [(one.line, one.rule) for one in report.problems])
    assert sum(outcome.found.values()) >= 0.95 * 200, outcome.missed
    assert len(outcome.false) <= 0.01 * 1_300, outcome.false
    assert all(count >= 0.8 * outcome.of[kind] for kind, count in outcome.found.items()), outcome.missed


def test_each_kind_of_fault_is_found_in_a_small_set(tmp_path: Path) -> None:
    data = make_dataset(200, 2 * len(KINDS), 3)
    suite = read_suite_folder(data.write_suite(tmp_path / "suite"))
    report = preflight(data.write(tmp_path / "data.jsonl"), Options(suites=[suite]))
    outcome = judge(data, [(one.line, one.rule) for one in report.problems])
    assert all(outcome.found.values()), outcome.missed
    assert not outcome.false


def test_the_judge_of_faults_counts_a_miss_and_a_false_alarm() -> None:
    """Otherwise the bars above could not be failed."""
    data = make_dataset(100, len(KINDS), 4)
    spoilt = {line for one in data.planted for line in (one.line, one.twin)}
    clean = next(line for line in range(1, 101) if line not in spoilt)
    first = data.planted[0]
    outcome = judge(data, [(clean, "W245"), (first.line, EXPECTED[first.kind][0]), (data.planted[1].line, "W000")])
    assert outcome.false == {clean: ["W245"]} and sum(outcome.found.values()) == 1
    assert len(outcome.missed) == len(KINDS) - 1


def test_errors_block_until_they_are_waived_with_a_reason(tmp_path: Path) -> None:
    path = write(tmp_path, make_rows(60))
    report = preflight(path)
    assert report.blocked and report.counts()["E140"] == 1
    with pytest.raises(InvalidRequest, match="60 distinct rows"):
        admit(path)
    waived = admit(path, Options(waivers=[Waiver("E140", "a smoke test")]))
    assert not waived.blocked and waived.waived == {"E140": "a smoke test"} and waived.counts()["E140"] == 1
    assert "waived: a smoke test" in "\n".join(summary(waived)) and "a smoke test" in page(waived)


def test_a_waiver_of_one_code_waives_no_other(tmp_path: Path) -> None:
    rows = make_rows(60)
    rows[4]["output"] += " The key is AKIAABCDEFGHIJKLMNOP."
    with pytest.raises(InvalidRequest, match="line 5: answer holds an aws key"):
        admit(write(tmp_path, rows), Options(waivers=[Waiver("E140", "a smoke test")]))


@pytest.mark.parametrize(
    ("waiver", "reason"),
    [(Waiver("E999", "x"), "not known"), (Waiver("W221", "x"), "stops nothing"), (Waiver("E140", " "), "no reason")],
)
def test_a_waiver_that_means_nothing_is_refused(tmp_path: Path, waiver: Waiver, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        preflight(write(tmp_path, make_rows(3)), Options(waivers=[waiver]))


def test_the_score_falls_with_each_finding_and_low_rows_are_listed(tmp_path: Path) -> None:
    rows = make_rows(60)
    rows[10]["output"] = "TODO"
    rows[20]["output"] += " "
    report = preflight(write(tmp_path, rows))
    assert [one.line for one in report.low] == [11] and report.low[0].score < LOW_SCORE
    assert "W153" in rules_by_line(report)[None] and "W251" in rules_by_line(report)[21]


# -- the frozen split


def test_a_manifest_freezes_the_split_and_holds_the_data_to_it(tmp_path: Path) -> None:
    path, manifest = write(tmp_path, make_rows(60)), tmp_path / "split.json"
    digest = freeze(check(path, Options(seed=1)), 1, manifest)
    import msgspec

    frozen = msgspec.json.decode(manifest.read_bytes(), type=Manifest)
    assert (frozen.seed, len(frozen.rows)) == (1, 60)
    again = check(path, Options(seed=1, manifest=manifest))
    assert "E162" not in again.report.counts() and freeze(again, 1, manifest) == digest
    moved = preflight(path, Options(seed=2, manifest=manifest))
    assert moved.counts()["E162"] > 0 and moved.blocked


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"data_sha256": 1}'])
def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "split.json").write_bytes(content)
    with pytest.raises(InvalidRequest, match="no split manifest"):
        preflight(write(tmp_path, make_rows(3)), Options(manifest=tmp_path / "split.json"))


# -- what is shown


def test_the_findings_are_plain_json_a_line_each(tmp_path: Path) -> None:
    report = preflight(write(tmp_path, [*make_rows(5), {"instruction": "q", "output": ""}]))
    write_problems(tmp_path / "report.jsonl", report.problems)
    lines = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text().splitlines()]
    assert len(lines) == len(report.problems)
    empty = next(one for one in lines if one["rule"] == "E213")
    assert (empty["row"], empty["line"], empty["severity"]) == (6, 6, "error") and empty["message"] and empty["fix"]


def test_the_page_stands_alone_and_escapes_what_the_data_says(tmp_path: Path) -> None:
    rows = make_rows(60)
    rows[3]["output"] = "<script>alert(1)</script> <insert answer here>"
    shown = page(preflight(write(tmp_path, rows)))
    assert "<script" not in shown and "http" not in shown and "src=" not in shown
    assert shown.count("<svg") >= 4 and "Tokens a row" in shown and "&lt;insert answer here&gt;" in shown


def test_the_summary_survives_markup_in_the_data(tmp_path: Path) -> None:
    from rich.text import Text

    rows = [*make_rows(5), {"instruction": "[/red] [link=x]", "output": "[/bold] [Your Name] [INSERT]"}]
    shown = Text.from_markup("\n".join(summary(preflight(write(tmp_path, rows))))).plain
    assert "[Your Name]" in shown


def test_every_code_is_documented_as_it_is() -> None:
    text = DOCS.read_text()
    table = [line for line in text.splitlines() if line.startswith(("| `E", "| `W"))]
    assert table == code_lines()


def test_codes_are_unique_and_their_letter_is_their_severity() -> None:
    assert all(code == rule.code and code[0] in "EW" and len(code) == 4 for code, rule in RULES.items())
    for rule in RULES.values():
        assert (rule.severity is Severity.ERROR) == rule.code.startswith("E") and 0 <= rule.weight <= 1
    assert Problem("E200", RULES["E200"].severity, "m", "f").line is None
