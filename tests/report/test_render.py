from dataclasses import replace

import pytest

from bottleneck import TransferClassifier
from bottleneck.errors import ImageFailure
from bottleneck.report.evaluate import evaluate
from bottleneck.report.page import Page, compose_page
from bottleneck.report.render import printable, render
from tests.report.html import Report

HOSTILE = "</title><script>alert('1')</script>&amp;\x00\udcff\u202e\" onload=x"


@pytest.fixture(scope="module")
def page(classifier: TransferClassifier, test_set) -> Page:
    return compose_page(classifier, evaluate(classifier, *test_set))


def test_every_text_is_escaped_wherever_it_stands(page: Page):
    mistake = replace(page.mistakes[0], id=HOSTILE, name=HOSTILE, true=HOSTILE, predicted=HOSTILE)
    matrix = page.matrix
    assert matrix is not None
    hostile = replace(
        page,
        headline=replace(page.headline, backbone=HOSTILE, majority_label=HOSTILE),
        facts=(("Weights", HOSTILE),),
        outcome=HOSTILE,
        classes=(replace(page.classes[0], label=HOSTILE),),
        matrix=replace(matrix, columns=(HOSTILE, HOSTILE), rows=((HOSTILE, matrix.rows[0][1]),)),
        mistakes=(mistake,),
        skipped_test=(ImageFailure(row=0, id=HOSTILE, reason=HOSTILE),),
    )

    report = Report(render(hostile))

    shown = HOSTILE.replace("\x00", r"\x00").replace("\udcff", r"\udcff")
    assert report.scripts == 1
    assert report.text.count(shown) == 14
    assert report.images[0]["title"] == shown
    assert report.images[0]["alt"] == f"{shown}, taken for {shown}"


def test_rendered_text_is_valid_utf8_without_control_characters(page: Page):
    html = render(replace(page, outcome="caf\udce9 \x1b[31m\x85 日本 🐝")).encode("utf-8").decode("utf-8")

    assert not [character for character in html if ord(character) < 32 and character != "\n"]
    assert r"caf\udce9 \x1b[31m\x85 日本 🐝" in Report(html).text


def test_names_of_every_script_stay_as_they_are():
    names = "Таблица", "क्\u200dष", "👩\u200d🌾", "Straße", "naïve\u0301"

    assert tuple(map(printable, names)) == names


def test_pairs_replace_a_matrix_that_is_none(page: Page):
    from bottleneck.report.page import PairRow

    pair = PairRow(true="husky", predicted="wolf", n=3, share=0.25)

    report = Report(render(replace(page, matrix=None, pairs=(pair,))))

    assert report.table("True") == [["husky", "wolf", "3", "25.0"]]


def test_a_page_without_mistakes_says_so(page: Page):
    report = Report(render(replace(page, matrix=None, pairs=(), mistakes=(), n_mistakes=0)))

    assert "every test image was recognised" in report.text
    assert "None." in report.by_id["mistakes"]


def test_many_skipped_images_are_counted(page: Page):
    failures = tuple(ImageFailure(row=row, id=f"{row}.jpg", reason="empty") for row in range(1234))

    report = Report(render(replace(page, skipped_fit=failures)))

    assert "Training images, left out: 1,234" in report.by_id["skipped"]
    assert "199.jpg" in report.text
    assert "200.jpg" not in report.text
    assert "and 1,034 more" in report.text


def test_a_head_without_probabilities_says_so(page: Page):
    report = Report(render(replace(page, calibration=None, reliability=None, has_proba=False)))

    assert "no probabilities" in report.by_id["reliability"]


def test_a_mistake_whose_file_is_gone_says_so(page: Page):
    gone = replace(page.mistakes[0], thumbnail="")

    report = Report(render(replace(page, mistakes=(gone,))))

    assert "can no longer be read" in report.text
    assert not report.images
