"""A plugin for mypy: what the keys of a ``Result`` hold is known from the TypedDict that the handler returns.

In ``pyproject.toml``::

    [tool.mypy]
    plugins = ["bossworker.mypy_plugin"]

Python's types cannot say of a class that it has the keys of a TypedDict besides attributes of its own. So without this,
``result["key"]`` is Any, and a misspelt key is found only in what ``raise_for_error()`` returns.
"""

from __future__ import annotations

from collections.abc import Callable

from mypy.nodes import StrExpr
from mypy.plugin import MethodContext, Plugin
from mypy.types import AnyType, Instance, Type, TypedDictType, TypeOfAny, get_proper_type

ERROR = "ERROR"  # what a failed result has, whatever its handler returns


class ResultKeys(Plugin):
    """See the module."""

    def get_method_hook(self, fullname: str) -> Callable[[MethodContext], Type] | None:
        """Called by mypy for each method that a program calls."""
        return _value_of if fullname == "bossworker.result.Result.__getitem__" else None


def _value_of(call: MethodContext) -> Type:
    """The type of ``result[key]``."""
    answer, key = _answer_of(call.type), call.args[0][0]
    if answer is None or not isinstance(key, StrExpr):
        return call.default_return_type
    if key.value == ERROR and ERROR not in answer.items:
        return call.api.named_generic_type("builtins.str", [])
    return answer.items.get(key.value) or _unknown(call, answer, key)


def _answer_of(result: Type) -> TypedDictType | None:
    """The TypedDict that a result holds, if it is one."""
    result = get_proper_type(result)
    if not isinstance(result, Instance) or not result.args:
        return None
    answer = get_proper_type(result.args[0])
    return answer if isinstance(answer, TypedDictType) else None


def _unknown(call: MethodContext, answer: TypedDictType, key: StrExpr) -> Type:
    call.api.msg.typeddict_key_not_found(answer, key.value, key)
    return AnyType(TypeOfAny.from_error)


def plugin(version: str) -> type[Plugin]:
    """What mypy asks for, with its version."""
    return ResultKeys
