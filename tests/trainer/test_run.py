"""A run's directory is named by everything that goes into it: the same run continues, another one begins anew."""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from factories import make_training, make_weights
from tiny_base import build_tiny_base, build_tokenizer

from registry.client import InvalidRequest
from trainer.recipe import parse_recipe
from trainer.record import ledger
from trainer.rendering import render_data
from trainer.run import Plan, Reporter, finished, plan_run, run

RECIPE = 'name = "x"\nbase = "b"\ndata = "d.jsonl"\n[replay]\nprompts = "p.jsonl"\nrows = 2\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    for name, data in {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": make_weights()}.items():
        (tmp_path / "base" / name).write_bytes(data)
    _write(tmp_path / "d.jsonl", [{"instruction": f"q{i}", "output": f"a{i}", "group": f"g{i}"} for i in range(9)])
    _write(tmp_path / "p.jsonl", [{"prompt": f"p{i}"} for i in range(3)])
    return tmp_path


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def plan(folder: Path, text: str = RECIPE) -> Plan:
    return plan_run(parse_recipe(text), text, folder, folder / "base", folder / "runs")


def test_the_same_inputs_are_the_same_run_and_planning_writes_nothing(folder: Path) -> None:
    first = plan(folder)
    assert plan(folder).directory == first.directory == folder / "runs" / first.directory.name
    assert first.directory.name.startswith("x-") and not (folder / "runs").exists()
    assert first.prompts == ["p0", "p1"] and len(first.rows) == 9


@pytest.mark.parametrize("changed", ["recipe", "data", "group", "declared", "base", "replay"])
def test_a_change_anywhere_is_another_run_which_resumes_nothing(folder: Path, changed: str) -> None:
    before, text = plan(folder).directory, RECIPE
    if changed == "recipe":
        text += "# a remark is a change too\n"
    elif changed == "base":
        (folder / "base" / "model.safetensors").write_bytes(make_weights(fill=2))
    else:
        name, old, new = {
            "data": ("d.jsonl", "a3", "a33"),
            "group": ("d.jsonl", "g3", "g33"),
            "declared": ("d.jsonl", '"group": "g3"', '"split": "test", "group": "g3"'),
            "replay": ("p.jsonl", "p1", "p11"),
        }[changed]
        (folder / name).write_text((folder / name).read_text().replace(old, new))
    assert plan(folder, text).directory != before


def test_a_replay_prompt_beyond_those_used_is_no_change(folder: Path) -> None:
    before = plan(folder).directory
    (folder / "p.jsonl").write_text((folder / "p.jsonl").read_text().replace("p2", "another"))
    assert plan(folder).directory == before


def test_only_the_record_marks_a_run_as_finished(folder: Path) -> None:
    planned = plan(folder)
    (planned.directory / "adapter").mkdir(parents=True)
    (planned.directory / ".training.json.part").write_bytes(b"{}")
    assert not finished(planned)
    (planned.directory / "training.json").write_bytes(b"{}")
    assert finished(planned)


@pytest.mark.parametrize("line", ["{", '{"text": "p"}', "[]", "3", '{"prompt": 5}', '{"prompt": ""}'])
def test_a_replay_line_without_a_prompt_is_named(folder: Path, line: str) -> None:
    (folder / "p.jsonl").write_text('{"prompt": "p"}\n' + line + "\n")
    with pytest.raises(InvalidRequest, match="line 2"):
        plan(folder)


def test_missing_replay_prompts_are_named(folder: Path) -> None:
    (folder / "p.jsonl").unlink()
    with pytest.raises(InvalidRequest, match=r"p\.jsonl cannot be read"):
        plan(folder)


# -- running --------------------------------------------------------------------------------------------------------

HOLDER = """
import sys
from pathlib import Path
from trainer.run import _alone
with _alone(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""
TINY = """
name = "tiny"
base = "base"
data = "d.jsonl"
[lora]
rank = 8
[training]
epochs = 2.0
batch_size = 4
accumulate = 1
checkpoint_steps = 2
[[waive]]
code = "E140"
reason = "a test's few rows"
"""


def load_tokenizer(base: Path) -> Any:
    from trainer.model import load_tokenizer

    return load_tokenizer(base)


class Untouched(Exception):
    """Something was begun that must not be."""


class Killed(Exception):
    pass


def refuse(*arguments: Any) -> None:
    raise Untouched(arguments)


def test_a_second_process_in_the_same_run_is_refused_until_the_first_is_gone(folder: Path) -> None:
    planned = plan(folder)
    planned.directory.mkdir(parents=True)
    command = [sys.executable, "-c", HOLDER, str(planned.directory)]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None and first.stdout.readline() == "locked\n"
        with pytest.raises(InvalidRequest, match="another process trains in"):
            run(planned, Reporter(refuse, refuse))
        assert [path.name for path in planned.directory.iterdir()] == ["lock"], "the second has written nothing"
    finally:
        first.kill()
        first.communicate()
    with pytest.raises(Untouched):  # it gets as far as its first stage
        run(planned, Reporter(refuse, refuse))


def test_a_run_that_another_process_finished_a_moment_ago_is_not_begun_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, record = plan(folder), make_training()

    @contextlib.contextmanager
    def late(directory: Path) -> Iterator[None]:
        (directory / "training.json").write_bytes(msgspec.json.encode(record))
        yield

    monkeypatch.setattr("trainer.run._alone", late)
    assert run(planned, Reporter(refuse, refuse)) == record


@pytest.mark.stack
def test_data_that_preflight_refuses_is_stopped_before_the_base_is_loaded(folder: Path) -> None:
    shutil.rmtree(folder / "base")
    (folder / "base").mkdir()
    build_tokenizer(folder / "base")
    (folder / "base" / "config.json").write_bytes(b"{}")
    (folder / "base" / "model.safetensors").write_bytes(make_weights())
    stages: list[str] = []
    with pytest.raises(InvalidRequest, match="9 distinct rows; below 500"):
        run(plan(folder, RECIPE), Reporter(stages.append, refuse))
    assert stages == ["looking at the data"]


def test_a_recipe_that_is_too_hot_is_stopped_before_anything(folder: Path) -> None:
    hot = RECIPE.replace("[replay]", "[training]\nlearning_rate = 3e-3\n[replay]")
    with pytest.raises(InvalidRequest, match="E103"):
        run(plan(folder, hot), Reporter(refuse, refuse))


ROWS = [
    {"instruction": "q0", "output": "a0", "source": "https://x/0", "licence": "CC0-1.0", "split": "train"},
    {"instruction": "q1", "output": "a1", "source": "https://x/1", "split": "train"},
    {"instruction": "q2", "output": "a2", "licence": " ", "source": "s", "split": "train"},
    {"instruction": "q0", "output": "a0", "source": "https://y/0", "licence": "MIT", "reviewer": "ada"},
]


@pytest.mark.stack
def test_a_row_without_the_provenance_that_is_asked_for_is_blocked_and_the_ledger_says_so(folder: Path) -> None:
    build_tokenizer(folder / "base")
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    planned = plan(folder, 'name = "x"\nbase = "b"\ndata = "d.jsonl"\n[provenance]\nrequire = ["source", "licence"]\n')
    rendered = render_data(planned, load_tokenizer(folder / "base"))
    assert [(one.use, one.reason) for one in rendered] == [
        ("train", ""),
        ("blocked", "without licence"),
        ("blocked", "without licence"),
    ]
    rows = {row.line: row for row in ledger(planned, rendered)}
    assert [rows[line].disposition for line in (1, 2, 3, 4)] == ["trained", "blocked", "blocked", "duplicate"]
    assert (rows[1].origin, rows[1].licence, rows[1].trained_tokens > 0) == ("https://x/0", "CC0-1.0", True)
    assert (rows[2].origin, rows[2].licence, rows[2].trained_tokens) == ("https://x/1", "", 0)
    assert (rows[4].origin, rows[4].licence, rows[4].reviewer) == ("https://y/0", "MIT", "ada")


@pytest.mark.stack
def test_a_kill_before_the_checkpoints_are_removed_leaves_a_finished_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(folder / "base")
    build_tiny_base(folder / "base")
    planned, steps = plan(folder, TINY), []

    def die(path: Path, **_: Any) -> None:
        assert path == planned.directory / "checkpoints" and path.is_dir()
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("trainer.run.shutil.rmtree", die)
        with pytest.raises(Killed):
            run(planned, Reporter(lambda text: None, lambda done, of, numbers: steps.append(done)))
    assert steps and finished(planned) and (planned.directory / "adapter" / "adapter_model.safetensors").is_file()
    before = {path: path.read_bytes() for path in planned.directory.rglob("*") if path.is_file()}
    record = run(planned, Reporter(refuse, refuse))
    assert record.waived == {"E140": "a test's few rows"} and record.preflight["E140"] == 1
    assert {one.code for one in record.lint} >= {"W131"} and 0 <= record.metrics["stopped_share"] <= 1
    assert record.metrics["steps"] == steps[-1] and record.seconds > 0 and "train_seconds" not in record.metrics
    assert {path: path.read_bytes() for path in planned.directory.rglob("*") if path.is_file()} == before
