"""The command line as CI and people call it: exit codes that never flatter, JSON alone on stdout, clear messages."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import msgspec
import pytest
from factories import entry_of, make_adapter, make_suite, make_training
from site_under_test import SMALL_REVIEW, Site, running

from registry.approval.attestation import Signer
from registry.bundles import save_bundle
from registry.cli import main
from registry.names import sha256_hex
from registry.records import ExtraRule, KeySet, Policy, RegisterSuite, Role
from registry.settings import Home
from registry.transfer import pull

pytestmark = pytest.mark.slow

GO, NO_GO, UNDECIDED, UNKNOWN = 0, 1, 2, 3
# What each version of the site has come to, and what a script must make of it.
VERSIONS = {
    "go": ("support-bot/1", GO),
    "no_go": ("support-bot/2", NO_GO),
    "inconclusive": ("support-bot/3", UNDECIDED),
    "in review": ("support-bot/4", UNDECIDED),
    "not evaluated": ("support-bot/5", UNDECIDED),
    "not complete": ("support-bot/6", UNDECIDED),
}


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    rows = tmp_path_factory.mktemp("rows")
    with running(Home(tmp_path_factory.mktemp("cli") / "home")) as found:
        found.create_adapter()
        found.approved(rows, fill=1)
        found.create_adapter("revoked-bot")
        found.submit("revoked-bot", fill=7)
        found.evaluate(rows)
        found.review()
        found.submit(fill=2)
        found.evaluate(rows, lost=150, gained=5)
        found.submit(fill=3)
        found.evaluate(rows, correct=174)
        found.submit(fill=4)
        found.evaluate(rows)
        found.submit(fill=5)
        found.submit(fill=6, complete=False)
        yield found


@pytest.fixture
def tunegate(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the command line against the site; `who=None` has no token."""

    def run(*arguments: str | Path, who: str | None = "admin", url: str = site.url, home: Path = site.home.root) -> Ran:
        for name in ("TUNEGATE_TOKEN", "TUNEGATE_DEBUG"):
            monkeypatch.delenv(name, raising=False)
        if who is not None:
            monkeypatch.setenv("TUNEGATE_TOKEN", site.tokens[who])
        monkeypatch.setenv("TUNEGATE_URL", url)
        monkeypatch.setenv("TUNEGATE_HOME", str(home))
        capsys.readouterr()
        code = 0
        try:
            main([str(one) for one in arguments])
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


def check_message(ran: Ran, *words: str, code: int = UNKNOWN) -> None:
    """One clear message on stderr, nothing on stdout."""
    assert ran.code == code, ran
    assert ran.out == ""
    for word in words:
        assert word in ran.err, ran.err
    for inside in ("Traceback", "defect", ".py", "msgspec", "httpx"):
        assert inside not in ran.err, ran.err


def write(directory: Path, files: dict[str, bytes]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return directory


# -- exit codes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", VERSIONS)
def test_the_exit_code_is_the_verdict(tunegate: Run, tmp_path: Path, case: str) -> None:
    ref, code = VERSIONS[case]
    for arguments in (("gate", ref), ("status", ref), ("gate", ref, "--json"), ("--json", "status", ref)):
        ran = tunegate(*arguments)
        assert ran.code == code, ran
        assert ("--json" in arguments) == ran.out.startswith("{")
    report = tunegate("gate", ref, "--json").json
    expected = {"go": "go", "no_go": "no_go", "inconclusive": "inconclusive"}.get(case, "pending")
    assert (report["ref"], report["verdict"]) == (ref, expected)
    assert f"Gate report {ref}  {expected}" in tunegate("gate", ref).out
    if case != "not complete":
        directory = write(tmp_path / "adapter", make_adapter(fill=int(ref[-1])))
        waited = tunegate("push", directory, "--adapter", "support-bot", "--wait", "--timeout", "0", who="ci")
        assert waited.code == code


def test_waiting_for_nobody_is_undecided_and_says_so(tunegate: Run, tmp_path: Path) -> None:
    directory = write(tmp_path / "adapter", make_adapter(fill=5))
    waited = tunegate("push", directory, "--adapter", "support-bot", "--wait", "--timeout", "0", "--json", who="ci")
    assert (waited.code, waited.out) == (UNDECIDED, "")
    assert "still submitted after 0 s; is a worker running?" in waited.err


def test_a_revoked_version_is_not_go_any_more(tunegate: Run, tmp_path: Path) -> None:
    assert tunegate("promote", "revoked-bot/1", who="release-manager").code == GO
    assert tunegate("status", "revoked-bot@approved").code == GO
    assert tunegate("revoke", "revoked-bot/1", "--reason", "leaks", who="release-manager").code == GO
    for command in (["status"], ["gate"], ["gate", "--json"]):
        assert tunegate(*command, "revoked-bot/1").code == NO_GO
    directory = write(tmp_path / "adapter", make_adapter(fill=7))
    again = tunegate("push", directory, "--adapter", "revoked-bot", "--wait", "--timeout", "0", "--json", who="ci")
    check_message(again, "revoked-bot/1", "revoked for good", "train or mend it", code=NO_GO)
    assert tunegate("push", directory, "--adapter", "revoked-bot", who="ci").code == NO_GO
    assert tunegate("push", directory, "--adapter", "support-bot", who="release-manager").code == UNKNOWN
    assert tunegate("pull", "revoked-bot/1", "--to", tmp_path / "none").code == UNKNOWN


def test_what_can_not_be_determined_is_never_zero(tunegate: Run, site: Site, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nowhere = f"http://127.0.0.1:{listener.getsockname()[1]}"
    adapter = write(tmp_path / "adapter", make_adapter())
    for command in (["gate", "support-bot/1"], ["status", "support-bot/1"], ["push", adapter, "--adapter", "x"]):
        check_message(tunegate(*command, url=nowhere), "no answer from", nowhere, "tunegate serve")
        check_message(tunegate(*command, who=None), "no token", "TUNEGATE_TOKEN", "tunegate token create")
    check_message(tunegate("gate", "support-bot/99"), "support-bot/99", "does not exist or is not visible")
    check_message(tunegate("status", "Not A Reference"), "Not A Reference", "support-bot", "choose such a name")
    check_message(tunegate("gate", "support-bot@canary"), "names no version", "tunegate adapter show")
    check_message(tunegate("--token", "tg_nonsense", "gate", "support-bot/1"), "not a tunegate token")
    check_message(tunegate("adapter", "create", "x", "--base", tmp_path), "is no base model", "safetensors")
    for usage in (["gate"], ["nonsense"], ["gate", "support-bot/1", "--nope"], ["token", "create", "--role", "king"]):
        ran = tunegate(*usage)
        assert ran.code == UNKNOWN and ran.out == "" and "Traceback" not in ran.err and ran.err


# -- output ------------------------------------------------------------------------------------------------------------


def test_with_json_stdout_is_one_document_and_nothing_else(tunegate: Run, tmp_path: Path) -> None:
    tunegate("keys", "--to", tmp_path / "keys.json")
    adapter = write(tmp_path / "adapter", {**make_adapter(fill=1), "training_args.bin": b"x"})
    calls: dict[str, list[str | Path]] = {
        "list": ["adapter", "list"],
        "show": ["adapter", "show", "support-bot"],
        "policy": ["policy", "show", "support-bot"],
        "suites": ["suite", "list"],
        "push": ["push", adapter, "--adapter", "support-bot"],
        "pull": ["pull", "support-bot@approved", "--to", tmp_path / "pulled"],
        "verify": ["verify", tmp_path / "pulled", "--keys", tmp_path / "keys.json"],
        "history": ["history", "support-bot@approved"],
        "bundle": ["bundle", "support-bot/1", "--to", tmp_path / "bundle"],
        "compare": ["compare", "support-bot/1", "support-bot/6"],
        "tokens": ["token", "list"],
        "keys": ["keys"],
        "audit": ["audit", "verify"],
    }
    found = {}
    for name, arguments in calls.items():
        ran = tunegate(*arguments, "--json", who="ci" if name == "push" else "admin")
        assert ran.code == 0, ran
        found[name] = ran.json
        plain = tunegate(*arguments, who="ci" if name == "push" else "admin") if "--to" not in arguments else ran
        assert plain.code == 0 and (
            plain is ran or name in ("policy", "keys") or not plain.out.lstrip().startswith(("{", "["))
        )
    assert found["push"]["ref"] == "support-bot/1"
    assert found["bundle"]["report"]["verdict"] == "go"
    assert found["pull"]["ref"] == "support-bot/1" and found["verify"]["valid"] is True
    assert [move["number"] for move in found["history"]] == [1] and found["audit"]["valid"] is True
    assert len(found["compare"]) == 2 and {one["person"] for one in found["tokens"]} > {"ci person"}


def test_versions_of_an_adapter_are_searched(tunegate: Run) -> None:
    def found(*options: str) -> list[int]:
        shown = tunegate("adapter", "show", "support-bot", *options, "--json").json
        return [one["number"] for one in shown["versions"]]

    assert found("--state", "approved") == found("--where", "accuracy >= 0", "--state", "approved") == [1]
    assert set(found("--state", "approved", "--state", "rejected")) > {1}
    assert found("--where", "accuracy > 1") == []
    check_message(tunegate("adapter", "show", "support-bot", "--where", "x"), "cannot be read", "accuracy >= 0.85")


def test_a_gate_report_becomes_junit_and_markdown(tunegate: Run, tmp_path: Path) -> None:
    for case, failures in (("go", 0), ("no_go", 1), ("not evaluated", 0)):
        ref, code = VERSIONS[case]
        junit, markdown = tmp_path / "gate.xml", tmp_path / "gate.md"
        ran = tunegate("gate", ref, "--junit", junit, "--markdown", markdown, "--json")
        assert ran.code == code
        suite, checks = ElementTree.parse(junit).getroot(), ran.json["checks"]
        assert suite.get("tests") == str(len(checks)) == str(len(suite.findall("testcase")))
        assert suite.get("failures") == str(failures) == str(len(suite.findall("testcase/failure")))
        not_judged = sum(check["status"] not in ("pass", "fail") for check in checks)
        assert suite.get("errors") == str(not_judged) == str(len(suite.findall("testcase/error")))
        assert (case == "go") == (failures + not_judged == 0)
        text = markdown.read_text()
        assert f"**{ran.json['verdict']}**" in text and text.count("\n| ") == len(checks) + 1
    check_message(tunegate("gate", "support-bot/1", "--junit", tmp_path / "no" / "x.xml"), "No such file", "no/x.xml")


def test_text_of_others_is_shown_as_it_is(tunegate: Run, site: Site, tmp_path: Path) -> None:
    """Square brackets are markup to the terminal library: an unclosed tag must neither vanish nor stop a command."""
    odd = "[/red] [bold]x[/bold] [link=http://evil]y"
    site.add_token("odd", Role.CI, odd)
    assert odd in tunegate("token", "list").out
    site.create_adapter("odd-bot")
    site.submit("odd-bot", fill=80, who="odd")
    assert "[/red]" in re.sub(r"\s+", "", tunegate("adapter", "show", "odd-bot").out)
    adapter = write(tmp_path / "[bold]", {**make_adapter(fill=1), "[red].bin": b"x"})
    pushed = tunegate("push", adapter, "--adapter", "support-bot", who="ci")
    assert pushed.code == 0 and "left behind: [red].bin" in pushed.out
    pulled = tmp_path / "[dim]"
    assert str(pulled) in tunegate("pull", "support-bot", "--to", pulled).out
    (pulled / "[red]").write_text("extra")
    tunegate("keys", "--to", tmp_path / "keys.json")
    verified = tunegate("verify", pulled, "--keys", tmp_path / "keys.json")
    assert verified.code == NO_GO and "[red] does not belong" in verified.out


# -- what people and CI get wrong --------------------------------------------------------------------------------------


def test_data_that_can_not_be_read_is_named_by_line(tunegate: Run, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    good = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
    data.write_bytes(f'{good}\n{good[:-2]}\n\n[/red]\n{{"messages": 5}}\n'.encode() + b"\xff\n")
    ran = tunegate("preflight", data, "--json")
    assert ran.code == NO_GO
    faulty = {one["line"]: one["rule"] for one in json.loads(ran.out)["problems"] if one["rule"].startswith("E2")}
    assert faulty == {2: "E201", 4: "E201", 5: "E207", 6: "E200"}
    check_message(tunegate("preflight", tmp_path / "none.jsonl"), "none.jsonl", "cannot be read")
    (tmp_path / "empty.jsonl").write_text("\n")
    empty = tunegate("preflight", tmp_path / "empty.jsonl")
    assert empty.code == NO_GO and "holds no rows" in empty.out
    check_message(tunegate("preflight", tmp_path), "cannot be read")


def test_a_push_of_what_can_not_be_served_says_why(tunegate: Run, site: Site, tmp_path: Path) -> None:
    push = ("push", "--adapter", "support-bot")
    check_message(tunegate(*push, tmp_path / "none", who="ci"), "none", "is not a directory", "save_pretrained")
    check_message(tunegate(*push, tmp_path, who="ci"), "is no adapter", "adapter_model.safetensors", "train or convert")
    dora = write(tmp_path / "dora", make_adapter(fill=60, use_dora=True, r=16))
    ran = tunegate(*push, dora, who="ci")
    check_message(ran, "cannot be served")
    assert ran.err.count("•") == 5
    check_message(tunegate(*push, dora, who="reviewer"), "role reviewer may not do this", "ci")
    check_message(tunegate("push", "--adapter", "nobody", dora, who="ci"), "nobody", "does not exist")

    run = write(tmp_path / "run", {"dataset.jsonl": b"{}", "ledger.parquet": b"ledger"})
    adapter = write(run / "adapter", make_adapter(fill=61))
    record = msgspec.to_builtins(make_training())
    (run / "training.json").write_text(json.dumps({**record, "base": "sha256:" + "9" * 64}))
    check_message(tunegate(*push, adapter, who="ci"), "trained on base", "push it to an adapter of its own base")
    (run / "training.json").write_text("{")
    check_message(tunegate(*push, adapter, who="ci"), "training.json", "is not a training record")
    (run / "training.json").write_text(json.dumps(record))
    (run / "dataset.jsonl").unlink()
    check_message(tunegate(*push, adapter, who="ci"), "dataset.jsonl", "No such file")
    check_message(tunegate(*push, adapter, "--run", tmp_path, who="ci"), "training.json", "does not exist")


def test_a_policy_that_can_not_be_applied_is_explained(tunegate: Run, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    cases = {
        "[accuracy\nmin=1": ("not valid TOML", "line 1"),
        "[accuracy]\nmni = 0.9": ("mni",),
        "[accuracy]\nmin = nan": ("accuracy.min", "between"),
        "[accuracy]\nmin = '0.9'": ("float", "$.accuracy.min"),
        "[accuracy]\nsuite = 'none'": ("'none'", "not registered", "tunegate suite push"),
        "[review]\nreviewers = 1\noutputs = 0": ("review.reviewers", "review.outputs"),
    }
    for text, words in cases.items():
        file.write_text(text)
        check_message(tunegate("policy", "set", "support-bot", file), *words)
    file.write_bytes(b"\xff")
    check_message(tunegate("policy", "set", "support-bot", file), "policy.toml", "cannot be read")
    check_message(tunegate("policy", "set", "support-bot", tmp_path), "cannot be read")
    file.write_text(f"[review]\noutputs = {SMALL_REVIEW.review.outputs}\nmin_seconds = 0")
    assert "revision 1 of support-bot" in tunegate("policy", "set", "support-bot", file).out


def test_a_promotion_that_is_refused_shows_the_whole_report(tunegate: Run) -> None:
    refused = tunegate("promote", "support-bot/2", who="release-manager")
    assert refused.code == NO_GO and "Gate report support-bot/2  no_go" in refused.out and "refused" in refused.err
    as_json = tunegate("promote", "support-bot/2", "--json", who="release-manager")
    assert as_json.code == NO_GO and as_json.json["verdict"] == "no_go"
    check_message(tunegate("promote", "support-bot/2", who="ci"), "role ci may not do this", "release-manager")
    check_message(
        tunegate("rollback", "support-bot", "--to", "2", "--reason", "x", who="release-manager"), "never named"
    )
    check_message(tunegate("history", "support-bot/1"), "names no alias", "support-bot@approved")


def test_a_reviewer_works_from_the_terminal(tunegate: Run) -> None:
    shown = tunegate("review", "next", "--json", who="reviewer-5").json
    assert set(shown) == {"id", "prompt", "output", "position", "total", "hash", "state", "rating"}
    text = tunegate("review", "next", who="reviewer-5").out
    assert shown["prompt"] in text and shown["output"] in text and shown["id"] in text
    scores = ["--clarity", "5", "--relevance", "5", "--accuracy", "5"]
    bad = tunegate("review", "rate", shown["id"], *scores, "--safety", "6", who="reviewer-5")
    assert bad.code == UNKNOWN and "6 is not in the range" in bad.err
    rated = tunegate("review", "rate", shown["id"], *scores, "--safety", "5", "--comment", "good", who="reviewer-5")
    assert rated.out == f"1 of {shown['total']} rated\n"
    again = tunegate("review", "rate", shown["id"], *scores, "--safety", "4", who="reviewer-5")
    assert again.out == rated.out, "a second word takes the first one's place"
    item = tunegate("review", "next", "--json", who="reviewer-5").json["id"]
    assert "1 skipped" in tunegate("review", "skip", item, "--reason", "mine", who="reviewer-5").out
    check_message(tunegate("review", "next", who="ci"), "role ci may not do this")


def test_a_token_is_made_shown_once_listed_and_revoked(tunegate: Run, site: Site) -> None:
    made = tunegate(
        "token", "create", "--role", "consumer", "--person", "shop", "--scope", "support-bot", "--json"
    ).json
    plain = tunegate("token", "create", "--role", "consumer", "--person", "shop").out.strip()
    site.tokens["shop"] = plain
    assert re.fullmatch(r"tg_consumer_[0-9a-f]{12}_[0-9a-f]{64}_[0-9a-f]{8}", plain)
    listed = tunegate("token", "list").out
    assert made["token"]["id"] in listed and made["secret"] not in listed and plain not in listed
    assert tunegate("status", "support-bot@approved", who="shop").code == GO
    own = tunegate("token", "list", "--json", who="shop").json
    assert {one["person"] for one in own} == {"shop"}
    for one in own:
        assert tunegate("token", "revoke", one["id"]).code == 0
    check_message(tunegate("status", "support-bot@approved", who="shop"), "was revoked at", "ask an admin")


# -- recomputing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", VERSIONS)
def test_a_recomputed_report_is_the_registrys_own_and_exits_by_its_verdict(
    tunegate: Run, tmp_path: Path, case: str
) -> None:
    ref, code = VERSIONS[case]
    own = tunegate("gate", ref, "--json")
    online = tunegate("gate", ref, "--recompute", "--json", who="auditor")
    assert (online.code, online.json) == (code, own.json) and "equal to the registry's own report" in online.err
    assert tunegate("bundle", ref, "--to", tmp_path / "bundle", who="release-manager").code == 0
    # Without registry, token or home: the directory is all there is.
    nothing = {"who": None, "url": "http://127.0.0.1:1", "home": tmp_path / "none"}
    markdown = tmp_path / "gate.md"
    offline = tunegate("gate", tmp_path / "bundle", "--recompute", "--markdown", markdown, **nothing)
    assert offline.code == code and f"Gate report {ref}" in offline.out and f"Gate report {ref}" in markdown.read_text()
    assert "equal to the registry's own report" in offline.out
    assert tunegate("gate", tmp_path / "bundle", "--recompute", "--json", **nothing).json == own.json


@pytest.fixture
def bundle(site: Site, tmp_path: Path) -> Path:
    save_bundle(site.client("auditor"), "support-bot/1", tmp_path / "bundle")
    return tmp_path / "bundle"


def test_what_was_changed_in_a_bundle_is_named_and_never_go(tunegate: Run, bundle: Path) -> None:
    text = (bundle / "bundle.json").read_text()
    rows = (bundle / "rows.parquet").read_bytes()
    gate = ("gate", bundle, "--recompute")

    def change(*keys: str, value: Any) -> None:
        document = json.loads(text)
        part = document
        for key in keys[:-1]:
            part = part[key]
        assert part[keys[-1]] != value
        part[keys[-1]] = value
        (bundle / "bundle.json").write_text(json.dumps(document))

    change("evidence", "accuracy", "correct", value=200)
    check_message(tunegate(*gate), "contradicts itself", "the evidence has digest", "correct is stated as 200")
    change("document", "accuracy", "min", value=0.5)
    check_message(tunegate(*gate), "the policy has digest")
    change("policy", value="sha256:" + "0" * 64)
    check_message(tunegate(*gate), "the policy has digest")
    change("evidence", "rows", value="0" * 64)
    check_message(tunegate(*gate), "rows.parquet has sha256", "the evidence names " + "0" * 64)
    change("report", "verdict", value="no_go")
    ran = tunegate(*gate)
    assert ran.code == UNKNOWN and "Gate report support-bot/1  go" in ran.out
    assert "not what the registry's own report says" in ran.out
    assert "verdict is go when recomputed, no_go in the registry's report" in ran.out
    as_json = tunegate(*gate, "--json")
    assert (as_json.code, as_json.json["verdict"]) == (UNKNOWN, "go") and "verdict is go when recomputed" in as_json.err
    (bundle / "bundle.json").write_text(text)
    (bundle / "rows.parquet").write_bytes(rows[:-1] + bytes([rows[-1] ^ 1]))
    check_message(tunegate(*gate), "rows.parquet has sha256", "not the rows it is of")
    (bundle / "rows.parquet").write_bytes(rows)
    assert tunegate(*gate).code == GO


def test_a_directory_that_reads_like_a_version_is_not_taken_for_it(
    tunegate: Run, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Site
) -> None:
    """support-bot/2 states a version, ./support-bot/2 a directory, and either way it is said what was recomputed."""
    mine = tmp_path / "support-bot" / "2"
    shutil.copytree(bundle, mine)
    shutil.copytree(bundle, tmp_path / "evidence")
    monkeypatch.chdir(tmp_path)
    for ref, version, source in (
        ("support-bot/2", "support-bot/2", "from the registry at http"),
        ("./support-bot/2", "support-bot/1", "from the bundle in ./support-bot/2"),
        (str(mine), "support-bot/1", f"from the bundle in {mine}"),
        ("evidence", "support-bot/1", "from the bundle in evidence"),
    ):
        ran = tunegate("gate", ref, "--recompute", who="auditor")
        assert f"Gate report {version}" in ran.out and source in " ".join(ran.out.split()), ref


def test_a_bundle_is_for_who_may_read_suite_items(tunegate: Run, bundle: Path, tmp_path: Path) -> None:
    for arguments in (("bundle", "support-bot/1", "--to", tmp_path / "x"), ("gate", "support-bot/1", "--recompute")):
        for who in ("ci", "trainer", "reviewer", "consumer"):
            check_message(tunegate(*arguments, who=who), f"role {who} may not do this", "auditor")
    assert not (tmp_path / "x").exists()
    check_message(tunegate("bundle", "support-bot/1", "--to", bundle), "is not empty", "new directory")
    check_message(tunegate("gate", tmp_path, "--recompute"), "bundle.json", "tunegate bundle REF --to DIR")


def test_reports_under_different_policies_are_compared_check_by_check(tunegate: Run, site: Site) -> None:
    files = make_suite("support-desk/tone", "questions", 20)
    for data in files.values():
        site.client("admin").upload(data)
    request = RegisterSuite(name="support-desk/tone", files=[entry_of(path, data) for path, data in files.items()])
    site.client("admin").register_suite(request)
    extra = [ExtraRule(suite="support-desk/tone", min=0.5)]
    site.create_adapter("tone-bot", policy=Policy(review=SMALL_REVIEW.review, extra=extra))
    site.submit("tone-bot", fill=70)
    for refs in (("support-bot/1", "tone-bot/1"), ("tone-bot/1", "support-bot/1")):
        ran = tunegate("compare", *refs)
        (line,) = (line for line in ran.out.splitlines() if line.startswith("accuracy:support-desk/tone"))
        assert ran.code == 0 and "not asked for by its" in line and "pending: not evaluated" in line


# -- verify ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pulled(site: Site, tmp_path: Path) -> Path:
    pull(site.client("consumer"), "support-bot@approved", tmp_path / "pulled")
    (tmp_path / "keys.json").write_bytes(msgspec.json.encode(site.client("consumer").keys()))
    return tmp_path / "pulled"


def test_verify_works_without_any_registry(tunegate: Run, pulled: Path) -> None:
    keys = pulled.parent / "keys.json"
    ran = tunegate("verify", pulled, "--keys", keys, who=None, url="http://127.0.0.1:1", home=pulled.parent / "none")
    assert ran.code == GO and "valid: support-bot/1, approved as approved" in ran.out


def test_every_changed_byte_of_any_file_is_noticed(tunegate: Run, pulled: Path) -> None:
    """A sample over each file: both ends, and forty places between."""
    keys = pulled.parent / "keys.json"
    for path in sorted(pulled.iterdir()):
        data = path.read_bytes()
        step = max(1, len(data) // 40)
        for position in sorted({*range(0, len(data), step), len(data) - 1}):
            path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
            ran = tunegate("verify", pulled, "--keys", keys)
            assert ran.code == NO_GO and "invalid" in ran.out, (path.name, position, ran)
        for changed in (data[:-1], data + b"\0"):
            path.write_bytes(changed)
            assert tunegate("verify", pulled, "--keys", keys).code == NO_GO, path.name
        path.write_bytes(data)
    assert tunegate("verify", pulled, "--keys", keys).code == GO


def test_what_does_not_belong_is_invalid_and_what_can_not_be_read_undetermined(
    tunegate: Run, pulled: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    verify = ("verify", pulled, "--keys")
    extra = pulled / "evil.py"
    extra.write_text("import os")
    ran = tunegate(*verify, keys, "--json")
    assert ran.code == NO_GO and ran.json["valid"] is False and "evil.py" in ran.json["problems"][0]
    extra.unlink()
    weights = pulled / "adapter_model.safetensors"
    weights.rename(tmp_path / "w")
    assert tunegate(*verify, keys).code == NO_GO
    weights.symlink_to(tmp_path / "w")
    assert "not a regular file" in tunegate(*verify, keys).out
    weights.unlink()
    (tmp_path / "w").rename(weights)

    stranger = tmp_path / "stranger.json"
    stranger.write_bytes(msgspec.json.encode(KeySet(keys=[Signer.generate().public])))
    assert tunegate(*verify, stranger).code == NO_GO
    stranger.write_bytes(msgspec.json.encode(KeySet(keys=[])))
    assert tunegate(*verify, stranger).code == NO_GO
    check_message(tunegate(*verify, tmp_path / "none.json"), "none.json", "cannot be read")
    stranger.write_text("no keys")
    check_message(tunegate(*verify, stranger), "is no key file", "tunegate keys --to FILE")
    check_message(tunegate("verify", tmp_path / "none", "--keys", keys), "none", "cannot be read")
    check_message(tunegate("verify", keys, "--keys", keys), "cannot be read")
    assert tunegate(*verify, keys).code == GO


# -- looking after a registry ------------------------------------------------------------------------------------------


def test_the_journal_is_verified_beside_a_running_registry(tunegate: Run, site: Site, tmp_path: Path) -> None:
    head = site.registry.journal.head
    ran = tunegate("audit", "verify", "--json", who=None)
    assert (ran.code, ran.json["valid"], ran.json["seq"], ran.json["hash"]) == (GO, True, head.seq, head.hash)
    journal = site.home.journal.read_bytes()
    copy = tmp_path / "journal.log"
    for position in range(100, len(journal) - 100, len(journal) // 12):
        copy.write_bytes(journal[:position] + bytes([journal[position] ^ 1]) + journal[position + 1 :])
        broken = tunegate("audit", "verify", "--journal", copy, "--json")
        assert broken.code == NO_GO and broken.json["valid"] is False, position
    lines = journal.splitlines(keepends=True)
    copy.write_bytes(b"".join([*lines[:3], *lines[4:]]))
    assert tunegate("audit", "verify", "--journal", copy).code == NO_GO
    check_message(tunegate("audit", "verify", "--journal", tmp_path / "none"), "none", "cannot be read")


def test_a_rebuilt_catalog_gives_the_same_answers(tunegate: Run, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    questions = (
        *(["gate", f"support-bot/{number}"] for number in (1, 2, 3)),
        *(["status", f"support-bot/{number}"] for number in (1, 2, 3)),
        ["history", "support-bot@approved"],
        ["adapter", "show", "support-bot"],
        ["policy", "show", "support-bot"],
    )

    def answers(site: Site) -> list[tuple[int, str]]:
        secret = site.tokens["admin"]
        return [
            (ran.code, ran.out)
            for question in questions
            if (ran := tunegate("--token", secret, *question, "--json", who=None, url=site.url, home=home.root))
        ]

    with running(home) as site:
        site.create_adapter(policy=Policy(review=SMALL_REVIEW.review))
        site.approved(tmp_path, fill=1)
        site.submit(fill=2)
        site.evaluate(tmp_path, lost=150)
        site.submit(fill=3)
        check_message(tunegate("rebuild", home=home.root, who=None))
        before, seq = answers(site), site.registry.journal.head.seq
    assert [code for code, _ in before] == [GO, NO_GO, UNDECIDED] * 2 + [0] * 3
    home.catalog.unlink()
    ran = tunegate("rebuild", home=home.root, who=None)
    assert ran.code == 0 and ran.out == f"catalog rebuilt from {seq} journal entries\n"
    with running(home) as site:
        assert answers(site) == before


def test_a_home_without_a_journal_is_not_rebuilt_and_nothing_is_made(tunegate: Run, tmp_path: Path) -> None:
    for arguments in (["rebuild"], ["rebuild", "--accept-loss"]):
        check_message(tunegate(*arguments, home=tmp_path / "typo", who=None), "no journal in", "TUNEGATE_HOME")
    assert list(tmp_path.iterdir()) == []


def test_a_changed_last_entry_is_set_aside_only_where_its_loss_is_accepted(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with running(home) as site:
        before = site.registry.journal.head.seq
    good = home.journal.read_bytes()
    home.journal.write_bytes(good[:-20] + bytes([good[-20] ^ 1]) + good[-19:])

    def rebuild(*options: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", "from registry.cli import main; main()", "rebuild", *options]
        environment = {**os.environ, "TUNEGATE_HOME": str(home.root)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    refused = rebuild()
    assert refused.returncode == UNKNOWN and refused.stdout == ""
    assert "does not verify" in refused.stderr and "--accept-loss" in refused.stderr
    done = rebuild("--accept-loss")
    assert done.returncode == 0, done.stderr
    aside = next(home.root.glob("*.torn-at-*"))
    assert aside.name in done.stderr and "bytes" in done.stderr
    assert done.stdout == f"catalog rebuilt from {before - 1} journal entries\n"


def test_the_program_itself_starts_serves_and_stops(tmp_path: Path) -> None:
    """As an operator meets it: a first start, a second one on the same port, a question, the end."""
    home = tmp_path / "new home"
    environment = {**os.environ, "TUNEGATE_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    for name in ("TUNEGATE_TOKEN", "TUNEGATE_URL"):
        environment.pop(name, None)
    program = [sys.executable, "-m", "registry"]

    def call(*arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        given = {**environment, **more}
        return subprocess.run(
            [*program, *arguments], env=given, capture_output=True, text=True, timeout=60, check=False
        )

    server = subprocess.Popen(
        [*program, "serve", "--port", "0"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        said = [server.stdout.readline() for _ in range(4)]
        url = re.search(r"http://127\.0\.0\.1:\d+", said[0])
        assert url is not None and str(home) in said[0]
        assert "signing.pem" in said[1] and "admin.token" in said[2]
        token = (home / "keys" / "admin.token").read_text().strip()
        assert token not in "".join(said)
        assert (home / "keys" / "admin.token").stat().st_mode & 0o077 == 0
        port = url[0].rpartition(":")[2]
        taken = call("serve", "--port", port, TUNEGATE_HOME=str(tmp_path / "other"))
        assert (taken.returncode, taken.stdout) == (UNKNOWN, "")
        assert f"127.0.0.1:{port}" in taken.stderr and "Address already in use" in taken.stderr
        assert "another --port" in taken.stderr and "Traceback" not in taken.stderr
        assert not (tmp_path / "other").exists()
        locked = call("serve", "--port", "0")
        assert locked.returncode == UNKNOWN and "Traceback" not in locked.stderr and "defect" not in locked.stderr
        listed = call("adapter", "list", "--json", TUNEGATE_URL=url[0], TUNEGATE_TOKEN=token)
        assert (listed.returncode, listed.stdout, listed.stderr) == (0, "[]\n", "")
    finally:
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=30)
    assert server.returncode in (0, -signal.SIGTERM) and "Traceback" not in errors
    assert sha256_hex(token.encode()) in (home / "journal.log").read_text()
    assert token not in (home / "journal.log").read_text()
