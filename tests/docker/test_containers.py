"""What the container files promise is checked, and that every command in them is one that exists."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from registry.cli import cli

ROOT = Path(__file__).parent.parent.parent
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())


def stages() -> dict[str, str]:
    parts = re.split(r"^FROM (\S+)(?: AS (\S+))?$", DOCKERFILE, flags=re.M)
    return {parts[i + 1]: parts[i + 2] for i in range(1, len(parts), 3)}


def parsed(words: list[str]) -> None:
    """Let click itself parse a `tunegate …` command, without running it; raises where it is not valid."""
    command: click.Command = cli
    context = click.Context(cli)
    rest = words[1:]
    while isinstance(command, click.Group):
        _, found, rest = command.resolve_command(context, rest)
        assert found is not None, words
        command = found
    command.make_context(words[1], list(rest), resilient_parsing=False)


@pytest.mark.parametrize("target", ["api", "worker-cpu", "worker-cuda"])
def test_each_image_runs_as_an_ordinary_user_with_a_real_command(target: str) -> None:
    body = stages()[target]
    assert re.search(r"^USER tunegate$", body, re.M)
    command = re.findall(r"^CMD (\[.*\])$", body, re.M)
    assert len(command) == 1 and body.index("USER") < body.index(command[0])
    parsed(json.loads(command[0]))


def test_the_service_image_holds_no_ml_extra() -> None:
    build = stages()["build-api"]
    assert not re.search(r"\.\[|torch|vllm", build)


def test_every_extra_that_an_image_installs_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for group in re.findall(r'"\.\[([a-z,-]+)\]"', DOCKERFILE):
        assert set(group.split(",")) <= set(extras)


def test_every_copied_file_exists_and_is_sent_to_the_builder() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] not in "#!"]
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists()
            assert source.strip("./") not in [one.strip("/") for one in ignored]


def test_compose_builds_stages_that_exist_and_runs_commands_that_exist() -> None:
    for service in COMPOSE["services"].values():
        assert service["build"]["target"] in stages()
        assert (ROOT / "docker" / service["build"]["context"] / service["build"]["dockerfile"]).exists()
        for script in service.get("command", [])[2:]:
            for words in re.findall(r"tunegate [a-z ]+", script):
                parsed(words.split())


def test_compose_publishes_on_loopback_only_and_drops_every_capability() -> None:
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]


def test_the_commands_in_the_comments_are_real() -> None:
    text = (ROOT / "docker" / "compose.yaml").read_text()
    for words in re.findall(r"tunegate ((?:--token … )?[a-z]+ [a-z]+(?: --[a-z]+ [a-z]+)*)", text):
        parsed(["tunegate", *words.replace("--token … ", "").split()])


def test_no_variable_of_the_compose_file_is_required() -> None:
    """Compose interpolates the whole file: a required variable of the worker would keep the registry from starting."""
    text = (ROOT / "docker" / "compose.yaml").read_text()
    assert re.findall(r"\$\{\w+:?-[^}]*\}", text)
    assert not re.search(r"\$\{\w+:?\?", text)
    assert not re.search(r"\$\{\w+\}|\$\w", text), "without a default compose warns and takes nothing"
