"""Rules of the core that other tests meet only through HTTP: each on its own, so that the core's own tests cover it."""

import json
from typing import Any

import pytest
from factories import BASE_TENSORS, make_config, make_header, make_tensors

from registry.access import Principal, visible_states
from registry.inspection.adapter import AdapterFiles, inspect
from registry.records import Role, State

HEADER, SIZE = make_header(make_tensors())


def codes(readme: bytes = b"", config: bytes | None = None) -> list[str]:
    text = json.dumps(HEADER).encode()
    config = config or make_config()
    sizes = {
        "adapter_config.json": len(config),
        "adapter_model.safetensors": 8 + len(text) + SIZE,
        "README.md": len(readme),
    }
    return [one.code for one in inspect(AdapterFiles(sizes, config, text, BASE_TENSORS, readme=readme))]


@pytest.mark.parametrize(
    ("readme", "found"),
    [
        ("# Größe".encode(), []),
        (b"", []),
        (b"\xff\xfe\x00", ["readme_not_text"]),
        (b"a\0b", ["readme_not_text"]),
        (b"PK\x03\x04\x80", ["readme_not_text"]),
    ],
)
def test_a_readme_is_text(readme: bytes, found: list[str]) -> None:
    assert codes(readme) == found


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("lora_dropout", 1.5, "config_value"),
        ("lora_dropout", True, "config_value"),
        ("inference_mode", "yes", "config_value"),
        ("peft_version", ["0.21"], "config_value"),
        ("lora_dropout", 0.05, None),
        ("target_modules", ["q_proj", "up_proj", "mystery_proj"], "target_modules"),
    ],
)
def test_a_value_that_peft_would_not_write_is_a_finding(key: str, value: Any, code: str | None) -> None:
    assert codes(config=make_config(**{key: value})) == ([] if code is None else [code])


def test_the_states_that_a_role_may_see_are_those_in_which_versions_exist_for_it() -> None:
    seen = {role: set(visible_states(Principal("t", "p", role))) for role in Role}
    assert seen.pop(Role.CONSUMER) == {State.APPROVED}
    assert seen.pop(Role.REVIEWER) == set(State) - {State.IN_REVIEW}
    assert all(states == set(State) for states in seen.values())
