"""What is wrong with the labelled images themselves: findings for people and for programs. None changes a decision."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

RULES = (
    "exact_copies_across_labels",
    "near_copies_across_labels",
    "label_suspects",
    "copies_across_groups",
    "class_missing_in_training",
    "class_never_held_out",
    "class_in_one_group",
    "single_image_class",
    "two_image_class",
    "group_of_several_labels",
    "near_copies",
    "exact_copies",
    "not_searched",
)
"""Every kind of finding, the most serious first."""

SHOWN_SETS, SHOWN_IMAGES, SHOWN_CLASSES = 3, 4, 5
"""What a printed plan names of a finding; the finding itself has more."""

LISTED_SETS, LISTED_IMAGES = 100, 10
"""Sets of images that a finding lists, and images of each set; ``n_sets`` and ``n_images`` count all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassCount:
    """A class and how many of the labelled images it has."""

    label: str
    n_images: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedImage:
    """An image that a finding concerns.

    Attributes
    ----------
    row : int
        Position in what was passed as X.
    id : str
        Its path, or ``image 17``.
    label : str
    suggested : str or None
        The class that it is taken for, where its label is doubted.
    proba : float or None
        The out-of-fold probability of its own label, where that is doubted.
    """

    row: int
    id: str
    label: str
    suggested: str | None = None
    proba: float | None = None


ImageSet = tuple[ListedImage, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing to know about the images before anything is trusted that was learnt from them.

    Attributes
    ----------
    rule : str
        A stable id of the kind of finding.
    sentence : str
    classes : tuple of ClassCount
        The classes concerned, where the finding is about classes.
    sets : tuple of tuples of ListedImage
        The images concerned; those that belong together (copies of each other) in one set. At most ``LISTED_SETS``
        sets of at most ``LISTED_IMAGES``.
    n_sets, n_images : int
        How many there are, listed or not.
    """

    rule: str
    sentence: str
    classes: tuple[ClassCount, ...] = ()
    sets: tuple[ImageSet, ...] = ()
    n_sets: int = 0
    n_images: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The first of the images by name, one line a set, and how many more sets there are."""
        lines = [_named(images) for images in self.sets[:SHOWN_SETS]]
        n_more = self.n_sets - len(lines)
        return (*lines, *([f"and {n_more:,} more"] if lines and n_more else []))


def most_serious_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings in the order in which they should be seen to."""
    return tuple(sorted(findings, key=lambda finding: RULES.index(finding.rule)))


def few_images_findings(counts: Sequence[ClassCount]) -> tuple[Finding, ...]:
    """Say which classes have one or two images."""
    return (
        *_of_classes(
            "single_image_class",
            [count for count in counts if count.n_images == 1],
            one="One class has a single image, which is never held out, so that nothing shows whether it is recognised",
            many="{n} classes have a single image, which is never held out, so that nothing shows whether they are "
            "recognised",
        ),
        *_of_classes(
            "two_image_class",
            [count for count in counts if count.n_images == 2],
            one="One class has two images, and is learnt from one alone where the other is held out",
            many="{n} classes have two images, and are learnt from one alone where the other is held out",
        ),
    )


def folds_findings(
    *, never_held_out: Sequence[ClassCount] = (), not_trained: Sequence[ClassCount] = ()
) -> tuple[Finding, ...]:
    """Say which classes no fold holds out, and which some fold holds out without having seen them."""
    return (
        *_of_classes(
            "class_never_held_out",
            never_held_out,
            one="One class is in no held-out part, so that the out-of-fold accuracy says nothing of it",
            many="{n} classes are in no held-out part, so that the out-of-fold accuracy says nothing of them",
        ),
        *_of_classes(
            "class_missing_in_training",
            not_trained,
            one="One class is held out by a fold that does not train on it, which lowers the out-of-fold accuracy",
            many="{n} classes are held out by folds that do not train on them, which lowers the out-of-fold accuracy",
        ),
    )


def groups_findings(
    *, in_one_group: Sequence[ClassCount] = (), mixed: Sequence[ImageSet] = (), n_groups: int = 0
) -> tuple[Finding, ...]:
    """Say which classes one group has to itself, and which groups have several labels.

    ``mixed`` are such groups, one image of each of their labels.
    """
    alone = _of_classes(
        "class_in_one_group",
        in_one_group,
        one="One class has images of one group only, which cannot be held out, so that nothing shows whether it is "
        "recognised in other groups",
        many="{n} classes have images of one group only, which cannot be held out, so that nothing shows whether they "
        "are recognised in other groups",
    )
    if not mixed:
        return alone
    sentence = f"{len(mixed):,} of {n_groups:,} groups have images of several classes, which may be as it should."
    return (*alone, _of_sets("group_of_several_labels", sentence, mixed))


def copies_findings(
    *, exact: Sequence[ImageSet] = (), near: Sequence[ImageSet] = (), across_groups: Sequence[ImageSet] = ()
) -> tuple[Finding, ...]:
    """Say what copies there are: those of different labels first.

    ``exact`` have the same content, ``near`` look the same to the backbone, and ``across_groups`` are sets of either
    kind that lie in several of the groups given.
    """
    kinds = (
        (
            "exact_copies_across_labels",
            [images for images in exact if _is_mixed(images)],
            "{} have the same content and different labels: at least one label of each set is wrong.",
        ),
        (
            "near_copies_across_labels",
            [images for images in near if _is_mixed(images)],
            "{} are near copies (saved again, cut, taken a moment later) with different labels: see which is right.",
        ),
        (
            "copies_across_groups",
            list(across_groups),
            "{} are copies that lie in several groups: the groups leak, what is held out by them was seen in training.",
        ),
        (
            "exact_copies",
            [images for images in exact if not _is_mixed(images)],
            "{} have the same content and label: they count more than once and add nothing; no fold parts them.",
        ),
        (
            "near_copies",
            [images for images in near if not _is_mixed(images)],
            "{} are near copies of one label: where a fold parts them, the out-of-fold accuracy is too high. Passing "
            "such sets as groups keeps them together.",
        ),
    )
    return tuple(_of_sets(rule, sentence.format(_counted(sets)), sets) for rule, sets, sentence in kinds if sets)


def suspects_finding(suspects: Sequence[ListedImage], *, below: float, above: float) -> tuple[Finding, ...]:
    """Say which labels are probably wrong, the clearest first."""
    if not suspects:
        return ()
    n = len(suspects)
    sentence = (
        f"{n:,} image{_s(n)} probably {'has' if n == 1 else 'have'} a wrong label: by the folds that held "
        f"{'it' if n == 1 else 'them'} out, the label has a probability under {100 * below:.2g} % and another class "
        f"one over {100 * above:.2g} %."
    )
    return (_of_sets("label_suspects", sentence, [(image,) for image in suspects]),)


def not_searched_finding(what: Sequence[str], n_images: int) -> tuple[Finding, ...]:
    """Say what was not looked for, so that silence is not taken for health."""
    if not what:
        return ()
    sentence = f"Not looked for among these {n_images:,} images: {' and '.join(what)}."
    return (Finding(rule="not_searched", sentence=sentence),)


def _of_classes(rule: str, counts: Sequence[ClassCount], *, one: str, many: str) -> tuple[Finding, ...]:
    """Return the finding about these classes, their names behind its sentence; nothing if there is none."""
    if not counts:
        return ()
    names = ", ".join(f"{_printable(count.label)} ({count.n_images:,})" for count in counts[:SHOWN_CLASSES])
    more = f" and {len(counts) - SHOWN_CLASSES:,} more" if len(counts) > SHOWN_CLASSES else ""
    sentence = f"{one if len(counts) == 1 else many.format(n=f'{len(counts):,}')}: {names}{more}."
    n_images = sum(count.n_images for count in counts)
    return (Finding(rule=rule, sentence=sentence, classes=tuple(counts), n_images=n_images),)


def _of_sets(rule: str, sentence: str, sets: Sequence[ImageSet]) -> Finding:
    return Finding(
        rule=rule,
        sentence=sentence,
        sets=tuple(images[:LISTED_IMAGES] for images in sets[:LISTED_SETS]),
        n_sets=len(sets),
        n_images=sum(map(len, sets)),
    )


def _is_mixed(images: ImageSet) -> bool:
    return len({image.label for image in images}) > 1


def _counted(sets: Sequence[ImageSet]) -> str:
    n = len(sets)
    return f"{sum(map(len, sets)):,} images in {n:,} set{_s(n)}"


def _named(images: ImageSet) -> str:
    """Name the images of a set on one line, with labels where these differ or are doubted."""
    mixed = _is_mixed(images)
    names = [_with_label(image) if mixed or image.suggested else _short(image.id) for image in images[:SHOWN_IMAGES]]
    more = f" and {len(images) - SHOWN_IMAGES} more" if len(images) > SHOWN_IMAGES else ""
    return ", ".join(names) + more


def _with_label(image: ListedImage) -> str:
    doubt = f", looks like {_printable(image.suggested)}" if image.suggested is not None else ""
    return f"{_short(image.id)} ({_printable(image.label)}{doubt})"


def _short(name: str) -> str:
    """Return a path's last folder and name, which is what tells the images of a folder of class folders apart."""
    return _printable("/".join(name.replace("\\", "/").split("/")[-2:]))


def _printable(text: str) -> str:
    """Return a text of any file or class on one line."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _s(n: int) -> str:
    return "" if n == 1 else "s"
