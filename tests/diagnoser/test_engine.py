import dataclasses

import msgspec
import numpy as np
import pytest
import synthetic_runs
from safetensors.torch import load_file, save_file

from diagnoser import weights
from diagnoser.diagnosis import to_json
from diagnoser.engine import Engine, EngineError
from diagnoser.replay import replay
from diagnoser.taxonomy import CATEGORY_NAMES
from probe.catalogue import METRICS
from probe.schema import Metric


def diagnose(trained, header, frames):
    engine = Engine(header, trained)
    return [engine.update(frame) for frame in frames]


def test_a_healthy_run_is_insufficient_first_and_never_flagged(trained):
    header = synthetic_runs.header("gpt2", 3)
    found = diagnose(trained, header, synthetic_runs.frames(header, 20, seed=900))
    assert [d.verdict for d in found[:3]] == ["insufficient", "insufficient", "healthy"]
    assert {d.verdict for d in found[2:]} == {"healthy"}
    assert all(d.category is None and d.repair is None and not d.layers for d in found)


@pytest.mark.parametrize("fault", ["masking/mask_application", "score/normalization"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_fault_that_begins_on_the_way_is_found_named_and_located(trained, family, fault):
    header = synthetic_runs.header(family, 3)
    frames = synthetic_runs.frames(header, 24, 901, fault, layer=2, start=100)
    found = diagnose(trained, header, frames)
    assert all(d.verdict != "faulty" for d in found[:10])
    last = found[-1]
    assert (last.verdict, f"{last.category}/{last.root_cause}") == ("faulty", fault)
    assert last.layers == (2,)
    assert 100 <= last.first_flagged_step <= 150
    assert last.evidence[0].since_step == 100
    assert last.evidence[0].site.endswith("@2")
    assert last.repair
    assert sum(last.importance.values()) == pytest.approx(1.0)
    assert last.ranking[0].root_cause == last.root_cause
    assert max(last.suspicion, key=last.suspicion.get).endswith("@2")
    assert set(last.suspicion) == {site.name for site in header.anatomy.sites}


def test_a_category_that_does_not_stand_out_is_told_to_be_unsure(trained):
    header = synthetic_runs.header("gpt2", 3)
    frames = synthetic_runs.frames(header, 20, 901, "score/normalization", 1)
    assert diagnose(trained, header, frames)[-1].unsure is False
    even = dataclasses.replace(trained.calibration, category_temperature=1e6)
    last = diagnose(dataclasses.replace(trained, calibration=even), header, frames)[-1]
    assert last.verdict == "faulty"
    assert last.unsure
    assert last.category_probability < 0.5


def test_a_fault_without_a_broken_contract_is_found_by_its_change(trained):
    header = synthetic_runs.header("gpt2", 3)
    frames = synthetic_runs.frames(header, 30, 902, "layernorm/bias_parameter", 1, start=120)
    for frame in (last := diagnose(trained, header, frames)[-1]).evidence:
        assert frame.text
    assert (last.verdict, last.category) == ("faulty", "layernorm")


def test_probabilities_are_probabilities_and_json_is_plain(trained):
    header = synthetic_runs.header("bert", 2)
    frames = synthetic_runs.frames(header, 12, 3, "score/normalization", 0)
    for diagnosis in diagnose(trained, header, frames):
        assert 0.0 <= diagnosis.probability <= 1.0
        assert all(0.0 <= value <= 1.0 for value in diagnosis.suspicion.values())
        assert tuple(diagnosis.categories) == CATEGORY_NAMES
        assert sum(diagnosis.categories.values()) == pytest.approx(1.0)
        assert msgspec.json.decode(to_json(diagnosis))["run"] == header.run


def test_foreign_metrics_are_refused_by_name(trained):
    header = synthetic_runs.header()
    foreign = Metric("sparkle", ("qkv",), "share", "", "", "")
    with pytest.raises(EngineError, match="qkv/sparkle"):
        Engine(msgspec.structs.replace(header, metrics=(*METRICS, foreign)), trained)


def test_frames_of_another_header_are_refused(trained):
    engine = Engine(synthetic_runs.header("bert", 2), trained)
    with pytest.raises(EngineError, match="columns"):
        engine.update(synthetic_runs.frames(synthetic_runs.header("bert", 3), 1)[0])


def test_other_ranks_change_nothing(trained):
    header = synthetic_runs.header()
    engine = Engine(header, trained)
    frame = synthetic_runs.frames(header, 1)[0]
    assert engine.update(msgspec.structs.replace(frame, rank=1)).frames == 0
    assert engine.update(frame).frames == 1


def test_a_later_header_keeps_the_diagnosis_going(trained):
    header = synthetic_runs.header("bert", 3)
    frames = synthetic_runs.frames(header, 20, 5, "masking/mask_application", 1, start=50)
    engine = Engine(header, trained)
    for frame in frames[:14]:
        before = engine.update(frame)
    engine.rebind(msgspec.structs.replace(header, columns=header.columns[::-1], revision=1))
    for frame in frames[14:]:
        reverse = frame.array[::-1].tobytes()
        after = engine.update(msgspec.structs.replace(frame, values=reverse))
    assert before.first_flagged_step == after.first_flagged_step is not None
    assert after.category == "masking"


def test_saved_weights_give_the_same_diagnosis(trained, weights_file):
    header = synthetic_runs.header("llama", 2)
    frames = synthetic_runs.frames(header, 10, 6, "ffn/neuron_dropout", 1)
    assert diagnose(trained, header, frames) == diagnose(weights_file, header, frames)


def test_weights_for_other_features_are_refused_by_name(weights_file, tmp_path):
    other = tmp_path / "other.safetensors"
    trained = weights.load(weights_file)
    names = {**trained.network.names, "qkv": (*trained.network.names["qkv"][1:], "glow:level")}
    metadata = _metadata(weights_file)
    metadata["features"] = names
    save_file(load_file(weights_file), other, {"diagnoser": msgspec.json.encode(metadata).decode()})
    with pytest.raises(weights.WeightsError, match="unknown here: qkv/glow:level"):
        weights.load(other)


def _metadata(path):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stored:
        return msgspec.json.decode(stored.metadata()["diagnoser"])


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x04}."])
def test_unreadable_weights_give_one_clear_line(tmp_path, content):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=r"diagnoser\.train") as caught:
        Engine(synthetic_runs.header(), path)
    assert "\n" not in str(caught.value)
    with pytest.raises(EngineError, match="no weights at"):
        Engine(synthetic_runs.header(), tmp_path / "absent")


def test_the_fast_replay_of_the_evaluation_answers_as_the_engine(trained, synthetic_corpus):
    from probe.schema import Frame, Header
    from probe.trace import load

    for run in synthetic_corpus.runs[::7]:
        found = replay(trained, run, synthetic_corpus.features(run))
        records = list(load(synthetic_corpus.manifest.trace(run)))
        header = next(record for record in records if isinstance(record, Header))
        engine = Engine(header, trained)
        for record in records:
            if isinstance(record, Frame):
                engine.update(record)
        live = engine.diagnosis
        assert found.faulty == (live.verdict == "faulty"), run.id
        assert found.probability == pytest.approx(live.probability, abs=5e-3)
        assert (found.category, found.root_cause) == (live.category, live.root_cause)
        assert found.layers == live.layers
        assert found.first_flagged_step == live.first_flagged_step


def test_values_of_infinity_and_nan_do_not_break_the_diagnosis(trained):
    header = synthetic_runs.header()
    engine = Engine(header, trained)
    for frame in synthetic_runs.frames(header, 8):
        array = frame.array.copy()
        array[::3] = np.inf
        array[1::3] = np.nan
        found = engine.update(msgspec.structs.replace(frame, values=array.tobytes()))
        assert 0.0 <= found.probability <= 1.0
