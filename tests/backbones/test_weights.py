import hashlib
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from bottleneck.backbones.weights import as_weights_path, fetch, fixed_seed, load_tensors, read_weights
from bottleneck.errors import WeightsError
from bottleneck.torchvision_door import torchvision
from tests.backbones.networks import ResNet20, save_safetensors, small_network


def test_safetensors_file_gives_its_tensors_and_metadata(tmp_path):
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.float16)}

    file = read_weights(save_safetensors(tensors, tmp_path / "w.safetensors", {"mean": "0,0,0"}))

    assert file.metadata == {"mean": "0,0,0"}
    assert all(torch.equal(file.tensors[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    "wrap", [dict, lambda state: {"state_dict": state, "epoch": 3}, lambda state: {"model": state}]
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_state_dict_is_found_in_what_training_scripts_save(tmp_path, wrap, prefix):
    state = {prefix + name: tensor for name, tensor in ResNet20().state_dict().items()}
    torch.save(wrap(state), tmp_path / "w.pth")

    file = read_weights(tmp_path / "w.pth")

    assert set(file.tensors) == set(ResNet20().state_dict())


def test_pickled_code_is_never_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return Path.touch, (tmp_path / "owned",)

    torch.save({"a": torch.zeros(1), "b": Hostile()}, tmp_path / "w.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Hostile()))

    for name in ("w.pth", "plain.pth"):
        with pytest.raises(WeightsError, match="cannot be read"):
            read_weights(tmp_path / name)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "noise"])
def test_damaged_file_is_a_weights_error_that_names_it(tmp_path, suffix, damage):
    path = tmp_path / f"w.{suffix}"
    tensors = {"a": torch.arange(1000.0)}
    save_safetensors(tensors, path) if suffix == "safetensors" else torch.save(tensors, path)
    content = {"truncated": path.read_bytes()[:-50], "empty": b"", "noise": bytes(range(256)) * 20}[damage]
    path.write_bytes(content)

    with pytest.raises(WeightsError, match=rf"w\.{suffix}' cannot be read"):
        read_weights(path)


@pytest.mark.parametrize("content", [{}, {"a": 1}, {0: torch.zeros(1)}, [torch.zeros(1)], torch.zeros(3)])
def test_file_without_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")

    with pytest.raises(WeightsError, match="no state_dict"):
        read_weights(tmp_path / "w.pth")


def test_missing_file_is_named():
    with pytest.raises(WeightsError, match=r"no weights file '.*/nowhere\.pth'"):
        read_weights(Path("nowhere.pth"))


def test_paths_are_told_from_names():
    for path in ("w.pth", "W.SAFETENSORS", "folder/w", Path("default")):
        assert as_weights_path(path) == Path(path)
    for name in ("default", "IMAGENET1K_V1", None):
        assert as_weights_path(name) is None


def test_half_precision_is_converted(tmp_path):
    network = small_network()
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state(network).items()}

    load_tensors(network, read_weights(save_safetensors(halves, tmp_path / "w.safetensors")))

    assert network[0].weight.dtype == torch.float32
    assert torch.equal(network[0].weight, halves["0.weight"].float())


def test_everything_that_does_not_fit_is_listed_at_once(tmp_path):
    tensors = state(small_network())
    del tensors["0.weight"], tensors["5.running_mean"]
    tensors |= {"extra": torch.zeros(2), "8.weight": torch.zeros(16, 3), "4.bias": torch.zeros(12, dtype=torch.int8)}

    with pytest.raises(WeightsError) as caught:
        load_tensors(small_network(), read_weights(save_safetensors(tensors, tmp_path / "w.safetensors")))

    assert str(caught.value).splitlines()[1:] == [
        "  - missing: 0.weight (8, 3, 3, 3) float32",
        "  - missing: 5.running_mean (12,) float32",
        "  - unexpected: extra",
        "  - other shape: 4.bias is (12,) int8, not (12,) float32",
        "  - other shape: 8.weight is (16, 3) float32, not (16, 12, 3, 3) float32",
    ]


def test_old_files_without_batch_counters_fit(tmp_path):
    tensors = {name: tensor for name, tensor in state(small_network()).items() if "num_batches" not in name}

    load_tensors(small_network(), read_weights(save_safetensors(tensors, tmp_path / "w.safetensors")))


def test_modules_may_read_what_their_older_versions_wrote(tmp_path):
    MLPBlock = torchvision().models.vision_transformer.MLPBlock
    block = nn.Sequential(MLPBlock(4, 8, 0.0))
    new = state(block)
    old = OrderedDict((name.replace("0.0.", "0.linear_1.").replace("0.3.", "0.linear_2."), new[name]) for name in new)
    torch.save(old, tmp_path / "w.pth")
    target = nn.Sequential(MLPBlock(4, 8, 0.0))

    load_tensors(target, read_weights(tmp_path / "w.pth"))

    assert all(torch.equal(tensor, new[name]) for name, tensor in state(target).items())


def test_published_file_in_the_cache_is_used_without_a_download(tmp_path, monkeypatch):
    path = cached(tmp_path, monkeypatch, b"weights")

    assert fetch(f"https://download.invalid/models/{path.name}", what="V1 of tiny") == path


def test_file_in_the_cache_with_another_content_is_refused(tmp_path, monkeypatch):
    path = cached(tmp_path, monkeypatch, b"weights")
    path.write_bytes(b"weight")

    with pytest.raises(WeightsError, match=r"is not the published file.*Delete it"):
        fetch(f"https://download.invalid/models/{path.name}", what="V1 of tiny")


def test_failed_download_is_one_line_that_says_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    with pytest.raises(WeightsError) as caught:
        fetch("https://download.invalid/models/tiny-0123abcd.pth", what="V1 of tiny")

    message = str(caught.value)
    assert "\n" not in message
    for part in ("V1 of tiny", str(tmp_path / "hub" / "checkpoints" / "tiny-0123abcd.pth"), "weights=PATH", "embedded"):
        assert part in message
    assert not list(tmp_path.rglob("*.partial"))


def test_downloaded_file_is_kept_in_the_cache(tmp_path, monkeypatch):
    source = tmp_path / f"tiny-{hashlib.sha256(b'weights').hexdigest()[:8]}.pth"
    source.write_bytes(b"weights")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))

    path = fetch(source.as_uri(), what="V1 of tiny")

    assert path.read_bytes() == b"weights"
    assert path.parent == tmp_path / "home" / "hub" / "checkpoints"


def test_fixed_seed_gives_the_same_numbers_and_leaves_the_callers_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)

    with fixed_seed():
        first = torch.rand(3)
    with fixed_seed():
        second = torch.rand(3)

    assert torch.equal(first, second)
    assert torch.equal(torch.rand(3), expected)


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return dict(network.state_dict())


def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / f"tiny-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_weights_of_another_network_are_one_line(tmp_path):
    from bottleneck.backbones import load_backbone

    path = save_safetensors({"a.weight": torch.ones(2, 2)}, tmp_path / "other.safetensors")

    with pytest.raises(WeightsError, match="for another network") as caught:
        load_backbone("embedded", path)

    assert len(str(caught.value).splitlines()) == 1


def test_file_of_another_kind_is_said_to_be_one(tmp_path):
    (tmp_path / "notes.jpg").write_bytes(b"each line of a text is no weight")

    with pytest.raises(WeightsError, match="it is neither a safetensors nor a torch file"):
        read_weights(tmp_path / "notes.jpg")
