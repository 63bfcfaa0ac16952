"""The words beside every output are those of what is asked for."""

from registry.records import CRITERIA, Rating
from registry.review.rubric import FLAGS, RUBRIC


def test_every_criterion_and_flag_is_a_field_of_a_rating_and_has_its_words() -> None:
    assert tuple(one.name for one in RUBRIC) == CRITERIA
    assert {one.name for one in FLAGS} <= set(Rating.__struct_fields__)
    for one in RUBRIC:
        assert one.question.endswith("?") and len(set(one.anchors)) == 5


def test_accuracy_is_told_from_how_well_something_is_said() -> None:
    assert [one.title for one in RUBRIC] == ["Clarity", "Relevance", "Safety", "Factual accuracy"]
