"""Registries: options classes by name, of which a config field names one and its ``…_options`` set the fields."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from rllib_plugins.importing import import_from_here
from tutor_service.errors import UserError, did_you_mean, field_problems, unknown_name

OptionsT = TypeVar("OptionsT", bound=BaseModel)


class NamedOptions(Generic[OptionsT]):
    """Hold the classes of one kind by name; the fields of a class are its options.

    Args:
        field: The config field that names one, e.g. ``advice.reuse``: it stands in every error.
        base: Class that all of this kind extend.
    """

    def __init__(self, field: str, base: type[OptionsT]):
        self.field = field
        self._base = base
        self._classes: dict[str, type[OptionsT]] = {}

    def names(self) -> tuple[str, ...]:
        """Return the registered names, sorted."""
        return tuple(sorted(self._classes))

    def register(self, name: str, cls: type[OptionsT]) -> type[OptionsT]:
        """Make a class known by a name; a name can be taken once.

        Raises:
            ValueError: Another class has the name, or ``cls`` is not of this kind.
        """
        if not (isinstance(cls, type) and issubclass(cls, self._base)):
            raise ValueError(f"{cls!r} must extend {self._base.__name__}")
        if self._classes.setdefault(name, cls) is not cls:
            raise ValueError(f"{self.field} '{name}' is registered already, as {self._classes[name]!r}")
        return cls

    def make(self, name: str, options: dict[str, Any]) -> OptionsT:
        """Make an instance of a class.

        Args:
            name: A registered name, or ``module:Class``.
            options: Its fields.

        Raises:
            UserError: No such class, an unknown option (with the nearest spelling), or a value out of range.
        """
        cls = self.find(name)
        known = sorted(cls.model_fields)
        for option in options:
            if option not in known:
                raise UserError(f"{self.field}_options.{option}: {self._unknown_option(name, str(option), known)}")
        try:
            return cls(**options)
        except ValidationError as error:
            problems = field_problems(error, prefix=f"{self.field}_options.")
            raise UserError(f"{problems} ({self.field} = '{name}')") from error

    def find(self, name: str) -> type[OptionsT]:
        """Return a class by its registered name, or by ``module:Class``.

        Raises:
            UserError: No such class.
        """
        if name in self._classes:
            return self._classes[name]
        module_name, colon, class_name = name.partition(":")
        if not colon:
            raise unknown_name(self.field, name, self._classes)
        try:
            cls = getattr(import_from_here(module_name), class_name)
        except (ImportError, AttributeError, ValueError) as error:
            raise UserError(
                f"{self.field} = '{name}' cannot be imported ({error}). Give module:Class of something importable, "
                f"or one of: {', '.join(self.names())}."
            ) from error
        if not (isinstance(cls, type) and issubclass(cls, self._base)):
            raise UserError(f"{self.field} = '{name}' must be a class that extends {self._base.__name__}.")
        return cls

    def _unknown_option(self, name: str, option: str, known: list[str]) -> str:
        if not known:
            return f"{self.field} = '{name}' has no options."
        valid = ", ".join(known)
        return f"{self.field} = '{name}' has no such option.{did_you_mean(option, known)} Valid: {valid}."
