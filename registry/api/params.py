"""What the routes take from path and query."""

from typing import Annotated

from litestar.di import NamedDependency
from litestar.params import PathParameter, QueryParameter

Limit = Annotated[int, QueryParameter(ge=1, le=1000)]
Cursor = Annotated[str | None, QueryParameter(max_length=2000)]
Number = Annotated[int, PathParameter(ge=1, le=2**31)]
Adapter = NamedDependency[str]


def paths(tail: str = "") -> list[str]:
    """A route below an adapter, with and without a namespace before its name."""
    return [f"/v1/adapters/{{name:str}}{tail}", f"/v1/adapters/{{name:str}}/{{second:str}}{tail}"]


def adapter_name(
    name: Annotated[str, PathParameter(max_length=63)],
    second: Annotated[str | None, PathParameter(max_length=63)] = None,
) -> str:
    """The whole name, from one path segment or two."""
    return f"{name}/{second}" if second else name
