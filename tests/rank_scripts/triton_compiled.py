"""Triton's kernels compiled for an H100 by a machine that has none; see
``tests/workers/passes/test_triton_passes.py``. Prints as JSON how many bytes of machine code each
has.
"""

import json
import tempfile

from triton import compile as compiled
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from workers.passes import triton_kernel as kernel
from workers.passes.triton_passes import BLOCK

TARGET = GPUTarget("cuda", 90, 32)
# What is passed, by the name of the argument; numbers are constants.
UPDATE = {
    "rows": "*i64",
    "layers": "*fp32",
    "waits": "*i32",
    "found": "*fp32",
    **dict.fromkeys(("one_less_beta1", "beta2", "one_less_beta2", "eps"), "fp32"),
    "MEASURED": True,
    "BLOCK": BLOCK,
}
MEASURE = {"rows": "*i64", "found": "*fp32", "COLUMN": 0, "BLOCK": BLOCK}
APPLY = {"rows": "*i64", "waits": "*i32", "factors": "*fp32", "BLOCK": BLOCK}
ADD = {
    "found": "*fp32",
    **dict.fromkeys(("by_unit", "firsts", "lengths"), "*i64"),
    "squares": "*fp64",
    "BLOCK": BLOCK,
}


def size(function, arguments):
    constants = {name: one for name, one in arguments.items() if not isinstance(one, str)}
    signature = {name: "constexpr" if name in constants else one for name, one in arguments.items()}
    source = ASTSource(fn=function, signature=signature, constexprs=constants)
    return len(compiled(source, target=TARGET).asm["cubin"])


def main():
    with tempfile.TemporaryDirectory() as folder:
        knobs.cache.dir = folder
        asked = {"update": UPDATE, "measure": MEASURE, "apply": APPLY, "add": ADD}
        print(json.dumps({name: size(getattr(kernel, name), one) for name, one in asked.items()}))


if __name__ == "__main__":
    main()
