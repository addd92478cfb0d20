import numpy as np

from bottleneck.cache.index import KeyIndex, first_of_each

from .rows import random_keys


def test_finds_like_a_dictionary():
    keys = random_keys(3000, 0)
    keys[1000:2000, 8:] = 0  # keys that differ in one half only
    keys[2000:3000, :8] = 0
    index = KeyIndex()
    index.add(keys[:2000], np.arange(2000))
    index.add(keys[2000:2999], np.arange(2000, 2999))
    asked = np.concatenate([keys, random_keys(500, 1), np.zeros((1, 16), np.uint8), np.full((1, 16), 255, np.uint8)])
    expected = {key.tobytes(): position for position, key in enumerate(keys[:2999])}

    found = index.find(asked[::-1])

    assert found.tolist() == [expected.get(key.tobytes(), -1) for key in asked[::-1]]


def test_of_equal_keys_the_newest_is_found_until_it_is_removed():
    keys = random_keys(1000, 0)
    index = KeyIndex()
    index.add(keys, np.arange(1000))
    index.add(keys[:500], np.arange(1000, 1500))

    assert index.find(keys).tolist() == [*range(1000, 1500), *range(500, 1000)]

    index.remove(1000, 1500)

    assert index.find(keys).tolist() == list(range(1000))

    index.remove(0, 1000)

    assert index.find(keys).tolist() == [-1] * 1000


def test_empty_index_and_empty_question():
    index = KeyIndex()

    assert index.find(random_keys(2, 0)).tolist() == [-1, -1]
    assert index.find(random_keys(0, 0)).shape == (0,)


def test_first_of_each_key_is_found_like_in_a_loop():
    keys = random_keys(40, 0)[np.random.default_rng(0).integers(0, 40, 200)]
    keys[:, 8:] = keys[::-1, 8:]  # keys that differ in one half only
    seen = set()
    expected = [i for i, key in enumerate(keys) if key.tobytes() not in seen and not seen.add(key.tobytes())]

    assert first_of_each(keys).tolist() == expected
    assert first_of_each(keys[:0]).tolist() == []
