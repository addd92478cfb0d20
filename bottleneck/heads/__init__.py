"""Classical heads on features: logistic regression and SVM that choose their normalisation and C by themselves."""

from bottleneck.heads.logistic import LinearMap, LogisticHead
from bottleneck.heads.normalize import (
    BlockBalance,
    Normalization,
    RowNormalization,
    concatenate_blocks,
    normalize_rows,
)
from bottleneck.heads.rbf import RbfMachine
from bottleneck.heads.screen import Gain, LearningPoint, ScreenRecord, ScreenResult, screen_features
from bottleneck.heads.svm import SVMHead

__all__ = [
    "BlockBalance",
    "Gain",
    "LearningPoint",
    "LinearMap",
    "LogisticHead",
    "Normalization",
    "RbfMachine",
    "RowNormalization",
    "SVMHead",
    "ScreenRecord",
    "ScreenResult",
    "concatenate_blocks",
    "normalize_rows",
    "screen_features",
]
