"""The base of every section, and the types of common values."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Momentum = Annotated[float, Field(ge=0, le=0.9999)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]
"""A text that is not empty: an empty path is the current folder, or the root of the file system."""


class Section(BaseModel):
    """Base of every section: frozen, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def decisive(self) -> dict[str, Any]:
        """Return the settings that may decide a result, by name: all of them."""
        return dict(self)


def without_repetition(path: str) -> AfterValidator:
    """Return the check that no name stands twice in the list at `path`."""

    def check(names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names):
            raise ValueError(f"{path}: {', '.join(names)}, expected none twice")
        return names

    return AfterValidator(check)
