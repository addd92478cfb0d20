"""The glossary speaks of names that exist, and README and glossary of each other."""

import dataclasses
import re
from inspect import signature
from pathlib import Path

import bottleneck

ROOT = Path(__file__).parents[2]
GLOSSARY = (ROOT / "examples" / "glossary.md").read_text()


def known_names() -> set[str]:
    public = [getattr(bottleneck, name) for name in bottleneck.__all__]
    parameters = {param for item in public if callable(item) for param in signature(item).parameters}
    fields = {field.name for item in public if dataclasses.is_dataclass(item) for field in dataclasses.fields(item)}
    return {*bottleneck.__all__, *parameters, *fields}


def test_every_name_in_code_exists():
    spoken_of = {re.match(r"\w+", code)[0] for code in re.findall(r"`([^`]+)`", GLOSSARY)}
    learned = {name for name in spoken_of if name.endswith("_")}

    assert spoken_of - learned - known_names() == set()
    assert all(f"    {name} :" in bottleneck.TransferClassifier.__doc__ for name in learned)


def test_no_word_is_explained_twice():
    words = [
        word for entry in re.findall(r"^- (.*?:)", GLOSSARY, re.M) for word in re.findall(r"\*\*([^*]+)\*\*", entry)
    ]

    assert len(words) > 40
    assert sorted(words) == sorted(set(words))


def test_readme_points_to_it():
    assert "examples/glossary.md" in (ROOT / "README.md").read_text()
