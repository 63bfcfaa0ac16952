"""Whatever a file holds: `tunegate preflight` and `tunegate train --dry-run` say what is wrong, by listed codes.

Kept cases are files that were met; the others are made by hypothesis. None may end in a traceback, or without a word.
"""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from factories import make_weights
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny_base import build_tokenizer

from registry.cli import main
from trainer.preflight.check import Options, check
from trainer.preflight.codes import RULES
from trainer.preflight.fixing import fix
from trainer.preflight.report import page, summary

pytestmark = pytest.mark.slow
GOOD = b'{"instruction": "How long is the warranty?", "output": "Three years."}\n'
CHAT = b'{"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]}\n'


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def tunegate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("TUNEGATE_HOME", str(tmp_path / "home"))

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        code = 0
        try:
            main([str(one) for one in arguments])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Ran(code, *capsys.readouterr())

    return run


DATA: dict[str, bytes] = {
    "empty.jsonl": b"",
    "blank.jsonl": b"\n \n\t\n",
    "nul.jsonl": b"\x00" * 64,
    "nul-in-text.jsonl": GOOD.replace(b"Three", b"Th\\u0000ree"),
    "surrogate.jsonl": GOOD.replace(b"Three", b"\\ud800"),
    "latin-1.jsonl": GOOD.replace(b"Three", b"Drei\xdf"),
    "utf-16.jsonl": GOOD.decode().encode("utf-16"),
    "mark.jsonl": b"\xef\xbb\xbf" + GOOD,
    "crlf.jsonl": GOOD.replace(b"\n", b"\r\n") * 3,
    "cr.jsonl": GOOD.replace(b"\n", b"\r") * 3,
    "no-newline.jsonl": GOOD.rstrip(),
    "torn.jsonl": GOOD + GOOD[:30],
    "twice.jsonl": GOOD.replace(b'"output"', b'"instruction"'),
    "nan.jsonl": GOOD.replace(b'"Three years."', b"NaN"),
    "huge-number.jsonl": GOOD.replace(b'"Three years."', b"1e999"),
    "digits.jsonl": GOOD.replace(b'"Three years."', b"9" * 6000),
    "deep.jsonl": b"[" * 100_000 + b"]" * 100_000,
    "deep-object.jsonl": b'{"a":' * 30_000 + b"1" + b"}" * 30_000,
    "list.jsonl": b"[" + GOOD.strip() + b"]\n",
    "scalar.jsonl": b'1\n"a"\ntrue\nnull\n',
    "wrong-types.jsonl": b'{"instruction": [], "output": {}}\n{"messages": "x"}\n{"messages": [1, null, []]}\n',
    "wrong-roles.jsonl": CHAT.replace(b'"user"', b'"USER"') + CHAT.replace(b'"assistant"', b'"system"'),
    "no-turns.jsonl": b'{"messages": []}\n',
    "odd-split.jsonl": GOOD.replace(b"{", b'{"split": "holdout", ', 1),
    "odd-dates.jsonl": GOOD.replace(b"{", b'{"reviewed_at": "31.02.2026", "credential_valid_until": true, ', 1),
    "long-line.jsonl": GOOD.replace(b"Three", b"x" * 9_000_000),
    "binary.jsonl": bytes(range(256)) * 20,
    "gzip.jsonl": b"\x1f\x8b\x08\x00" + os.urandom(200),
    "pickle.jsonl": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
    "empty.csv": b"",
    "header.csv": b"instruction,output\n",
    "open-quote.csv": b'instruction,output\n"a,b\nc,d\n',
    "wide.csv": b"instruction,output\na,b,c,d\n",
    "narrow.csv": b"instruction,output\na\n",
    "twice.csv": b"output,output\na,b\n",
    "nul.csv": b"instruction,output\na\x00,b\n",
    "latin-1.csv": b"instruction,output\n\xe4,\xf6\n",
    "big-cell.csv": b'instruction,output\nq,"' + b"x" * 300_000 + b'"\n',
    "tabs.tsv": b"instruction\toutput\na\tb\tc\n",
    "empty.parquet": b"",
    "magic.parquet": b"PAR1PAR1",
    "torn.parquet": b"PAR1" + os.urandom(100) + b"\xff\xff\xff\x7fPAR1",
    "text.parquet": GOOD,
    "array.json": b"[" + GOOD.strip() + b"]",
}


def holds_no_traceback(ran: Ran) -> None:
    assert "Traceback" not in ran.out + ran.err and "Error:" not in ran.err.replace("tunegate: error:", "")


@pytest.mark.parametrize("name", DATA)
def test_preflight_names_what_is_wrong_with_any_file_by_listed_codes(tunegate: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(DATA[name])
    report = tmp_path / "report.jsonl"
    ran = tunegate("--json", "preflight", tmp_path / name, "--report", report, "--html", tmp_path / "page.html")
    holds_no_traceback(ran)
    assert ran.code == 1, "no case here is data that a run would take"
    told = json.loads(ran.out)["problems"]
    assert told and {one["rule"] for one in told} <= set(RULES) and all(one["message"] and one["fix"] for one in told)
    assert [json.loads(line) for line in report.read_text().splitlines()] == told


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe whose base is as small as can be."""
    (tmp_path / "base").mkdir()
    for name, data in {"config.json": b"{}", "model.safetensors": make_weights()}.items():
        (tmp_path / "base" / name).write_bytes(data)
    build_tokenizer(tmp_path / "base")
    (tmp_path / "d.jsonl").write_bytes(GOOD)
    (tmp_path / "r.toml").write_text('name = "x"\nbase = "base"\ndata = "d.jsonl"\n')
    return tmp_path / "r.toml"


READABLE = {"mark.jsonl", "crlf.jsonl", "cr.jsonl", "no-newline.jsonl", "big-cell.csv"}  # only too few for a run


@pytest.mark.stack
@pytest.mark.parametrize("name", sorted(set(DATA) - READABLE))
def test_a_dry_run_refuses_data_that_no_run_could_use(tunegate: Run, recipe: Path, name: str) -> None:
    (recipe.parent / name).write_bytes(DATA[name])
    recipe.write_text(f'name = "x"\nbase = "{recipe.parent}/base"\ndata = "{name}"\n')
    ran = tunegate("train", recipe, "--dry-run")
    holds_no_traceback(ran)
    assert ran.code in (1, 3) and (ran.out + ran.err).strip()


RECIPES: dict[str, bytes] = {
    "empty": b"",
    "nul": b"name = \x00",
    "latin-1": b'name = "\xe4"',
    "utf-16": 'name = "x"'.encode("utf-16"),
    "no-toml": b"{json: true}",
    "open-text": b'name = "x',
    "twice": b'name = "x"\nname = "y"\nbase = "b"\ndata = "d.jsonl"\n',
    "digits": b"seed = " + b"9" * 5000,
    "deep": b"x = " + b"[" * 5000 + b"]" * 5000,
    "dots": b"a" + b".a" * 3000 + b" = 1",
    "tables": b"".join(b"[t%d]\n" % n for n in range(2000)),
    "date": b'name = 2026-01-01\nbase = "b"\ndata = "d.jsonl"\n',
    "infinite": b'name = "x"\nbase = "b"\ndata = "d.jsonl"\n[training]\nlearning_rate = inf\n',
    "no-number": b'name = "x"\nbase = "b"\ndata = "d.jsonl"\n[training]\nepochs = nan\n',
    "negative": b'name = "x"\nbase = "b"\ndata = "d.jsonl"\nseed = -1\n[lora]\nrank = -8\n',
    "wrong-types": b"name = []\nbase = {}\ndata = 1\nlora = 3\n[training]\nepochs = 'x'\n",
    "unknown": b'name = "x"\nbase = "b"\ndata = "d.jsonl"\nlearning-rate = 1\n[loar]\nrank = 8\n',
    "climbing-name": b'name = "../../x"\nbase = "b"\ndata = "d.jsonl"\n',
    "no-base": b'name = "x"\nbase = "nowhere"\ndata = "d.jsonl"\n',
    "no-data": b'name = "x"\nbase = "BASE"\ndata = "nowhere.jsonl"\n',
    "data-is-a-folder": b'name = "x"\nbase = "BASE"\ndata = "."\n',
    "data-with-nul": b'name = "x"\nbase = "BASE"\ndata = "d\\u0000.jsonl"\n',
    "base-with-nul": b'name = "x"\nbase = "b\\u0000"\ndata = "d.jsonl"\n',
    "long-path": b'name = "x"\nbase = "BASE"\ndata = "' + b"d" * 5000 + b'"\n',
    "no-prompts": b'name = "x"\nbase = "BASE"\ndata = "d.jsonl"\n[replay]\nprompts = "nowhere"\n',
    "no-pairs": b'name = "x"\nbase = "BASE"\ndata = "d.jsonl"\n[dpo]\npairs = "nowhere"\n',
    "odd-waiver": b'name = "x"\nbase = "BASE"\ndata = "d.jsonl"\n[[waive]]\ncode = "E999"\nreason = "x"\n',
    "markup": b'name = "x"\nbase = "[/red]"\ndata = "[bold]"\n"[link=x]" = 1\n',
}


@pytest.mark.stack
@pytest.mark.parametrize("name", RECIPES)
def test_a_dry_run_refuses_any_recipe_that_cannot_be_run(tunegate: Run, recipe: Path, name: str) -> None:
    recipe.write_bytes(RECIPES[name].replace(b"BASE", str(recipe.parent / "base").encode()))
    ran = tunegate("train", recipe, "--dry-run")
    holds_no_traceback(ran)
    assert ran.code == 3 and ran.err.strip()


def test_a_folder_a_missing_file_and_one_that_may_not_be_read_are_refused(tunegate: Run, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere.jsonl", "x" * 5000):
        for command in (("preflight", path), ("train", path, "--dry-run")):
            ran = tunegate(*command)
            holds_no_traceback(ran)
            assert ran.code == 3 and ran.err.strip()


_TEXT = st.text(max_size=80) | st.sampled_from(
    [
        "",
        " ",
        "\u200b",
        "{{x}}",
        "[Your Name]",
        "+49 30 1234567",
        "a@b.co",
        "<br>",
        "Ã©",
        "\u202e",
        "```",
        "%s %s",
        "1" * 40,
    ]
)
_VALUE: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
_KEY = st.sampled_from(
    "instruction input output prompt completion messages role content id group split meta source licence collector "
    "reviewer credential reviewed_at credential_valid_until".split()
) | st.text(max_size=5)
_MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": _TEXT}),
    max_size=5,
)
_ROW = (
    st.fixed_dictionaries(
        {"instruction": _TEXT, "output": _TEXT}, optional={"input": _TEXT, "split": _TEXT, "id": _TEXT}
    )
    | st.fixed_dictionaries({"messages": _MESSAGES})
    | st.fixed_dictionaries({"prompt": _TEXT | _MESSAGES, "completion": _TEXT | _MESSAGES})
    | st.dictionaries(_KEY, _VALUE, max_size=5)
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(_ROW.map(json.dumps) | st.text(max_size=30), max_size=12), st.booleans())
@example(['{"instruction": "q", "output": "\\ud800"}'], True)
def test_any_rows_can_be_looked_at_reported_and_mended(lines: list[str], mask: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, fixed = Path(folder) / "d.jsonl", Path(folder) / "fixed.jsonl"
        path.write_bytes("\n".join(lines).encode("utf-8", "replace"))
        found = check(path, Options(seed=1, manifest=Path(folder) / "split.json"))
        n = len(path.read_bytes().splitlines())
        assert all(one.rule in RULES and (one.line is None or 1 <= one.line <= n) for one in found.report.problems)
        assert found.report.blocked, "fewer than 500 rows"
        assert page(found.report).startswith("<!doctype html>") and summary(found.report)
        fix(found, fixed, mask=mask)
        again = check(fixed, Options(seed=1)).report
        assert not [one for one in again.problems if one.rule == "W220"]
