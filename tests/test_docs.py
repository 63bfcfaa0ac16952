"""Documentation is held to the code: every command, option, setting and key is written down, and only those."""

import re
import tomllib
from pathlib import Path
from typing import get_args, get_origin

import click
import msgspec
import pytest

from registry import settings
from registry.cli import cli
from registry.gate.policy import read_policy
from registry.records import Policy
from trainer.recipe import Recipe, read_recipe

ROOT = Path(__file__).parent.parent
COMMANDS = (ROOT / "docs" / "commands.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def commands(group: click.Group, words: str = "") -> list[tuple[str, click.Command]]:
    found = []
    for name, command in group.commands.items():
        path = f"{words} {name}".strip()
        found += commands(command, path) if isinstance(command, click.Group) else [(path, command)]
    return found


ALL = commands(cli)


@pytest.mark.parametrize(("path", "command"), ALL, ids=[path for path, _ in ALL])
def test_every_command_and_option_is_documented(path: str, command: click.Command) -> None:
    lines = [line for line in COMMANDS.splitlines() if f"{path} " in line or f"{path}`" in line]
    assert lines, f"docs/commands.md says nothing about `tunegate {path}`"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert any(parameter.opts[0] in line for line in lines), f"{parameter.opts[0]} of `tunegate {path}`"


def test_every_documented_command_exists() -> None:
    known = {path for path, _ in ALL} | {path.partition(" ")[0] for path, _ in ALL}
    for page in PAGES:
        for words in re.findall(r"(?<!/)tunegate ((?:--[a-z]+ )*[a-z]+(?: [a-z]+)?)", _code_of(page.read_text())):
            words = re.sub(r"--[a-z]+ ", "", words)
            assert words in known or words.partition(" ")[0] in known, f"{page.name}: `tunegate {words}`"


def _code_of(text: str) -> str:
    """Inline code and code blocks of a page."""
    blocks = re.findall(r"```[a-z]*\n(.*?)```", text, re.S) + re.findall(r"`([^`\n]+)`", text)
    return "\n".join(blocks + [line for line in text.splitlines() if line.startswith("    ")])


def test_the_readme_shows_what_the_demo_printed() -> None:
    text = (ROOT / "README.md").read_text()
    assert "Gate report support-bot/1  no_go" in text and re.search(r"Gate report support-bot/\d  go\n", text)
    assert not re.search(r"<!-- demo", text)


def test_every_setting_is_documented() -> None:
    text = COMMANDS + (ROOT / "README.md").read_text() + (ROOT / "docs" / "operations.md").read_text()
    for name in re.findall(r"TUNEGATE_[A-Z_]+", settings.__doc__ or ""):
        assert f"`{name}`" in text or f"{name}=" in text, name


def test_the_documented_policy_is_the_default_one() -> None:
    block = re.search(r"```toml\n(.*?)```", (ROOT / "docs" / "policy.md").read_text(), re.S)
    assert block is not None
    assert read_policy(block[1]) == Policy()
    written = {f"{section}.{key}" for section, keys in tomllib.loads(block[1]).items() for key in keys}
    document = msgspec.to_builtins(Policy())
    unset = {key for keys in document.values() for key in keys if isinstance(keys, dict) and keys[key] is None}
    known = {f"{section}.{key}" for section, keys in document.items() for key in keys if key not in unset}
    assert written == known
    assert set(re.findall(r"^# ([a-z_]+) = ", block[1], re.M)) == unset  # TOML has no word for None


def test_every_key_of_a_recipe_is_documented_with_its_default() -> None:
    text = (ROOT / "docs" / "training.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| ([^|]+) \|", text, re.M))
    known = {}
    for field in msgspec.structs.fields(Recipe):
        kinds = [one for one in (field.type, *get_args(field.type)) if isinstance(one, type)]
        sections = [kind for kind in kinds if issubclass(kind, msgspec.Struct) and get_origin(field.type) is not tuple]
        nested = msgspec.structs.fields(sections[0]) if sections else []
        known |= {f"{field.name}.{one.name}": one.default for one in nested} or {field.name: field.default}
    assert set(rows) == set(known)
    for key, default in known.items():
        if isinstance(default, int | float) and not isinstance(default, bool):
            assert float(rows[key]) == default, key


@pytest.mark.parametrize("name", ["recipe.toml", "recipe-too-hot.toml"])
def test_shipped_recipes_are_valid(name: str) -> None:
    recipe, _ = read_recipe(ROOT / "suites" / "support-desk" / name)
    assert (ROOT / "suites" / "support-desk" / recipe.data).exists()


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_files_that_pages_name_exist(page: Path) -> None:
    for named in re.findall(
        r"`((?:registry|trainer|evaluator|suites|tests|docker|docs|benchmarks)/[\w./-]+)`", page.read_text()
    ):
        assert (ROOT / named).exists(), f"{page.name} names {named}"


def test_every_make_target_that_pages_name_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        assert set(re.findall(r"make ([a-z]+)", _code_of(page.read_text()))) <= targets, page.name
