from __future__ import annotations

import numpy as np
import pytest
import torch

from probe.frames import FrameDraft, History, Layout, effective_rank
from probe.measurement import Measurement
from probe.scalars import Row, pack
from probe.schema import Column


def gram(*maps: np.ndarray) -> np.ndarray:
    return np.stack([m @ m.T for m in maps]).astype("f4")


def test_effective_rank_of_a_uniform_map_is_one_and_of_the_identity_all():
    uniform, identity = np.full((8, 8), 1 / 8), np.eye(8)
    assert effective_rank(gram(uniform)) == pytest.approx(1 / 8, rel=1e-3)
    assert effective_rank(gram(identity)) == pytest.approx(1.0, rel=1e-3)
    assert np.isnan(effective_rank(np.full((1, 4, 4), np.nan)))
    assert effective_rank(gram(uniform, identity)) == pytest.approx([1 / 8, 1.0], rel=1e-3)


def test_a_frame_holds_values_in_the_order_of_the_columns_and_nan_elsewhere():
    values = {"a": {"x": torch.tensor(2.0)}, "b": {"x": 3.0, "y": torch.tensor([4.0])}}
    columns = (Column("b", "y"), Column("a", "z"), Column("a", "x"), Column("b", "x"))
    draft = FrameDraft(7, Measurement(values))
    draft.add("a", "z", torch.tensor(5.0))
    frame = draft.frame(11, 0, Layout(columns), History())
    assert (frame.seq, frame.step) == (11, 7)
    assert frame.array.tolist() == [4.0, 5.0, 2.0, 3.0]
    nothing = FrameDraft(0, Measurement()).frame(0, 0, Layout(columns), History())
    assert np.isnan(nothing.array).all()


def test_heads_stand_behind_each_other_and_another_number_of_them_is_left_out():
    heads = [Column(f"attention@0.h{head}", "entropy") for head in range(3)]
    columns = (Column("attention@0", "entropy"), *heads, Column("attention@0.h0", "max_weight"))
    found = Measurement(
        {"attention@0": {"entropy": torch.tensor(2.0)}},
        {"attention@0": {"entropy": torch.arange(3.0), "max_weight": torch.arange(2.0)}},
    )
    frame = FrameDraft(0, found).frame(0, 0, Layout(columns), History())
    assert frame.array[:4].tolist() == [2.0, 0.0, 1.0, 2.0]
    assert np.isnan(frame.array[4])
    ranks = Measurement(
        grams={"attention@0": torch.from_numpy(gram(np.full((8, 8), 1 / 8), np.eye(8)))}
    )
    columns = (
        Column("attention@0", "effective_rank"),
        *(Column(f"attention@0.h{head}", "effective_rank") for head in range(2)),
    )
    frame = FrameDraft(0, ranks).frame(0, 0, Layout(columns), History())
    assert frame.array == pytest.approx([(1 + 1 / 8) / 2, 1 / 8, 1.0], rel=1e-3)


def test_volatility_needs_history_and_a_clipped_norm_is_noticed():
    history = History()
    for at in range(6):
        found = {("training", "grad_norm"): 1.0}
        history.finish(found)
        assert (("training", "volatility") in found) == (at >= 4)
        assert (("training", "clip_level") in found) == (at >= 2)
    found = {("training", "grad_norm"): 2.0}
    history.finish(found)
    assert ("training", "clip_level") not in found
    assert found["training", "volatility"] > 0


def test_scalars_take_the_logged_loss_first_then_the_mean_of_the_micro_batches():
    rows = [
        Row(0, 1.0, {"lr": 0.5}, [torch.tensor(1.0), torch.tensor(3.0)]),
        Row(1, 2.0, {"loss": 9.0}, [torch.tensor(1.0)]),
        Row(2, 3.0, {}, [torch.tensor(1.0), torch.tensor(3.0)], shares=True),
        Row(3, 4.0),
    ]
    packed = pack(rows, 5, 0)
    assert packed.names == ("loss", "lr")
    assert packed.array[:3, 0].tolist() == [2.0, 9.0, 4.0]
    assert np.isnan(packed.array[3, 0]) and np.isnan(packed.array[1, 1])
    assert pack([], 0, 0) is None
