"""`tunegate preflight` as people call it: what it prints and writes, and its exit codes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_data import make_dataset
from site_under_test import running

from registry.cli import main
from registry.settings import Home
from trainer.preflight.codes import RULES

pytestmark = pytest.mark.slow


@pytest.fixture
def tunegate(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object, before: tuple[str, ...] = ()) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(one) for one in (*before, "preflight", *arguments)])
            raise SystemExit(0)
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(520, 0, 9).write(tmp_path_factory.mktemp("data") / "data.jsonl")


@pytest.fixture
def few(tmp_path: Path) -> Path:
    return make_dataset(30, 0, 9).write(tmp_path / "few.jsonl")


def test_good_data_is_taken_and_everything_asked_for_is_written(
    tunegate: Callable[..., tuple[int, str, str]], data: Path, tmp_path: Path
) -> None:
    before = data.read_bytes()
    files = {name: tmp_path / name for name in ("r.jsonl", "r.html", "split.json", "new.jsonl")}
    suite = make_dataset(60, 0, 1).write_suite(tmp_path / "suite")
    options = ("--report", files["r.jsonl"], "--html", files["r.html"], "--manifest", files["split.json"])
    code, out, _ = tunegate(data, "--suite", suite, *options, "--fix", files["new.jsonl"], "--mask")
    assert code == 0 and "a run would take this data" in out and "help-desk" in out
    assert files["r.jsonl"].read_text() == "" and files["r.html"].read_text().startswith("<!doctype html>")
    assert len(json.loads(files["split.json"].read_text())["rows"]) == 520
    assert files["new.jsonl"].read_bytes() == before == data.read_bytes()


def test_an_error_stops_the_data_until_it_is_waived(tunegate: Callable[..., tuple[int, str, str]], few: Path) -> None:
    code, out, _ = tunegate(few)
    assert code == 1 and "E140" in out and "a run would refuse this data" in out
    code, out, _ = tunegate(few, "--waive", "E140", "--reason", "a pilot", "--json")
    found: dict[str, Any] = json.loads(out)
    assert code == 0 and found["waived"] == {"E140": "a pilot"} and found["counts"]["E140"] == 1
    assert {"rule", "severity", "message", "fix"} <= set(found["problems"][0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no data given"),
        (("few", "--waive", "E140"), "1 --waive and 0 --reason"),
        (("few", "--waive", "E999", "--reason", "x"), "not known"),
        (("few", "--mask"), "give --fix"),
        (("few", "--fix", "few"), "exists"),
        (("few", "--suite", "nowhere"), "is no suite"),
        (("few", "--held-out", "nowhere"), "cannot be read"),
        (("few", "--base", "nowhere"), "leave --base out"),
    ],
)
def test_what_can_not_be_done_is_one_message(
    tunegate: Callable[..., tuple[int, str, str]], few: Path, arguments: tuple[str, ...], message: str
) -> None:
    code, _, err = tunegate(*(few if one == "few" else one for one in arguments))
    assert code == 3 and message in err and "Traceback" not in err


def test_codes_lists_them_all(tunegate: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = tunegate("--codes")
    assert code == 0 and [line[:4] for line in out.splitlines()] == list(RULES)


def test_registered_suites_are_looked_for_in_the_data(
    tunegate: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    rows = [{"prompt": "what is NUMBER 3", "completion": "Four."}, {"prompt": "Who is it?", "completion": "Me."}]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with running(Home(tmp_path / "home")) as site:
        site.publish_suites()
        before = ("--url", site.url, "--token", site.tokens["admin"])
        code, out, _ = tunegate(tmp_path / "data.jsonl", "--registered", "--json", before=before)
    found = json.loads(out)
    assert code == 1 and [one["line"] for one in found["problems"] if one["rule"] == "E160"] == [1]
    assert len(found["compared"]) >= 3
