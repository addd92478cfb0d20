from dataclasses import replace

import pytest

from bottleneck import TransferClassifier
from bottleneck.errors import ImageFailure
from bottleneck.finetune import EpochRecord
from bottleneck.planner import ListedImage
from bottleneck.planner.health import copies_findings
from bottleneck.report.curves import history_charts
from bottleneck.report.evaluate import evaluate
from bottleneck.report.gallery import Copies, Doubt, collect_gallery
from bottleneck.report.page import Page, compose_page
from bottleneck.report.render import printable, render, unbroken
from bottleneck.report.tables import PairRow
from tests.report.html import Report

HOSTILE = "</title><script>alert('1')</script>&amp;\x00\udcff\u202e\" onload=x"


@pytest.fixture(scope="module")
def page(classifier: TransferClassifier, test_set) -> Page:
    evaluation = evaluate(classifier, *test_set)
    return compose_page(classifier, evaluation, collect_gallery(classifier, evaluation))


def test_every_text_is_escaped_wherever_it_stands(page: Page):
    matrix, gallery = page.matrix, page.gallery
    assert matrix is not None
    images = tuple(replace(image, id=HOSTILE, name=HOSTILE) for image in gallery.images)
    hostile = replace(
        page,
        headline=replace(page.headline, backbone=HOSTILE, majority_label=HOSTILE),
        facts=(("Weights", HOSTILE),),
        outcome=HOSTILE,
        classes=replace(page.classes, rows=(replace(page.classes.rows[0], label=HOSTILE),)),
        matrix=replace(matrix, columns=(HOSTILE, HOSTILE), rows=((HOSTILE, matrix.rows[0][1]),)),
        gallery=replace(
            gallery,
            labels=(HOSTILE, HOSTILE),
            images=images,
            mistakes=gallery.mistakes[:1],
            doubts=(replace(gallery.doubts[0], suggested=HOSTILE),),
        ),
        skipped_test=(ImageFailure(row=0, id=HOSTILE, reason=HOSTILE),),
    )

    report = Report(render(hostile))

    shown = HOSTILE.replace("\x00", r"\x00").replace("\udcff", r"\udcff")
    assert len(report.scripts) == 2
    assert "alert" not in report.scripts[1]
    in_pairs, in_legend, in_filters, in_mistake, in_doubt = 2 * len(page.pairs), 2, 4, 3, 3
    assert report.text.count(shown) == 11 + in_pairs + in_legend + in_filters + in_mistake + in_doubt
    first = next(image for image in report.images if "title" in image)
    assert first["title"] == shown
    assert first["alt"] == f"{shown}, taken for {shown}"
    assert report.data["labels"] == [shown, shown]
    assert set(report.data["ids"]) == set(report.data["names"]) == {shown}


def test_rendered_text_is_valid_utf8_without_control_characters(page: Page):
    html = render(replace(page, outcome="caf\udce9 \x1b[31m\x85 日本 🐝")).encode("utf-8").decode("utf-8")

    assert not [character for character in html if ord(character) < 32 and character != "\n"]
    assert r"caf\udce9 \x1b[31m\x85 日本 🐝" in Report(html).text


def test_names_of_every_script_stay_as_they_are():
    names = "Таблица", "क्\u200dष", "👩\u200d🌾", "Straße", "naïve\u0301"

    assert tuple(map(printable, names)) == names


def test_pairs_replace_a_matrix_that_is_none(page: Page):
    gallery = replace(page.gallery, labels=("husky", "wolf"))

    report = Report(
        render(replace(page, gallery=gallery, matrix=None, pairs=(PairRow(true=0, predicted=1, n=3, share=0.25),)))
    )

    assert report.table("True") == [["husky", "wolf", "3", "25.0"]]


def test_numbers_stay_on_one_line_with_their_units():
    sentence = "About 3 min 56 s and 84.1 % of 26 MB: +1.2 points, 4 h 04 min, 12 settings, 7 mistakes"

    assert unbroken(sentence).split(" ") == [
        "About", "3\u00a0min", "56\u00a0s", "and", "84.1\u00a0%", "of", "26\u00a0MB:", "+1.2\u00a0points,",
        "4\u00a0h", "04\u00a0min,", "12", "settings,", "7", "mistakes",
    ]  # fmt: skip


def test_a_page_without_mistakes_says_so(page: Page):
    gallery = replace(page.gallery, mistakes=(), doubts=(), copies=())

    report = Report(render(replace(page, matrix=None, pairs=(), gallery=gallery, n_mistakes=0)))

    assert "every test image was recognised" in report.text
    assert "None." in report.by_id["mistakes"]
    assert "None:" in report.by_id["doubts"]
    assert "None among 30 test images." in report.by_id["copies"]


def test_scripts_are_given_every_image(page: Page):
    data, images = Report(render(page)).data, page.gallery.images

    assert {len(found) for name, found in data.items() if name not in ("labels", "suspects", "seen")} == {len(images)}
    assert data["names"] == [image.name for image in images]
    assert data["pictures"] == [image.picture for image in images]
    assert data["likeliest"][0][0] == [images[0].predicted, pytest.approx(images[0].certainty, abs=1e-4)]
    assert data["suspects"] == [i for i, image in enumerate(images) if image.suspect]


def test_doubts_and_copies_are_shown_with_what_speaks_for_them(page: Page):
    gallery = replace(
        page.gallery,
        doubts=(Doubt(image=0, suggested="Kraken", n_agreeing=5, n_neighbours=6),),
        n_doubts=7,
        copies=(
            Copies(images=(1, 2), exact=False, n_labels=2),
            Copies(images=(3, 4, 5, 6, 7, 8), exact=True, n_labels=1),
        ),
        n_copies=2,
    )

    report = Report(render(replace(page, gallery=gallery)))

    doubts, copies = (" ".join(report.by_id[name].split()) for name in ("doubts", "copies"))
    assert "1 of 7: the classifier is as sure" in doubts
    assert "Kraken?" in doubts
    assert "5 of 6 similar ones" in doubts
    assert "Contradicting labels, the same picture, as it seems, 2 times" in copies
    assert copies.count("the same file, 6 times") == 1
    assert copies.endswith("and 2 more")


def test_many_skipped_images_are_counted(page: Page):
    failures = tuple(ImageFailure(row=row, id=f"{row}.jpg", reason="empty") for row in range(1234))

    report = Report(render(replace(page, skipped_fit=failures)))

    assert "Training images, left out: 1,234" in report.by_id["skipped"]
    assert "199.jpg" in report.text
    assert "200.jpg" not in report.text
    assert "and 1,034 more" in report.text


def test_a_head_without_probabilities_says_so(page: Page):
    report = Report(render(replace(page, reliability=None, has_proba=False)))

    assert "no probabilities" in report.by_id["reliability"]


def test_an_image_whose_file_is_gone_says_so(page: Page):
    images = tuple(replace(image, picture="") for image in page.gallery.images)

    report = Report(render(replace(page, gallery=replace(page.gallery, images=images))))

    assert "can no longer be read" in report.text
    assert not [image for image in report.images if "src" in image]


def test_a_sample_of_many_images_says_so(page: Page):
    report = Report(render(replace(page, gallery=replace(page.gallery, n_images=12_345))))

    assert "30 of 12,345: the most certain mistakes, and a random sample" in report.by_id["images"]


def test_training_has_a_chart_of_loss_accuracy_and_learning_rates(page: Page):
    history = [
        EpochRecord(stage="fine-tuning", epoch=i + 1, step=i, loss=1.0, accuracy=0.5, learning_rates=(0.1 / 2**i, 0.1))
        for i in range(3)
    ]

    report = Report(render(replace(page, history=history_charts(history, ("stem", "head")))))

    training = report.by_id["history"]
    assert all(title in training for title in ("Loss", "Accuracy (%)", "Learning rates", "stem", "head"))


def test_what_is_wrong_with_the_training_images_is_said_where_something_is(page: Page):
    (found,) = copies_findings(
        exact=[(ListedImage(row=0, id=HOSTILE, label="a"), ListedImage(row=1, id="b", label="b"))]
    )

    without, html = (render(replace(page, plan=replace(page.plan, health=health))) for health in ((), (found,)))

    assert 'id="health"' not in without
    assert printable(found.sentence.split(":")[0]) in html.replace("\u00a0", " ")
    assert "<script>alert" not in html
