"""The package as other packages meet it: cheap to import, harmless to pandas, honest about its name."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import bottleneck

PACKAGE = Path(bottleneck.__file__).parent

# Rows of the layout: a module imports its own unit and the rows above it in this table, nothing beside or below.
ROWS = {
    "errors": 1,
    "memory": 2,
    "planner": 2,
    "optional": 2,
    "progress": 2,
    "timing": 2,
    "torchvision_door": 2,
    "workers": 2,
    "images": 3,
    "backbones": 3,
    "cache": 3,
    "extraction": 4,
    "heads": 4,
    "profiling": 6,
    "features": 5,
    "finetune": 5,
    "estimators": 7,
    "comparison": 8,
    "persistence": 8,
    "plots": 8,
    "export": 8,
    "report": 8,
    "tracking": 8,
    "demo": 8,
    "cli": 9,
}

# One door per third-party library: package -> the only unit that may import it.
DOORS = {
    "h5py": "cache",
    "torchvision": "torchvision_door",
    "timm": "backbones",
    "jinja2": "report",
    "typer": "cli",
    "distributed": "features",
    "dask": "features",
    "fsspec": "images",
    "tensorboard": "tracking",
    "mlflow": "tracking",
}


def run_python(code: str, *flags: str) -> str:
    done = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported_modules(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or "")
    return modules


def unit_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def package_files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def test_importing_loads_nothing_heavy():
    heavy = ("torch", "torchvision", "pandas", "sklearn", "numpy", "h5py", "PIL")

    loaded = json.loads(run_python("import bottleneck, sys, json; print(json.dumps(sorted(sys.modules)))"))

    assert not {name.partition(".")[0] for name in loaded} & set(heavy)


def test_importing_takes_under_50_ms_over_a_bare_interpreter():
    code = "import time; a = time.perf_counter(); import bottleneck; print(time.perf_counter() - a)"

    fastest = min(float(run_python(code)) for _ in range(5))

    assert fastest < 0.050


def test_pandas_works_and_stays_silent():
    run_python(
        "import pandas as pd; assert pd.core.nanops._BOTTLENECK_INSTALLED is False\n"
        "frame = pd.DataFrame({'a': [1.0, 2.0, None], 'b': [3, 4, 5]})\n"
        "assert frame.sum().tolist() == [3.0, 12.0] and frame.median().tolist() == [1.5, 4.0]\n"
        "assert frame.mean(axis=1).tolist() == [2.0, 3.0, 5.0] and frame.std().notna().all()",
        "-W",
        "error",
    )


def test_pandas_stays_silent_when_we_are_imported_first():
    run_python("import bottleneck, pandas; assert pandas.Series([1.0, 2.0]).max() == 2.0", "-W", "error")


def test_unknown_attribute_says_which_package_this_is():
    with pytest.raises(AttributeError, match=r"bottleneck-features.*PyData's Bottleneck"):
        _ = bottleneck.nanmean


def test_every_public_name_resolves_to_what_its_unit_defines():
    names = [name for name in bottleneck.__all__ if not name.startswith("_")]

    resolved = {name: getattr(bottleneck, name) for name in names}

    assert {value.__name__ for value in resolved.values()} == set(names)
    assert set(names) <= set(dir(bottleneck))


@pytest.mark.parametrize("path", package_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_imports_its_own_unit_and_rows_above_only(path: Path):
    own = unit_of(path)
    ours = {module.split(".")[1] for module in imported_modules(path) if module.startswith("bottleneck.")}

    sideways_or_up = {unit for unit in ours - {own} if ROWS[unit] >= ROWS[own]}

    assert not sideways_or_up


@pytest.mark.parametrize("path", package_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_third_party_library_has_one_door(path: Path):
    own = unit_of(path)
    roots = {module.partition(".")[0] for module in imported_modules(path)}

    assert not {library for library, door in DOORS.items() if library in roots and door != own}


@pytest.mark.parametrize("path", package_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_file_stays_under_400_lines(path: Path):
    assert len(path.read_text().splitlines()) <= 400
