"""How a training began, and weights that jumped."""

import msgspec
import numpy as np
import pytest
import synthetic_runs

from diagnoser.columns import Columns
from diagnoser.contracts import ContractWatch

AS_BUILT = {
    **dict.fromkeys(("gamma_norm", "gamma_mean"), 1.0),
    **dict.fromkeys(("beta_mean", "beta_spread", "weight_gap", "in_level", "small_rows"), 0.0),
    **dict.fromkeys(("update_ratio", "moved_between"), 0.001),
}


def frames(header, series):
    """Frames of a training from a random start, every tenth step; ``series``: column -> values."""
    made = synthetic_runs.frames(header, len(next(iter(series.values()))))
    result = []
    for number, frame in enumerate(made):
        array = frame.array.copy()
        for place, column in enumerate(header.columns):
            name = column.metric
            array[place] = AS_BUILT.get(name, 0.02 if name.endswith("_weight") else array[place])
            if column.key in series:
                array[place] = series[column.key][number]
        result.append(msgspec.structs.replace(frame, values=array.tobytes()))
    return result


def firings(series):
    header = synthetic_runs.header()
    watch = ContractWatch(Columns(header))
    for frame in frames(header, series):
        watch.update(frame)
    return [(f.site, f.metric, f.since_step, f.causes[0], f.lasting) for f in watch.firings()]


SMALL_ROWS = {"embedding/small_rows": [0.3, 0.0, 0.0, 0.0, 0.0]}
DOUBLED = {"ffn@1/in_weight": [0.02, 0.02, 0.04, 0.04, 0.04]}


def test_rows_smaller_than_the_others_from_a_random_start_stand():
    cause = "embedding/input_initialization"
    assert firings(SMALL_ROWS) == [("embedding", "small_rows", 0, cause, True)]


@pytest.mark.parametrize("key", ["norm_ffn@1/gamma_norm", "norm_attention@0/beta_mean"])
def test_weights_that_have_trained_are_not_asked_how_they_began(key):
    assert firings(SMALL_ROWS | {key: [1.02] * 5}) == []


def test_a_head_that_does_not_begin_at_the_configs_scale_is_told():
    (found,) = firings({"output/weight_gap": [3.0, 3.0, 2.9, 2.8]})
    assert found[3:] == ("output/output_type", True)
    assert firings({"output/weight_gap": [0.3, 3.0, 3.0, 3.0]}) == []


def test_projections_drawn_far_too_large_are_told_at_a_random_start_only():
    drawn = {"qkv@1/v_weight": [1.01, 1.0, 1.0, 0.99]}
    ((site, metric, step, cause, lasting),) = firings(drawn)
    assert (site, metric, cause) == ("qkv@1", "v_weight", "qkv/parameter_initialization")
    assert step == 0 and lasting
    assert firings(drawn | {"norm_ffn@1/gamma_norm": [1.02] * 4}) == []
    assert firings({"qkv@1/v_weight": [0.3, 0.3, 0.3, 0.3]}) == []


def test_weights_that_change_more_than_their_updates_make_have_jumped():
    assert firings(DOUBLED) == [("ffn@1", "in_weight", 20, "ffn/weight_scaling", False)]


@pytest.mark.parametrize("updates", [[0.01, 0.01, 0.001, 0.001, 0.001], [np.nan] * 5])
def test_large_or_unknown_updates_explain_a_change(updates):
    assert firings(DOUBLED | {"ffn@1/update_ratio": updates}) == []


REDRAWN = {"output/moved_between": [np.nan, 0.01, 1.4, 0.01, 0.01]}


def test_weights_begun_at_zero_grow_by_what_the_larger_ones_beside_them_move():
    updates = {"ffn@1/update_ratio": [0.003] * 5}
    assert firings(updates | {"ffn@1/out_weight": [0.0, 0.004, 0.01, 0.012, 0.014]}) == []
    # Not those that begin half as large.
    half = {"ffn@1/out_weight": [0.01, 0.01, 0.03, 0.03, 0.03]}
    ((site, metric, *_),) = firings(updates | half)
    assert (site, metric) == ("ffn@1", "out_weight")


def test_weights_drawn_anew_at_the_same_size_have_moved_further_than_their_updates():
    ((site, metric, step, cause, _),) = firings(REDRAWN)
    assert (site, metric, step, cause) == ("output", "moved_between", 20, "output/output_type")


@pytest.mark.parametrize("updates", [[0.02] * 5, [0.0] * 5, [np.nan] * 5])
def test_updates_that_explain_a_move_or_are_not_known_say_nothing(updates):
    assert firings(REDRAWN | {"output/update_ratio": updates}) == []


def test_weights_set_to_zero_have_jumped_though_updates_are_large_beside_them_now():
    zeroed = {
        "norm_ffn@1/gamma_norm": [1.02, 1.02, 0.0, 0.01, 0.02],
        "norm_ffn@1/update_ratio": [0.001, 0.001, 1.0, 1.0, 0.5],
    }
    (found,) = firings(zeroed)
    assert found == ("norm_ffn@1", "gamma_norm", 20, "layernorm/scale_parameter", False)


CLIPPED = {"training/clip_level": [np.nan, np.nan, 1.0, np.nan, np.nan]}


def test_a_norm_beyond_what_it_was_clipped_to_is_told():
    lifted = CLIPPED | {"training/grad_norm": [1.0, 1.0, 1.0, 0.4, 2.0]}
    assert firings(lifted) == [("training", "grad_norm", 40, "residual/gradient_clipping", False)]


@pytest.mark.parametrize(
    "change",
    [
        {"training/grad_norm": [1.0, 1.0, 1.0, 0.4, 1.0]},  # as clipped as before
        {"training/clip_level": [np.nan] * 5},  # never was
        {"training/clip_level": [np.nan, np.nan, 0.7312, np.nan, np.nan]},  # nobody's setting
    ],
)
def test_a_norm_within_its_limit_says_nothing(change):
    assert firings(CLIPPED | {"training/grad_norm": [1.0, 1.0, 1.0, 0.4, 2.0]} | change) == []


def test_a_later_header_keeps_what_was_seen():
    header = synthetic_runs.header()
    watch = ContractWatch(Columns(header))
    for frame in frames(header, DOUBLED)[:3]:
        watch.update(frame)
    watch.rebind(Columns(msgspec.structs.replace(header, columns=header.columns[::-1])))
    (firing,) = watch.firings()
    assert (firing.site, firing.metric, firing.since_step) == ("ffn@1", "in_weight", 20)


def test_a_jump_across_a_later_header_is_seen():
    header = synthetic_runs.header()
    watch = ContractWatch(Columns(header))
    *earlier, jumped = frames(header, DOUBLED)[:3]
    for frame in earlier:
        watch.update(frame)
    watch.rebind(Columns(msgspec.structs.replace(header, columns=header.columns[::-1])))
    watch.update(msgspec.structs.replace(jumped, values=jumped.array[::-1].tobytes()))
    assert [firing.site for firing in watch.firings()] == ["ffn@1"]
