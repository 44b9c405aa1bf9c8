import warnings

import msgspec
import numpy as np
import pytest
import synthetic_runs

from diagnoser import schema
from diagnoser.columns import Columns, tolerance_of
from diagnoser.features import RollingFeatures, nan_median
from probe.catalogue import METRICS
from probe.schema import Frame, Metric


def feature(found, header, site, name):
    node = header.anatomy.site(site).node
    row = [s.name for s in header.anatomy.sites if s.node == node].index(site)
    return float(found.nodes[node][row, schema.feature_names(node).index(name)])


def run(header, frames):
    rolling = RollingFeatures(header)
    for frame in frames:
        found = rolling.update(frame)
    return found


def changed(header, frames, key, values):
    """The frames with one column set to ``values[i]``."""
    place = [column.key for column in header.columns].index(key)
    result = []
    for frame, value in zip(frames, values, strict=True):
        array = frame.array.copy()
        array[place] = value
        result.append(msgspec.structs.replace(frame, values=array.tobytes()))
    return result


def test_median_without_nan_is_numpys():
    random = np.random.default_rng(0)
    values = random.normal(size=(50, 7)).astype(np.float32)
    values[random.random(values.shape) < 0.4] = np.nan
    values[3] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = np.nanmedian(values, axis=1)
    np.testing.assert_allclose(nan_median(values), wanted, rtol=1e-6)


def test_features_are_fixed_by_the_catalogue_whatever_the_model():
    for family in synthetic_runs.FAMILIES:
        header = synthetic_runs.header(family, 2)
        found = run(header, synthetic_runs.frames(header, 4))
        for kind, values in found.nodes.items():
            assert values.shape[1] == len(schema.feature_names(kind))
            assert np.isfinite(values).all()


def test_a_contract_at_rest_is_zero_and_a_broken_one_grows_with_its_size():
    header = synthetic_runs.header()
    frames = synthetic_runs.frames(header, 8)
    assert feature(run(header, frames), header, "mask@1", "leaked:level") == 0
    small = run(header, changed(header, frames, "mask@1/leaked", [1e-4] * 8))
    large = run(header, changed(header, frames, "mask@1/leaked", [0.4] * 8))
    assert (
        1
        < feature(small, header, "mask@1", "leaked:level")
        < feature(large, header, "mask@1", "leaked:level")
    )


def test_what_was_not_measured_is_absent_and_not_zero_level():
    header = synthetic_runs.header()
    frames = synthetic_runs.frames(header, 8)
    found = run(header, changed(header, frames, "qkv@0/q_norm", [np.nan] * 8))
    assert feature(found, header, "qkv@0", "q_norm:present") == 0
    assert feature(found, header, "qkv@1", "q_norm:present") == 1
    assert feature(found, header, "qkv@0", "q_norm:peer") == 0


def test_a_jump_against_the_runs_own_past_is_seen_and_remembered():
    header = synthetic_runs.header()
    frames = synthetic_runs.frames(header, 24)
    values = [1.0 + 0.01 * (n % 3) for n in range(12)] + [4.0] * 12
    found = run(header, changed(header, frames, "ffn@1/token_norm", values))
    calm = run(header, frames)
    assert feature(found, header, "ffn@1", "token_norm:change") > 2
    assert feature(found, header, "ffn@1", "token_norm:jump") > 2
    assert abs(feature(calm, header, "ffn@1", "token_norm:jump")) < 1.5


@pytest.mark.parametrize("rounding", [0.0, 1e-9, 3e-7, 9e-6])
def test_a_residual_measured_at_its_rounding_looks_like_one_that_is_not_measured(rounding):
    header = synthetic_runs.header(layers=2)
    names = [f"input_error:{statistic}" for statistic in schema.CONTRACT_STATISTICS[1:]]
    for value in (rounding, np.nan, 0.1):
        frames = synthetic_runs.frames(header, 8)
        for layer in range(2):
            frames = changed(header, frames, f"score@{layer}/input_error", [value] * 8)
        found = [feature(run(header, frames), header, "score@1", name) for name in names]
        if value == 0.1:
            assert found[names.index("input_error:value")] > 2
        else:
            assert found == [0.0] * len(names)


def test_change_is_zero_before_there_is_a_past():
    header = synthetic_runs.header()
    found = run(header, synthetic_runs.frames(header, 3))
    for kind, values in found.nodes.items():
        names = schema.feature_names(kind)
        for column, name in enumerate(names):
            if name.endswith((":change", ":jump")):
                assert (values[:, column] == 0).all()


def test_a_layer_unlike_its_peers_stands_out_and_they_do_not():
    header = synthetic_runs.header(layers=6)
    frames = synthetic_runs.frames(header, 6)
    for layer in range(6):
        value = 5.0 if layer == 2 else 1.0 + 0.01 * layer
        frames = changed(header, frames, f"ffn@{layer}/in_weight", [value] * 6)
    found = run(header, frames)
    assert feature(found, header, "ffn@2", "in_weight:peer") > 2
    assert abs(feature(found, header, "ffn@3", "in_weight:peer")) < 0.5


def test_time_counts_in_steps_so_that_the_interval_does_not_matter():
    header = synthetic_runs.header()
    trends = []
    for interval in (1, 20):
        frames = synthetic_runs.frames(header, 5, interval=interval)
        values = [1.0 + 0.01 * frame.step for frame in frames]
        found = run(header, changed(header, frames, "score@0/mean", np.sinh(values)))
        trends.append(np.sinh(feature(found, header, "score@0", "mean:trend")))
    assert trends[0] == pytest.approx(trends[1], rel=1e-3)
    assert trends[0] == pytest.approx(20.0, rel=1e-2)  # 1.0 per hundred steps over a floor of 0.05


def test_cache_values_measured_now_and_then_are_carried_forward():
    header = synthetic_runs.header("gpt2")
    frames = synthetic_runs.frames(header, 12)
    values = [0.5 if number == 4 else np.nan for number in range(12)]
    found = run(header, changed(header, frames, "kv_cache@0/key_error", values))
    assert feature(found, header, "kv_cache@0", "key_error:present") == 1
    assert feature(found, header, "kv_cache@0", "key_error:level") > 3


def test_infinity_counts_as_a_change_and_stays_finite():
    header = synthetic_runs.header()
    frames = synthetic_runs.frames(header, 20)
    values = [1.0] * 14 + [np.inf] * 6
    found = run(header, changed(header, frames, "training/grad_norm", values))
    assert feature(found, header, "training", "grad_norm:jump") > 2
    assert np.isfinite(found.nodes["training"]).all()


def test_long_runs_keep_an_old_baseline():
    header = synthetic_runs.header()
    frames = synthetic_runs.frames(header, 200)
    values = [1.0 + 0.01 * (n % 2) for n in range(150)] + [3.0] * 50
    found = run(header, changed(header, frames, "ffn@0/in_weight", values))
    assert feature(found, header, "ffn@0", "in_weight:change") > 2


def test_a_foreign_metric_is_an_error_that_names_it():
    header = synthetic_runs.header()
    foreign = Metric("sparkle", ("qkv",), "share", "", "", "")
    with pytest.raises(schema.SchemaMismatch, match="qkv/sparkle"):
        RollingFeatures(msgspec.structs.replace(header, metrics=(*METRICS, foreign)))


def test_a_metric_that_means_something_else_is_an_error_that_names_it():
    header = synthetic_runs.header()
    other = tuple(
        msgspec.structs.replace(metric, contract=False) if metric.name == "leaked" else metric
        for metric in METRICS
    )
    with pytest.raises(schema.SchemaMismatch, match=r"unknown here: mask/leaked \(share\)"):
        RollingFeatures(msgspec.structs.replace(header, metrics=other))


def test_a_metric_that_an_earlier_probe_did_not_know_is_absent():
    header = synthetic_runs.header()
    known = msgspec.structs.replace(
        header,
        metrics=tuple(metric for metric in METRICS if metric.name != "leaked"),
        columns=tuple(column for column in header.columns if column.metric != "leaked"),
    )
    kept = [at for at, column in enumerate(header.columns) if column.metric != "leaked"]
    frames = synthetic_runs.frames(header, 8)
    fewer = [msgspec.structs.replace(f, values=f.array[kept].tobytes()) for f in frames]
    now, then = run(header, frames), run(known, fewer)
    assert feature(now, header, "mask@0", "leaked:present") == 1
    assert feature(then, known, "mask@0", "leaked:present") == 0
    assert now.nodes["mask"].shape == then.nodes["mask"].shape
    assert np.array_equal(now.nodes["qkv"], then.nodes["qkv"])


def test_a_frame_of_another_size_is_refused():
    header = synthetic_runs.header()
    with pytest.raises(ValueError, match="3 values"):
        RollingFeatures(header).push(Frame(seq=1, step=0, time=0.0, values=b"\0" * 12))


def test_rebinding_keeps_the_history_of_shared_columns():
    header = synthetic_runs.header()
    frames = synthetic_runs.frames(header, 30)
    turned = msgspec.structs.replace(header, columns=header.columns[::-1], revision=1)
    rolling, plain = RollingFeatures(header), RollingFeatures(header)
    for frame in frames[:20]:
        rolling.update(frame)
        plain.update(frame)
    rolling.rebind(turned)
    for frame in frames[20:]:
        reverse = msgspec.structs.replace(frame, values=frame.array[::-1].tobytes())
        found, wanted = rolling.update(reverse), plain.update(frame)
    for kind in wanted.nodes:
        np.testing.assert_allclose(found.nodes[kind], wanted.nodes[kind], atol=1e-5)


def test_tolerances_follow_the_dtype_where_arithmetic_rounds():
    error = next(m for m in METRICS if m.name == "reference_error")
    decay = next(m for m in METRICS if m.name == "decay_gap")
    mass = next(m for m in METRICS if m.name == "padding_mass")
    assert tolerance_of(error, "torch.float32") == error.tolerance
    assert tolerance_of(error, "torch.bfloat16") > 1e-2 > tolerance_of(error, "float16") > 1e-3
    assert tolerance_of(decay, "bfloat16") == decay.tolerance
    assert tolerance_of(mass, "bfloat16") == mass.tolerance


def test_transform_and_restore_are_inverse():
    columns = Columns(synthetic_runs.header())
    raw = np.abs(np.random.default_rng(0).normal(size=len(columns))).astype(np.float32) + 0.1
    back = [columns.restore(float(v), n) for n, v in enumerate(columns.transform(raw))]
    np.testing.assert_allclose(back, raw, rtol=1e-3)
