"""Conditional changes: If-Match, as RFC 9110 (13.1.1) has it."""


def matches(if_match: str | None, current: str) -> bool:
    """Whether a change may be made where the present entity tag is `current`, or "" where there is nothing yet.

    if_match: the header's value, or None where none was sent: then any change may be made. `*` stands for whatever is
    there, and a weak tag for nothing, as it does not promise that the state is the same.

    >>> matches('"1-a", "2-b"', "2-b"), matches("*", "2-b"), matches("*", ""), matches('W/"2-b"', "2-b")
    (True, True, False, False)
    """
    if if_match is None:
        return True
    tags = {tag.strip() for tag in if_match.split(",")}
    if "*" in tags and current:
        return True
    return current in {tag.removeprefix('"').removesuffix('"') for tag in tags - {"*"}}
