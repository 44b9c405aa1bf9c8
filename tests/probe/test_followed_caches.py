"""Which kinds of caches are followed: by the classes of their layers."""

import pytest
import torch
from transformers.cache_utils import (
    DynamicCache,
    DynamicLayer,
    QuantizedLayer,
    StaticLayer,
)

from probe.cached_tokens import first_keys, kind_not_followed


class Shorter(DynamicLayer):
    """A layer as a user derives one."""


class Packed(QuantizedLayer):
    """Keeps its keys in another form, but for the newest."""

    def _quantize(self, tensor, axis):
        raise AssertionError("never asked")

    _dequantize = _quantize


def cache_of(kind):
    """A cache whose only layer, of this kind, holds keys."""
    cache = DynamicCache()
    layer = object.__new__(kind)
    layer.keys = layer.values = torch.zeros(1, 2, 3, 4)
    cache.layers = [layer]
    return cache


@pytest.mark.parametrize("kind", [DynamicLayer, Shorter])
def test_layers_that_keep_keys_as_they_are_are_followed(kind):
    cache = cache_of(kind)
    assert first_keys(cache) is cache.layers[0].keys
    assert kind_not_followed(cache) == ""


@pytest.mark.parametrize("kind", [StaticLayer, Packed])
def test_others_are_not_and_are_named(kind):
    cache = cache_of(kind)
    assert first_keys(cache) is None
    assert kind_not_followed(cache) == kind.__name__
