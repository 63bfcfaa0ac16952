"""`tunegate data …`: from an adapter to its rows, from a row or a source to every adapter, and as documents."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from factories import entry_of, make_adapter, make_training
from site_under_test import DATASET, Site, running

from registry.cli import main
from registry.records import Finding, SubmitVersion
from registry.settings import Home
from trainer.ledger import LedgerRow, write_ledger


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]
SHARED = "a" * 64


def row(line: int, disposition: str, origin: str, content: str = "", licence: str = "CC-BY-4.0") -> LedgerRow:
    reason = "" if disposition == "trained" else "because"
    sha256 = content or f"{line:064x}"
    return LedgerRow(
        "data", f"r{line}", line, "g", disposition, reason, sha256, "d" * 64, 40, 10, origin, licence, "ada", "bob", ""
    )


def submit(site: Site, folder: Path, adapter: str, fill: int, rows: list[LedgerRow] | None) -> str:
    """A version whose ledger has these rows; without any, one that came with no training record."""
    client, files, training, blobs = site.client("ci"), make_adapter(fill=fill), None, []
    if rows is not None:
        write_ledger(folder / f"{fill}.parquet", rows)
        ledger = (folder / f"{fill}.parquet").read_bytes()
        training = msgspec.structs.replace(
            make_training(dataset=DATASET, ledger=ledger),
            waived={"E140": "a <pilot>"},
            lint=[Finding(code="W131", severity="warning", message="9 steps")],
        )
        blobs = [DATASET, ledger]
    request = SubmitVersion(files=[entry_of(path, data) for path, data in files.items()], training=training)
    created = client.submit(adapter, request)
    for data in (*files.values(), *blobs):
        client.upload(data)
    return client.complete(created.ref).ref


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("data")
    with running(Home(folder / "home")) as found:
        found.create_adapter("one")
        found.create_adapter("two")
        found.create_adapter("three")
        first = [
            row(1, "trained", "https://x/1", SHARED),
            row(2, "trained", "https://x/2"),
            row(3, "test", "https://y"),
        ]
        submit(found, folder, "one", 1, first)
        submit(found, folder, "one", 2, [row(1, "too_long", "https://x/1", SHARED)])
        submit(
            found, folder, "two", 3, [row(9, "trained", "https://z", licence="MIT"), row(8, "blocked", "the old wiki")]
        )
        yield found


@pytest.fixture
def tunegate(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("TUNEGATE_URL", site.url)
    monkeypatch.setenv("TUNEGATE_TOKEN", site.tokens["auditor"])
    monkeypatch.setenv("TUNEGATE_HOME", str(tmp_path / "laptop"))

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        code = 0
        try:
            main(["data", *arguments])
        except SystemExit as exit:
            code = int(exit.code or 0)
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return run


def test_a_version_tells_what_became_of_every_row(tunegate: Run) -> None:
    found = tunegate("trace", "one/1", "--json").json
    assert found["rows"] == {"trained": 2, "test": 1}
    assert [(one["line"], one["disposition"], one["origin"]) for one in found["entries"]] == [
        (1, "trained", "https://x/1"),
        (2, "trained", "https://x/2"),
        (3, "test", "https://y"),
    ]
    one = tunegate("trace", "one/1", "--disposition", "test", "--json").json["entries"]
    assert [entry["line"] for entry in one] == [3]
    shown = tunegate("trace", "one/1", "--limit", "1")
    assert shown.code == 0 and "r1" in shown.out and "r2" not in shown.out and "2 more" in shown.out


def refs(found: Ran) -> dict[str, dict[str, int]]:
    return {one["ref"]: one["uses"] for one in found.json["found"]}


def test_a_row_leads_to_every_version_that_had_it_and_says_which_trained_on_it(tunegate: Run) -> None:
    found = tunegate("trace", "--row", f"sha256:{SHARED}", "--json")
    assert refs(found) == {"one/1": {"trained": 1}, "one/2": {"too_long": 1}} and found.json["looked"] == 3
    assert found.code == 0
    assert "3 versions looked at: 1 trained on it" in tunegate("trace", "--row", SHARED).out


def test_a_source_leads_to_versions_by_all_of_its_name_or_its_beginning(tunegate: Run) -> None:
    assert refs(tunegate("trace", "--source", "https://x/2", "--json")) == {"one/1": {"trained": 1}}
    assert refs(tunegate("trace", "--source", "https://*", "--json")) == {
        "one/1": {"trained": 2, "test": 1},
        "one/2": {"too_long": 1},
        "two/1": {"trained": 1},
    }
    assert refs(tunegate("trace", "--source", "https://*", "--adapter", "two", "--json")) == {"two/1": {"trained": 1}}
    assert refs(tunegate("trace", "--source", "https://nowhere", "--json")) == {}


def test_versions_of_which_nothing_is_known_are_told_and_make_the_answer_undecided(
    site: Site, tunegate: Run, tmp_path: Path
) -> None:
    ref = submit(site, tmp_path, "two", 4, None)
    found = tunegate("trace", "--source", "https://z", "--json")
    assert found.code == 2 and refs(found) == {"two/1": {"trained": 1}}
    assert [(one["ref"], "no training record" in one["reason"]) for one in found.json["unknown"]] == [(ref, True)]
    assert f"{ref} (submitted) cannot be told" in tunegate("trace", "--source", "https://z").out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "give one of"),
        (("one/1", "--row", SHARED), "give one of"),
        (("--row", "abc"), "is no sha256"),
        (("--source", "*"), "--source is empty"),
        (("one/1", "--disposition", "eaten"), "its rows: trained, test"),
        (("one/9",), "does not exist"),
    ],
)
def test_what_cannot_be_asked_is_told(tunegate: Run, arguments: tuple[str, ...], told: str) -> None:
    found = tunegate("trace", *arguments)
    assert found.code == 3 and told in found.err


def test_a_token_that_may_not_see_ledgers_learns_nothing_from_them(
    site: Site, tunegate: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_TOKEN", site.tokens["consumer"])
    found = tunegate("trace", "--source", "https://x/2", "--json")
    assert found.json["found"] == []
    monkeypatch.setenv("TUNEGATE_TOKEN", site.tokens["ci"])
    found = tunegate("trace", "--source", "https://x/2", "--adapter", "one", "--json")
    assert found.code == 2 and found.json["found"] == [] and len(found.json["unknown"]) == 2


def test_the_data_are_described_for_other_tools(site: Site, tunegate: Run, tmp_path: Path) -> None:
    file = tmp_path / "croissant.json"
    assert tunegate("export", "one/1", "--croissant", str(file)).code == 0
    found = json.loads(file.read_text())
    training = site.client("admin").version("one/1").training
    assert training is not None and found["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert {one["sha256"] for one in found["distribution"]} == {training.dataset[7:], training.ledger[7:]}
    assert found["license"] == ["CC-BY-4.0"] and "ada (3 rows)" in found["rai:dataCollection"]
    assert {one["@id"] for one in found["prov:wasDerivedFrom"]} == {"https://x/1", "https://x/2", "https://y"}
    fields = {one["source"]["extract"]["column"] for one in found["recordSet"][0]["field"]}
    assert fields <= set(LedgerRow._fields)
    assert tunegate("export", "two/1", "--croissant", str(file)).code == 0
    derived = json.loads(file.read_text())["prov:wasDerivedFrom"]
    assert derived == [{"@id": "https://z"}, {"@type": "prov:Entity", "name": "the old wiki"}]


def test_the_adapter_has_a_bill_of_materials(site: Site, tunegate: Run, tmp_path: Path) -> None:
    file = tmp_path / "bom.json"
    assert tunegate("export", "two/1", "--bom", str(file)).code == 0
    found, version = json.loads(file.read_text()), site.client("admin").version("two/1")
    model = found["metadata"]["component"]
    assert (model["name"], model["version"], model["type"]) == ("two", "1", "machine-learning-model")
    assert {one["name"]: one["hashes"][0]["content"] for one in model["components"]} == {
        one.path: one.sha256 for one in version.files
    }
    assert {"name": "tunegate:waived:E140", "value": "a <pilot>"} in model["properties"]
    known = {one["bom-ref"] for one in found["components"]} | {model["bom-ref"]}
    named = {one for entry in found["dependencies"] for one in [entry["ref"], *entry.get("dependsOn", [])]}
    assert named == known and model["modelCard"]["modelParameters"]["datasets"][0]["ref"] in known
    again = tmp_path / "again.json"
    assert tunegate("export", "two/1", "--bom", str(again)).code == 0
    assert again.read_bytes() == file.read_bytes(), "the same version is the same document"


def test_an_export_of_nothing_is_refused(tunegate: Run) -> None:
    assert "nothing to write" in tunegate("export", "one/1").err


def test_whoever_approves_sees_what_was_waived(site: Site) -> None:
    report = site.client("release-manager").gate("one/1")
    assert any("E140 (a <pilot>)" in check.reason for check in report.checks if check.kind == "provenance")
    session = {"Cookie": f"tunegate_token={site.tokens['release-manager']}"}
    page = site.http("GET", "/adapters/one/1", None, headers=session).text
    assert "Waived E140" in page and "a &lt;pilot&gt;" in page and "Lint W131" in page


def test_a_rows_review_is_shown_with_the_credential_as_it_stood_then(site: Site, tunegate: Run, tmp_path: Path) -> None:
    void = row(5, "blocked", "https://reviewed/5")._replace(
        credential="nurse 7", reviewed_at="2027-05-01", credential_valid_until="2026-12-31"
    )
    ref = submit(site, tmp_path, "three", 5, [void])
    (told,) = tunegate("trace", ref, "--json").json["entries"]
    assert (told["credential"], told["reviewed_at"], told["credential_valid_until"]) == (
        "nurse 7",
        "2027-05-01",
        "2026-12-31",
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("ref", ["one/1", "two/1"])
def test_the_croissant_export_passes_the_formats_own_validator(tunegate: Run, tmp_path: Path, ref: str) -> None:
    import mlcroissant

    file = tmp_path / "croissant.json"
    assert tunegate("export", ref, "--croissant", str(file)).code == 0
    found = mlcroissant.Dataset(jsonld=file)
    assert not found.metadata.ctx.issues.errors and not found.metadata.ctx.issues.warnings
    assert found.metadata.ctx.conforms_to.value.endswith("/1.1") and found.metadata.record_sets
    broken = json.loads(file.read_text())
    del broken["distribution"][0]["contentUrl"]
    file.write_text(json.dumps(broken))
    with pytest.raises(mlcroissant.ValidationError):
        mlcroissant.Dataset(jsonld=file)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("ref", ["one/1", "two/1"])
def test_the_bill_of_materials_passes_the_formats_own_strict_schema(tunegate: Run, tmp_path: Path, ref: str) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    file = tmp_path / "bom.json"
    assert tunegate("export", ref, "--bom", str(file)).code == 0
    validator = JsonStrictValidator(SchemaVersion.V1_7)
    assert validator.validate_str(file.read_text()) is None
    broken = json.loads(file.read_text())
    broken["components"][0]["type"] = "thing"
    assert validator.validate_str(json.dumps(broken)) is not None
