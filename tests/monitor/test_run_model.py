import math

import numpy as np
import pytest

from monitor import run_model
from monitor.envelope import MINUS_INFINITY, NAN, PLUS_INFINITY, Envelope
from monitor.metric_groups import group_key, groups_of, scalar_key
from monitor.run_model import RunModel
from monitor.sources.fake import Script, header, records
from monitor.sources.source import Batch
from probe.schema import Frame, Header, Scalars


def filled(values, capacity=16):
    envelope = Envelope(1, capacity)
    values = np.asarray(values, np.float32).reshape(-1, 1)
    envelope.extend(np.arange(len(values)), values)
    return envelope


def test_envelope_keeps_every_spike_whatever_the_length():
    values = np.zeros(10_000)
    values[[137, 5000, 9999]] = [7.0, -3.0, 4.0]
    curve = filled(values).curve(0)
    assert len(curve) <= 16
    assert curve.high.max() == 7.0
    assert curve.low.min() == -3.0
    assert curve.latest[-1] == 4.0


def test_envelope_covers_all_steps_without_gap_or_overlap():
    curve = filled(np.arange(999.0)).curve(0)
    assert curve.first[0] == 0
    assert curve.last[-1] == 998
    assert (curve.first[1:] == curve.last[:-1] + 1).all()
    assert (curve.low == curve.first).all()
    assert (curve.high == curve.last).all()


def test_envelope_is_the_same_however_the_samples_arrive():
    values = np.random.default_rng(0).normal(size=(777, 3)).astype(np.float32)
    steps = np.arange(777)
    whole, single = Envelope(3, 32), Envelope(3, 32)
    whole.extend(steps, values)
    for step in steps:
        single.extend(steps[step : step + 1], values[step : step + 1])
    for column in range(3):
        a, b = whole.curve(column), single.curve(column)
        for name in ("first", "last", "low", "high", "latest", "marks"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_not_finite_values_are_marked_and_kept_apart():
    values = np.ones(1000)
    values[100], values[500], values[900] = np.nan, np.inf, -np.inf
    curve = filled(values).curve(0)
    assert [(curve.marks & bit > 0).sum() for bit in (NAN, PLUS_INFINITY, MINUS_INFINITY)] == [
        1
    ] * 3
    assert (curve.high == 1).all()
    only = filled([np.nan, np.inf]).curve(0)
    assert np.isnan(only.high).all()
    assert math.isinf(only.latest[-1])


def test_a_curve_can_end_at_a_step():
    curve = filled(np.arange(10.0)).curve(0, upto=4)
    assert curve.last[-1] == 4
    assert len(filled(np.arange(10.0)).curve(0, upto=-1)) == 0


def test_capacity_must_be_even():
    with pytest.raises(ValueError, match="even"):
        Envelope(1, 3)


def test_group_keys():
    assert group_key("attention@3", "entropy") == "attention/entropy"
    assert group_key("decoder.cross_mask@0", "hidden") == "decoder.cross_mask/hidden"
    assert group_key("attention@2.h5", "entropy") == "attention@2/entropy"
    assert group_key("output", "entropy") == "output/entropy"
    found = header(Script())
    assert scalar_key(found, "loss") == "training/loss"
    assert scalar_key(found, "my_value") == "log/my_value"
    assert scalar_key(found, "validation/accuracy") == "validation/accuracy"


def test_one_chart_per_metric_with_a_member_per_layer():
    groups = groups_of(header(Script(layers=6)), ())
    assert [m.label for m in groups["attention/entropy"].members] == list("012345")
    assert groups["attention/entropy"].layered
    assert not groups["output/entropy"].layered
    assert groups["norm_ffn/eps_ratio"].metric.unit == "log10"


def test_model_takes_a_whole_stream():
    model = RunModel()
    everything = records(Script(fault_step=200, nan_steps=(120,)))
    model.take(Batch(everything, link="live", state="training", overhead=0.01))
    assert (model.step, model.first_step, model.frames) == (399, 0, 40)
    assert model.end is not None
    assert model.steps_per_second == pytest.approx(12.5, rel=1e-3)
    assert [(m.step, m.kind) for m in model.marks()] == [(200, "fault")]
    assert model.marks(upto=100) == ()
    loss = model.curves("training/loss")[0]
    assert loss.marks[120] == NAN
    assert len(loss) == 400, "scalars of every step hide the frames' loss"
    assert math.isfinite(model.latest_values("training/loss")[0])
    assert model.measured("attention/entropy")
    assert not model.measured("mask/cross_mass")
    assert model.absence("mask/cross_mass") == "the batch is not packed"


def test_version_changes_only_with_news():
    model = RunModel()
    model.take(Batch(records(Script()), link="live"))
    before = model.version
    model.take(Batch(link="live"))
    assert model.version == before
    model.take(Batch(link="silent"))
    assert model.version > before


def test_a_header_again_clears_what_is_held():
    model = RunModel()
    everything = records(Script(fault_step=20))
    model.take(Batch(everything, link="replay"))
    model.take(Batch(everything[:4], link="replay"))
    assert model.frames == 1
    assert model.step < 20
    assert not model.marks()


def test_a_revised_header_keeps_the_history_of_the_columns_that_stay():
    model = RunModel()
    everything = records(Script())
    model.take(Batch(everything[:-1], link="live"))
    entropy = model.curves("attention/entropy")[1]
    first: Header = everything[0]
    kept = tuple(reversed([c for c in first.columns if c.site.startswith("attention")]))
    revised = Header(
        seq=99, revision=1, run=first.run, name=first.name, created=0, host="", pid=1,
        anatomy=first.anatomy, metrics=first.metrics, columns=kept,
    )  # fmt: skip
    model.take(Batch((revised,), link="live"))
    assert [m.label for m in model.groups["attention/entropy"].members] == ["3", "2", "1", "0"]
    np.testing.assert_array_equal(model.curves("attention/entropy")[2].high, entropy.high)
    assert model.measured("attention/entropy")
    assert "qkv/cos_qk" not in model.groups


def test_frames_of_several_ranks_share_a_step():
    model = RunModel()
    start = header(Script())
    columns = len(start.columns)

    def frame(rank, value):
        values = np.full(columns, value, "<f4").tobytes()
        return Frame(seq=1 + rank, rank=rank, step=7, time=1.0, values=values)

    model.take(Batch((start, frame(0, 1.0), frame(1, 5.0)), link="live"))
    curve = model.curves("attention/entropy")[0]
    assert (len(curve), curve.low[0], curve.high[0], model.frames) == (1, 1.0, 5.0, 1)


def test_a_frame_of_the_wrong_length_is_counted_not_shown():
    model = RunModel()
    odd = Frame(seq=1, step=3, time=0.0, values=b"\0\0\0\0")
    model.take(Batch((header(Script()), odd), link="live"))
    assert (model.frames, model.ignored) == (0, 1)
    model.take(Batch(link="live", ignored=2))
    assert model.ignored == 3, "the source's own count comes on top"


def test_logged_values_appear_as_charts_of_their_own():
    model = RunModel()
    values = np.array([[1.0], [2.0]], "<f4").tobytes()
    scalars = Scalars(seq=1, names=("reward",), steps=(1, 2), times=(0.0, 1.0), values=values)
    model.take(Batch((header(Script()), scalars), link="live"))
    assert model.latest_values("log/reward")[0] == 2.0
    assert model.groups["log/reward"].metric is None


def test_memory_is_bounded_whatever_the_width(monkeypatch):
    monkeypatch.setattr(run_model, "FRAME_MEMORY", 1024 * 1024)
    model = RunModel()
    everything = records(Script(layers=8, steps=1000, every=5))
    model.take(Batch(everything, link="live"))
    columns = len(everything[0].columns)
    assert model.frames == 200
    assert model._history.count <= model._history.capacity < 200
    assert model._history.capacity * columns * 13 <= 1024 * 1024
    assert model.curves("attention/entropy")[7].first[0] == 0
