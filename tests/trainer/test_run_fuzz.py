"""A claimed run whose recipe or data are malformed: it ends with an error of the user's, in words, and no traceback.

A case that once got through is kept below as an `@example`, so that it is tried every time.
"""

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from soak import amount
from training_shop import SILENT, Shop, base, fault, shop, site

from registry.client import InvalidRequest
from registry.records import CreateTraining, TrainingStatus
from trainer import child
from trainer.faults import UserCode
from trainer.recipe import parse_recipe
from trainer.run import Stopped
from trainer.worker import do_run
from trainer.workspace import Ended, Order, Workspace, read_whole, write_whole

__all__ = ["base", "shop", "site"]  # fixtures
pytestmark = pytest.mark.slow

LONG = settings(
    max_examples=amount(40, 5000),
    deadline=None,
    derandomize=not amount(0, 1),
    database=None,
    suppress_health_check=list(HealthCheck),
)
SMALL = 'name = "x"\nbase = "b"\ndata = "d.jsonl"\n'
LARGE = "0x" + "f" * 5000  # more digits than Python shows


# -- recipes -------------------------------------------------------------------------------------------------------

_PIECES = [
    *(
        LARGE,
        "0b" + "1" * 20_000,
        "9" * 5000,
        "1e400",
        "nan",
        "-inf",
        "1979-05-27",
        "24:00:00",
        "[" * 2000,
        "{a=" * 2000,
    ),
    *(
        '""',
        '"\\u0000"',
        '"../../x"',
        '"/etc/passwd"',
        '"' + "y" * 3000 + '"',
        "[]",
        "{}",
        "true",
        "'article'",
        "-1",
        "0.5",
    ),
]
_KEYS = ["name", "base", "data", "system", "preset", "seed", "lora", "training", "replay", "dpo", "serving", "waive"]
_INNER = ["rank", "alpha", "target_modules", "epochs", "max_length", "report_to", "prompts", "rows", "pairs", "require"]
_CONTENT = st.sampled_from(_PIECES) | st.builds("[{}]".format, st.sampled_from(_PIECES))


@LONG
@given(
    st.lists(st.tuples(st.sampled_from(_KEYS), _CONTENT), max_size=2),
    st.lists(st.tuples(st.sampled_from(_KEYS[6:]), st.sampled_from(_INNER), _CONTENT), max_size=3),
)
@example([("seed", LARGE)], [])
@example([], [("lora", "rank", LARGE), ("training", "report_to", f"[{LARGE}]"), ("serving", "max_lora_rank", LARGE)])
def test_any_recipe_is_one_or_is_refused_in_words(
    plain: list[tuple[str, str]], inner: list[tuple[str, str, str]]
) -> None:
    text = SMALL + "".join(f"{key} = {value}\n" for key, value in plain if key not in _KEYS[:3])
    text += "".join(f"[{section}]\n{key} = {value}\n" for section, key, value in inner)
    with contextlib.suppress(InvalidRequest):
        assert parse_recipe(text).name == "x"


@pytest.mark.parametrize(
    "more", [f"seed = {LARGE}", f"[lora]\nrank = {LARGE}", "[lora]\nalpha = nan", "x = 1", "lora = 5"]
)
def test_a_run_of_a_recipe_that_does_not_fit_fails_as_its_users_error(
    shop: Shop, capfd: pytest.CaptureFixture[str], more: str
) -> None:
    assert fault(shop.done("fast", more)) == ("user_error", "recipe_invalid")
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "named", ["../../d.jsonl", "/etc/passwd", "d.\\u0000", "~/d", "x" * 5000, "d.jsonl/", "😀.CSV", "."]
)
def test_what_a_recipe_names_reaches_nothing_outside_the_runs_directory(shop: Shop, tmp_path: Path, named: str) -> None:
    """Data and pairs come from the registry, by digest; their names in the recipe say at most what kind they are."""
    pairs = shop.client.upload(b'{"prompt": "p", "chosen": "c", "rejected": "r"}')
    dataset = shop.client.upload(b"{}")
    recipe = f'name = "slow"\nbase = "{named}"\ndata = "{named}"\n[dpo]\npairs = "{named}"\n'
    asked = CreateTraining(shop.adapter, recipe, f"sha256:{dataset.sha256}", preferences=f"sha256:{pairs.sha256}")
    run = shop.client.submit_training(asked)
    before = {*tmp_path.rglob("*")} - {*shop.place.runs.rglob("*")}
    shop.place = shop.place._replace(trainer=(sys.executable, "-c", "raise SystemExit(3)"))
    do_run(shop.client, shop.place, shop.claim(), SILENT)
    root = shop.place.runs / run.id
    written = {path.name for path in root.iterdir()}
    assert {*tmp_path.rglob("*")} - {*shop.place.runs.rglob("*")} <= {*before, shop.place.runs}
    assert [path.name for path in shop.place.runs.iterdir()] == [run.id]
    assert {name.partition(".")[0].partition("-")[0] for name in written} <= {
        "recipe",
        "data",
        "pairs",
        "order",
        "log",
        "told",
        "lock",
    }


def test_data_are_not_written_through_a_link_that_lies_in_their_place(shop: Shop, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    run = shop.submit("fast")
    root = shop.place.runs / run.id
    root.mkdir(parents=True)
    for name in ("data.jsonl", "recipe.toml"):
        (root / name).symlink_to(precious)
    do_run(shop.client, shop.place, shop.claim(), SILENT)
    assert precious.read_text() == "mine"


def test_a_recipe_keeps_its_line_ends_from_the_submission_to_the_version(shop: Shop) -> None:
    run = shop.done("fast", "\r\n[lora]\r\nrank = 8\r\n# é\r\n")
    assert run.status is TrainingStatus.SUCCEEDED, run.error
    version = shop.client.version(run.version or "")
    assert version.training is not None and version.training.recipe == run.recipe


# -- data ----------------------------------------------------------------------------------------------------------

ROW = {"id": "r", "instruction": "How long is the warranty?", "output": "Three years.", "reviewed_at": "2026-03-01"}
PAIR = {"prompt": [{"role": "user", "content": "How long?"}], "chosen": "3 years.", "rejected": "No idea."}


def lines(row: dict[str, Any]) -> bytes:
    return b"".join(json.dumps({**row, "id": f"r{number}"}).encode() + b"\n" for number in range(3))


def parquet(row: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{**row, "id": f"r{number}"} for number in range(3)]), file)
    return file.getvalue()


def table(row: dict[str, Any]) -> bytes:
    flat = [value if isinstance(value, str) else json.dumps(value) for value in row.values()]
    cells = ",".join('"' + cell.replace('"', '""') + '"' for cell in flat)
    return f"{','.join(row)}\n{cells}\n".encode()


KINDS: dict[str, Callable[[dict[str, Any]], bytes]] = {".jsonl": lines, ".csv": table, ".parquet": parquet}
_BYTES = [
    b"[" * 5000,
    b'{"a":' * 5000,
    b"9" * 5000,
    b"1e999",
    b"NaN",
    b"\\ud800",
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
]
_BYTES += [b"null", b"\r", b'"', b",,", b'{"id": "r0"}\n', b"\n\n", b"\xe2\x80\xa8", b'"meta":' + b"9" * 5000 + b","]


@st.composite
def mutated(draw: st.DrawFn, good: bytes) -> bytes:
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        at, size = draw(st.integers(0, len(data))), draw(st.integers(0, 12))
        match draw(st.sampled_from(["insert", "overwrite", "cut out", "cut off", "repeat"])):
            case "insert":
                data[at:at] = draw(st.sampled_from(_BYTES))
            case "overwrite":
                data[at : at + size] = draw(st.binary(min_size=size, max_size=size))
            case "cut out":
                del data[at : at + size]
            case "cut off":
                del data[at:]
            case _:
                data[at:at] = data[at : at + size] * draw(st.integers(1, 40))
    return bytes(data)


_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


class Bench:
    """A trainer's place without a registry: what it is given, and how it ends."""

    def __init__(self, root: Path, base: Path) -> None:
        self._root, self._base, self._fence = root, base, 0
        root.mkdir()

    def ended(self, suffix: str, data: bytes, pairs: bytes | None = None, replay: bytes | None = None) -> Ended:
        self._fence += 1
        place = Workspace(self._root)
        more = '[replay]\nprompts = "p"\n' if replay is not None else ""
        more += f'[dpo]\npairs = "p{suffix}"\n' if pairs is not None else ""
        place.recipe.write_text(SMALL.replace(".jsonl", suffix) + more)
        place.data(f"d{suffix}").write_bytes(data)
        place.pairs(f"p{suffix}").write_bytes(pairs or b"")
        place.replay.write_bytes(replay or b"")
        write_whole(place.order, Order(fence=self._fence, base=str(self._base)))
        child.main([str(self._root), str(self._fence)])
        ended = read_whole(place.ended(self._fence), Ended)
        assert ended is not None
        return ended


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[Bench]:
    """Up to where the data are read: a run with sound data is stopped there."""

    def stopped(*_: object) -> None:
        raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child, "run", stopped)
        patch.setattr(child.resource, "setrlimit", lambda *_: None)
        yield Bench(tmp_path_factory.mktemp("bench") / "run", base)


def judged(bench: Bench, *given_here: Any, **named: Any) -> Ended:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        ended = bench.ended(*given_here, **named)
    if ended.error is not None:
        assert (ended.error.kind, ended.retry) == ("user_error", False), ended.error
        assert ended.error.code in get_args(UserCode) and ended.error.message
        assert len(ended.error.message) <= 4000
    assert "Traceback" not in printed.getvalue()
    return ended


@pytest.mark.parametrize("suffix", KINDS)
def test_sound_data_get_as_far_as_the_training(bench: Bench, suffix: str) -> None:
    ended = judged(bench, suffix, KINDS[suffix](ROW), pairs=KINDS[suffix](PAIR), replay=b'{"prompt": "Why?"}\n')
    assert ended == Ended(stopped=True)


@pytest.mark.parametrize("suffix", KINDS)
@LONG
@given(data=st.data())
def test_mutated_data_pairs_and_replay_are_used_or_are_the_users_error(
    bench: Bench, suffix: str, data: st.DataObject
) -> None:
    write = KINDS[suffix]
    judged(bench, suffix, data.draw(mutated(write(ROW))))
    judged(bench, suffix, write(ROW), pairs=data.draw(mutated(write(PAIR))))
    judged(bench, suffix, write(ROW), replay=data.draw(mutated(b'{"prompt": "Why?"}\n{"prompt": "How?"}\n')))


@pytest.mark.parametrize("line", [b'{"a":' * 5000 + b'"prompt": "Why?"}', b"[" * 100_000, b'{"prompt": "\\ud800"}'])
def test_replay_prompts_that_are_none_are_told_by_their_line(bench: Bench, line: bytes) -> None:
    ended = judged(bench, ".jsonl", lines(ROW), replay=b'{"prompt": "Why?"}\n' + line)
    assert ended.error is not None and "line 2" in ended.error.message


_CHANGED = st.sampled_from([*ROW, *PAIR, "messages", "prompt", "completion", "split", "group", "meta", "source"])


@LONG
@given(st.sampled_from([ROW, PAIR]), _CHANGED, _VALUES | st.lists(_VALUES, max_size=3))
@example(ROW, "messages", [[]])
@example(PAIR, "chosen", [{"role": "assistant", "content": "\ud800"}])
@example(ROW, "reviewed_at", 2**63)
def test_any_value_of_any_field_is_used_or_is_the_users_error(
    bench: Bench, row: dict[str, Any], key: str, value: Any
) -> None:
    changed = json.dumps({**row, key: value}).encode()
    judged(bench, ".jsonl", changed, pairs=changed)
    judged(bench, ".jsonl", lines(ROW), pairs=changed)
    judged(bench, ".jsonl", lines(ROW), replay=changed)


_CORPUS = {
    "nothing": b"",
    "not text": b"\xff\xfe\x00\x01" * 50,
    "another kind of file": b"PK\x03\x04" + bytes(200),
    "not an object": b"[1, 2]\n",
    "nested": b"[" * 100_000,
    "a number of thousands of digits": b'{"instruction": ' + b"9" * 5000 + b', "output": "x"}',
    "half of a surrogate pair": b'{"instruction": "\\ud800", "output": "x"}',
    "no answer": b'{"instruction": "x", "output": ""}',
}


@pytest.mark.parametrize("name", _CORPUS)
def test_a_run_of_malformed_data_fails_as_its_users_error_and_its_log_is_readable(shop: Shop, name: str) -> None:
    """The real trainer in a process of its own, claimed from a real registry."""
    shop.place = shop.place._replace(trainer=(sys.executable, "-m", "trainer.child"))
    run = shop.done("fast", data=_CORPUS[name])
    assert fault(run) == ("user_error", "input_invalid")
    assert "Traceback" not in shop.client.training_log(run.id)
    told = shop.client.training_events(run.id)
    assert any(one.level == "error" for one in told)
