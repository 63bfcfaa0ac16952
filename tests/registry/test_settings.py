"""Where things lie: one environment variable, one layout."""

from pathlib import Path

import pytest

from registry.errors import InvalidRequest
from registry.settings import DEFAULT_PORT, Home, address_connections, home, url


def test_the_home_is_the_configured_directory_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEGATE_HOME", "here")
    assert home() == Home(tmp_path.resolve() / "here")


def test_a_tilde_is_the_users_own_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TUNEGATE_HOME", "~/gate")
    assert home().root == tmp_path.resolve() / "gate"


@pytest.mark.parametrize("value", [None, ""])
def test_without_configuration_the_home_is_in_the_users_data_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str | None
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("TUNEGATE_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("TUNEGATE_HOME", value)
    assert home().root.name == "tunegate" and tmp_path in home().root.parents
    assert not home().root.exists()


def test_everything_of_a_home_lies_in_it_under_a_name_of_its_own(tmp_path: Path) -> None:
    places = {name: getattr(Home(tmp_path), name) for name, what in vars(Home).items() if isinstance(what, property)}
    assert len(set(places.values())) == len(places) > 10
    assert all(tmp_path in place.parents for place in places.values())


def test_secrets_lie_in_one_folder_apart_from_the_data(tmp_path: Path) -> None:
    found = Home(tmp_path)
    secrets = {found.signing_key, found.draw_secret, found.admin_token}
    assert {place.parent for place in secrets} == {tmp_path / "keys"}
    assert tmp_path / "keys" not in (found.blobs, found.staging, found.cache, found.bases, found.runs)


def test_the_client_talks_to_this_machine_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNEGATE_URL", raising=False)
    assert url() == f"http://127.0.0.1:{DEFAULT_PORT}"
    monkeypatch.setenv("TUNEGATE_URL", "https://gate.example")
    assert url() == "https://gate.example"


def test_an_address_may_hold_a_quarter_of_the_connections_unless_a_setting_says_how_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TUNEGATE_ADDRESS_CONNECTIONS", raising=False)
    assert address_connections() == 250
    monkeypatch.setenv("TUNEGATE_ADDRESS_CONNECTIONS", "40")
    assert address_connections() == 40
    for wrong in ("0", "-1", "many"):
        monkeypatch.setenv("TUNEGATE_ADDRESS_CONNECTIONS", wrong)
        with pytest.raises(InvalidRequest, match="TUNEGATE_ADDRESS_CONNECTIONS"):
            address_connections()
