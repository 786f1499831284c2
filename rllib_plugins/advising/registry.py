"""How an advising or a reuse rule is found by name and built from a config. Knows neither what rules do nor numpy."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from tutor_service.errors import UserError, did_you_mean, field_problems, unknown_name

RuleT = TypeVar("RuleT")


class RuleRegistry(Generic[RuleT]):
    """Rules of one kind, by name.

    Args:
        field: The config field that names a rule, e.g. ``advice.reuse``: it stands in every error.
        base: Class that every rule of this kind extends.
    """

    def __init__(self, field: str, base: type[RuleT]):
        self.field = field
        self._base = base
        self._classes: dict[str, type[RuleT]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The registered names, sorted."""
        return tuple(sorted(self._classes))

    def register(self, name: str, cls: type[RuleT]) -> type[RuleT]:
        """Makes a rule known by a name; a name can be taken once.

        Raises:
            ValueError: Another class has the name, or ``cls`` is no rule of this kind.
        """
        if not (isinstance(cls, type) and issubclass(cls, self._base)):
            raise ValueError(f"{cls!r} must extend {self._base.__name__}")
        if self._classes.setdefault(name, cls) is not cls:
            raise ValueError(f"{self.field} '{name}' is registered already, as {self._classes[name]!r}")
        return cls

    def make(self, name: str, options: dict[str, Any]) -> RuleT:
        """Builds a rule.

        Args:
            name: A registered name, or ``module:Class``.
            options: The rule's own fields.

        Raises:
            UserError: No such rule, an unknown option (with the nearest spelling), or a value out of range.
        """
        cls = self._find(name)
        known = tuple(getattr(cls, "model_fields", {}))
        for option in options:
            if option not in known:
                raise UserError(f"{self.field}_options.{option}: {_unknown_option(name, str(option), known)}")
        try:
            return cls(**options)
        except ValidationError as error:
            problems = field_problems(error, prefix=f"{self.field}_options.")
            raise UserError(f"{problems} (rule '{name}')") from error

    def _find(self, name: str) -> type[RuleT]:
        if name in self._classes:
            return self._classes[name]
        module_name, colon, class_name = name.partition(":")
        if not colon:
            raise unknown_name(self.field, name, self._classes)
        try:
            cls = getattr(importlib.import_module(module_name), class_name)
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(
                f"{self.field} = '{name}' cannot be imported ({error}). Give module:Class of something importable, "
                f"or one of: {', '.join(self.names)}."
            ) from error
        if not (isinstance(cls, type) and issubclass(cls, self._base)):
            raise UserError(f"{self.field} = '{name}' must be a class that extends {self._base.__name__}.")
        return cls


def _unknown_option(rule: str, option: str, known: Iterable[str]) -> str:
    names = sorted(known)
    if not names:
        return f"rule '{rule}' has no options."
    return f"rule '{rule}' has no such option.{did_you_mean(option, names)} Valid: {', '.join(names)}."
