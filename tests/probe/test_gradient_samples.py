"""What a sample of the gradients' elements shows: a pull along the weights, elements at a limit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from probe.gradients import Gradients


def layer(gradient: torch.Tensor, weight: torch.Tensor) -> nn.Parameter:
    parameter = nn.Parameter(weight)
    parameter.grad = gradient
    return parameter


def read(*parameters: nn.Parameter) -> Gradients:
    found = Gradients()
    found.read(parameters, None)
    return found


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_penalty_pulls_along_the_weights():
    weight, gradient = noise(40, 50, seed=0), noise(40, 50, seed=1)
    plain = layer(gradient, weight)
    pulled = layer(gradient + 20 * weight, weight)
    found = read(plain, pulled)
    along = found.along_weights({"plain": [plain], "pulled": [pulled]})
    assert abs(float(along["plain"])) < 0.15
    assert float(along["pulled"]) > 0.99


def test_the_cosine_is_that_of_all_elements_where_all_are_looked_at():
    one, two = (layer(noise(10, 3, seed=i), noise(10, 3, seed=i + 5)) for i in range(2))
    gradients = torch.cat([one.grad.flatten(), two.grad.flatten()])
    weights = torch.cat([one.detach().flatten(), two.detach().flatten()])
    expected = torch.cosine_similarity(gradients, weights, dim=0)
    along = read(one, two).along_weights({"both": [one, two]})
    assert float(along["both"]) == pytest.approx(float(expected))


def test_a_large_parameter_counts_for_more_than_a_small_one():
    large, small = noise(300, 300, seed=2), noise(4, seed=3)
    parameters = [layer(large.clone(), large), layer(-small, small)]
    assert float(read(*parameters).along_weights({"both": parameters})["both"]) > 0.99


def test_zero_gradients_have_no_direction():
    frozen = layer(torch.zeros(5, 5), noise(5, 5, seed=4))
    found = read(frozen)
    assert found.along_weights({"": [frozen]})[""].isnan()
    assert found.limited().isnan()


def test_nothing_is_said_of_parameters_without_gradients():
    found = read(nn.Parameter(torch.ones(3)))
    assert found.along_weights({"": [nn.Parameter(torch.ones(3))]}) == {}
    assert found.limited() is None


def test_elements_clipped_one_by_one_stand_at_the_limit():
    gradients = [noise(30, 10, seed=i) for i in range(3)]
    parameters = [layer(g, torch.ones(30, 10)) for g in gradients]
    assert float(read(*parameters).limited()) == 0.0
    limited = torch.stack(gradients).abs() > 0.5
    nn.utils.clip_grad_value_(parameters, 0.5)
    expected = (int(limited.sum()) - 1) / limited.numel()
    assert float(read(*parameters).limited()) == pytest.approx(expected)


def test_the_limit_is_that_of_all_optimizers_parameters():
    limited = [layer(torch.full((4,), 2.0), torch.ones(4)) for _ in range(3)]
    found = Gradients()
    found.read([layer(torch.ones(6), torch.ones(6)), limited[0]], None)
    found.read(limited[1:], None)
    assert float(found.limited()) == pytest.approx(11 / 18)


def test_a_saturated_input_is_no_limit():
    """What a classifier is given is 1 or -1 everywhere: a row of its gradient is its bias's."""
    errors, states = noise(6, 3, seed=8), noise(6, 16, seed=9).sign()
    weight = layer(errors.t() @ (states[:1] * torch.ones(6, 1)), torch.ones(3, 16))
    bias = layer(errors.sum(dim=0), torch.ones(3))
    small = layer(noise(30, 10, seed=1) / 10, torch.ones(30, 10))
    assert float(read(weight, bias, small).limited()) == 0.0


def test_a_norm_clipped_as_a_whole_limits_no_element():
    parameter = layer(noise(40, 40, seed=7), torch.ones(40, 40))
    nn.utils.clip_grad_norm_([parameter], 1e-3)
    assert float(read(parameter).limited()) == 0.0
