import json
from dataclasses import replace

import pytest

from bottleneck.planner import Budget, ClassCount, Finding, ListedImage, Plan, plan_transfer
from bottleneck.planner.health import (
    LISTED_IMAGES,
    LISTED_SETS,
    RULES,
    SHOWN_SETS,
    copies_findings,
    few_images_findings,
    folds_findings,
    groups_findings,
    most_serious_first,
    not_searched_finding,
    suspects_finding,
)


def image(row: int, label: str = "ant", **doubt) -> ListedImage:
    return ListedImage(row=row, id=f"photos/{label}/{row}.jpg", label=label, **doubt)


@pytest.fixture
def every_finding() -> tuple[Finding, ...]:
    """Return one finding of each rule."""
    few = [ClassCount(label="one", n_images=1), ClassCount(label="two", n_images=2)]
    some, mixed = (image(0), image(1)), (image(2), image(3, "bee"))
    return (
        *few_images_findings(few),
        *folds_findings(never_held_out=few, not_trained=few),
        *groups_findings(in_one_group=few, mixed=[mixed], n_groups=3),
        *copies_findings(exact=[some, mixed], near=[some, mixed], across_groups=[some]),
        *suspects_finding([image(4, suggested="bee", proba=0.001)], below=0.05, above=0.5),
        *not_searched_finding(["near copies"], 30_000),
    )


def test_nothing_found_says_nothing():
    found = (
        *few_images_findings([ClassCount(label="many", n_images=3)]),
        *folds_findings(),
        *groups_findings(n_groups=4),
        *copies_findings(),
        *suspects_finding([], below=0.05, above=0.5),
        *not_searched_finding([], 10),
    )

    assert found == ()


def test_every_rule_has_its_place_and_the_most_serious_come_first(every_finding):
    found = most_serious_first(reversed(every_finding))

    assert [finding.rule for finding in found] == list(RULES)


def test_sentences_are_in_the_singular_and_the_plural():
    one, two = ClassCount(label="a", n_images=1), ClassCount(label="b", n_images=1)

    (single,), (several,) = few_images_findings([one]), few_images_findings([one, two])

    assert single.sentence.startswith("One class has a single image")
    assert single.sentence.endswith(": a (1).")
    assert several.sentence.startswith("2 classes have a single image")
    assert several.sentence.endswith(": a (1), b (1).")
    assert several.classes == (one, two)
    assert several.n_images == 2


def test_copies_of_one_label_and_of_several_are_different_findings():
    same, mixed = (image(0), image(1)), (image(2), image(3, "bee"), image(4))

    of_labels, of_one = copies_findings(exact=[same, mixed])

    assert (of_labels.rule, of_labels.sets, of_labels.n_images) == ("exact_copies_across_labels", (mixed,), 3)
    assert (of_one.rule, of_one.sets, of_one.n_images) == ("exact_copies", (same,), 2)
    assert of_labels.sentence.startswith("3 images in 1 set have")


def test_labels_are_named_where_they_differ_and_doubts_with_what_is_suggested():
    same, mixed = (image(0), image(1)), (image(2), image(3, "bee"))

    of_labels, of_one = copies_findings(exact=[same, mixed])
    (doubt,) = suspects_finding([image(4, suggested="bee", proba=0.001)], below=0.05, above=0.5)

    assert of_labels.names == ("ant/2.jpg (ant), bee/3.jpg (bee)",)
    assert of_one.names == ("ant/0.jpg, ant/1.jpg",)
    assert doubt.names == ("ant/4.jpg (ant, looks like bee)",)


def test_a_finding_names_few_lists_more_and_counts_all():
    sets = [tuple(image(20 * i + k) for k in range(LISTED_IMAGES + 2)) for i in range(LISTED_SETS + 1)]

    (found,) = copies_findings(near=sets)

    assert len(found.names) == SHOWN_SETS + 1
    assert found.names[-1] == f"and {LISTED_SETS + 1 - SHOWN_SETS} more"
    assert (len(found.sets), len(found.sets[0])) == (LISTED_SETS, LISTED_IMAGES)
    assert (found.n_sets, found.n_images) == (LISTED_SETS + 1, (LISTED_SETS + 1) * (LISTED_IMAGES + 2))


def test_a_name_with_a_line_break_stays_on_one_line():
    strange = ListedImage(row=0, id="a/b\n\x1b[31m.jpg", label="x\ny")

    (found,) = copies_findings(exact=[(strange, image(1))])

    assert "\n" not in found.names[0]
    assert "\x1b" not in found.names[0]


def test_findings_survive_json_and_change_nothing_else_in_a_plan(profile_of, evidence_of, every_finding):
    plan = plan_transfer(profile_of(), Budget(), evidence=evidence_of())
    with_health = replace(plan, health=every_finding)

    read = Plan.from_json(with_health.to_json())

    assert read == with_health
    assert replace(read, health=()) == plan


def test_a_plan_from_before_there_were_findings_has_none(profile_of):
    tree = json.loads(plan_transfer(profile_of(), Budget()).to_json())
    del tree["health"]

    assert Plan.from_json(json.dumps(tree)).health == ()


def test_a_plan_shows_its_findings_as_text_and_html_and_no_section_without_any(profile_of, every_finding):
    plan = plan_transfer(profile_of(), Budget())
    with_health = replace(plan, health=every_finding)

    text, html = str(with_health), with_health._repr_html_()

    assert "The images" not in str(plan) + plan._repr_html_()
    assert all(f"[{finding.rule}]" in " ".join(text.split()) for finding in every_finding)
    assert "      ant/2.jpg (ant), bee/3.jpg (bee)\n" in text
    assert text.index("The images") < text.index("\nWhy\n")
    assert "<details open><summary>The images</summary>" in html
    assert "<br>ant/2.jpg (ant), bee/3.jpg (bee)" in html


def test_names_are_escaped_in_html(profile_of):
    (found,) = copies_findings(exact=[(ListedImage(row=0, id="<b>.jpg", label="<i>"), image(1))])

    html = replace(plan_transfer(profile_of(), Budget()), health=(found,))._repr_html_()

    assert "&lt;b&gt;.jpg (&lt;i&gt;)" in html
    assert "<i>" not in html
