"""Trainers as people use them: followed step by step, and nothing changes by being watched."""

from __future__ import annotations

import contextlib
import importlib

import numpy as np
import pytest
import torch
from family_grid import over
from tiny_models import Seen, batch, make
from training_loops import kinds, scalar

import probe

STEPS = 4


def works_with(name, *params):
    return pytest.param(*params, id=name, marks=pytest.mark.works_with("Trainers", name))


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rows(count, size=4):
    torch.manual_seed(3)
    return [batch("gpt2", size) for _ in range(count)]


def state(model):
    return [p.detach().clone() for p in model.parameters()], torch.get_rng_state()


def same(one, two):
    return torch.equal(one[1], two[1]) and all(map(torch.equal, one[0], two[0]))


def check(path, steps=range(STEPS), losses=True):
    """Every step has a frame of its own, in which no contract fires."""
    seen = Seen(path)
    assert not kinds(seen, "probe_off") and not kinds(seen, "crash")
    assert [frame.step for frame in seen.frames] == list(steps)
    assert over(seen) == {}
    assert (seen["qkv@1/update_ratio"] > 0).all() and (seen["training/grad_norm"] > 0).all()
    if losses:
        assert np.isfinite(seen["training/loss"]).all()
    return seen


# -- the transformers Trainer ----------------------------------------------------------------------


class Rows(torch.utils.data.Dataset):
    def __init__(self, count):
        self.rows = [
            {name: value[at] for name, value in row.items()}
            for row in rows(count // 4)
            for at in range(4)
        ]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, at):
        return self.rows[at]


def trained_by_hugging_face(folder, callbacks, resume=None, model=None, **options):
    from transformers import Trainer, TrainingArguments

    chosen = {"max_steps": STEPS, "save_strategy": "no", "report_to": [], "logging_steps": 1}
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=2, learning_rate=1e-3, use_cpu=True,
        disable_tqdm=True, **chosen | {"run_name": "mine"} | options,
    )  # fmt: skip
    model = make("gpt2") if model is None else model
    data = {"train_dataset": Rows(32), "eval_dataset": Rows(4)}
    trainer = Trainer(model=model, args=arguments, callbacks=callbacks, **data)
    trainer.train(resume_from_checkpoint=resume)
    return state(model), trainer


def callback(path, **options):
    from probe.huggingface import ProbeCallback

    return ProbeCallback(trace=path, endpoint=False, every=1, budget=None, **options)


BEST = {
    "load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2,
    "save_strategy": "steps", "save_steps": 2, "metric_for_best_model": "loss",
}  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        works_with("HF Trainer", {}),
        works_with("HF Trainer, gradient accumulation", {"gradient_accumulation_steps": 3}),
        works_with("HF Trainer, bf16", {"bf16": True}),
        works_with("HF Trainer, `load_best_model_at_end`", BEST),
    ],
)
def test_hugging_face_trainer(options, tmp_path):
    plain, trainer = trained_by_hugging_face(tmp_path / "a", [], **options)
    watched, _ = trained_by_hugging_face(tmp_path / "b", [callback(tmp_path / "t")], **options)
    assert same(plain, watched)
    seen = check(tmp_path / "t")
    assert seen.header.name == "mine"
    logged = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    tolerance = 2e-2 if "bf16" in options else 1e-3  # the Trainer rounds what it logs
    np.testing.assert_allclose(list(scalar(seen, "loss").values()), logged, rtol=tolerance)
    if options is BEST:
        assert [event.step for event in kinds(seen, "validation")] == [2, 4]


@pytest.mark.works_with("Trainers", "HF Trainer, `torch_compile`")
def test_hugging_face_trainer_compiles(tmp_path):
    torch._dynamo.reset()
    options = {"torch_compile": True, "torch_compile_backend": "eager"}
    plain, _ = trained_by_hugging_face(tmp_path / "a", [], **options)
    torch._dynamo.reset()
    watched, _ = trained_by_hugging_face(tmp_path / "b", [callback(tmp_path / "t")], **options)
    assert same(plain, watched)
    seen = check(tmp_path / "t", losses=False)
    assert "compiled" in seen.header.absent["forward"]


@pytest.mark.works_with("Trainers", "HF Trainer, resumed from a checkpoint")
def test_hugging_face_trainer_resumes(tmp_path):
    """The run goes on under its name and goes on counting; so do its weights."""
    saving = {"save_strategy": "steps", "save_steps": 2}
    whole, _ = trained_by_hugging_face(tmp_path / "a", [callback(tmp_path / "one")], **saving)
    checkpoint = str(tmp_path / "a" / "checkpoint-2")
    resumed, _ = trained_by_hugging_face(
        tmp_path / "b", [callback(tmp_path / "two")], resume=checkpoint, **saving
    )
    assert all(map(torch.equal, whole[0], resumed[0]))
    one, two = Seen(tmp_path / "one"), check(tmp_path / "two", range(2, STEPS))
    assert one.header.name == two.header.name == "mine"
    assert scalar(two, "loss")[3] == pytest.approx(scalar(one, "loss")[3])


# -- Accelerate ------------------------------------------------------------------------------------


def trained_by_accelerate(path, accumulation, precision, split=False):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        gradient_accumulation_steps=accumulation, mixed_precision=precision, cpu=True
    )
    own = make("gpt2")
    parameters = list(own.parameters())
    groups = [parameters[:2], parameters[2:]] if split else [parameters]  # embeddings, the rest
    made = [torch.optim.AdamW(group, lr=1e-3) for group in groups]
    model, *optimizers = accelerator.prepare(own, *made)
    watching = contextlib.nullcontext()
    if path is not None:
        options = {"trace": path, "endpoint": False, "every": 1, "budget": None}
        watching = probe.attach(model, optimizers, **options)
    torch.manual_seed(7)
    with watching:
        for _ in range(STEPS * accumulation):
            with accelerator.accumulate(model):
                loss = model(**batch("gpt2")).loss
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 0.5)
                for optimizer in optimizers:
                    optimizer.step()
                    optimizer.zero_grad()
    AcceleratorState._reset_state(reset_partial_state=True)
    return state(own)


@pytest.mark.parametrize(
    ("accumulation", "precision", "split"),
    [
        works_with("Accelerate", 1, "no", False),
        works_with("Accelerate, gradient accumulation", 3, "no", False),
        works_with("Accelerate, bf16", 1, "bf16", False),
        works_with("Accelerate, gradient accumulation, two optimizers", 3, "no", True),
    ],
)
def test_accelerate(accumulation, precision, split, tmp_path):
    pytest.importorskip("accelerate")
    plain = trained_by_accelerate(None, accumulation, precision, split)
    watched = trained_by_accelerate(tmp_path / "t", accumulation, precision, split)
    assert same(plain, watched)
    seen = check(tmp_path / "t")
    np.testing.assert_allclose(seen["training/grad_norm"], 0.5, rtol=1e-2)


# -- Lightning -------------------------------------------------------------------------------------


def trained_by_lightning(package, path, whole, accumulation, precision, fails=False):
    lightning = importlib.import_module(package)
    import probe.lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = make("gpt2")

        def forward(self, **given):
            return self.model(**given)

        def training_step(self, given, at):
            if fails and at == 2:
                raise RuntimeError("made on purpose")
            return (self if whole else self.model)(**given).loss

        def validation_step(self, given, at):
            self.log("val_loss", self.model(**given).loss)

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

    def loader(count):
        return torch.utils.data.DataLoader(rows(count), batch_size=None)

    module = Module()
    callbacks = []
    if path is not None:
        options = {"trace": path, "endpoint": False, "every": 1, "budget": None}
        callbacks = [probe.lightning.ProbeCallback(**options)]
        assert isinstance(callbacks[0], lightning.Callback)
    trainer = lightning.Trainer(
        max_epochs=2, accumulate_grad_batches=accumulation, precision=precision,
        callbacks=callbacks, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    torch.manual_seed(7)
    trainer.fit(module, loader(STEPS * accumulation // 2), loader(2))
    assert path is None or callbacks[0].probe is None  # closed
    return state(module)


LIGHTNING, PYTORCH_LIGHTNING = "lightning.pytorch", "pytorch_lightning"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("package", "whole", "accumulation", "precision"),
    [
        works_with("Lightning", LIGHTNING, False, 1, "32-true"),
        works_with("Lightning, `self(...)` in the step", LIGHTNING, True, 1, "32-true"),
        works_with("Lightning, gradient accumulation", LIGHTNING, False, 2, "32-true"),
        works_with("Lightning, bf16", LIGHTNING, False, 1, "bf16-mixed"),
        works_with("Lightning as `pytorch_lightning`", PYTORCH_LIGHTNING, False, 1, "32-true"),
    ],
)
def test_lightning(package, whole, accumulation, precision, tmp_path):
    pytest.importorskip(package.partition(".")[0])
    given = (whole, accumulation, precision)
    plain = trained_by_lightning(package, None, *given)
    watched = trained_by_lightning(package, tmp_path / "t", *given)
    assert same(plain, watched)
    seen = check(tmp_path / "t")
    validations = kinds(seen, "validation")  # not that of the sanity check
    assert [event.step for event in validations] == [STEPS // 2, STEPS]


@pytest.mark.filterwarnings("ignore")
def test_lightnings_exception_is_told(tmp_path):
    pytest.importorskip("lightning")
    with pytest.raises(RuntimeError, match="made on purpose"):
        trained_by_lightning(LIGHTNING, tmp_path / "t", True, 2, "32-true", fails=True)
    seen = Seen(tmp_path / "t")
    assert [event.details["message"] for event in kinds(seen, "crash")] == ["made on purpose"]
    assert seen.records[-1].reason == "stopped by RuntimeError"


# -- TRL -------------------------------------------------------------------------------------------


def trained_by_trl(folder, callbacks, **options):
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    words = models.WordLevel({f"t{i}": i for i in range(100)}, unk_token="t1")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), pad_token="t0", eos_token="t2", unk_token="t1"
    )
    torch.manual_seed(3)
    data = Dataset.from_dict({"input_ids": torch.randint(5, 100, (32, 20)).tolist()})
    model = make("llama")
    arguments = SFTConfig(
        output_dir=str(folder), max_steps=STEPS, per_device_train_batch_size=2, max_length=16,
        learning_rate=1e-3, use_cpu=True, bf16=False, report_to=[], save_strategy="no",
        disable_tqdm=True, logging_steps=1, run_name="mine", **options,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=model, args=arguments, train_dataset=data, processing_class=tokenizer,
        callbacks=callbacks,
    )  # fmt: skip
    trainer.train()
    return state(model)


@pytest.mark.parametrize(
    "options",
    [
        works_with("TRL's SFTTrainer", {}),
        works_with("TRL's SFTTrainer, packing", {"packing": True}),
    ],
)
def test_supervised_fine_tuning_with_trl(options, tmp_path):
    pytest.importorskip("trl", reason="trl is not installed")
    plain = trained_by_trl(tmp_path / "a", [], **options)
    watched = trained_by_trl(tmp_path / "b", [callback(tmp_path / "t")], **options)
    assert same(plain, watched)
    assert check(tmp_path / "t").header.name == "mine"
