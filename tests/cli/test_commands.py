"""The commands about classifiers, where they are more than the API."""


def test_report_warns_of_images_that_were_trained_on(command, saved, tmp_path):
    out, cache = tmp_path / "report.html", ("--cache-dir", saved / "cache", "-q")

    status, _, _ = command("report", saved / "model", saved / "images", "--train", saved / "images", "-o", out, *cache)

    assert status == 0
    assert "<strong>24 of these images were trained on</strong>" in out.read_text()
    assert "No such folder" in command("report", saved / "model", saved / "images", "--train", "nowhere", *cache)[2]


def test_report_says_its_options(command, saved, tmp_path):
    status, _, said = command("report", saved / "model", saved / "images", "--out", tmp_path)

    assert status == 2
    assert said.startswith("error: --out must be a file.")
