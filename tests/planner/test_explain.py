from html import escape
from html.parser import HTMLParser

from bottleneck.errors import BudgetError
from bottleneck.planner import Budget, plan_transfer
from tests.planner.conftest import AMPLE


class Texts(HTMLParser):
    """Collect tags and texts, and check that every tag is closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_every_plan_fits_in_100_columns(cases):
    for profile, budget, evidence in cases:
        try:
            text = str(plan_transfer(profile, budget, evidence=evidence))
        except BudgetError:
            continue
        assert max(map(len, text.splitlines())) < 100


def test_extreme_numbers_fit_in_100_columns(profile_of, evidence_of):
    profile = profile_of(
        n_samples=10**7,
        largest_class=10**7,
        pretrained=False,
        train_seconds_per_image=1e4,
        n_parameters=10**11,
        memory_available_bytes=10**18,
        device="a-very-long-name-without-a-space-" * 8,
    )

    text = str(plan_transfer(profile, AMPLE, evidence=evidence_of(), strategy="scratch"))

    assert max(map(len, text.splitlines())) < 100


def test_columns_start_where_their_titles_do(profile_of, evidence_of):
    lines = str(plan_transfer(profile_of(), AMPLE, evidence=evidence_of())).splitlines()
    header = next(line for line in lines if line.split()[:1] == ["strategy"])
    rows = lines[lines.index(header) + 1 :][:3]

    for title in ("strategy", "accuracy", "time", "at most", "memory", "disk", "fits"):
        start = header.index(title)
        assert all(row[start] != " " and row[start - 1] == " " for row in rows)


def test_the_text_holds_the_decision_its_reasons_and_the_rule_of_thumb(profile_of, evidence_of):
    plan = plan_transfer(profile_of(), AMPLE, evidence=evidence_of())
    text = " ".join(str(plan).split())

    assert [line[:4] for line in str(plan).splitlines() if line.startswith(">")] == [">  f"]
    assert "Plan: fine-tuning, 1,460 steps" in text  # 25 sqrt(3,409)
    assert "> fine-tuning, 1,460 steps" in text
    for reason in plan.reasons:
        assert f"{reason.sentence} [{reason.rule}]" in text
    for change in plan.what_would_change:
        assert change.sentence in text
    assert plan.rule_of_thumb.sentence in text


def test_what_is_not_known_is_called_unknown(profile_of):
    plan = plan_transfer(profile_of(), AMPLE)

    assert str(plan).count("unknown") == len(plan.alternatives)
    assert "so far" in str(plan)


def test_html_is_closed_and_holds_what_the_text_holds(profile_of, evidence_of):
    plan = plan_transfer(profile_of(), AMPLE, evidence=evidence_of())

    page = Texts(plan._repr_html_())

    assert page.open == []
    assert page.tags.count("tr") == 2 + len(plan.alternatives) + len(plan.costs)
    for reason in plan.reasons:
        assert f"{reason.sentence} [{reason.rule}]" in page.texts


def test_html_escapes_what_others_named(profile_of):
    html = plan_transfer(profile_of(device="<script>alert('x')</script>"), AMPLE)._repr_html_()

    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_html_marks_the_choice_and_says_why_others_do_not_fit(profile_of, evidence_of):
    budget = Budget(seconds=60)  # for the probe, not for training
    plan = plan_transfer(profile_of(train_seconds_per_image=1.0), budget, evidence=evidence_of())

    html = plan._repr_html_()

    unfit = [found for found in plan.alternatives if not found.feasible]
    assert unfit
    assert all(escape(f"no: {found.why_not}") in html for found in unfit)
    assert html.count("<tr class=chosen>") == 1


def test_html_draws_an_accuracy_where_its_value_and_bounds_are(profile_of, evidence_of):
    plan = plan_transfer(profile_of(), AMPLE, evidence=evidence_of())

    html = plan._repr_html_()

    for found in plan.alternatives:
        low, at, high = (
            f"{100 * value:.1f}" for value in (found.accuracy.low, found.accuracy.value, found.accuracy.high)
        )
        assert f'd="M{low} 6H{high}"' in html
        assert f'd="M{at} 1V11"' in html
    assert "<svg" not in plan_transfer(profile_of(), AMPLE)._repr_html_()


def test_parts_are_shown_with_what_they_took_and_without_empty_columns(profile_of, evidence_of):
    before = plan_transfer(profile_of(), AMPLE)
    after = plan_transfer(profile_of(), AMPLE, evidence=evidence_of()).with_actual({"total": 95.0, "disk": 7e6})

    lines = str(before).splitlines()
    assert lines[lines.index("Predicted") + 1].split() == ["part", "predicted", "within"]
    lines = str(after).splitlines()
    header, *table = lines[lines.index("Predicted and actual") + 1 :]
    assert header.split() == ["part", "predicted", "within", "after", "the", "probes", "took"]
    took = {line[: line.index("  ")]: line[header.index("took") :].strip() for line in table[: len(after.costs)]}
    assert (took["whole run"], took["disk"], took["feature pass"]) == ("1 min 35 s", "7 MB", "")


def test_html_has_the_table_of_parts(profile_of, evidence_of):
    plan = plan_transfer(profile_of(), AMPLE, evidence=evidence_of()).with_actual({"total": 95.0})

    page = Texts(plan._repr_html_())

    assert page.open == []
    assert {"Predicted and actual", "whole run", "1 min 35 s"} <= set(page.texts)
