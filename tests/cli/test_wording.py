"""Messages of the API in the words of the command line."""

import pytest

from bottleneck import TransferClassifier
from bottleneck.cli.app import typer_commands
from bottleneck.cli.wording import as_typed, options_of
from bottleneck.errors import ImageFailure, InvalidInputError, UnreadableImagesError, wrong_parameter
from bottleneck.estimators.parse import parse_budget

FIT = options_of(typer_commands()["fit"])


@pytest.mark.parametrize(
    ("said", "typed"),
    [
        ("a time_budget under 3 s", "a --time-budget under 3 s"),
        ("(time_budget=60 would do)", "(--time-budget 60 would do)"),
        ("strategy='auto' chooses.", "--strategy auto chooses."),
        ("weights=PATH of a file, weights=None (random), or backbone='embedded'.",
         "--weights PATH of a file, --weights none (random), or --backbone embedded."),
        ("choose another cache_dir.", "choose another --cache-dir."),
        ("with cache_dir= to keep them", "with --cache-dir to keep them"),
        ("random_state=3 again", "--seed 3 again"),
    ],
)  # fmt: skip
def test_parameters_become_options(said, typed):
    assert as_typed(said, FIT) == typed


@pytest.mark.parametrize(
    "said",
    [
        "/data/batch_size/on_error.png: no such file",
        "'time_budget'",
        "image_shape=(8, 8)",
        "The head on all stages, its weights and the device",
        "runs/time_budget=60/model.pth",
    ],
)
def test_paths_and_plain_words_stay(said):
    assert as_typed(said, FIT) == said


def test_error_of_a_parameter_names_the_option_as_typed():
    with pytest.raises(InvalidInputError) as raised:
        parse_budget(-1, "balanced")

    assert as_typed(str(raised.value), FIT) == "--time-budget must be a positive number of seconds. Got -1 instead."


def test_error_of_a_knob_names_how_to_set_it():
    error = wrong_parameter("FineTuneSettings", "lr", "'auto' or a positive number", -1)

    assert as_typed(str(error), FIT).startswith("--set finetune.lr must be 'auto' or")


def test_file_to_write_is_what_was_typed_for_it():
    error = wrong_parameter("write_report", "path", "a file", "/tmp")

    assert as_typed(str(error), options_of(typer_commands()["report"])) == "--out must be a file. Got '/tmp' instead."
    assert as_typed(str(error), options_of(typer_commands()["export"])).startswith("FILE must be")


def test_unreadable_images_offer_the_option():
    error = UnreadableImagesError([ImageFailure(row=0, id="a.png", reason="no such file")])

    assert "or pass --on-error skip to go on" in as_typed(str(error), FIT)


def test_command_without_the_option_leaves_the_parameter():
    assert as_typed("on_error='skip'", options_of(typer_commands()["compact"])) == "on_error='skip'"


def test_every_parameter_of_the_classifier_with_an_option_is_known():
    """Or a message about it would name what nobody typed."""
    python_only = {"image_shape", "cv", "finetune", "verbose"}

    assert set(TransferClassifier().get_params(deep=False)) - python_only <= set(FIT)
