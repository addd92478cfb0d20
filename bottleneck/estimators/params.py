"""Nested parameters for settings that travel as frozen records."""

from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Self, TypeGuard

from sklearn.base import BaseEstimator

from bottleneck.backbones import Backbone
from bottleneck.errors import did_you_mean, wrong_parameter

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class RecordParams(BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """An estimator whose dataclass parameters are reached as ``name__field``, as nested estimators are."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; with ``deep`` also those of nested estimators and records."""
        params: dict[str, Any] = super().get_params(deep=deep)
        if deep:
            for name, value in list(params.items()):
                if _is_settings(value):
                    params |= {f"{name}__{field.name}": getattr(value, field.name) for field in fields(value)}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters; ``name__field`` replaces the record ``name`` by one with that field changed."""
        direct = {name: value for name, value in params.items() if "__" not in name}
        super().set_params(**direct)
        nested = {}
        for name, value in params.items():
            owner, _, field = name.partition("__")
            record = getattr(self, owner, None)
            if name in direct:
                continue
            if not _is_settings(record):
                nested[name] = value
                continue
            known = [known.name for known in fields(record)]
            if field not in known:
                raise wrong_parameter(
                    type(record).__name__, field, f"one of {known}", field, did_you_mean(field, known)
                )
            setattr(self, owner, replace(record, **{field: value}))
        super().set_params(**nested)
        return self


def _is_settings(value: object) -> TypeGuard["DataclassInstance"]:
    """Say whether a parameter is a record of settings; a Backbone is a record too, but whole."""
    return is_dataclass(value) and not isinstance(value, type | Backbone)
