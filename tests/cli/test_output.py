"""Plain text for people, and colour where they want it."""

import pytest

from bottleneck.cli.output import complain


def test_label_is_coloured_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")

    complain("error", "[bold]no markup[/bold] /a/path 12")

    assert capsys.readouterr().err == "\x1b[1;31merror:\x1b[0m [bold]no markup[/bold] /a/path 12\n"


@pytest.mark.parametrize("variable", ["NO_COLOR", None])
def test_nothing_is_coloured_in_a_file_or_without_wish(capsys, monkeypatch, variable):
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv(variable, "1")

    complain("warning", "x" * 300)

    said = capsys.readouterr().err.replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert "\x1b[3" not in said
    assert said == f"warning: {'x' * 300}\n"
