"""What a pool's handler takes and returns, for type checkers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    # Not Any by default: of an Answer | None, mypy would then infer Any from a handler that returns a number.
    Answer_co = TypeVar("Answer_co", bound=Mapping[Any, Any], covariant=True, default=Mapping[Any, Any])
    Job_contra = TypeVar("Job_contra", bound=Mapping[Any, Any], contravariant=True, default=Any)
else:
    from typing import TypeVar

    Answer_co = TypeVar("Answer_co", covariant=True)
    Job_contra = TypeVar("Job_contra", contravariant=True)
