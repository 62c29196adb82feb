"""What does not fit is refused in the forward pass, in a sentence; what is not refused is right."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autograd import Tensor, check_gradients, references
from tests.autograd.cases import CASES
from tests.autograd.odd import odd_cases, result_of

every_op = pytest.mark.parametrize("operation", CASES, ids=lambda o: o.name)


def several(outputs):
    return outputs if isinstance(outputs, tuple) else (outputs,)


@every_op
@settings(max_examples=80)
@given(data=st.data())
def test_an_odd_argument_is_refused_at_once_or_has_the_right_gradient(operation, data):
    case = data.draw(odd_cases(operation))
    with references(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice|Degrees of freedom|invalid value")
        outputs = result_of(case, [Tensor(x) for x in case.arrays])
        if outputs is not None and all(np.isfinite(y.numpy()).all() for y in several(outputs)):
            check_gradients(case.run, *case.arrays)
