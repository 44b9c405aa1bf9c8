"""Which SDPA backend a call is said to get, and which one it could have had."""

import pytest
import torch
import torch.nn.functional as F

from probe.attention_call import Recorder
from probe.rows import Picked
from probe.stopwatch import Stopwatch

MATH = 0
BATCH, HEADS, LENGTH, SIZE = 4, 2, 8, 16
ROWS, POSITIONS = torch.tensor([0, 2]), torch.arange(LENGTH)
PICKED = Picked(ROWS, POSITIONS, torch.ones(2, LENGTH), BATCH, LENGTH)


def made(dtype=torch.float32, laid_out=True):
    """q, k or v as a projection leaves it: heads a view, the last dimension contiguous."""
    if laid_out:
        states = torch.randn(BATCH, LENGTH, HEADS, SIZE, dtype=dtype).transpose(1, 2)
    else:
        states = torch.randn(BATCH, HEADS, SIZE, LENGTH, dtype=dtype).transpose(2, 3)
    return states.requires_grad_()


def seen(query, key, value, mask=None, autocast=False):
    recorder = Recorder(PICKED, Stopwatch())
    with recorder, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert recorder.failure is None
    return recorder.calls[0]


@pytest.mark.parametrize("mask", [None, torch.bool, torch.float32])
def test_autocast_casts_what_norms_left_in_float32(mask):
    """q and k behind norms of their own are float32 there, v is not; the kernel gets them alike."""
    hidden = None if mask is None else torch.ones(BATCH, 1, LENGTH, LENGTH, dtype=mask)
    call = seen(made(), made(), made(torch.bfloat16), hidden, autocast=True)
    assert call.backend == call.best_backend != MATH


def test_values_out_of_order_fall_back_under_autocast_too():
    call = seen(made(), made(), made(laid_out=False), autocast=True)
    assert call.backend == MATH != call.best_backend


def test_backends_that_were_switched_off_are_a_fallback():
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        call = seen(made(), made(), made(torch.bfloat16), autocast=True)
    assert call.backend == MATH != call.best_backend
