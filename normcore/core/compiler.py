"""numba as the loops want it, and a way to run them on all threads of a team without the interpreter's lock."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FunctionType
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic


def forget_older(folder: Path) -> None:
    """Removes what numba compiled from loops before a file of theirs changed.

    It looks at the file of a loop alone, which has in it what other files define. (Where NUMBA_CACHE_DIR is set, what
    is kept there is not looked at.)
    """
    changed = max((file.stat().st_mtime for file in folder.glob("compile*.py")), default=0.0)
    for kept in folder.glob("__pycache__/compile*.nbi"):
        with suppress(OSError):  # another process was faster, or nothing can be written here
            if kept.stat().st_mtime < changed:
                kept.unlink()


forget_older(Path(__file__).parent)


def _with(*fastmath):
    """numba's compiler, which keeps what it compiles where there is a place for it."""
    options: Any = {"nogil": True, "error_model": "numpy", "fastmath": set(fastmath)}

    def compile_(function):
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # a place that cannot be written to
            return njit(**options)(function)

    return compile_


compiled = _with("nsz", "contract")
summing = _with("nsz", "contract", "reassoc")
"""For sums whose order is free, so that they can be taken on all lanes of the processor at once."""


WHOLE, NUMBER, PLACE = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()
NEXT, LAST, STEP, TOTAL, FAILED, GIVEN = range(6)
"""What threads have in common: the next part, the one after the last, how long a part is, where all end, whether one
failed, and the rest of the loop's arguments."""


@intrinsic
def borrowed(typing: Any, given: Any) -> Any:
    """Arrays that do not count who has them: threads would fight for the place where that is counted."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        return _uncounted(context, builder, given, arguments[0])

    return given(given), generate


def _uncounted(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    if isinstance(kind, types.BaseTuple):
        for i, inner in enumerate(kind):  # type: ignore[arg-type, var-annotated]
            part = _uncounted(context, builder, inner, builder.extract_value(value, i))
            value = builder.insert_value(value, part, i)
    elif isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        array.meminfo, array.parent = (cgutils.get_null_value(field.type) for field in (array.meminfo, array.parent))
        value = array._getvalue()
    return value


def shared(loop: Any) -> Any:
    """A loop called as ``(start, stop, nth, ...)`` on a part, made one that a team shares: ``(team, ...)``.

    The team is a `normcore.core.team.Team`. What is compiled is kept beside the loop, as if it stood there.
    """
    here = loop.py_func.__code__
    code = _launch.__code__.replace(co_filename=here.co_filename, co_firstlineno=here.co_firstlineno)
    launch = FunctionType(
        code, {"loop": loop, "on_each": _on_each(loop), "borrowed": borrowed}, f"{loop.__name__}_shared"
    )
    launch.__module__, launch.__qualname__ = loop.__module__, launch.__name__
    return compiled(launch)


def _launch(team, *owned):
    parallel, threads, total, parts, first, last = team
    step = -(-total // parts)
    given = borrowed(owned)  # type: ignore[call-arg, var-annotated]
    if threads > 1:
        if on_each(parallel, threads, first, last, step, total, given):  # type: ignore[name-defined]  # noqa: F821
            raise MemoryError
        return
    for part in range(first, last):
        if part * step < total:
            loop(part * step, min((part + 1) * step, total), part, *given)  # type: ignore[name-defined]  # noqa: F821


def _on_each(loop: Any) -> Callable[..., Any]:
    """How compiled code has each thread take parts of a loop until none is left, and learns whether one failed.

    A thread that is late, or that OpenMP does not give, leaves its parts to the others.
    """

    @intrinsic
    def on_each(
        typing: Any, parallel: Any, threads: Any, first: Any, last: Any, step: Any, total: Any, given: Any
    ) -> Any:
        called = types.Dispatcher(loop).get_call_type(typing, (types.intp,) * 3 + tuple(given), {})

        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            address, count, *numbers, values = arguments
            result = loop.get_compile_result(called)
            context.active_code_library.add_linking_library(result.library)
            common = ir.LiteralStructType([*[WHOLE] * GIVEN, context.get_value_type(given)])
            room = cgutils.alloca_once(builder, common)
            for name, value in enumerate((*numbers, WHOLE(0), values)):
                builder.store(value, cgutils.gep_inbounds(builder, room, 0, name))
            takes = _body(context, builder.module, common, result.fndesc, called, len(given))
            kind = ir.FunctionType(ir.VoidType(), [takes.type, PLACE, NUMBER, NUMBER])
            crowd = takes, builder.bitcast(room, PLACE), builder.trunc(count, NUMBER), NUMBER(0)
            builder.call(builder.inttoptr(address, kind.as_pointer()), crowd)
            return cgutils.is_true(builder, builder.load(cgutils.gep_inbounds(builder, room, 0, FAILED)))

        return types.boolean(*(types.intp,) * 6, given), generate

    return on_each


def _body(context: Any, module: Any, common: Any, described: Any, called: Any, count: int) -> Any:
    """The function of an address that a thread of the team calls."""
    body = ir.Function(module, ir.FunctionType(ir.VoidType(), [PLACE]), module.get_unique_name("takes_parts"))
    body.linkage = "internal"
    builder = ir.IRBuilder(body.append_basic_block("come"))
    again, work, done = map(body.append_basic_block, ("again", "work", "done"))
    room = builder.bitcast(body.args[0], common.as_pointer())
    place = [cgutils.gep_inbounds(builder, room, 0, name) for name in range(GIVEN + 1)]
    last, step, total, rest = (builder.load(place[name]) for name in (LAST, STEP, TOTAL, GIVEN))
    builder.branch(again)

    builder.position_at_end(again)
    part = builder.atomic_rmw("add", place[NEXT], WHOLE(1), "monotonic")
    start = builder.mul(part, step)
    is_left = builder.and_(builder.icmp_signed("<", part, last), builder.icmp_signed("<", start, total))
    builder.cbranch(is_left, work, done)

    builder.position_at_end(work)
    stop = builder.add(start, step)
    stop = builder.select(builder.icmp_signed("<", stop, total), stop, total)
    function = context.declare_function(module, described)
    given = start, stop, part, *cgutils.unpack_tuple(builder, rest, count)
    status, _ = context.call_conv.call_function(builder, function, called.return_type, called.args, given)
    with builder.if_then(status.is_error):
        builder.store(WHOLE(1), place[FAILED])
    builder.branch(again)

    builder.position_at_end(done)
    builder.ret_void()
    return body
