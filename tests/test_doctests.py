"""Examples in docstrings are run."""

import doctest
import importlib
from pathlib import Path

import pytest

import bottleneck

PACKAGE = Path(bottleneck.__file__).parent
WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_hold(name):
    results = doctest.testmod(importlib.import_module(name))

    assert results.failed == 0
