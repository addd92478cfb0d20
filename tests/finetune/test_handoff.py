import dataclasses
import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.utils.class_weight import compute_sample_weight
from torch import nn

from bottleneck.backbones import load_backbone
from bottleneck.errors import CacheWarning, FallbackWarning, InvalidInputError
from bottleneck.finetune import FineTuneResult, FineTuneSettings, finetune
from bottleneck.finetune.delivery import path_on_all
from bottleneck.finetune.handoff import cross_fit_until_clear, image_weights, sentence
from bottleneck.finetune.probe import Probe
from bottleneck.heads import LogisticHead
from bottleneck.images import as_image_source
from bottleneck.progress import Progress
from tests.finetune.slow import WorkClock, slow_task
from tests.finetune.tasks import PREPROCESS, Task, coloured_noise, features_of, make_job, make_task, probe_of

pytestmark = pytest.mark.usefixtures("one_thread")

HOT = FineTuneSettings(steps=90, batch_size=20, lr=0.1, lr_decay=1.0)


def run(task: Task, settings: FineTuneSettings = HOT, **options: object) -> FineTuneResult:
    options = {"source": task.source, **options}
    return finetune(
        options.pop("source"),
        task.labels,
        backbone=task.backbone,
        head=task.head,
        features=task.features,
        settings=settings,
        **options,
    )


def assert_probe_kept(result: FineTuneResult, task: Task) -> None:
    assert not result.accepted
    assert result.backbone is task.backbone
    assert result.head is task.head


@pytest.fixture(scope="module")
def accepted(colours, one_thread) -> FineTuneResult:
    return run(colours)


def test_fine_tuning_is_kept_where_frozen_features_lack_the_answer(accepted, colours):
    pixels, labels = coloured_noise(100, seed=9)

    probe_accuracy = colours.head.score(features_of(colours.backbone, pixels), labels)
    tuned_accuracy = accepted.head.score(features_of(accepted.backbone, pixels), labels)

    assert accepted.accepted
    assert tuned_accuracy > 0.95 > 0.75 > probe_accuracy
    assert accepted.comparison.gain > 0.2
    assert "is kept" in accepted.message
    assert accepted.message.count("probe") == 1


def test_the_message_says_where_only_a_quarter_of_the_way_was_gone(accepted):
    careful = dataclasses.replace(accepted.comparison, alpha=0.25, careful=True)

    assert "fine-tuning was right +" in sentence(accepted.comparison)
    assert "as they choose was refused, and a quarter of the way was right +" in sentence(careful)
    assert "Asked for were more images right, more points" in sentence(careful)


@pytest.mark.parametrize(("careful", "n_held_out"), [(False, 50), (True, 100)])
def test_mirror_images_are_tried_where_only_a_quarter_of_the_way_would_be_gone(accepted, backbone, careful, n_held_out):
    """As where nothing would be: with them the whole way may be worth going."""
    task = make_task(*coloured_noise(150, seed=0), backbone)
    clear = dataclasses.replace(accepted.comparison, careful=careful, in_doubt=False)

    fitted = cross_fit_until_clear(make_job(task, steps=10), probe_of(task), lambda held_out: clear)

    assert len(fitted.held_out.weights) == n_held_out


def test_history_tells_every_training(accepted):
    stages = [stage for stage, _ in itertools.groupby(record.stage for record in accepted.history)]

    assert stages == [
        "fine-tuning, fold 1 of 3",
        "fine-tuning, fold 2 of 3",
        "fine-tuning, fold 3 of 3",
        "fine-tuning, all images",
    ]


def test_more_images_are_held_out_while_they_leave_it_in_doubt_which_is_better(chance, colours):
    """Steps that change next to nothing make a network that is no better than the probe, and no worse."""
    settings = FineTuneSettings(steps=2, batch_size=20, lr=1e-9, lr_decay=1.0, folds=1, more_folds=True)

    doubtful, clear = run(chance, settings), run(colours, dataclasses.replace(HOT, folds=1, more_folds=True))

    assert not doubtful.accepted
    assert doubtful.comparison.n_images == 60
    assert clear.accepted
    assert clear.comparison.n_images == 20


def test_the_message_says_which_rates_were_too_high_and_which_layers_that_left_alone(staged):
    settings = FineTuneSettings(steps=4, batch_size=20, lr=3.0, lr_decay=4.0, folds=1, check_rates=True)

    message = run(staged, settings).message

    lowest = staged.backbone.layer_groups[0].name
    assert "A learning rate of 3 was too high; 0.0" in message
    assert f"Of the layer groups {lowest} stayed as given." in message


def test_probe_is_returned_unchanged_where_nothing_can_be_learnt(chance):
    coef = chance.head.coef_.copy()
    weights = [parameter.clone() for parameter in chance.backbone.network.parameters()]

    result = run(chance)

    assert_probe_kept(result, chance)
    assert np.array_equal(chance.head.coef_, coef)
    assert all(map(torch.equal, weights, chance.backbone.network.parameters()))
    assert result.message.startswith("The linear probe is kept.")
    assert result.comparison is not None


def test_same_seed_gives_the_same_classifier_in_memory_or_from_disk(accepted, colours, tmp_path: Path):
    paths = [tmp_path / f"{row:02d}.png" for row in range(len(colours.pixels))]
    for path, image in zip(paths, colours.pixels, strict=True):
        Image.fromarray(image).save(path)

    again = run(colours, source=as_image_source(paths), memory_limit=0, workers=1)

    assert again.backbone.weights_digest == accepted.backbone.weights_digest
    assert np.array_equal(again.head.coef_, accepted.head.coef_)
    assert again.comparison == accepted.comparison
    assert again.history == accepted.history


def test_interruption_leaves_the_probe(colours):
    def interrupt(event: Progress) -> None:
        if event.done == 4:
            raise KeyboardInterrupt

    with pytest.warns(FallbackWarning, match="it was interrupted. The linear probe is kept"):
        result = run(colours, progress=interrupt)

    assert_probe_kept(result, colours)
    assert [record.step for record in result.history] == [2]


def test_interruption_of_the_last_training_leaves_the_network_of_the_last_fold(colours):
    def interrupt(event: Progress) -> None:
        if event.stage == "fine-tuning, all images":
            raise KeyboardInterrupt

    with pytest.warns(FallbackWarning, match="Fine-tuning is kept. Training on all images stopped: it was interrupted"):
        result = run(colours, progress=interrupt)

    pixels, labels = coloured_noise(100, seed=9)
    tuned_accuracy = result.head.score(features_of(result.backbone, pixels), labels)
    assert result.accepted
    assert tuned_accuracy > colours.head.score(features_of(colours.backbone, pixels), labels) + 0.2


def test_layers_that_have_learned_do_not_wait_again_in_the_last_training(colours):
    anew, further = (make_job(colours, head="fresh", freeze_epochs=1, unfreeze_every=1, steps=4) for _ in range(2))

    path = path_on_all(anew, probe_of(colours), steps=4, begin=None)
    path_on_all(further, probe_of(colours), steps=4, begin=path.end)

    assert anew.history[0].learning_rates[0] == 0
    assert further.history[0].learning_rates[0] > 0


def test_interruption_of_the_last_training_leaves_the_probe_if_it_began_anew(colours):
    def interrupt(event: Progress) -> None:
        if event.stage == "fine-tuning, all images":
            raise KeyboardInterrupt

    with pytest.warns(FallbackWarning, match="it was interrupted. The linear probe is kept"):
        result = run(colours, dataclasses.replace(HOT, refit="anew"), progress=interrupt)

    assert_probe_kept(result, colours)


def test_interrupted_hand_off_goes_on_and_repeats_nothing_that_was_finished(accepted, colours, tmp_path: Path):
    told: list[list[str]] = []

    def interrupted(stop: str, done: int) -> FineTuneResult:
        """Run until a step of a stage, as Ctrl-C would end it."""
        told.append([])

        def tell(event: Progress) -> None:
            told[-1].append(event.stage)
            if (event.stage, event.done) == (stop, done):
                raise KeyboardInterrupt

        return run(colours, progress=tell, checkpoint_dir=tmp_path)

    for stop in (("fine-tuning, fold 1 of 3", 7), ("fine-tuning, fold 3 of 3", 2), ("fine-tuning, all images", 29)):
        with pytest.warns(FallbackWarning, match="The same call goes on from the checkpoint"):
            stopped = interrupted(*stop)
        # What the folds have shown to be better than the probe is delivered at once.
        assert stopped.accepted == (stop[0] == "fine-tuning, all images")
        assert stopped.resumable
    resumed = run(colours, progress=lambda event: told[-1].append(event.stage), checkpoint_dir=tmp_path)

    assert resumed.backbone.weights_digest == accepted.backbone.weights_digest
    assert np.array_equal(resumed.head.coef_, accepted.head.coef_)
    assert resumed.history == accepted.history
    assert resumed.comparison == accepted.comparison
    assert resumed.mirror == accepted.mirror
    assert not resumed.resumable
    assert resumed.message.endswith("This went on from a checkpoint: step 29 of fine-tuning, all images.")
    assert "fine-tuning, fold 1 of 3" not in told[2]
    assert not any("fold" in stage for stage in told[2][told[2].index("fine-tuning, all images") :])


def test_interruption_without_checkpoints_cannot_be_gone_on_from(colours):
    def interrupt(event: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.warns(FallbackWarning, match="The linear probe is kept.$"):
        assert not run(colours, progress=interrupt).resumable


def test_what_diverged_at_first_goes_on_at_the_rates_that_held(staged, tmp_path: Path):
    settings = FineTuneSettings(steps=60, batch_size=16, lr=1.0, lr_decay=1.0, precision="float32")
    whole = run(staged, settings)

    def interrupt(event: Progress) -> None:
        if (event.stage, event.done) == ("fine-tuning, fold 2 of 3", 5):
            raise KeyboardInterrupt

    with pytest.warns(FallbackWarning, match="The same call goes on"):
        run(staged, settings, progress=interrupt, checkpoint_dir=tmp_path)
    resumed = run(staged, settings, checkpoint_dir=tmp_path)

    assert "A learning rate of 1 was too high;" in whole.message
    for _, records in itertools.groupby(whole.history, key=lambda record: record.stage):
        steps = [record.step for record in records]
        assert steps == sorted(set(steps))
    assert resumed.comparison == whole.comparison
    assert resumed.backbone.weights_digest == whole.backbone.weights_digest


def test_fine_tuning_that_diverged_is_not_gone_on_with(colours, tmp_path: Path):
    """It would diverge again."""
    with pytest.warns(FallbackWarning, match="the loss became"):
        result = run(colours, FineTuneSettings(steps=30, lr=1e20, lr_decay=1.0), checkpoint_dir=tmp_path)

    assert not result.resumable


def test_another_head_is_another_hand_off(colours, tmp_path: Path):
    def interrupt(event: Progress) -> None:
        if event.unit == "steps":
            raise KeyboardInterrupt

    with pytest.warns(FallbackWarning):
        run(colours, progress=interrupt, checkpoint_dir=tmp_path)
    head = LogisticHead(Cs=[1e-3]).fit(colours.features, colours.labels)

    with pytest.warns(CacheWarning, match="other head"), pytest.warns(FallbackWarning):
        run(dataclasses.replace(colours, head=head), progress=interrupt, checkpoint_dir=tmp_path)


def test_divergence_leaves_the_probe_and_says_what_happened(colours):
    with pytest.warns(FallbackWarning, match="the loss became"):
        result = run(colours, FineTuneSettings(steps=30, lr=1e20, lr_decay=1.0))

    assert_probe_kept(result, colours)
    assert "the loss became" in result.message


def test_no_time_leaves_the_probe(colours):
    with pytest.warns(FallbackWarning, match="no time was left to train"):
        result = run(colours, deadline=0.0, clock=lambda: 1.0)

    assert_probe_kept(result, colours)


def test_too_little_time_leaves_the_probe_and_most_of_the_time():
    slow = slow_task(WorkClock(), learning=1.0)

    with pytest.warns(FallbackWarning, match=r"need more than 586\.7 s, and 299\.3 s are left"):
        result = run(slow.task, deadline=300.0, clock=slow.clock)

    assert_probe_kept(result, slow.task)
    assert slow.clock.now < 10


def test_image_that_vanished_leaves_the_probe(colours, tmp_path: Path):
    paths = [tmp_path / f"{row}.png" for row in range(60)]
    for path, image in zip(paths, colours.pixels, strict=True):
        Image.fromarray(image).save(path)
    source = as_image_source(paths)
    paths[7].unlink()

    with pytest.warns(FallbackWarning, match=r"7\.png"):
        result = run(colours, source=source)

    assert_probe_kept(result, colours)


def test_wrong_setting_is_an_error(colours):
    with pytest.raises(InvalidInputError, match="'batch_size'"):
        run(colours, FineTuneSettings(batch_size=0))


def assert_in_time(*, seed: int) -> bool:
    """Fine-tune within a hundred seconds on a machine drawn from the seed; return whether that was possible."""
    draw = np.random.default_rng(seed)
    folds, predicting, head = draw.choice([1, 3]), draw.choice([0.2, 0.4, 1.0]), draw.choice([0.0, 3.0])
    seconds_a_step = 100 / (folds + 2) / draw.uniform(10, 50)
    clock = WorkClock(
        noise=draw.choice([0, 0.1, 0.3, 0.5]),
        slow_from=draw.uniform(0, 100),
        slowdown=draw.choice([1, 2, 4]),
        seed=seed,
    )
    slow = slow_task(clock, learning=seconds_a_step / 16, predicting=predicting * seconds_a_step / 16, head=head)
    settings = FineTuneSettings(steps=300, batch_size=16, lr=0.1, lr_decay=1.0, precision="float32", folds=int(folds))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        result = run(slow.task, settings, deadline=100.0, clock=clock)

    assert clock.now <= 105
    if result.comparison is None:
        assert (
            "fit into the time left" in result.message or "too slow" in result.message or "need more" in result.message
        )
        return False
    ends = [last for last, after in itertools.pairwise([*result.history, None]) if after is None or after.epoch == 1]
    if "Training on all images stopped" in result.message:  # a machine that became too slow for it
        assert result.accepted
        ends = ends[: int(folds)]
    else:
        assert len(ends) == folds + result.accepted
    assert max(end.learning_rates[-1] for end in ends) < 0.1 / 5
    return True


def test_all_is_over_by_the_deadline():
    assert [assert_in_time(seed=seed) for seed in (2, 3)] == [True, True]


@pytest.mark.slow
def test_all_is_over_by_the_deadline_on_any_machine():
    possible = [assert_in_time(seed=seed) for seed in range(40)]

    assert 10 < sum(possible) < 40


def test_images_of_next_to_no_weight_do_not_decide(colours):
    """Who always says green is right on all that counts, and cannot be beaten."""
    weights = np.where(colours.labels == "red", 1e-6, 1.0)

    result = run(colours, sample_weight=weights)

    assert result.comparison.probe_accuracy > 0.9
    assert_probe_kept(result, colours)


def test_image_of_weight_zero_is_no_image(chance):
    """Not even its class exists, as in the head."""
    labels = np.where(np.arange(60) < 6, "unknown", chance.labels)
    weights = np.where(labels == "unknown", 0.0, 1.0)
    head = LogisticHead().fit(chance.features, labels, sample_weight=weights)
    task = dataclasses.replace(chance, labels=labels, head=head)

    result = run(task, dataclasses.replace(HOT, steps=1), sample_weight=weights)

    assert result.comparison.n_images == 54


def test_class_weights_of_the_head_count(colours):
    labels = np.where(np.arange(60) < 40, "many", "few")
    head = LogisticHead(class_weight="balanced").fit(colours.features, labels)
    probe = Probe(head=head, features=colours.features, labels=labels, sample_weight=np.ones(60))

    np.testing.assert_allclose(image_weights(probe), compute_sample_weight("balanced", labels), rtol=1e-6)


def test_flips_that_change_labels_are_left_out_and_the_message_says_so():
    """A network that sees where brightness is, and images of which only this says the class."""
    ramp = np.linspace(0, 200, 12)[None, :, None].repeat(12, 0).repeat(3, 2)
    noise = np.random.default_rng(0).integers(0, 50, (60, 12, 12, 3))
    sides = np.arange(60) % 2
    pixels = (np.where(sides[:, None, None, None], ramp, ramp[:, ::-1]) + noise).astype(np.uint8)
    torch.manual_seed(0)
    halves = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    backbone = load_backbone(nn.Sequential(halves, nn.Linear(16, 2)), preprocess=PREPROCESS)
    task = make_task(pixels, np.array(["left", "right"])[sides], backbone)

    result, told = run(task), run(task, dataclasses.replace(HOT, flip=False))

    assert result.mirror is not None
    assert not result.mirror.allowed
    assert "what was learned without mirror images was right on 100.0 % of 60 unseen images" in result.message
    assert told.mirror is None
    assert told.comparison == result.comparison


def test_harmless_flips_stay(colours):
    result = run(colours)

    assert result.mirror is not None
    assert result.mirror.allowed
    assert "mirrored" not in result.message


def test_groups_follow_the_images_that_count(colours):
    """An image of weight 0 is no image: its group must not shift those of the others."""
    counted = np.ones(60)
    counted[:15] = 0
    groups = np.arange(60) // 4
    options = {"settings": dataclasses.replace(HOT, steps=3)}

    weighted = run(colours, sample_weight=counted, groups=groups, **options)

    part = dataclasses.replace(
        colours,
        source=as_image_source(colours.pixels[15:]),
        labels=colours.labels[15:],
        features=colours.features[15:],
    )
    np.testing.assert_equal(weighted.comparison, run(part, groups=groups[15:], **options).comparison)
    assert weighted.comparison != run(part, **options).comparison
