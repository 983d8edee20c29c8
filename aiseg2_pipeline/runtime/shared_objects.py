"""Let forked processes share the memory of what was imported before the fork, also where they use it.

A page of memory is shared until one of the processes writes to it. Python writes to the objects that its collector looks
through, which `gc.freeze` prevents, and to every object that it uses, whose references it counts. Python 3.12 and later do
not count those of immortal objects: None, small numbers, and any object whose count has reached its maximum
(PEP 683). Python code has no function for that, so the count is set here, of what imported code is made of: it lives
as long as the process anyway. All processes then take an eighth less memory. A Python 3.11 takes what it took.

Nothing else is made immortal: an open file, for example, would not be closed any more.
"""

import ctypes
import gc
import sys
import types
from collections.abc import Iterator

# The newest Python whose source was read for this. A later one counts as before, and takes more memory.
_NEWEST = (3, 14)
# The lower half of the count, as Python leaves it when the maximum is reached.
_MAXIMUM = 0xFFFF_FFFF
_KINDS = frozenset(
    {
        types.FunctionType,
        types.BuiltinFunctionType,
        types.MethodDescriptorType,
        types.WrapperDescriptorType,
        types.GetSetDescriptorType,
        types.MemberDescriptorType,
        types.ModuleType,
        types.CellType,
        property,
        classmethod,
        staticmethod,
        dict,
        tuple,
        list,
        set,
        frozenset,
    }
)


def share_imported_objects() -> None:
    """Exclude all objects from garbage collection, and those of imported code from the counting of references."""
    gc.collect()
    if _counts_can_be_set():
        objects = gc.get_objects()
        for found in objects:
            # The list itself ends here.
            if found is not objects and (type(found) in _KINDS or isinstance(found, type)):
                _make_immortal(found)
            if type(found) is types.FunctionType:
                for part in _parts(found.__code__):
                    _make_immortal(part)
    gc.freeze()


def _parts(code: types.CodeType) -> Iterator[object]:
    """Yield what the collector does not know: the code of a function and its constants, with those of inner functions."""
    yield code
    yield code.co_consts
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _parts(constant)
        # Python keeps strings in a table of its own, with rules of its own.
        elif not isinstance(constant, str):
            yield constant


def _make_immortal(found: object) -> None:
    _count(found).value = _MAXIMUM


def _count(found: object) -> ctypes.c_uint32:
    return ctypes.c_uint32.from_address(id(found))


def _counts_can_be_set() -> bool:
    """Return whether this Python has immortal objects, and their count where it is expected."""
    if (
        sys.implementation.name != "cpython"
        or sys.maxsize < 2**32
        or not (3, 12) <= sys.version_info[:2] <= _NEWEST
    ):
        return False
    probe = object()
    references = [probe] * 1000
    # Without the reference of the call.
    return len(references) < _count(probe).value == sys.getrefcount(probe) - 1
