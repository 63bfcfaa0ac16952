"""Runs side by side: every key of a recipe that differs is named, and no figure is made up where none was told."""

import tomllib
from typing import Any

import msgspec
import pytest
from factories import BASE
from hypothesis import given
from hypothesis import strategies as st

from registry.comparison import Row, Run, compared, require_comparable, settings_of
from registry.errors import InvalidRequest
from registry.records import StepProgress, TrainingCheckpoint, TrainingInfo, TrainingStatus

RECIPE = 'name = "r"\nbase = "b"\ndata = "d"\n'
INFO = TrainingInfo(
    id="x",
    status=TrainingStatus.RUNNING,
    adapter="a",
    base=BASE.digest,
    recipe=RECIPE,
    dataset=BASE.digest,
    replay=None,
    notes=None,
    submitter="p",
    created_at="",
    started_at=None,
    finished_at=None,
    worker=None,
    attempts=1,
    error=None,
    version=None,
    progress=None,
)


def run(recipe: str = RECIPE, points: Any = (), saved: Any = (), **changes: Any) -> Run:
    return Run(msgspec.structs.replace(INFO, recipe=recipe, **changes), points, saved)


def rows(found: list[Row]) -> dict[str, list[str]]:
    return {row.name: row.values for row in found}


def test_keys_that_differ_are_named_whole_and_those_that_agree_are_not() -> None:
    first = run(RECIPE + "[lora]\nrank = 8\n[training]\nrank = 8\nepochs = 2 # a comment\n")
    second = run('# another order\ndata = "d"\nbase = "b"\nname = "r"\n[lora]\nrank = 16\n[training]\nepochs = 2\n')
    found = compared([first, second])
    assert rows(found.settings) == {"lora.rank": ["8", "16"], "training.rank": ["8", ""]} and found.more_settings == 0
    assert compared([first, first]).settings == []


def test_of_very_many_keys_that_differ_the_first_are_shown_and_the_others_counted() -> None:
    many = [run(RECIPE + "".join(f"a{key} = {value}\n" for key in range(1000))) for value in (1, 2)]
    found = compared(many)
    assert [row.name for row in found.settings] == [f"a{key}" for key in range(200)] and found.more_settings == 800


def test_a_recipe_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read, loads = list[str](), tomllib.loads
    monkeypatch.setattr(tomllib, "loads", lambda text: read.append(text) or loads(text))
    compared([run(), run(RECIPE + "seed = 1\n")])
    assert read == [RECIPE, RECIPE + "seed = 1\n"]


def test_waivers_and_dates_are_shown_and_a_recipe_that_cannot_be_read_is_shown_as_it_is() -> None:
    waived = settings_of('at = 2026-01-01\n[[waive]]\ncode = "E140"\nreason = "ü"\n')
    assert waived == {"at": '"2026-01-01"', "waive": '[{"code": "E140", "reason": "ü"}]'}
    for text in ("name = ", "long = 0x" + "f" * 5000, "x = " + "[" * 20_000):
        assert settings_of(text) == {"recipe": text}


@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.integers(-9, 9), max_size=6))
def test_every_key_is_found(given_keys: dict[str, int]) -> None:
    text = "[t]\n" + "".join(f"{key} = {value}\n" for key, value in given_keys.items())
    assert settings_of(text) == {f"t.{key}": str(value) for key, value in given_keys.items()}


def checkpoint(step: int, **metrics: float) -> TrainingCheckpoint:
    return TrainingCheckpoint(id=str(step), training="x", step=step, created_at="", metrics=metrics)


def test_figures_are_those_that_were_told() -> None:
    points = [
        StepProgress(step=n, steps=12, loss=6.0 - n, tokens_per_second=10.0 * n, memory_bytes=2**29 * n)
        for n in range(1, 6)
    ]
    saved = [checkpoint(5, validation_loss=2.5), checkpoint(4), checkpoint(3, validation_loss=1.5)]
    found = rows(compared([run(points=points, saved=saved), run()]).went)
    assert {name: values[0] for name, values in found.items()} == {
        "steps": "5 of 12",
        **{f"loss at {share} %": loss for share, loss in ((0, "5"), (20, "4"), (40, "3"), (60, "4"), (80, "3"))},
        "loss at 40 %": "3",
        "loss at 60 %": "3",
        "loss at 80 %": "2",
        "loss at 100 %": "1",
        "validation loss, best": "1.5 at step 3",
        "validation loss, last": "2.5 at step 5",
        "tokens/s": "50",
        "memory GiB": "2.5",
    }
    assert {values[1] for values in found.values()} == {""}, "of a run that told nothing there is nothing"


def test_of_equal_validation_losses_the_first_is_the_best() -> None:
    saved = [checkpoint(9, validation_loss=1.5), checkpoint(3, validation_loss=1.5)]
    assert rows(compared([run(saved=saved)]).went)["validation loss, best"] == ["1.5 at step 3"]


def test_data_that_no_run_has_are_left_out() -> None:
    found = rows(compared([run(), run(preferences="sha256:" + "ab" * 32)]).facts)
    assert "replay prompts" not in found and "version" not in found
    assert found["preference pairs"] == ["", "sha256:abababababab"] and found["status"] == ["running", "running"]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (run(base="sha256:" + "1" * 63 + "2"), "base"),
        (run(dataset="sha256:" + "2" * 64), "dataset"),
        (run(RECIPE + "seed = 1"), "seed"),
        (run(RECIPE + 'system = "You are"'), "system"),
        (run(RECIPE + "[training]\nmax_length = 64"), "training.max_length"),
        (run(RECIPE + '[training]\norder = "easy-to-hard"'), "training.order"),
        (run(RECIPE + 'preset = "article"'), "preset"),
        (run(RECIPE + '[provenance]\nrequire = ["licence"]'), "[provenance]"),
        (run(RECIPE + "[provenance]\nlicensed_review = true"), "[provenance]"),
        (run(RECIPE + "[replay]\nweight = 0.5"), "[replay]"),
        (run(replay="sha256:" + "3" * 64), "[replay]"),
        (run(preferences="sha256:" + "4" * 64), "[dpo]"),
    ],
)
def test_losses_that_may_not_measure_the_same_are_said_to_be_none_to_compare(other: Run, named: str) -> None:
    said = compared([run(), other]).caution
    assert said is not None and f"differ in {named}:" in said
    assert compared([other, other]).caution is None


def test_the_losses_of_a_second_stage_are_not_compared_as_if_they_were_of_the_first() -> None:
    """A worker may tell each step in words of its own: they are a stage's only where there are two."""
    points = [
        StepProgress(step=n, steps=9, loss=loss, stage=1 + n // 5) for n, loss in enumerate((4, 3, 2, 1, 0.7, 0.5))
    ]
    paired = run(points=points, preferences="sha256:" + "4" * 64)
    found = rows(compared([run(points=points), paired]).went)
    assert found["steps"] == ["5 of 9"] * 2 and found["losses up to step"] == ["5", "4"]
    assert found["loss at 0 %"] == ["4"] * 2 and found["loss at 100 %"] == ["0.5", "0.7"]
    not_yet = run(points=points[:5], preferences="sha256:" + "4" * 64)
    assert "losses up to step" not in rows(compared([not_yet, not_yet]).went)


def test_a_difference_in_what_is_learnt_alone_is_no_reason_for_caution() -> None:
    assert compared([run(), run(RECIPE + "[lora]\nrank = 8\n")]).caution is None


@pytest.mark.parametrize("ids", [[], ["a"], list("abcdef")])
def test_only_two_to_five_runs_can_be_compared(ids: list[str]) -> None:
    with pytest.raises(InvalidRequest, match=f"2 to 5 runs, not of {len(ids)}; name each"):
        require_comparable(ids)
    require_comparable(["a", "b"])
    require_comparable(list("abcde"))


def test_a_run_is_not_compared_with_itself() -> None:
    with pytest.raises(InvalidRequest, match="'b' is named more than once; name each run once"):
        require_comparable(["a", "b", "b"])
