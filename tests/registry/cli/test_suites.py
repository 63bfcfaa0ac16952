"""`tunegate suite` as an author calls it."""

import json
from pathlib import Path

import pytest
from site_under_test import Site

from registry.cli import main

ROOT = Path(__file__).parent.parent.parent.parent
SHOP = ROOT / "suites" / "support-desk"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = 0
    try:
        main(list(arguments))
    except SystemExit as left:
        code = int(str(left.code))
    out, err = capsys.readouterr()
    return code, out, err


def test_the_shipped_suites_have_no_findings(capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(file.parent) for file in sorted((ROOT / "suites").rglob("suite.toml"))]
    arguments = ["suite", "check", *folders, "--json"]
    code, out, _ = run(capsys, *arguments, "--against", str(SHOP / "train.jsonl"))
    assert code == 0
    assert [one["findings"] for one in json.loads(out)] == [[]] * len(folders)
    assert all(one["shows"] for one in json.loads(out))


def test_a_leak_is_named_and_exits_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    question = json.loads((SHOP / "questions" / "items.jsonl").read_text().splitlines()[0])
    data = tmp_path / "train.jsonl"
    data.write_text(json.dumps({"instruction": question["question"], "output": "45 days."}) + "\n")
    code, out, _ = run(capsys, "suite", "check", str(SHOP / "questions"), "--against", str(data))
    assert code == 1
    assert f"problem: {question['id']}" in out and "is in the training data" in out


def test_what_a_size_can_show_depends_on_the_policy(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[accuracy]\nmin = 0.99\n")
    _, out, _ = run(capsys, "suite", "check", str(SHOP / "questions"), "--policy", str(policy))
    assert "240 items cannot show 99%" in out


def test_what_an_extra_suite_can_show_is_said_for_its_own_limits(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[[extra]]\nsuite = 'multiple-choice'\nmin = 0.5\n")
    for folder, shown, hidden in (
        ("multiple-choice", "must be right for 50%", "as an extra suite"),
        ("refusals", "as an extra suite", "for 50%"),
    ):
        _, out, _ = run(capsys, "suite", "check", str(ROOT / "suites" / folder), "--policy", str(policy))
        assert shown in out and hidden not in out


def test_a_base_that_is_none_is_one_message(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "suite", "check", str(SHOP / "pilot"), "--base", str(tmp_path))
    assert code == 3 and "give the directory of a base model" in err


def test_the_digest_is_the_one_that_the_registry_gives(
    capsys: pytest.CaptureFixture[str], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_URL", site.url)
    monkeypatch.setenv("TUNEGATE_TOKEN", site.tokens["admin"])
    folder = str(ROOT / "suites" / "refusals")
    _, digest, _ = run(capsys, "suite", "digest", folder)
    code, pushed, _ = run(capsys, "suite", "push", folder, "--json")
    assert code == 0 and json.loads(pushed)[0]["digest"] == digest.strip()


def test_a_directory_is_shown_without_any_registry(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUNEGATE_TOKEN", raising=False)
    code, out, _ = run(capsys, "suite", "show", str(SHOP / "questions"))
    assert code == 0 and "240 questions" in out and "return-window 12" in out and "at most 32 tokens" in out
    assert '"id":"return-window-01"' in out and "214 of 240 must be right" in out


def test_a_registered_suite_is_shown_to_those_who_may_see_it(
    capsys: pytest.CaptureFixture[str], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_URL", site.url)
    monkeypatch.setenv("TUNEGATE_TOKEN", site.tokens["admin"])
    _, local, _ = run(capsys, "suite", "show", str(ROOT / "suites" / "refusals"), "--json")
    run(capsys, "suite", "push", str(ROOT / "suites" / "refusals"))
    code, out, _ = run(capsys, "suite", "show", "refusals", "--json")
    assert code == 0 and json.loads(out) == json.loads(local)
    code, _, _ = run(capsys, "suite", "show", f"refusals@{json.loads(local)['digest']}")
    assert code == 0
    monkeypatch.setenv("TUNEGATE_TOKEN", site.tokens["ci"])
    code, out, _ = run(capsys, "suite", "show", "refusals")
    assert code == 3 and out == "", "whoever submits must not see held-out data"
    code, _, err = run(capsys, "suite", "show", "nothing")
    assert code == 3 and "neither a directory nor registered" in err


def test_a_directory_without_a_suite_is_one_message(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "suite", "check", str(tmp_path))
    assert code == 3 and "is no suite" in err
