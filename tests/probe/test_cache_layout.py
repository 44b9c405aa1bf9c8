"""Which cached values lie where those of another head and position should."""

from __future__ import annotations

import pytest
import torch

from probe.measure.kv_cache import compare_keys


def states() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, 4, 12, 8, generator=generator) for _ in range(2))


def rearranged(change) -> float:
    keys, values = states()
    held = change(keys), change(values)
    return float(compare_keys((keys, values), held, None, None)["rearranged"])


def laid_out_anew(t: torch.Tensor) -> torch.Tensor:
    return t.transpose(1, 2).reshape(t.shape)


def test_a_cache_read_in_another_layout_is_told():
    assert rearranged(laid_out_anew) > 0.5


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t,
        lambda t: t.roll(2, dims=1),  # the ranks' heads in the wrong order
        lambda t: t.roll(1, dims=2),  # one position late
        lambda t: t.flip(0),  # another request's
        lambda t: t * 1.1,
    ],
)
def test_other_faults_of_a_cache_are_not_taken_for_it(change):
    assert rearranged(change) == 0.0


def test_padding_does_not_count():
    keys, values = states()
    mask = torch.ones(2, 12)
    mask[:, :6] = 0.0
    held = keys.clone(), values.clone()
    held[1][:, 0, :6] = values[:, 1, 6:]
    assert float(compare_keys((keys, values), held, mask, None)["rearranged"]) == 0.0
