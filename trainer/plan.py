"""Everything that goes into a run, read and named before anything is done: the same inputs are the same run."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import msgspec

from registry.client import InvalidRequest, describe_base, describe_file
from trainer.dataset import Data, Filled, Row, prepare, read_rows
from trainer.pairs import Pairs, read_pairs
from trainer.preflight.check import Options, Report, preflight
from trainer.preflight.codes import Waiver
from trainer.preflight.pairs import check_pairs
from trainer.recipe import Recipe


class Plan(NamedTuple):
    """What a run will use. `directory` is where it lives; tensors: the shapes of the base's weights."""

    recipe: Recipe
    text: str
    base: Path
    base_digest: str
    rows: list[Row]
    data: Data
    prompts: list[str]
    pairs: Pairs
    directory: Path
    data_file: Path
    pairs_file: Path | None
    tensors: dict[str, list[int]]


class Given(NamedTuple):
    """Files that stand in for those that a recipe names, where they came by themselves."""

    data: Path
    replay: Path
    pairs: Path


def plan_run(recipe: Recipe, text: str, folder: Path, base: Path, runs: Path, given: Given | None = None) -> Plan:
    """Read everything a run needs and name its directory. `folder`: where the recipe's relative paths begin."""
    data_file = given.data if given else folder / recipe.data
    rows = read_rows(data_file)
    prompts, pairs = [], Pairs([], [])
    if recipe.replay:
        prompts = _read_prompts(given.replay if given else folder / recipe.replay.prompts, recipe.replay.rows)
    pairs_file = (given.pairs if given else folder / recipe.dpo.pairs) if recipe.dpo else None
    if pairs_file is not None:
        pairs = read_pairs(pairs_file)
    described = describe_base(base)
    key = hashlib.sha256()
    # The whole files: what a row declares, its split or its reviewer's credential, decides what it is used for.
    of_files = [describe_file(one).sha256 for one in (data_file, pairs_file) if one is not None]
    for part in (text, described.digest, *of_files, *prompts):
        key.update(part.encode() + b"\0")
    directory = runs / f"{recipe.name}-{key.hexdigest()[:12]}"
    data = prepare(rows, recipe.seed)
    return Plan(
        recipe=recipe,
        text=text,
        base=base,
        base_digest=described.digest,
        rows=rows,
        data=data,
        prompts=prompts,
        pairs=pairs,
        directory=directory,
        data_file=data_file,
        pairs_file=pairs_file,
        tensors=described.tensors,
    )


def look_at_data(plan: Plan) -> Report:
    """Preflight of the data, as this run uses them."""
    return preflight(plan.data_file, _options(plan))


def look_at_pairs(plan: Plan) -> Report | None:
    """The same of the pairs, where there are any."""
    return check_pairs(plan.pairs_file, _options(plan), plan.data).report if plan.pairs_file else None


def _options(plan: Plan) -> Options:
    waivers = [Waiver(code, reason) for code, reason in plan.recipe.waivers.items()]
    return Options(plan.recipe.seed, plan.recipe.training.max_length, plan.base, waivers=waivers)


def finished(plan: Plan) -> bool:
    return (plan.directory / "training.json").exists()


class _ReplayLine(msgspec.Struct):
    prompt: Filled


def _read_prompts(path: Path, most: int) -> list[str]:
    """The first prompts of a JSONL file whose lines have a `prompt`."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InvalidRequest(f"replay prompts {path} cannot be read: {error.strerror}") from None
    prompts = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                prompts.append(msgspec.json.decode(line, type=_ReplayLine).prompt)
            except (ValueError, RecursionError):  # the second of what is nested a thousand deep
                raise InvalidRequest(f"{path} line {number}: not an object with a 'prompt'") from None
    return prompts[:most]
