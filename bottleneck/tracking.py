"""A fitted classifier in the logs of other tools: its history, settings and outcome, written after ``fit``."""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from bottleneck.errors import InvalidInputError, wrong_parameter
from bottleneck.estimators import TransferClassifier
from bottleneck.optional import require

Point = tuple[str, float, int]
"""The name of a curve, a value, and the optimizer step that it is of."""

_REFUSED_BY_MLFLOW = re.compile(r"[^\w\-. :/]")


def log_to_tensorboard(classifier: TransferClassifier, folder: str | os.PathLike[str]) -> Path:
    """Write the training of a fitted classifier as a run of TensorBoard.

    Loss, accuracy and learning rates of each training go under ``loss/STAGE``, ``accuracy/STAGE`` and
    ``learning_rate/STAGE/LAYER GROUP``, one point an epoch at its optimizer step; the out-of-fold accuracy under
    ``accuracy_cv``; parameters, plan and outcome as text. A probe has no epochs, and so nothing but the last two.

    Parameters
    ----------
    classifier : TransferClassifier
        Fitted.
    folder : path
        Folder of the run; a run that is there already gets the new points beside its own.

    Returns
    -------
    Path
        ``folder``.

    Raises
    ------
    InvalidInputError
        ``classifier`` is of another kind.
    MissingDependencyError
        tensorboard is not installed (the extra ``tensorboard`` brings it).
    sklearn.exceptions.NotFittedError
        The classifier is not fitted.

    Examples
    --------
    >>> log_to_tensorboard(clf, "runs/pets")  # doctest: +SKIP
    PosixPath('runs/pets')
    """
    _check_fitted("log_to_tensorboard", classifier)
    require("tensorboard", extra="tensorboard")  # or torch would say in its own words that it is missing
    with require("torch.utils.tensorboard", extra="tensorboard").SummaryWriter(os.fspath(folder)) as board:
        for name, value, step in points_of(classifier):
            board.add_scalar(name, value, step)
        texts = {"parameters": _as_markdown(settings_of(classifier)), "plan": f"```\n{classifier.plan_}\n```"}
        for name, text in (texts | {"outcome": classifier.outcome_}).items():
            board.add_text(name, text)
    return Path(folder)


def log_to_mlflow(classifier: TransferClassifier) -> str:
    """Log the training of a fitted classifier to MLflow: to the active run, or a new one where none is active.

    Parameters become params; the curves that ``log_to_tensorboard`` writes become metrics of the same names (without
    commas, which MLflow refuses); strategy, outcome and plan become tags. Where runs are kept is MLflow's own setting
    (``mlflow.set_tracking_uri``).

    Parameters
    ----------
    classifier : TransferClassifier
        Fitted.

    Returns
    -------
    str
        The id of the run.

    Raises
    ------
    InvalidInputError
        ``classifier`` is of another kind, or MLflow cannot start a run where its setting says.
    MissingDependencyError
        mlflow is not installed (the extra ``mlflow`` brings it).
    sklearn.exceptions.NotFittedError
        The classifier is not fitted.
    """
    _check_fitted("log_to_mlflow", classifier)
    mlflow = require("mlflow", extra="mlflow")
    try:
        active = mlflow.active_run()
        run = active or mlflow.start_run()
    except mlflow.exceptions.MlflowException as exc:  # mlflow-skinny brings no database, which is the default place
        raise InvalidInputError(
            f"MLflow cannot start a run: {str(exc).rstrip('.')}. Say where runs are kept with "
            "mlflow.set_tracking_uri(...), or install mlflow itself in place of mlflow-skinny."
        ) from exc
    try:
        mlflow.log_params(settings_of(classifier))
        for name, value, step in points_of(classifier):
            mlflow.log_metric(_REFUSED_BY_MLFLOW.sub("", name), value, step=step)
        tags = {"strategy": classifier.strategy_, "outcome": classifier.outcome_, "plan": str(classifier.plan_)}
        mlflow.set_tags(tags)
    finally:
        if active is None:
            mlflow.end_run()
    return str(run.info.run_id)


def points_of(classifier: TransferClassifier) -> Iterator[Point]:
    """Yield every point of every curve that a fitted classifier has; nothing for an accuracy that is not known."""
    groups = (*(group.name for group in classifier.backbone_.layer_groups), "head")
    for record in classifier.history_:
        n_rates = len(record.learning_rates)
        names = groups if len(groups) == n_rates else [f"group {number + 1}" for number in range(n_rates)]
        yield f"loss/{record.stage}", record.loss, record.step
        yield f"accuracy/{record.stage}", record.accuracy, record.step
        for group, rate in zip(names, record.learning_rates, strict=True):
            yield f"learning_rate/{record.stage}/{group}", rate, record.step
    if math.isfinite(classifier.accuracy_cv_):
        yield "accuracy_cv", classifier.accuracy_cv_, classifier.history_[-1].step if classifier.history_ else 0


def settings_of(classifier: TransferClassifier) -> dict[str, str]:
    """Return the parameters as texts, nested ones each by its own name (``finetune__lr``), and the backbone's name."""
    params: dict[str, Any] = classifier.get_params()
    single = {name: str(value) for name, value in params.items() if not _has_parts(value)}
    return single | {"backbone": classifier.backbone_.name, "weights": classifier.backbone_.weights}


def _has_parts(value: object) -> bool:
    """Say whether a parameter is there a second time, part by part."""
    return isinstance(value, BaseEstimator) or (is_dataclass(value) and not isinstance(value, type))


def _as_markdown(settings: dict[str, str]) -> str:
    rows = (f"| {name} | {value.replace('|', '&#124;')} |" for name, value in settings.items())
    return "\n".join(["| parameter | value |", "|---|---|", *rows])


def _check_fitted(owner: str, classifier: object) -> None:
    if not isinstance(classifier, TransferClassifier):
        raise wrong_parameter(owner, "classifier", "a fitted TransferClassifier", classifier)
    check_is_fitted(classifier)
