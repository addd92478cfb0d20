"""What a comparison says, as text and in notebooks."""

from dataclasses import replace
from html.parser import HTMLParser

from bottleneck.comparison import BackboneComparison
from tests.comparison.test_records import TABLE


class Cells(HTMLParser):
    """The tags that are open, and the text of each row of the table."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "br":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        """Leave what is closed at once."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)


def test_table_says_what_may_be_taken():
    lines = str(TABLE).splitlines()

    assert repr(TABLE) == str(TABLE)
    assert "300 images of 10 classes" in lines[0]
    assert " ".join(lines[3].split()) == "large 93.0 % 88.0 to 96.0 % best 4.0 9 MB 336 kB 12 s"
    assert "  13.0 points (11.0 to 15.0)" in lines[5]
    assert lines[-1] == "These images cannot tell large and middle apart. The fastest of them is middle."
    assert max(map(len, lines)) <= 110


def test_clear_winner_is_named():
    two = BackboneComparison(scores=(TABLE[0], TABLE[2]), n_images=300, n_classes=10, n_folds=5, majority=0.1)

    assert str(two).endswith("large is the best of them. Those behind it are clearly worse.")


def test_same_backbone_with_other_weights_is_told_apart():
    twice = BackboneComparison(scores=(TABLE[0], TABLE[0]), n_images=300, n_classes=10, n_folds=5, majority=0.1)

    assert "large (random, 64 features)" in str(twice)


def test_html_is_closed_and_holds_what_the_text_holds():
    html = TABLE._repr_html_()

    page = Cells(html)

    assert page.open == []
    assert [row[:3] for row in page.rows[1:]] == [
        ["large", "93.0 %", "88.0 to 96.0 %"],
        ["middle", "92.0 %", "87.0 to 95.0 %"],
        ["small", "80.0 %", "75.0 to 83.0 %"],
    ]
    assert all(cell in str(TABLE) for row in page.rows for cell in row)
    assert "cannot tell large and middle apart" in html
    assert html.count("<tr class=best>") == 1


def test_html_draws_every_interval_on_one_axis():
    """From a point below the lowest end, 74 %, to one above the highest, 97 %."""
    html = TABLE._repr_html_()

    assert f'd="M{100 * (88 - 74) / 23:.1f} 6H{100 * (96 - 74) / 23:.1f}"' in html
    assert f'd="M{100 * (80 - 74) / 23:.1f} 1V11"' in html


def test_html_escapes_what_others_named():
    named = replace(TABLE, scores=(replace(TABLE[0], backbone="<script>alert('x')</script>"),))

    assert "<script" not in named._repr_html_()
    assert "&lt;script&gt;" in named._repr_html_()
