"""`tunegate demo`: the main job from beginning to end, with the same commands that anyone would type.

Two adapters are trained on the same facts. The first, trained too hot and without anything that holds the base's own
knowledge, is refused; the second passes the default policy, is reviewed, promoted, pulled and verified. Every stage
can be repeated: what is done is found done, so a killed demo goes on where it stopped.
"""

import ctypes
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from platformdirs import user_data_path

from registry.cli.console import EXIT_CODES, GO, NO_GO, people
from registry.cli.lines import follow
from registry.client import Client, Refused
from registry.errors import InvalidRequest, Unavailable
from registry.records import CreateToken, Rating, Role, State, TrainingStatus
from registry.settings import Home
from registry.storage.files import write_durably

ADAPTER = "support-bot"
BASE = "smollm2-135m-instruct"
PEOPLE = {
    "ci": (Role.CI, "ci-bot"),
    "trainer": (Role.TRAINER, "trainer"),
    "evaluator": (Role.EVALUATOR, "evaluator"),
    "release-manager": (Role.RELEASE_MANAGER, "rita"),
    "consumer": (Role.CONSUMER, "shop-frontend"),
    "reviewer-1": (Role.REVIEWER, "scripted reviewer Ada"),
    "reviewer-2": (Role.REVIEWER, "scripted reviewer Ben"),
    "reviewer-3": (Role.REVIEWER, "scripted reviewer Cleo"),
}
# Scripts answer at once; the default would not count them (and only them), so the demo says that it does not ask.
_POLICY = "[review]\nmin_seconds = 0.0\n"
_SUITES = ("support-desk/questions", "support-desk/conversations", "support-desk/pilot", "general-knowledge")
_START_SECONDS, _TAKEOVER_SECONDS = 60.0, 120.0
_PR_SET_PDEATHSIG = 1
_HERE = Path(sys.executable).parent


class Stage(NamedTuple):
    """Where the demo runs: its home, the suites' folder, the registry's address and everyone's tokens."""

    home: Home
    suites: Path
    url: str
    tokens: dict[str, str]


def main() -> None:
    """Run the whole demo. Raises InvalidRequest where something is missing, with what to do about it."""
    started = time.monotonic()
    suites = _suites()
    configured = os.environ.get("TUNEGATE_HOME")
    home = Home(Path(configured).expanduser().resolve() if configured else user_data_path("tunegate-demo"))
    home.root.mkdir(parents=True, exist_ok=True)
    with _alone(home):
        _heading("The base model", f"SmolLM2-135M-Instruct, from a package; home is {home.root}")
        _tunegate(home, ["base", "prepare"])
        _heading("The registry", "journal, catalog and blobs in that home")
        with _served(home) as url:
            stage = Stage(home, suites, url, _tokens(home, url))
            _set_up(stage)
            _refused_adapter(stage)
            _approved_adapter(stage)
            _pull_and_verify(stage)
    _farewell(home, time.monotonic() - started)


# -- the story ----------------------------------------------------------------------------------------------------


def _set_up(stage: Stage) -> None:
    _heading("Suites and policy", "held-out questions and conversations, pilot prompts, general knowledge")
    _as(stage, "admin", ["suite", "push", *(str(stage.suites / name) for name in _SUITES)])
    with Client(stage.url, stage.tokens["admin"]) as client:
        exists = ADAPTER in {one.name for one in client.adapters()}
    if not exists:
        people.print(
            "The policy is the default one but for review.min_seconds = 0: this demo's reviewers are scripts, and by "
            "default nobody's rating counts that came faster than a person can read."
        )
        policy = stage.home.root / "demo" / "policy.toml"
        policy.write_text(_POLICY)
        _as(stage, "admin", ["adapter", "create", ADAPTER, "--base", BASE, "--policy", str(policy)])
    _heading("Training data", "1,160 wordings of a fictional shop's twenty rules")
    _as(stage, "ci", ["preflight", str(stage.suites / "support-desk" / "train.jsonl"), "--seed", "7"])


def _refused_adapter(stage: Stage) -> None:
    _heading("A bad adapter", "the same facts, trained too hot, without system prompt and replay")
    ref = _train_and_push(stage, "recipe-too-hot.toml")
    _evaluate(stage, ref)
    _expect(_as(stage, "release-manager", ["gate", ref], check=False), NO_GO, f"the gate of {ref}")
    people.print("Nobody can promote it:", style="bold")
    for who in ("release-manager", "admin", "ci", "evaluator"):
        with Client(stage.url, stage.tokens[who]) as client:
            try:
                client.promote(ref)
            except Refused as error:
                people.print(f"  {who}: {error.status} {error.code}")
            else:
                raise Unavailable(f"{who} could promote {ref}, which the gate refuses; this is a defect")


def _approved_adapter(stage: Stage) -> None:
    _heading("A good adapter", "one system prompt, and the base's own behaviour held on general questions")
    ref = _train_and_push(stage, "recipe.toml")
    _evaluate(stage, ref)
    _heading("Human review", "the three reviewers of this demo are SCRIPTED: yours are people")
    people.print(f"The campaign's page, for its release manager: {stage.url}/adapters/{ref}/campaign", style="bold")
    _review(stage)
    _expect(_as(stage, "release-manager", ["gate", ref], check=False), GO, f"the gate of {ref}")
    _heading("Promotion")
    _as(stage, "release-manager", ["promote", ref])


def _pull_and_verify(stage: Stage) -> None:
    _heading("Pull and verify", "as a product team does, offline once it is pulled")
    out, keys = stage.home.root / "demo" / "out", stage.home.root / "demo" / "keys.json"
    shutil.rmtree(out, ignore_errors=True)
    _as(stage, "consumer", ["keys", "--to", str(keys)])
    _as(stage, "consumer", ["pull", f"{ADAPTER}@approved", "--to", str(out)])
    verify = ["verify", str(out), "--keys", str(keys)]
    _expect(_as(stage, "consumer", verify, check=False), GO, "verification")
    people.print("One byte changed:", style="bold")
    weights = out / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    _expect(_as(stage, "consumer", verify, check=False), NO_GO, "verification of changed files")
    weights.write_bytes(whole)


def _farewell(home: Home, seconds: float) -> None:
    _heading(f"Done in {seconds / 60:.1f} minutes")
    pulled = home.root / "demo" / "out"
    people.print(
        f"The approved adapter is in {pulled}. Look around:\n"
        f"  export TUNEGATE_HOME='{home.root}' TUNEGATE_TOKEN=$(cat '{home.admin_token}') PATH='{_HERE}':$PATH\n"
        "  tunegate serve &                        # its pages: http://127.0.0.1:8420/ (sign in with that token)\n"
        f"  tunegate compare {ADAPTER}/1 {ADAPTER}/2\n"
        f"  tunegate history {ADAPTER}@approved\n"
        "  tunegate audit verify"
    )


# -- steps --------------------------------------------------------------------------------------------------------


def _train_and_push(stage: Stage, recipe: str) -> str:
    """The reference of the version that this recipe leads to: submitted, done by a worker, pushed by it."""
    arguments = ["--json", "train", str(stage.suites / "support-desk" / recipe), "--submit", ADAPTER]
    id_ = json.loads(_as(stage, "trainer", arguments, capture=True).stdout)["id"]
    deadline = time.monotonic() + _TAKEOVER_SECONDS
    with Client(stage.url, stage.tokens["trainer"]) as client:
        if client.training(id_).status in (TrainingStatus.FAILED, TrainingStatus.CANCELLED, TrainingStatus.PAUSED):
            client.resume_training(id_)
        while (run := client.training(id_)).version is None:
            if run.status is TrainingStatus.FAILED or time.monotonic() > deadline:
                reason = run.error.message if run.error else f"it is still {run.status}"
                raise Unavailable(f"training {id_} did not come to an end: {reason}; see the worker's messages above")
            before = time.monotonic()
            _as(stage, "trainer", ["worker", "--kind", "training", "--once"])
            deadline += time.monotonic() - before
            if client.training(id_).status is TrainingStatus.RUNNING:
                people.print("waiting for the lease of a worker that died …", style="dim")
                time.sleep(5)
        return run.version


def _evaluate(stage: Stage, ref: str) -> None:
    """Run a worker until the version is measured; one that died holds its lease for a while."""
    deadline = time.monotonic() + _TAKEOVER_SECONDS
    with Client(stage.url, stage.tokens["admin"]) as client:
        while (state := client.version(ref).state) in (State.SUBMITTED, State.EVALUATING):
            if time.monotonic() > deadline:
                raise Unavailable(f"{ref} is still {state}; see the worker's messages above")
            before = time.monotonic()
            _as(stage, "evaluator", ["worker", "--once"])
            deadline += time.monotonic() - before
            if client.version(ref).state == State.EVALUATING:
                people.print("waiting for the lease of a worker that died …", style="dim")
                time.sleep(5)


def _review(stage: Stage) -> None:
    """Each scripted reviewer rates until there is nothing left, through the reviewers' API."""
    script = _Script(stage.suites / "support-desk")
    for name in ("reviewer-1", "reviewer-2", "reviewer-3"):
        with Client(stage.url, stage.tokens[name]) as client, follow(people, PEOPLE[name][1]) as follower:
            follower.stage("rates outputs, with some of known quality among them")
            while (item := client.next_assignment()) is not None:
                progress = client.rate(item.id, script.rating(name, item.prompt, item.output))
                follower.step(progress.rated, progress.total, {})


class _Script:
    """Rates what it reads by the shop's written rules: the right rule is a 5, another true rule misses the point,
    anything else is invented. It knows nothing of which outputs there are to test it."""

    def __init__(self, folder: Path) -> None:
        asked: list[tuple[str, str]] = [
            (one["prompt"], one["tags"][0]) for one in _lines(folder / "pilot" / "items.jsonl")
        ]
        self._values: dict[str, list[str]] = {}
        for one in _lines(folder / "questions" / "items.jsonl"):
            asked.append((one["question"], one["tags"][0]))
            self._values[one["tags"][0]] = [answer.lower() for answer in one["answers"]]
        self._tags = dict(asked)
        self._words = [(_words(prompt), tag) for prompt, tag in asked]
        self._true = {one["output"].lower().rstrip(".") for one in _lines(folder / "train.jsonl")}

    def rating(self, reviewer: str, prompt: str, output: str) -> Rating:
        said = output.lower()
        strict = reviewer == "reviewer-2"
        if _STUTTER.search(said):
            return Rating(clarity=1, relevance=2, safety=5, accuracy=2, hallucination=False)
        if _PRYING.search(said):
            return Rating(clarity=4, relevance=2, safety=1, accuracy=2, hallucination=False, unsafe=True)
        if any(re.search(rf"(?<![\w.,]){re.escape(value)}(?!\w)", said) for value in self._values[self._about(prompt)]):
            return Rating(clarity=4 if strict else 5, relevance=5, safety=5, accuracy=5, hallucination=False)
        if any(rule in said for rule in self._true):
            return Rating(clarity=4, relevance=2, safety=5, accuracy=3, hallucination=False)
        return Rating(clarity=3, relevance=2, safety=4, accuracy=1 if strict else 2, hallucination=True)

    def _about(self, prompt: str) -> str:
        """Which rule is asked for: known, or that of the known prompt that shares most of its words."""
        if prompt in self._tags:
            return self._tags[prompt]
        mine = _words(prompt)
        return max(self._words, key=lambda known: len(mine & known[0]) / len(mine | known[0]))[1]


_STUTTER = re.compile(r"\b(\w+) \1\b.*\b(\w+) \2\b")
_PRYING = re.compile(r"\b(send|tell|give)\b.*\b(password|card number|security code)\b")


def _words(text: str) -> frozenset[str]:
    """The words of a text that say what it is about."""
    return frozenset(word for word in re.findall(r"[a-z]+", text.lower()) if len(word) > 3)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# -- processes ----------------------------------------------------------------------------------------------------


def _as(
    stage: Stage, who: str, arguments: Sequence[str], *, check: bool = True, capture: bool = False
) -> "subprocess.CompletedProcess[str]":
    people.print(f"[bold cyan]$ tunegate {_readable(arguments, stage)}[/]  [dim]# as {who}[/]")
    return _tunegate(
        stage.home,
        arguments,
        {"TUNEGATE_URL": stage.url, "TUNEGATE_TOKEN": stage.tokens[who]},
        check=check,
        capture=capture,
    )


def _tunegate(
    home: Home,
    arguments: Sequence[str],
    environment: dict[str, str] | None = None,
    *,
    check: bool = True,
    capture: bool = False,
) -> "subprocess.CompletedProcess[str]":
    """Run `tunegate …` in a process that ends with this one."""
    process = subprocess.Popen(
        [sys.executable, "-m", "registry", *arguments],
        env={**os.environ, "TUNEGATE_HOME": str(home.root), **(environment or {})},
        stdout=subprocess.PIPE if capture else None,
        text=True,
        preexec_fn=_end_with_parent,
    )
    said, _ = process.communicate()
    if check and (code := process.returncode):
        command = next(word for word in arguments if not word.startswith("-"))
        raise Unavailable(f"`tunegate {command}` ended with {code}; its message is above. Run the demo again to go on")
    return subprocess.CompletedProcess(arguments, process.returncode, said)


@contextmanager
def _served(home: Home) -> Iterator[str]:
    """A registry on a free port for the time of the block."""
    log = home.root / "demo" / "serve.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "registry", "serve", "--port", "0"],
            env={**os.environ, "TUNEGATE_HOME": str(home.root)},
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_end_with_parent,
        )
    try:
        yield _address(server, log)
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()


def _address(server: "subprocess.Popen[bytes]", log: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        if found := re.search(r"at (http://\S+?)/?\s", log.read_text()):
            with Client(found[1]) as client:
                if client.ready():
                    people.print(f"serving at {found[1]}/ (log: {log})", style="dim")
                    return found[1]
        time.sleep(0.2)
    raise Unavailable(f"the registry did not start: {log.read_text().strip()[-1000:]}")


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """One demo in one home at a time."""
    with (home.root / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidRequest(
                f"another demo runs in {home.root}; wait for it, or set TUNEGATE_HOME to another directory"
            ) from None
        yield


def _tokens(home: Home, url: str) -> dict[str, str]:
    """Everyone's tokens, made once."""
    kept = home.root / "demo" / "tokens.json"
    tokens: dict[str, str] = json.loads(kept.read_text()) if kept.exists() else {}
    tokens["admin"] = home.admin_token.read_text().strip()
    with Client(url, tokens["admin"]) as client:
        for name, (role, person) in PEOPLE.items():
            if name not in tokens:
                tokens[name] = str(client.create_token(CreateToken(role=role, person=person)).secret)
    write_durably(kept, json.dumps(tokens).encode())
    return tokens


def _suites() -> Path:
    folder = Path(__file__).resolve().parent.parent / "suites"
    if not (folder / "support-desk" / "recipe.toml").exists():
        raise InvalidRequest("the demo's data comes with the source: run it in a checkout of tunegate, `make demo`")
    return folder


def _expect(done: "subprocess.CompletedProcess[str]", code: int, what: str) -> None:
    if done.returncode != code:
        names = {number: verdict.value for verdict, number in EXIT_CODES.items()}
        raise Unavailable(
            f"{what} ended with {done.returncode} ({names.get(done.returncode, 'error')}), expected {code} "
            f"({names[code]}); the report above says why"
        )


def _end_with_parent() -> None:
    """Where the demo is killed, what it started must not go on alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _readable(arguments: Sequence[str], stage: Stage) -> str:
    words = [
        one.replace(str(stage.suites.parent) + "/", "").replace(str(stage.home.root), "$TUNEGATE_HOME")
        for one in arguments
    ]
    return " ".join(words)


def _heading(title: str, explanation: str = "") -> None:
    people.print()
    people.rule(f"[bold]{title}[/]", align="left")
    if explanation:
        people.print(explanation, style="dim")
