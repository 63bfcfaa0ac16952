"""`tunegate suite check` as an author calls it."""

import json
from pathlib import Path

import pytest

from registry.cli import main

ROOT = Path(__file__).parent.parent.parent.parent
SHOP = ROOT / "suites" / "support-desk"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(list(arguments))
    out, err = capsys.readouterr()
    return int(str(left.value.code)), out, err


def test_the_shipped_suites_have_no_findings(capsys: pytest.CaptureFixture[str]) -> None:
    folders = [str(SHOP / name) for name in ("questions", "conversations", "pilot")]
    arguments = ["suite", "check", *folders, str(ROOT / "suites" / "general-knowledge"), "--json"]
    code, out, _ = run(capsys, *arguments, "--against", str(SHOP / "train.jsonl"))
    assert code == 0
    assert [one["findings"] for one in json.loads(out)] == [[], [], [], []]


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


def test_a_directory_without_a_suite_is_one_message(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "suite", "check", str(tmp_path))
    assert code == 3 and "is no suite" in err
