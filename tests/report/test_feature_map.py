from dataclasses import replace

from bottleneck.report.feature_map import COLOURS, HEIGHT, WIDTH, map_chart
from bottleneck.report.gallery import Gallery, Listed


def image(true: int, predicted: int, place: tuple[float, float] | None) -> Listed:
    return Listed(
        row=0,
        id="a.png",
        name="a.png",
        true=true,
        predicted=predicted,
        certainty=0.9,
        likeliest=((predicted, 0.9),),
        neighbours=(),
        place=place,
        suspect=False,
        copies=None,
        seen=False,
        picture="",
    )


def gallery_of(*images: Listed, n_labels: int = 2) -> Gallery:
    return Gallery(
        labels=tuple(f"class {code}" for code in range(n_labels)),
        images=images,
        n_images=len(images),
        mistakes=(),
        doubts=(),
        n_doubts=0,
        copies=(),
        n_copies=0,
        seen=(),
    )


def test_mistakes_are_drawn_last_and_every_point_knows_its_image():
    chart = map_chart(gallery_of(image(0, 1, (0, 0)), image(0, 0, (0.5, 0.5)), image(1, 1, (1, 1))))

    assert chart is not None
    assert [(point.image, point.right) for point in chart.points] == [(1, True), (2, True), (0, False)]


def test_corners_lie_inside_the_frame_and_up_is_up():
    chart = map_chart(gallery_of(image(0, 0, (0, 0)), image(1, 1, (1, 1))))

    assert chart is not None
    low, high = chart.points
    assert 0 < low.x < high.x < WIDTH
    assert 0 < high.y < low.y < HEIGHT


def test_legend_counts_the_labels_that_are_on_the_map():
    chart = map_chart(
        gallery_of(image(2, 2, (0, 0)), image(2, 0, (1, 1)), image(0, 0, (0, 1)), image(1, 1, None), n_labels=3)
    )

    assert chart is not None
    assert [(entry.name, entry.n) for entry in chart.legend] == [("class 0", 1), ("class 2", 2)]


def test_more_labels_than_colours_are_not_coloured():
    some = gallery_of(image(0, 0, (0, 0)), image(1, 1, (1, 1)), n_labels=COLOURS)

    few = map_chart(some)
    many = map_chart(replace(some, labels=(*some.labels, "one more")))

    assert few is not None
    assert many is not None
    assert few.coloured
    assert not many.coloured


def test_there_is_no_map_of_a_single_image():
    assert map_chart(gallery_of(image(0, 0, (0.5, 0.5)), image(0, 0, None))) is None
