"""Preflight: everything that is to be known of a data set before a run, all at once. Nothing is changed.

report = preflight(Path("train.jsonl"), Options(seed=7))
report.blocked, [one.message for one in report.problems if one.line == 12]

Of preference pairs it is `trainer.preflight.pairs`, with the same report.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from registry.client import InvalidRequest, SuiteContent
from trainer.dataset import Data, Split, prepare, refuse
from trainer.preflight import characters, consistency, duplicates, leakage, lengths, privacy, quality, reviews
from trainer.preflight.codes import RULES, Problem, Waiver, blocking, check_waivers, found
from trainer.preflight.reading import Reading, Row, read

LEAST_ROWS = 500
LOW_SCORE = 0.5


class Options(NamedTuple):
    """What a run would be: its seed and max_length (tokens), its base for counting them; what it is measured on.

    manifest: a frozen split to hold the data to.
    """

    seed: int = 0
    max_length: int = 1024
    base: Path | None = None
    suites: Sequence[tuple[str, SuiteContent]] = ()
    held_out: Sequence[Path] = ()
    waivers: Sequence[Waiver] = ()
    manifest: Path | None = None


_DEFAULT = Options()


class RowScore(Struct, frozen=True):
    """1 without findings; each finding takes its rule's weight of what is left."""

    line: int
    score: float


class Report(Struct, frozen=True):
    """rows: read without error; `distinct` of them are no exact duplicates. lengths: tokens of each distinct row.

    clusters: sizes of the clusters of near duplicates. low: rows with a quality score below 0.5, which a person should
    look at. compared: the suites and files that leakage was looked for in. kind: "rows", or "pairs", without splits.
    """

    data: str
    sha256: str
    lines: int
    rows: int
    distinct: int
    splits: dict[str, int]
    clusters: list[int]
    template_share: float
    skeletons: list[tuple[str, int]]
    lengths: list[int]
    lengths_by: str
    max_length: int
    compared: list[str]
    problems: list[Problem]
    low: list[RowScore]
    waived: dict[str, str]
    blocked: bool
    kind: str = "rows"

    def counts(self) -> dict[str, int]:
        """Findings by code, in the order of the table of codes."""
        counts = Counter(one.rule for one in self.problems)
        return {code: counts[code] for code in RULES if counts[code]}


class Checked(NamedTuple):
    """A report with what it was made from, for those who write something further."""

    report: Report
    reading: Reading
    data: Data


def preflight(path: Path, options: Options = _DEFAULT) -> Report:
    """Look at a data set as a run with these options would use it.

    Raises InvalidRequest where the file, a suite or the base cannot be read at all.
    """
    return check(path, options).report


def admit(path: Path, options: Options = _DEFAULT) -> Report:
    """The report of data that a run may use. Raises InvalidRequest that lists every error which is not waived."""
    report = preflight(path, options)
    require([report])
    return report


def require(reports: Iterable[Report]) -> None:
    """Raises InvalidRequest that lists every error of every file which is not waived."""
    refused: list[tuple[Report, InvalidRequest]] = []
    for one in reports:
        try:
            refuse(Path(one.data), blocking(one.problems, one.waived))
        except InvalidRequest as error:
            refused.append((one, error))
    if len(refused) == 1:
        raise refused[0][1]
    if refused:
        listed = [f"{Path(one.data).name}: {problem}" for one, error in refused for problem in error.problems]
        raise InvalidRequest("; ".join(str(error) for _, error in refused), listed)


def check(path: Path, options: Options) -> Checked:
    waived = check_waivers(options.waivers)
    reading = read(path)
    data = prepare(reading.rows, options.seed)
    rows = data.rows
    counted = count_tokens(rows, options)
    measured, drift = consistency.template(rows)
    compared, leaked = leaks(reading.rows, options)
    problems = [
        *reading.problems,
        *duplicates.check_exact(reading.rows, data.duplicates),
        *duplicates.check_near(rows, data.near),
        *duplicates.check_contradictions(rows),
        *privacy.check_privacy(rows),
        *quality.check_rows(rows),
        *reviews.check_reviews(reading.rows),
        *characters.check_characters(rows),
        *consistency.languages(rows),
        *drift,
        *consistency.unfinished(rows),
        *consistency.too_short(rows),
        *lengths.check_lengths(rows, counted, options.max_length),
        *leaked,
        *leakage.check_splits(reading.rows, rows, data.near.pairs),
        *_check_size(reading, data),
        *_check_manifest(data, options.manifest),
    ]
    problems, low = graded(reading.rows, problems, "rows")
    report = Report(
        data=str(path),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        lines=len(reading.records),
        rows=len(reading.rows),
        distinct=len(rows),
        splits={split.value: data.splits.count(split) for split in Split},
        clusters=cluster_sizes(len(rows), data.near.pairs),
        template_share=measured.share,
        skeletons=measured.skeletons,
        lengths=counted.rows,
        lengths_by=counted.how,
        max_length=options.max_length,
        compared=compared,
        problems=problems,
        low=low,
        waived=waived,
        blocked=bool(blocking(problems, waived)),
    )
    return Checked(report, reading, data)


def graded(rows: Sequence[Row], problems: Sequence[Problem], kind: str) -> tuple[list[Problem], list[RowScore]]:
    """The findings in the order of lines, with W153 where there are rows of low quality; and these rows."""
    low = [one for one in score(rows, problems) if one.score < LOW_SCORE]
    listed = list(problems)
    if low:
        message = f"{len(low)} {kind} have a quality score below {LOW_SCORE}, the first on line {low[0].line}"
        listed.append(found("W153", message))
    return sorted(listed, key=lambda one: (one.line or 0, one.rule)), low


def score(rows: Sequence[Row], problems: Sequence[Problem]) -> list[RowScore]:
    """The quality score of every row, in the order of the rows."""
    left = {row.line: 1.0 for row in rows}
    for line, rule in {(one.line, one.rule) for one in problems}:
        if line in left:
            left[line] *= 1 - RULES[rule].weight
    return [RowScore(line, round(value, 3)) for line, value in left.items()]


def count_tokens(rows: Sequence[Row], options: Options) -> lengths.Lengths:
    return lengths.count(rows, options.base) if options.base else lengths.estimate(rows)


def leaks(rows: Sequence[Row], options: Options) -> tuple[list[str], list[Problem]]:
    """The suites and files that were compared with, and the rows that leak them."""
    texts = [text for name, suite in options.suites for text in leakage.suite_texts(name, suite)]
    texts += [text for file in options.held_out for text in leakage.held_out_texts(file)]
    compared = [name for name, _ in options.suites] + [str(file) for file in options.held_out]
    if not compared:
        return [], [found("W163", "leakage into suites was not looked for")]
    return compared, leakage.check_asked(rows, leakage.Asked(texts)) if texts else []


def _check_size(reading: Reading, data: Data) -> list[Problem]:
    problems = []
    if len(data.rows) < LEAST_ROWS and reading.records:
        problems.append(
            found("E140", f"{len(data.rows)} distinct rows; below {LEAST_ROWS} a run mostly learns their wording")
        )
    if data.rows:
        missing = [split.value for split in Split if split not in data.splits]
        problems += [found("W151", f"no {split} rows") for split in missing]
    return problems


def cluster_sizes(n: int, near: Sequence[duplicates.NearPair]) -> list[int]:
    """Sizes of the clusters that pairs of n rows form, the largest first."""
    clusters = duplicates.Clusters(n)
    for pair in near:
        clusters.join(pair.first, pair.second)
    members = {index for pair in near for index in (pair.first, pair.second)}
    return sorted(Counter(clusters.of(index) for index in members).values(), reverse=True)


# -- the frozen split


class FrozenRow(Struct, frozen=True, forbid_unknown_fields=True):
    """cluster: what decides the split; rows of one cluster share it."""

    line: int
    id: str
    content_sha256: str
    cluster: str
    split: Split


class Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """Which row of which file is in which split, frozen."""

    data_sha256: str
    seed: int
    rows: list[FrozenRow]


def freeze(checked: Checked, seed: int, path: Path) -> str:
    """Write the split to a new file; its sha256. An existing file stays as it is: `check` compared the data with it."""
    if not path.exists():
        rows = [
            FrozenRow(row.line, row.id, row.digest, hashlib.sha256(key.encode()).hexdigest()[:16], split)
            for row, key, split in zip(checked.data.rows, checked.data.keys, checked.data.splits, strict=True)
        ]
        document: Any = msgspec.to_builtins(Manifest(checked.report.sha256, seed, rows))
        path.write_text(json.dumps(document, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _check_manifest(data: Data, path: Path | None) -> list[Problem]:
    if path is None or not path.exists():
        return []
    try:
        frozen = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} is no split manifest: {error}; name a new file, or the right one") from None
    splits = {row.content_sha256: row.split for row in frozen.rows}
    return [
        found("E162", f"it was frozen in {splits[row.digest]}, now it is in {split}", row=row.number, line=row.line)
        for row, split in zip(data.rows, data.splits, strict=True)
        if splits.get(row.digest, split) != split
    ]
