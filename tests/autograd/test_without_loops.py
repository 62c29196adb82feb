"""Without numba the references run, with one message; other faults are not hidden."""

import os
import subprocess
import sys
import textwrap

import pytest

RUN = """
import numpy as np
from autograd import ops
x = np.ones((3, 4), np.float32)
for _ in range(2):
    y = ops.linear(x, x.T)
    z = ops.layer_norm(x, x[0], x[0])
print(y[0, 0], z[0, 0])
"""


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=600,
    )


@pytest.mark.parametrize(
    "fault",
    [
        "raise ImportError('Numba needs NumPy 2.3 or less')",
        "import numpy; numpy.long_gone",
        "raise SystemError('compiled for another NumPy')",
        "raise OSError('cannot load libllvmlite.so')",
        "None + None",
    ],
)
def test_a_numba_that_cannot_be_imported_is_reported_once(fault, tmp_path):
    (tmp_path / "numba.py").write_text(fault)
    done = run(RUN, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "4.0 1.0\n"
    assert done.stderr.count("running without compiled loops") == 1
    assert "pip install 'npformer[fast]'" in done.stderr


def test_a_missing_numba_is_reported_once():
    done = run("import sys; sys.modules['numba'] = None\n" + RUN)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("running without compiled loops") == 1


@pytest.mark.parametrize("fault", ["AttributeError", "TypeError", "ImportError"])
def test_a_fault_in_a_module_of_loops_is_an_error(fault):
    pytest.importorskip("numba", reason="the compiled loops need numba, the extra 'fast'")
    done = run(
        textwrap.dedent(
            f"""
            import sys
            from importlib.abc import MetaPathFinder

            class Broken(MetaPathFinder):
                def find_spec(self, name, path, target=None):
                    if name == "autograd.cpu.linear":
                        raise {fault}("broken")

            sys.meta_path.insert(0, Broken())
            """
        )
        + RUN
    )
    assert done.returncode == 1
    assert done.stderr.endswith(f"{fault}: broken\n")
    assert "without compiled loops" not in done.stderr


def test_numba_is_not_imported_before_it_is_needed():
    done = run("import sys, autograd; print('numba' in sys.modules)")
    assert done.stdout == "False\n"
