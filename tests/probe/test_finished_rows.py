"""Rows that hold padding where no mask says so: its row of the table is zero by design."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from family_grid import over
from test_following import attach
from test_generation import generate, make, prompts
from test_odd_models import Interleaved, Model, run
from tiny_models import Seen

ENDS = list(range(5, 30))
"""So many tokens end a row that some rows are done, and filled up, before the others."""


def _generated(path, spoilt: int | None = None) -> tuple[Seen, torch.Tensor]:
    model = make("qwen2").eval()
    if spoilt is not None:
        with torch.no_grad():
            model.get_input_embeddings().weight[spoilt] = 0.0
    with attach(model, path):
        out, _ = generate(model, "qwen2", use_cache=False, eos_token_id=ENDS, max_new_tokens=8)
    return Seen(path), out


def test_a_row_that_is_done_is_filled_with_padding(tmp_path):
    seen, out = _generated(tmp_path / "t")
    assert (out[:, 11:-1] == 0).any()
    assert over(seen) == {}
    assert (seen["embedding/zero_rows"] == 0).all() and (seen["embedding/small_rows"] == 0).all()


def test_another_tokens_row_of_zeros_is_told(tmp_path):
    token = int(prompts("qwen2")["input_ids"][0, -1])
    seen, _ = _generated(tmp_path / "t", token)
    assert "embedding/zero_rows" in over(seen)


@pytest.mark.parametrize("padding", [0, None])
def test_padding_without_a_mask(padding, tmp_path):
    """In training, of a model that is given nothing but its ids."""
    torch.manual_seed(2)
    model = Model(Interleaved)
    model.tok.padding_idx = padding
    with torch.no_grad():
        model.tok.weight[0] = 0.0
    model.register_forward_pre_hook(
        lambda module, args: (args[0].masked_fill(torch.arange(24) > 15, 0),)
    )
    seen = run(model, tmp_path / "t")
    assert ("embedding/zero_rows" in over(seen, at_start=True)) == (padding is None)
    assert np.isfinite(seen["embedding/zero_rows"]).all()
