"""Each backend against the conformance kit; and the kit against backends that are broken on purpose."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

import portablenn as pnn
from portablenn import testing
from portablenn.program import namespace as standard
from portablenn.program.interpret import execute
from portablenn.program.ir import Program, Variable
from portablenn.testing import operations

BACKENDS = ("numpy", "array_api_strict", "array_api_strict:device1", "torch", "jax", "numba", "cupy")
GPU = ("torch:cuda", "jax:cuda") if os.environ.get("PORTABLENN_GPU") else ()

test_conformance = testing.conformance_tests(*BACKENDS, *GPU)


def test_every_operation_that_can_be_traced_is_tried() -> None:
    text = Path(standard.__file__).read_text(encoding="utf-8")
    traceable = set(re.findall(r'(?:_(?:emit|elementwise|reduction)\(|partialmethod\(\w+, )\s*"(\w+)"', text))
    traceable |= {
        n
        for table in (standard.UNARY_FAMILIES, standard.BINARY_FAMILIES)
        for names in table.values()
        for n in names.split()
    }
    tried = {name for dtype in operations.DTYPES for name, _, _ in operations.cases(dtype)}
    assert traceable - tried == set()
    assert len(traceable) > 90


# Broken backends: the interpreter on NumPy-like arrays, with one thing wrong


def _strict() -> Any:
    return pytest.importorskip("array_api_strict")


class _Interpreted(pnn.Backend):
    """The interpreter with a hook for what each operation returns; not guarded, so that the checks have to find the fault."""

    guarded = False

    def __init__(self) -> None:
        super().__init__("array_api_strict", pnn.get_backend("array_api_strict").xp)

    def compile(self, program: Program) -> Any:
        def run(*inputs: Any) -> tuple[Any, ...]:
            values = {**program.constants, **dict(zip(program.inputs, inputs, strict=True))}
            for operation in program.operations:
                arguments = [values[a] if isinstance(a, Variable) else a for a in operation.arguments]
                values[operation.result] = self.result(operation, arguments)
            return tuple(values[v] for v in program.outputs)

        return run

    def result(self, operation: Any, arguments: list[Any]) -> Any:
        return execute(self.xp, operation, arguments, self.device)


class _WrongExp(_Interpreted):
    def result(self, operation: Any, arguments: list[Any]) -> Any:
        result = super().result(operation, arguments)
        return result * 1.001 if operation.name == "exp" else result


class _WrongFlip(_Interpreted):
    def result(self, operation: Any, arguments: list[Any]) -> Any:
        return arguments[0] if operation.name == "flip" else super().result(operation, arguments)


class _WrongRounding(_Interpreted):
    """Halves go away from zero, as in C, not to the even neighbour."""

    def result(self, operation: Any, arguments: list[Any]) -> Any:
        if operation.name == "round" and "float" in str(operation.result.type.dtype):
            (x,) = arguments
            return self.xp.sign(x) * self.xp.floor(self.xp.abs(x) + 0.5)
        return super().result(operation, arguments)


class _LooksAtOtherMemory(_Interpreted):
    """Reads transposed arrays in the order in which they lie."""

    def result(self, operation: Any, arguments: list[Any]) -> Any:
        if operation.name == "permute_dims":
            return self.xp.reshape(arguments[0], operation.result.type.shape)
        return super().result(operation, arguments)


class _Mutating(_Interpreted):
    def compile(self, program: Program) -> Any:
        run = super().compile(program)

        def changed(*inputs: Any) -> tuple[Any, ...]:
            results = run(*inputs)
            for x in inputs:
                if "float" in str(x.dtype) and x.ndim:
                    x[...] = 0.0
            return results

        return changed


class _SharedMemory(_Interpreted):
    """Hands out the same memory at each call."""

    def compile(self, program: Program) -> Any:
        run, kept = super().compile(program), []

        def shared(*inputs: Any) -> tuple[Any, ...]:
            results = run(*inputs)
            if not kept:
                kept.extend(self.xp.asarray(r, copy=True) for r in results)
            for memory, result in zip(kept, results, strict=True):
                memory[...] = result
            return tuple(kept)

        return shared

    def compile_loop(self, program: Program, carried: int) -> Any:
        loop, kept = super().compile_loop(program, carried), {}

        def shared(count: int, *arrays: Any) -> tuple[Any, ...]:
            results = loop(count, *(self.xp.asarray(a, copy=True) for a in arrays))
            memory = kept.setdefault(count, results)
            for old, result in zip(memory, results, strict=True):
                old[...] = result
            if count:
                for old in memory[:1]:
                    old[...] = old + 1.0 * (memory is not results)
            return memory

        return shared


class _OnTheHost(_Interpreted):
    def compile(self, program: Program) -> Any:
        run = super().compile(program)
        return lambda *inputs: tuple(self.to_numpy(r) for r in run(*inputs))


class _OnAnotherDevice(_Interpreted):
    def compile(self, program: Program) -> Any:
        run, device = super().compile(program), _strict().Device("device1")
        return lambda *inputs: tuple(r.to_device(device) for r in run(*inputs))


class _ReadsBack(_Interpreted):
    """Looks at each result for NaN, as one does for safety."""

    def result(self, operation: Any, arguments: list[Any]) -> Any:
        result = super().result(operation, arguments)
        if "float" in str(result.dtype) and result.ndim == 0 and bool(self.xp.isnan(result)):
            raise FloatingPointError(operation.name)
        return result


class _ReadsLosses(_Interpreted):
    """Brings the results of every call to the host."""

    def compile(self, program: Program) -> Any:
        run = super().compile(program)

        def watched(*inputs: Any) -> tuple[Any, ...]:
            results = run(*inputs)
            self.to_numpy(results[-1])
            return results

        return watched


class _Widening(_Interpreted):
    def compile(self, program: Program) -> Any:
        run, xp = super().compile(program), self.xp
        return lambda *inputs: tuple(xp.astype(r, xp.float64) if r.dtype == xp.float32 else r for r in run(*inputs))


class _OtherBits(_Interpreted):
    """Shifts to the right bring in zeros, which the masks then take for bits; and one bit more is lost."""

    def result(self, operation: Any, arguments: list[Any]) -> Any:
        result = super().result(operation, arguments)
        return result ^ 4 if operation.name == "bitwise_right_shift" and result.shape else result


class _OtherWeights(_Interpreted):
    """Rounds what it is given to sixteen bits of the mantissa."""

    def asarray(self, x: Any, dtype: str | None = None) -> Any:
        array = super().asarray(x, dtype)
        return array * (1.0 + 2.0**-20) if "float" in str(array.dtype) else array


class _Drifting(_Interpreted):
    """Loses a little at each step after the first."""

    def compile_loop(self, program: Program, carried: int) -> Any:
        loop = super().compile_loop(program, carried)

        def drifting(count: int, *arrays: Any) -> tuple[Any, ...]:
            results = loop(count, *arrays)
            lost = 1.0 - 1e-4 * max(count - 1, 0)
            return tuple(r * lost if i == 0 and "float" in str(r.dtype) else r for i, r in enumerate(results))

        return drifting


class _Forgetful(_Interpreted):
    """The number of the iteration stays 0."""

    def compile_loop(self, program: Program, carried: int) -> Any:
        step = self.compile(program)

        def loop(count: int, *arrays: Any) -> tuple[Any, ...]:
            zero = self.xp.zeros((), dtype=self.xp.int32)
            return self._loop(lambda _, *rest: step(zero, *rest), program, carried, count, *arrays)

        return loop


class _Silent(_Interpreted):
    """Takes what is there of wrong arguments."""

    def compile(self, program: Program) -> Any:
        run = super().compile(program)
        return lambda *inputs: run(*inputs[: len(program.inputs)])


BROKEN: dict[str, tuple[type[pnn.Backend], str, str]] = {
    "exp is wrong by 1e-3": (_WrongExp, "operations float32", r"exp of float32\[.*where NumPy has"),
    "flip does nothing": (_WrongFlip, "operations bool", r"flip of bool"),
    "halves are rounded away from zero": (_WrongRounding, "operations float64", r"round of float64"),
    "transposed memory is misread": (_LooksAtOtherMemory, "random programs float64", r"random program, seed \d+.*deviates by"),
    "inputs are written into": (_Mutating, "results", r"changes its argument \d"),
    "memory is handed out twice": (_SharedMemory, "results", r"the next call changes result"),
    "results are on the host": (_OnTheHost, "results", r"result 0 of compile is an array of numpy"),
    "results are on another device": (_OnAnotherDevice, "results", r"result 0 of compile is on .*device1"),
    "values are read back": (_ReadsBack, "no transfers", r"reads? values back: __bool__ \d+ times"),
    "losses are read back": (_ReadsLosses, "no transfers", r"reads? values back: .*to_numpy 1 times"),
    "float32 becomes float64": (_Widening, "operations float32", r"has dtype float64, not float32"),
    "bits differ": (_OtherBits, "seeds", r"Threefry's words differ from NumPy's"),
    "weights differ": (_OtherWeights, "seeds", r"initial weights linear.dense_1.kernel of float32 differ"),
    "steps drift": (_Drifting, "twenty steps float64", r"after step 20 parameters of the network .* deviate by .* beyond 1e-09"),
    "steps stand still": (_Forgetful, "seeds", r"the order of the rows differ"),
    "wrong arguments are taken": (_Silent, "errors", r"an argument too many raises no error"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_backend_is_caught_by_the_check_of_that_name(name: str) -> None:
    _strict()
    kind, check, says = BROKEN[name]
    with pytest.raises(AssertionError, match=f"(?s)^array_api_strict on CPU_DEVICE: .*{says}"):
        testing.CHECKS[check](kind())


def test_drift_is_detected_only_in_twenty_steps() -> None:
    _strict()
    testing.CHECKS["one step float64"](_Drifting())


def test_the_backend_that_the_broken_ones_derive_from_passes() -> None:
    """Otherwise the tests above could pass for another reason."""
    _strict()
    assert {c.check: c.reason for c in testing.conform(_Interpreted()) if c.outcome != "passed"} == {}
