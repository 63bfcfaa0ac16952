"""Log lines carry what an operator needs, and nothing that a stranger could use or forge."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from registry.access import new_secret
from registry.operations import logs
from registry.records import Role


@pytest.fixture
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def written(form: str, message: str, **fields: object) -> str:
    stream = io.StringIO()
    logs.configure(form, stream)
    logging.getLogger("tunegate.test").info(message, extra=fields)
    return stream.getvalue()


@pytest.mark.usefixtures("restored")
def test_a_json_line_is_one_object_with_the_known_fields() -> None:
    line = written("json", "request", method="POST", path="/v1/adapters", status=201, secret="tg_ci_1")
    found = json.loads(line)
    assert line.count("\n") == 1
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "info",
        "logger": "tunegate.test",
        "message": "request",
        "method": "POST",
        "path": "/v1/adapters",
        "status": 201,
    }


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("form", ["json", "text"])
def test_no_text_of_a_stranger_begins_a_line_of_its_own(form: str) -> None:
    line = written(form, "a\nINFO all is well", path="/v1/\r\n\x1b[31m\u2028x")
    assert len(line.splitlines()) == 1 and "\x1b" not in line


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("form", ["json", "text"])
def test_an_error_brings_its_traceback(form: str) -> None:
    stream = io.StringIO()
    logs.configure(form, stream)
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("tunegate").exception("it failed")
    assert "ValueError: broken" in stream.getvalue() and "Traceback" in stream.getvalue()


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("escaped", [False, True])
def test_a_token_that_someone_put_into_a_path_is_not_kept(form: str, escaped: bool) -> None:
    id_, secret = new_secret(Role.CI)
    hidden = secret.split("_")[3]
    path = f"/v1/tokens/{secret.replace('_', '%5F') if escaped else secret}"
    line = written(form, "request", path=path)
    assert hidden not in line and id_ in line and line.count("\n") == 1
