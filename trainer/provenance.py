"""What a recipe requires of a row's provenance: fields that are there, and a reviewer who was licensed. Pure.

Whether a review counts is the registry's rule (`registry/licensed.py`): its gate can ask the same of what trained.
"""

from collections.abc import Collection, Mapping

from registry.client import REVIEW_FIELDS, is_after, moment, void_review

__all__ = ["REVIEW_FIELDS", "is_after", "lacking", "moment"]


def lacking(provenance: Mapping[str, str], require: Collection[str], *, licensed_review: bool) -> str:
    """Why a row must not train, or nothing. Fails closed: a date that is missing or cannot be read is none.

    >>> lacking({"licence": "MIT"}, ["licence", "source"], licensed_review=False)
    'without source'
    """
    needed = [*require, *(key for key in REVIEW_FIELDS if licensed_review and key not in require)]
    if missing := [key for key in needed if not provenance.get(key, "").strip()]:
        return f"without {', '.join(missing)}"
    return void_review(provenance) if licensed_review else ""
