"""Human review: who may review, what a campaign shows to whom, and what they said of it."""

from typing import Any, NamedTuple

from registry.records import Adjudication, Bounds, Channel, ItemKind, ReviewerInfo, State
from registry.storage.views.reader import Reader, read_json


class StoredCampaign(NamedTuple):
    """`opened_by`: whoever's command opened it, which the evidence of a passed evaluation does. result: the digest of
    what it came to, as its seal says."""

    id: str
    adapter: str
    number: int
    policy: str
    suite: str
    reviewers: int
    root: str
    opened_by: str
    opened_at: str
    sealed_at: str | None
    result: str | None


class StoredItem(NamedTuple):
    """An output to rate: what `subject` of version `number` answered to item `source` of a suite.

    position: where it was drawn, from 0. words: of prompt and output. expect: how a gold item is to be rated.
    """

    item: str
    position: int
    hash: str
    kind: ItemKind
    suite: str
    source: str
    subject: str
    number: int
    words: int
    expect: dict[str, Bounds] | None


class StoredAssignment(NamedTuple):
    """position: in the person's order, from 1. batch: how many items came at once; None where it came alone."""

    id: str
    campaign: str
    person: str
    item: str
    position: int
    batch: int | None
    issued_at: str
    state: str


class StoredRating(NamedTuple):
    """revision: from 1; the highest of an assignment stands. comment: sha256 of a blob."""

    assignment: str
    revision: int
    clarity: int
    relevance: int
    safety: int
    accuracy: int
    hallucination: bool
    unsafe: bool
    discuss: bool
    comment: str | None
    channel: Channel
    seconds: float | None
    rated_at: str
    seq: int


class StoredWords(NamedTuple):
    """What a person wrote. about: an assignment, or `campaign/item` of a ruling. kind: comment, skip or ruling."""

    about: str
    seq: int
    kind: str
    campaign: str
    person: str
    sha256: str
    erased: bool


class Reviewed(NamedTuple):
    """An earlier version that people reviewed, or were to."""

    number: int
    state: State


class Reviews(Reader):
    """Reviewers, campaigns, assignments, ratings and rulings."""

    def reviewers(self, adapter: str | None = None) -> list[ReviewerInfo]:
        """What was ever said of people's standing, oldest first; all, or what holds for one adapter."""
        columns = ", ".join(ReviewerInfo.__struct_fields__)
        rows = self._all(
            f"SELECT {columns} FROM reviewers WHERE ?::TEXT IS NULL OR scope IS NULL OR scope = ? "
            "OR starts_with(?, scope || '/') ORDER BY seq, id",
            adapter,
            adapter,
            adapter,
        )
        return [ReviewerInfo(**dict(zip(ReviewerInfo.__struct_fields__, row, strict=True))) for row in rows]

    def campaign(self, id_: str) -> StoredCampaign | None:
        rows = self._campaigns("WHERE c.id = ?", id_)
        return rows[0] if rows else None

    def campaign_of(self, adapter: str, number: int) -> StoredCampaign | None:
        """The campaign of a version under the policy it is pinned to."""
        rows = self._campaigns("WHERE c.adapter = ? AND c.number = ? AND c.policy = v.policy", adapter, number)
        return rows[0] if rows else None

    def campaigns_in_review(self) -> list[StoredCampaign]:
        """Campaigns of versions that are in review, oldest first: unsealed ones, and those with disputes."""
        return self._campaigns("WHERE v.state = ? ORDER BY c.seq", State.IN_REVIEW)

    def _campaigns(self, clause: str, *values: Any) -> list[StoredCampaign]:
        columns = ", ".join(f"c.{column}" for column in StoredCampaign._fields)
        rows = self._all(
            f"SELECT {columns} FROM campaigns c "
            f"JOIN versions v ON v.adapter = c.adapter AND v.number = c.number {clause}",
            *values,
        )
        return [StoredCampaign(*row) for row in rows]

    def campaign_items(self, campaign: str) -> list[StoredItem]:
        """In the order they were drawn."""
        columns = ", ".join(StoredItem._fields)
        rows = self._all(f"SELECT {columns} FROM campaign_items WHERE campaign = ? ORDER BY position", campaign)
        return [stored_item(row) for row in rows]

    def assignment(self, id_: str) -> StoredAssignment | None:
        rows = self._assignments("WHERE id = ?", id_)
        return rows[0] if rows else None

    def assignments(self, campaign: str, person: str | None = None) -> list[StoredAssignment]:
        """Everyone's, or one person's, in the order in which they were issued."""
        return self._assignments(
            "WHERE campaign = ? AND (?::TEXT IS NULL OR person = ?) ORDER BY issued_at, person, position",
            campaign,
            person,
            person,
        )

    def _assignments(self, clause: str, *values: Any) -> list[StoredAssignment]:
        columns = ", ".join(StoredAssignment._fields)
        return [StoredAssignment(*row) for row in self._all(f"SELECT {columns} FROM assignments {clause}", *values)]

    def ratings(self, campaign: str, person: str | None = None) -> list[StoredRating]:
        """Everything that everyone, or one person, ever rated in a campaign, in the order it came."""
        rows = self._all(
            f"SELECT {', '.join(StoredRating._fields)} FROM ratings WHERE campaign = ? "
            "AND (?::TEXT IS NULL OR person = ?) ORDER BY seq, assignment, revision",
            campaign,
            person,
            person,
        )
        return [stored_rating(row) for row in rows]

    def adjudications(self, campaign: str) -> list[Adjudication]:
        """By item."""
        rows = self._all("SELECT item, upheld, person FROM adjudications WHERE campaign = ? ORDER BY item", campaign)
        return [Adjudication(item=item, upheld=upheld, person=person) for item, upheld, person in rows]

    def skip_reasons(self, campaign: str) -> dict[str, str]:
        """By assignment, of entries that say them in full."""
        rows = self._all("SELECT id, skip_reason FROM assignments WHERE campaign = ? AND skip_reason <> ''", campaign)
        return dict(rows)

    def ruling_reasons(self, campaign: str) -> dict[str, str]:
        """By `campaign/item`, of entries that say them in full."""
        rows = self._all("SELECT item, reason FROM adjudications WHERE campaign = ? AND reason <> ''", campaign)
        return {f"{campaign}/{item}": reason for item, reason in rows}

    def reviewed_before(self, adapter: str, number: int) -> list[Reviewed]:
        """The versions below this one for which a campaign was opened, lowest first."""
        rows = self._all(
            "SELECT DISTINCT v.number, v.state FROM campaigns c "
            "JOIN versions v ON v.adapter = c.adapter AND v.number = c.number "
            "WHERE c.adapter = ? AND c.number < ? ORDER BY v.number",
            *(adapter, number),
        )
        return [Reviewed(number, State(state)) for number, state in rows]

    # -- what can be erased ------------------------------------------------------------------------------------------

    def words(self, campaign: str) -> list[StoredWords]:
        """All that people wrote in a campaign, oldest first."""
        return self._words("WHERE campaign = ?", campaign)

    def words_about(self, about: str) -> list[StoredWords]:
        return self._words("WHERE about = ?", about)

    def words_like(self, person: str | None, sha256: str | None) -> list[StoredWords]:
        """All that a person wrote, or all that has these bytes, in whatever campaign."""
        return self._words("WHERE (person = ? OR sha256 = ?)", person, sha256)

    def told_in_full(self, person: str | None) -> list[str]:
        """The campaigns of a person's reasons that older entries say in full, one for each reason."""
        rows = self._all(
            "SELECT campaign FROM assignments WHERE person = ? AND skip_reason <> '' "
            "UNION ALL SELECT campaign FROM adjudications WHERE person = ? AND reason <> ''",
            *(person, person),
        )
        return [row[0] for row in rows]

    def _words(self, clause: str, *values: Any) -> list[StoredWords]:
        columns = ", ".join(StoredWords._fields)
        return [StoredWords(*row) for row in self._all(f"SELECT {columns} FROM words {clause} ORDER BY seq", *values)]


def stored_item(row: tuple[Any, ...]) -> StoredItem:
    """A StoredItem from values in the order of its fields, `expect` as JSON."""
    stored = StoredItem(*row)
    expect = read_json(row[-1], dict[str, Bounds]) if row[-1] else None
    return stored._replace(kind=ItemKind(stored.kind), expect=expect)


def stored_rating(row: tuple[Any, ...]) -> StoredRating:
    stored = StoredRating(*row)
    return stored._replace(channel=Channel(stored.channel))
