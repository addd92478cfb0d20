"""A file that equals a command line."""

import tomllib

import pytest

from bottleneck import load
from bottleneck.cli.app import JOBS, typer_commands
from bottleneck.cli.config import LEFT_OUT, key_of, parse_setting, write_config
from bottleneck.errors import InvalidInputError
from tests.cli.conftest import last_json


@pytest.fixture
def config(tmp_path):
    """Return a function that writes a config file."""

    def write(content: str):
        path = tmp_path / "run.toml"
        path.write_text(content)
        return path

    return write


def test_run_writes_the_file_that_does_it_again(command, saved, tmp_path):
    """Also from another folder, with another place to save in typed beside it."""
    first, second = tmp_path / "first", tmp_path / "second"
    options = ("--strategy", "probe", "--seed", "7", "--class-weight", "balanced", "--set", "head.normalize=l2")
    command("fit", saved / "images", "--out", first, "--cache-dir", saved / "cache", "-q", *options)

    status, printed, _ = command("fit", "--config", tmp_path / "first.toml", "--out", second, "--json", "-q")

    assert status == 0
    assert last_json(printed)["config"] == str(tmp_path / "second.toml")
    images = saved / "images" / "bluish"
    before, after = (load(path).set_params(cache_dir=saved / "cache").predict_proba(images) for path in (first, second))
    assert (before == after).all()
    written = [tomllib.loads((tmp_path / name).read_text()) for name in ("first.toml", "second.toml")]
    assert [config.pop("out") for config in written] == [str(first), str(second)]
    assert written[0] == written[1]
    assert written[0] == {
        "data": str(saved / "images"), "backbone": "embedded", "weights": "default", "strategy": "probe",
        "risk": "balanced", "head": "logistic", "class-weight": "balanced", "cache-dir": str(saved / "cache"),
        "device": "auto", "precision": "auto", "batch-size": "auto", "on-error": "raise", "seed": 7,
        "set": {"head": {"normalize": "l2"}},
    } | {key: value for key, value in written[0].items() if key not in KNOWN}  # fmt: skip


KNOWN = {
    "data", "backbone", "weights", "strategy", "risk", "head", "class-weight", "cache-dir", "device", "precision",
    "batch-size", "on-error", "seed", "set",
}  # fmt: skip


def test_every_option_of_fit_is_a_key():
    keys = {key_of(param) for param in typer_commands()["fit"].params}

    assert KNOWN | {"out", "time-budget"} <= keys - LEFT_OUT


COMMAND_LINES = {
    "plan": "images --strategy probe --time-budget 60 --memory-limit 2e9 --disk-limit 500000 --head svm",
    "fit": "images --out kept --seed 7 --class-weight balanced --set head.normalize=l2 --set finetune.lr=0.01",
    "evaluate": "model images --on-error skip",
    "predict": "model images a.png - --top-k 3 --proba --format jsonl",
    "cache": "images --batch-size 8 --workers 2 --shard 1/2 --weights model/w.pth",
    "compare": "images embedded resnet18=model/w.pth --cv 3 --plot a.png --set head.normalize=l2",
    "report": "model images --out a.html",
    "export": "model a.onnx",
}


def test_every_job_can_be_repeated_from_a_file():
    assert {job.__name__ for job in JOBS} == COMMAND_LINES.keys()


@pytest.mark.parametrize("name", COMMAND_LINES)
def test_written_file_equals_the_command_line_from_any_folder(name, tmp_path, monkeypatch):
    """Paths in it are whole, also those of weights behind a backbone; names that are no paths stay what they are."""
    for folder in ("images", "model", "embedded", "elsewhere"):
        (tmp_path / folder).mkdir()
    for file in ("a.png", "model/w.pth"):
        (tmp_path / file).touch()
    relative = ("images", "model", "a.png", "a.html", "a.onnx", "kept")
    words = COMMAND_LINES[name].split()
    whole = [str(tmp_path / word) if word in relative else word for word in words]
    whole = [word.replace("model/", f"{tmp_path}/model/") for word in whole]
    monkeypatch.chdir(tmp_path)
    with typer_commands()[name].make_context(name, words) as typed:
        write_config(tmp_path / "run.toml", typed)
    monkeypatch.chdir(tmp_path / "elsewhere")

    with typer_commands()[name].make_context(name, ["--config", str(tmp_path / "run.toml")]) as read:
        found = read.params

    with typer_commands()[name].make_context(name, whole) as expected:
        assert as_parsed(found) == as_parsed(expected.params)


def as_parsed(params):
    """Return what a command is given, with settings as they are understood however they are written."""
    settings = [parse_setting(text) for text in params.get("settings") or ()]
    return params | {"config": None, "settings": settings}


def test_file_is_written_when_the_command_has_done_its_work(command, saved, config, tmp_path):
    path = tmp_path / "run.toml"
    arguments = ("--cache-dir", saved / "cache", "-q", "--json", "--write-config", path)

    assert command("evaluate", saved / "model", tmp_path / "nowhere", *arguments)[0] == 2
    assert not path.exists()
    status, printed, _ = command("evaluate", saved / "model", saved / "images", *arguments)

    assert status == 0
    assert command("evaluate", "--config", path, "-q", "--json")[1] == printed


def test_file_of_a_fit_is_compared_with_its_head_alone(config):
    path = config('data = "images"\n[set]\nfinetune.lr = 0.1\nhead.normalize = "l2"\n')

    with typer_commands()["compare"].make_context("compare", ["x", "embedded", "--config", str(path)]) as ctx:
        assert ctx.params["settings"] == ['head.normalize="l2"']


def test_file_stands_in_for_what_is_not_typed(command, config, tmp_path):
    path = config(f'data = "{tmp_path}/here"\nrisk = "bald"\n')

    assert "No such folder" in command("fit", "--config", path)[2]
    assert "/there" in command("fit", tmp_path / "there", "--config", path)[2]


def test_settings_of_the_file_come_before_those_typed(command, config, image_folder):
    path = config(f'data = "{image_folder}"\n[set]\nhead.normalise = "l2"\n')

    status, _, said = command("fit", "--config", path, "--set", "head.nothing=1")

    assert status == 2
    assert "--set head.normalise: no such setting. Did you mean 'normalize'?" in said


def test_what_another_command_takes_is_left_to_it(command, config, image_folder, tmp_path):
    path = config(f'data = "{image_folder}"\nout = "model"\nclass-weight = "balanced"\n')

    status, _, _ = command("plan", "--config", path, "--cache-dir", tmp_path / "cache")

    assert status == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("time-budgett = 3", "time-budgett: no such option. Did you mean 'time-budget'?"),
        ('write-config = "x"', "write-config: no such option"),
        ("seed = ", "is no TOML: "),
        ("[seed]\nx = 1", "seed: one value, not a table, is needed"),
        ("set = 1", "set: a table is needed"),
        ("[set]\nlr = 1", "finetune.NAME or head.NAME"),
        ('seed = "x"', "run.toml cannot be used: Invalid value for '--seed'"),
        ('risk = "bald"', "run.toml cannot be used: --risk must be 'balanced' or 'safe'. Got 'bald' instead."),
        ("shart = 1", "shart: no such option.\n"),
        ("[set]\nfinetune.rate = 1", "--set finetune.rate: no such setting."),
    ],
)
def test_mistake_in_a_file_is_said(command, config, image_folder, content, said):
    status, _, complaint = command("fit", image_folder, "--config", config(content))

    assert status == 2
    assert said in complaint


def test_missing_file_and_binary_file_are_said(command, config, image_folder, tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe")

    assert "cannot be read: No such file" in command("fit", image_folder, "--config", tmp_path / "no")[2]
    assert "not UTF-8" in command("fit", image_folder, "--config", tmp_path / "binary")[2]


def test_file_of_somebody_else_is_not_replaced(command, image_folder, tmp_path):
    (tmp_path / "model.toml").write_text("mine = true\n")

    status, _, said = command("fit", image_folder, "--out", tmp_path / "model")

    assert status == 2
    assert "bottleneck did not write it. Name another with --write-config." in said
    assert (tmp_path / "model.toml").read_text() == "mine = true\n"


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        ("finetune.lr=0.01", ("finetune", "lr", 0.01)),
        ("finetune.steps=500", ("finetune", "steps", 500)),
        ("finetune.flip=true", ("finetune", "flip", True)),
        ("finetune.batch-norm=frozen", ("finetune", "batch_norm", "frozen")),
        ('head.normalize="l2"', ("head", "normalize", "l2")),
        ("finetune.group_multipliers=[0.1, 1]", ("finetune", "group_multipliers", (0.1, 1))),
        ("head.class_weight={cat = 2.0}", ("head", "class_weight", {"cat": 2.0})),
    ],
)
def test_setting_is_a_value_of_toml_or_a_word(typed, parsed):
    assert parse_setting(typed) == parsed


@pytest.mark.parametrize("typed", ["lr=0.01", "finetune.lr", "finetune.=1", ""])
def test_setting_of_another_form_is_said(typed):
    with pytest.raises(InvalidInputError, match=r"must be OWNER\.NAME=VALUE"):
        parse_setting(typed)


def test_typed_value_is_not_blamed_on_the_file(command, config, image_folder):
    complaint = command("fit", image_folder, "--config", config("seed = 1\n"), "--seed", "x")[2]

    assert complaint.startswith("error: Invalid value for '--seed'")
