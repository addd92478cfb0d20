"""Fine-tuning with every knob turned by hand. Leave out what you have no opinion on: "auto" plans it."""

import tempfile

import torch
from sklearn.datasets import load_digits
from torch import nn

from bottleneck import FineTuneSettings, LogisticHead, Preprocess, TransferClassifier, load_backbone

torch.manual_seed(0)
network = nn.Sequential(
    nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
    nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
    nn.Sequential(nn.Conv2d(32, 48, 3, stride=2, padding=1), nn.BatchNorm2d(48), nn.ReLU()),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
)
preprocess = Preprocess(resize=16, crop=(16, 16), interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3)
backbone = load_backbone(network, preprocess=preprocess)

settings = FineTuneSettings(
    # how fast
    optimizer="sgd",
    lr=0.05,  # of the head; layer groups below it learn more slowly,
    lr_decay=1.5,  # each so many times,
    group_multipliers=(0.5, 1.0, 1.0),  # and by a factor of its own
    adaptive_rates=False,
    check_rates=True,  # lower them first if one step on a batch would do harm
    warmup_fraction=0.1,
    clip_norm=1.0,
    weight_decay=1e-4,
    # how long, and on what
    steps=400,  # of the network that is delivered: a third in each fold, the others on all images
    batch_size=32,
    # what learns when
    head="probe",
    freeze_groups=0,
    freeze_epochs=0,
    unfreeze_every=0,
    batch_norm="train",  # "frozen" for pretrained networks and few images
    # what the images go through
    image_scale=1.0,  # smaller is faster
    min_crop_scale=0.9,
    flip=False,  # a mirrored digit is another one
    augment="crop",
    mixup=0.0,
    cutmix=0.0,
    label_smoothing=0.0,
    # what is delivered
    ema=0.9,
    precision="float32",
    folds=1,
    more_folds=True,  # while the first ones leave it in doubt which is better
    refit="continue",  # with the network of the fold; "anew" with the probe; "auto" as time allows
    acceptance_z=0.5,
)

digits = load_digits()
X, y = (digits.images / 16).astype("float32"), digits.target
with tempfile.TemporaryDirectory() as cache_dir:
    classifier = TransferClassifier(
        backbone,
        strategy="finetune",
        finetune=settings,
        head=LogisticHead([1.0], normalize="center"),
        risk="safe",
        cache_dir=cache_dir,
        random_state=0,
    )
    classifier.fit(X[:300], y[:300])
    print(classifier.outcome_)
    for epoch in classifier.history_[-3:]:
        print(epoch)
    print(f"on images that it has not seen: {classifier.score(X[300:600], y[300:600]):.3f}")

    # Single knobs are nested parameters, as in any search of scikit-learn's.
    classifier.set_params(finetune__lr=0.02, finetune__steps=60)
    print("steps now:", classifier.finetune.steps)
