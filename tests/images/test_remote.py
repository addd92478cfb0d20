"""Images at addresses: the same rows as from a disk, and plain words for what is wrong."""

import pytest

from bottleneck import cache_features
from bottleneck.errors import InvalidInputError
from bottleneck.extraction import ExtractionSettings
from bottleneck.images import ImageReadError, as_image_source, part_of
from tests.conftest import make_tiny_backbone

fsspec = pytest.importorskip("fsspec")

CPU = ExtractionSettings(device="cpu", precision="float32", workers=0, batch_size=4)


@pytest.fixture
def store():
    """Return a file system in memory, empty before and after."""
    memory = fsspec.filesystem("memory")
    yield memory
    memory.rm("/", recursive=True)


def test_folder_of_addresses_gives_the_features_of_the_folder_on_disk(store, image_folder, tmp_path):
    for path in image_folder.rglob("*.png"):
        store.pipe_file(f"/{path.relative_to(image_folder)}", path.read_bytes())
    store.pipe_file("/notes.txt", b"no image")
    cache_features(image_folder, make_tiny_backbone(), tmp_path / "cache", settings=CPU)

    from_memory = cache_features("memory://", make_tiny_backbone(), tmp_path / "cache", settings=CPU)
    from_file = cache_features(f"file://{image_folder}", make_tiny_backbone(), tmp_path / "cache", settings=CPU)

    assert (from_memory.rows_extracted, from_memory.rows_cached) == (0, 24)
    assert (from_file.rows_extracted, from_file.rows_cached) == (0, 24)


def test_stat_changes_with_the_content(store):
    store.pipe_file("/a.png", b"a")
    source = as_image_source(["memory://a.png"])
    before = source.stat(0)
    store.pipe_file("/a.png", b"ab")

    assert before != source.stat(0)
    assert before.path.startswith("/")


def test_table_at_an_address_lists_addresses_beside_it(store):
    store.pipe_file("/data/list.csv", b"path\na.png\nmemory://other/b.png\n")
    store.pipe_file("/data/a.png", b"a")
    store.pipe_file("/other/b.png", b"b")

    source = as_image_source("memory://data/list.csv")

    assert [source.read(row) for row in range(2)] == [b"a", b"b"]
    assert part_of(source, range(1, 2)).read(0) == b"b"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("memory://none.png", "no such file"),
        ("nonsense://a.png", "Protocol not known"),
        ("memory://folder", "folder|no such"),
    ],
)
def test_address_that_cannot_be_read_says_why(store, url, reason):
    store.pipe_file("/folder/a.png", b"a")
    source = as_image_source([url])

    with pytest.raises(ImageReadError, match=reason):
        source.read(0)


def test_folder_in_a_store_that_cannot_be_asked_is_one_error():
    with pytest.raises(InvalidInputError, match="nonsense://folder"):
        as_image_source("nonsense://folder")
