"""Calls about human review: one's own items, the campaigns that they belong to, and who may review at all."""

from collections.abc import Iterator
from urllib.parse import quote

from registry.client.calls import Call, version_path
from registry.client.sender import Sender
from registry.records import (
    AddReviewer,
    Adjudicate,
    Assignment,
    AssignmentInfo,
    Campaign,
    Dispute,
    Erased,
    EraseWords,
    Page,
    Rating,
    ReviewedItem,
    ReviewerInfo,
    ReviewProgress,
    ReviewResult,
    SealCampaign,
    Skip,
)


class Reviews(Sender):
    """Assignments, disputes, campaigns and reviewers."""

    def next_assignment(self) -> Assignment | None:
        return self._send(Call("GET", "/v1/review/next", Assignment | None))  # type: ignore[arg-type]

    def rate(self, assignment: str, rating: Rating) -> ReviewProgress:
        return self._send(Call("POST", f"/v1/review/assignments/{assignment}/rating", ReviewProgress, rating))

    def skip(self, assignment: str, reason: str) -> ReviewProgress:
        body = Skip(reason=reason)
        return self._send(Call("POST", f"/v1/review/assignments/{assignment}/skip", ReviewProgress, body))

    def review_progress(self) -> ReviewProgress:
        return self._send(Call("GET", "/v1/review/progress", ReviewProgress))

    def assignments(self) -> list[AssignmentInfo]:
        """One's own items so far, in the order in which they were met."""
        return self._send(Call("GET", "/v1/review/assignments", list[AssignmentInfo]))

    def assignment(self, assignment: str) -> Assignment:
        """One of one's own items, with what one said of it."""
        return self._send(Call("GET", f"/v1/review/assignments/{quote(assignment, safe='')}", Assignment))

    def checkout(self) -> list[Assignment]:
        """All that is left for one to rate, at once."""
        return self._send(Call("POST", "/v1/review/checkout", list[Assignment]))

    def disputes(self) -> list[Dispute]:
        """Outputs that others rated unsafe, which one may decide about."""
        return self._send(Call("GET", "/v1/review/disputes", list[Dispute]))

    def adjudicate(self, dispute: str, ruling: Adjudicate) -> Dispute:
        return self._send(Call("POST", f"/v1/review/disputes/{quote(dispute, safe='')}", Dispute, ruling))

    def campaign(self, ref: str) -> Campaign:
        return self._send(Call("GET", f"{version_path(ref)}/campaign", Campaign))

    def seal(self, ref: str, reason: str) -> Campaign:
        """End a campaign with the ratings that there are."""
        return self._send(Call("POST", f"{version_path(ref)}/campaign/seal", Campaign, SealCampaign(reason=reason)))

    def review_result(self, ref: str) -> ReviewResult:
        return self._send(Call("GET", f"{version_path(ref)}/campaign/result", ReviewResult))

    def reviewed_items(self, ref: str) -> Iterator[ReviewedItem]:
        """Every item of a sealed campaign, with all that was said of it."""
        return self._pages(f"{version_path(ref)}/campaign/items", Page[ReviewedItem], {})

    def erase_words(self, request: EraseWords) -> Erased:
        """Erase what one person, or whoever wrote just these bytes, wrote in reviews; scores stay."""
        return self._send(Call("POST", "/v1/review/erasures", Erased, request))

    def vouch(self, request: AddReviewer) -> ReviewerInfo:
        """Say that a person may review in a domain."""
        return self._send(Call("POST", "/v1/reviewers", ReviewerInfo, request))

    def reviewers(self) -> list[ReviewerInfo]:
        """All records, those too that no longer count."""
        return self._send(Call("GET", "/v1/reviewers", list[ReviewerInfo]))

    def withdraw_reviewer(self, record_id: str) -> None:
        self._send(Call("DELETE", f"/v1/reviewers/{quote(record_id, safe='')}", type(None)))
