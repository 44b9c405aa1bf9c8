"""Whether a sum passes its gradient on to both of its terms, told by autograd's graph."""

from __future__ import annotations

import pytest
import torch
from family_grid import CONDITIONS, healthy, over
from tiny_models import Seen

import probe
from probe.gradient_path import Path, path_of


def leaf() -> torch.Tensor:
    return torch.ones(3, requires_grad=True)


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (lambda x, y: x + y, Path(True, False)),
        (lambda x, y: x.detach() + y, Path(True, True)),
        (lambda x, y: x + 2 * y.detach(), Path(True, True)),
        (lambda x, y: (x * 1.0).add_(y), Path(True, False)),
        (lambda x, y: x * y, Path(True, None)),
        (lambda x, y: x, Path(True, None)),
        (lambda x, y: x.detach() + y.detach(), Path(False, None)),
    ],
)
def test_a_sums_terms(tensor, expected):
    assert path_of(tensor(leaf(), leaf())) == expected


def test_nothing_is_known_without_a_graph():
    with torch.no_grad():
        assert path_of(leaf() + leaf()) == Path(False, None)


class Block(torch.nn.Module):
    """A pre-norm feed-forward block with an attention, whose second skip may be detached."""

    def __init__(self, cut: bool) -> None:
        super().__init__()
        self.cut = cut
        self.norm1, self.norm2 = torch.nn.LayerNorm(16), torch.nn.LayerNorm(16)
        self.attn = torch.nn.MultiheadAttention(16, 2, batch_first=True)
        self.expand, self.contract = torch.nn.Linear(16, 32), torch.nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed = self.norm1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        branch = self.contract(torch.relu(self.expand(self.norm2(x))))
        return (x.detach() if self.cut else x) + branch


class Model(torch.nn.Module):
    """Three blocks, the middle one maybe at fault."""

    def __init__(self, cut: bool) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(50, 16)
        self.blocks = torch.nn.ModuleList(Block(cut and at == 1) for at in range(3))
        self.norm, self.head = torch.nn.LayerNorm(16), torch.nn.Linear(16, 50)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def seen_of(model: torch.nn.Module, trace) -> Seen:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    with probe.attach(model, optimizer, trace=trace, endpoint=False, every=1):
        for _ in range(4):
            ids = torch.randint(0, 50, (4, 10), generator=generator)
            loss = torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.flatten())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return Seen(trace)


@pytest.mark.parametrize("cut", [False, True])
def test_a_detached_skip_is_told_at_its_layer_and_no_other(cut, tmp_path):
    torch.manual_seed(0)
    seen = seen_of(Model(cut), tmp_path / "t")
    for layer in range(3):
        for node in ("residual_attention", "residual_ffn"):
            expected = float(cut and (node, layer) == ("residual_ffn", 1))
            assert seen[f"{node}@{layer}/detached"].tolist() == [expected] * len(seen.frames)


@pytest.mark.parametrize("condition", ["frozen parts", "bfloat16 autocast, dropout"])
def test_frozen_parts_and_16_bits_detach_nothing(condition, tmp_path):
    seen = healthy("bert", CONDITIONS[condition], tmp_path / "t")
    assert not [key for key in over(seen) if key.endswith("/detached")]
    assert (seen["residual_ffn@2/detached"] == 0.0).all()
