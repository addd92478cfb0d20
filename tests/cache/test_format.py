import random
import tracemalloc

import numpy as np
import pytest

from bottleneck.cache import FeatureRows, as_stored
from bottleneck.cache.format import RUN_BYTES, compose_shard, parse_rows, read_block, read_header
from bottleneck.errors import CorruptShardError, InvalidInputError

from .rows import ROWS_PER_SHARD, SPACE, features_of, random_keys, rows_of

AWKWARD = [0.0, -0.0, 1e-45, -6e-8, 5.96e-8, 2.9e-8, 6.1e-5, 1 / 3, 65504.0, 65519.99, -65519.0, 2049.0]
OVERFLOWING = [65520.0, -65536.0, 1e30, -3.4e38]


def naive_as_stored(features):
    stored = []
    for row in features:
        with np.errstate(over="ignore"):
            halves = [np.float16(value) for value in row]
        overflows = any(np.isinf(half) for half in halves)
        stored.append(row if overflows else [np.float32(half) for half in halves])
    return np.array(stored, np.float32)


def awkward_features(n_features=24):
    draw = np.random.default_rng(0)
    features = draw.choice(np.array(AWKWARD, np.float32), (ROWS_PER_SHARD, n_features))
    for row, value in enumerate(OVERFLOWING):
        features[row, draw.integers(n_features)] = value
    return features


def assert_same_bits(got, expected):
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))


def test_as_stored_rounds_like_the_naive_version():
    assert_same_bits(as_stored(awkward_features()), naive_as_stored(awkward_features()))


def test_as_stored_leaves_its_argument_alone_and_is_idempotent():
    features = awkward_features()

    stored = as_stored(features)

    assert_same_bits(features, awkward_features())
    assert_same_bits(as_stored(stored), stored)


def test_what_becomes_of_a_row_depends_on_that_row_only():
    features = awkward_features()

    one_by_one = np.concatenate([as_stored(features[row : row + 1]) for row in range(len(features))])

    assert_same_bits(one_by_one, as_stored(features))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_refused_and_named(value):
    features = np.zeros((5, 3), np.float32)
    features[1, 2] = features[4, 0] = value

    with pytest.raises(InvalidInputError, match=r"in 2 rows: 1, 4\."):
        as_stored(features)


@pytest.mark.parametrize("features", [np.zeros((2, 3)), np.zeros(3, np.float32)])
def test_other_dtypes_and_shapes_are_refused(features):
    with pytest.raises(InvalidInputError, match="must be float32 in rows"):
        as_stored(features)


def test_shard_gives_back_awkward_rows_bit_for_bit(tmp_path):
    keys = random_keys(ROWS_PER_SHARD, 0)
    rows = FeatureRows(keys=keys, layers={"penultimate": awkward_features(), "stage1": features_of(keys, "stage1")})
    path = tmp_path / "shard.h5"

    path.write_bytes(compose_shard(parse_rows(rows, SPACE), SPACE))

    header = read_header(path, SPACE)
    np.testing.assert_array_equal(header.keys, keys)
    assert (header.blocks["penultimate"].dtype, header.blocks["stage1"].dtype) == ("<f4", "<f2")
    for layer, features in rows.layers.items():
        with path.open("rb", buffering=0) as file:
            got = read_block(file, header.blocks[layer], np.arange(ROWS_PER_SHARD))
        assert_same_bits(got, as_stored(features))


def test_same_rows_give_the_same_bytes():
    rows = parse_rows(rows_of(random_keys(ROWS_PER_SHARD, 0)), SPACE)

    assert compose_shard(rows, SPACE) == compose_shard(rows, SPACE)


@pytest.mark.parametrize("n_wanted", [1, 2, 30, 3000, 20_000])
def test_any_ascending_rows_are_read_like_indexing(tmp_path, n_wanted):
    keys = random_keys(20_000, 0)
    path = tmp_path / "shard.h5"
    path.write_bytes(compose_shard(parse_rows(rows_of(keys), SPACE), SPACE))
    wanted = np.sort(np.random.default_rng(n_wanted).integers(0, len(keys), n_wanted))

    with path.open("rb", buffering=0) as file:
        got = read_block(file, read_header(path, SPACE).blocks["penultimate"], wanted)

    np.testing.assert_array_equal(got, as_stored(features_of(keys))[wanted])


def test_reading_takes_no_more_memory_than_its_result_and_a_run(tmp_path):
    keys = random_keys(300_000, 0)
    path = tmp_path / "shard.h5"
    path.write_bytes(compose_shard(parse_rows(rows_of(keys), SPACE), SPACE))
    block = read_header(path, SPACE).blocks["penultimate"]
    peaks = []
    for wanted in (np.array([0, len(keys) - 1]), np.arange(len(keys))):
        with path.open("rb", buffering=0) as file:
            tracemalloc.start()
            result = read_block(file, block, wanted)
            peaks.append(tracemalloc.get_traced_memory()[1] - result.nbytes)
            tracemalloc.stop()

    row_bytes = 24 * 2
    assert peaks[0] < 100 * row_bytes
    assert peaks[1] < 2.5 * RUN_BYTES < len(keys) * row_bytes * 2


def test_header_of_a_damaged_shard_is_right_or_refused(tmp_path):
    content = compose_shard(parse_rows(rows_of(random_keys(ROWS_PER_SHARD, 0)), SPACE), SPACE)
    path = tmp_path / "shard.h5"
    draw = random.Random(0)
    refused = 0
    for trial in range(120):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged if trial % 4 else damaged[: draw.randrange(len(content))])
        try:
            header = read_header(path, SPACE, n_rows=ROWS_PER_SHARD)
        except CorruptShardError:
            refused += 1
        else:
            assert header.keys.shape == (ROWS_PER_SHARD, 16)

    assert refused > 20


def test_rows_of_another_space_are_refused():
    keys = random_keys(2, 0)
    rows = FeatureRows(keys=keys, layers={"penultimate": features_of(keys)})

    with pytest.raises(InvalidInputError, match="layers must have the shapes"):
        parse_rows(rows, SPACE)


def test_keys_of_another_form_are_refused():
    rows = FeatureRows(keys=np.zeros((2, 8), np.uint8), layers={})

    with pytest.raises(InvalidInputError, match=r"keys must be uint8 \(n, 16\)"):
        parse_rows(rows, SPACE)


def test_refused_row_is_named_with_its_layer():
    rows = rows_of(random_keys(4, 0))
    rows.layers["stage1"][2, 1] = np.nan

    with pytest.raises(InvalidInputError, match=r"Layer 'stage1'.*in 1 rows: 2\."):
        parse_rows(rows, SPACE)
