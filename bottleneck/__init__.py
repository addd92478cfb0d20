"""Pretrained-network features computed once, a linear head in seconds, and a planner that knows when to fine-tune.

Distribution ``bottleneck-features``. Every ``import pandas`` imports this package, because pandas looks for
PyData's Bottleneck under the same name: the version below stays under the one that pandas asks for, so that
pandas ignores us, and nothing heavy is imported before a public name is used (PEP 562).
"""

__version__ = "0.1.0"

import sys as _sys
import warnings as _warnings

# pandas warns once that this "Bottleneck" is too old for it, which is the intended outcome.
_warnings.filterwarnings("ignore", message=r"Pandas requires version .* of 'bottleneck'", category=UserWarning)

# typing itself would cost a third of our import; type checkers know this name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from bottleneck.backbones import Backbone, Preprocess, load_backbone
    from bottleneck.cache import FeatureCache
    from bottleneck.comparison import compare_backbones
    from bottleneck.estimators import FeatureExtractor, TransferClassifier
    from bottleneck.export import export_onnx, export_torch
    from bottleneck.features import cache_features
    from bottleneck.finetune import FineTuneSettings, describe_groups
    from bottleneck.heads import LogisticHead, SVMHead
    from bottleneck.persistence import load, save
    from bottleneck.planner import Plan, plan_transfer
    from bottleneck.plots import HistoryDisplay, LearningCurveDisplay, PlanDisplay, RegularizationDisplay
    from bottleneck.report import write_report
    from bottleneck.tracking import log_to_mlflow, log_to_tensorboard

_PUBLIC = {
    "TransferClassifier": "estimators",
    "FeatureExtractor": "estimators",
    "FineTuneSettings": "finetune",
    "describe_groups": "finetune",
    "LogisticHead": "heads",
    "SVMHead": "heads",
    "plan_transfer": "planner",
    "Plan": "planner",
    "FeatureCache": "cache",
    "cache_features": "features",
    "compare_backbones": "comparison",
    "load_backbone": "backbones",
    "Backbone": "backbones",
    "Preprocess": "backbones",
    "save": "persistence",
    "load": "persistence",
    "export_onnx": "export",
    "export_torch": "export",
    "write_report": "report",
    "log_to_tensorboard": "tracking",
    "log_to_mlflow": "tracking",
    "LearningCurveDisplay": "plots",
    "RegularizationDisplay": "plots",
    "HistoryDisplay": "plots",
    "PlanDisplay": "plots",
}
__all__ = [
    "Backbone",
    "FeatureCache",
    "FeatureExtractor",
    "FineTuneSettings",
    "HistoryDisplay",
    "LearningCurveDisplay",
    "LogisticHead",
    "Plan",
    "PlanDisplay",
    "Preprocess",
    "RegularizationDisplay",
    "SVMHead",
    "TransferClassifier",
    "__version__",
    "cache_features",
    "compare_backbones",
    "describe_groups",
    "export_onnx",
    "export_torch",
    "load",
    "load_backbone",
    "log_to_mlflow",
    "log_to_tensorboard",
    "plan_transfer",
    "save",
    "write_report",
]


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    if name in _PUBLIC:
        from importlib import import_module

        value = getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
        setattr(_sys.modules[__name__], name, value)
        return value
    raise AttributeError(
        f"module 'bottleneck' has no attribute {name!r}. This is bottleneck-features (transfer learning on images); "
        "if you meant PyData's Bottleneck (fast NumPy functions), install it in an environment of its own: "
        "both use this import name."
    )


def __dir__() -> list[str]:
    return sorted(__all__)
