"""The trainer overrides methods of TRL and PEFT: it runs with the versions that it was written for, and says so."""

import re
import tomllib
from pathlib import Path

import pytest

from registry.client import InvalidRequest
from trainer.libraries import _OVERRIDDEN, require_known

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())


def test_the_installed_versions_are_known() -> None:
    require_known()


@pytest.mark.parametrize(("trl", "peft", "told"), [("1.17.0", "0.21.2", "trl"), ("1.16.3", "0.3.0", "peft")])
def test_another_version_is_refused_with_the_one_to_install(trl: str, peft: str, told: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        require_known({"trl": trl, "peft": peft}.__getitem__)
    assert [one.split()[0] for one in refused.value.problems] == [told]
    assert f"pip install '{told}=={_OVERRIDDEN[told]}.*'" in str(refused.value)


@pytest.mark.parametrize(("name", "known"), list(_OVERRIDDEN.items()))
def test_what_is_installed_by_default_is_what_is_known(name: str, known: str) -> None:
    wanted = " ".join(PROJECT["project"]["optional-dependencies"]["train"])
    assert re.search(rf"\b{name}>={re.escape(known)}\b", wanted)
