"""The command line in this process: statuses, sentences, and what is not imported."""

import json
import runpy
import subprocess
import sys
from contextlib import closing

import pytest
from streams import a_run, event, frame, header, scalars, store

from diagnoser.diagnosis import Diagnosis
from monitor import cli, stream_diagnosis
from monitor.commands import replay
from probe.schema import Frame, Header


class Engine:
    """Faulty where the first value is over 1, insufficient before three frames."""

    def __init__(self, header):
        self.header = header
        self.frames = 0

    def update(self, frame):
        self.frames += 1
        over = float(frame.array[0]) > 1
        verdict = "insufficient" if self.frames < 3 else "faulty" if over else "healthy"
        return Diagnosis(
            run=self.header.run,
            frames=self.frames,
            last_step=frame.step,
            verdict=verdict,
            probability=0.9 if over else 0.1,
            category="masking" if verdict == "faulty" else None,
        )


@pytest.fixture(autouse=True)
def places(monkeypatch, tmp_path):
    monkeypatch.setenv("DEFAULTPP_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "runtime").mkdir(mode=0o700)
    monkeypatch.setenv("DEFAULTPP_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.delenv("DEFAULTPP_DEBUG", raising=False)
    monkeypatch.setenv("DEFAULTPP_SETTINGS", "")


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.setattr(stream_diagnosis, "load_engine", lambda: Engine)


def status_of(*arguments):
    try:
        return cli.main(arguments)
    except SystemExit as stop:  # argparse
        return stop.code


def one_line(capsys):
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert err.count("\n") == 1
    return err


def test_help_and_version_load_nothing_heavy():
    code = (
        "import sys; from monitor.cli import main\n"
        "for words in (['--help'], ['demo', '--help'], ['diagnose', '--help']):\n"
        "    try: main(words)\n"
        "    except SystemExit as stop: assert stop.code == 0\n"
        "main(['--version'])\n"
        "heavy = {'torch', 'textual', 'transformers', 'numpy', 'zmq', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "defaultpp-monitor demo" in done.stdout


def test_the_console_script_leaves_without_waiting_for_threads_and_says_all_it_said():
    code = (
        "import sys, threading; from monitor.cli import entry\n"
        "threading.Thread(target=threading.Event().wait).start()  # the interpreter would wait\n"
        "sys.argv[1:] = ['--version']\n"
        "entry()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("defaultpp-monitor ")


@pytest.mark.parametrize(
    "words",
    [
        ["frobnicate"],
        ["diagnose"],
        ["replay", "x", "--speed", "fast"],
        ["demo", "--model", "t5"],
        ["demo", "--json"],
        ["demo", "--fault", "masking"],
        ["demo", "--fault", "masking/nothing"],
        ["demo", "--fault", "kv_cache/cache_position"],
        ["demo", "--fault", "variant/dynamic_dispatch", "--model", "gpt2"],
        ["demo", "--seed", "7"],
        ["demo", "--steps", "0"],
        ["--fps", "900"],
        ["export", "x.trace", "-o", "x.xlsx"],
    ],
)
def test_wrong_usage_is_one_line_and_64(words, capsys):
    assert status_of(*words) == 64
    one_line(capsys)


def test_what_a_decoder_needs_is_said(capsys):
    status_of("demo", "--fault", "kv_cache/cache_position")
    assert "needs a decoder: --model gpt2 or llama" in one_line(capsys)


@pytest.mark.parametrize("command", ["diagnose", "replay", "export"])
@pytest.mark.parametrize("content", [None, b"", b"no trace, but long enough to be looked at twice"])
def test_an_unreadable_trace_is_one_line_and_3(command, content, capsys, tmp_path):
    path = tmp_path / "given"
    if content is not None:
        path.write_bytes(content)
    more = ["-o", str(tmp_path / "x.csv")] if command == "export" else []
    assert status_of(command, str(path), *more) == 3
    assert str(path) in one_line(capsys)


def test_a_trace_without_a_header_is_3(tmp_path, capsys):
    path = store(tmp_path / "t.trace", [event(0, 0)])
    assert status_of("diagnose", str(path)) == 3
    assert "before its model was seen" in one_line(capsys)


@pytest.mark.parametrize(
    ("frames", "value", "status", "verdict"),
    [(5, 0.5, 0, "healthy"), (5, 2.0, 1, "faulty"), (2, 0.5, 2, "insufficient"), (0, 0, 2, None)],
)
def test_the_status_of_diagnose_is_the_verdict(
    engine, tmp_path, capsys, frames, value, status, verdict
):
    records = [header(), *[frame(n + 1, n, values=(value, 1, 1)) for n in range(frames)]]
    path = store(tmp_path / "t.trace", records)
    assert status_of("diagnose", str(path), "--json") == status
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == (verdict or "insufficient")
    assert told["frames"] == frames
    assert told["run"] == header().run


def test_the_json_has_the_stable_keys(engine, tmp_path, capsys):
    status_of("diagnose", str(store(tmp_path / "t.trace", a_run())), "--json")
    assert list(json.loads(capsys.readouterr().out))[:10] == [
        "run",
        "frames",
        "last_step",
        "verdict",
        "probability",
        "first_flagged_step",
        "category",
        "category_probability",
        "unsure",
        "root_cause",
    ]


def test_a_crash_is_told_beside_the_verdict(engine, tmp_path, capsys):
    details = {"type": "RuntimeError", "message": "No available kernel.", "site": "attention@1"}
    died = event(0, 90, kind="crash", text="RuntimeError in the forward at attention@1")
    died.details = details
    *records, ending = a_run()
    path = store(tmp_path / "t.trace", [*records, died, ending])
    assert status_of("diagnose", str(path)) == 0
    shown = capsys.readouterr().out
    assert "died at step 90: RuntimeError in the forward at attention@1" in shown
    assert "likely kernel" in shown
    status_of("diagnose", str(path), "--json")
    told = json.loads(capsys.readouterr().out)["crash"]
    assert (told["category"], told["heuristic"], told["step"]) == ("kernel", 4, 90)


def test_the_package_runs_as_the_command_does(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["monitor", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("monitor", run_name="__main__")
    assert ended.value.code == 0
    assert "demo" in capsys.readouterr().out


def test_what_could_not_be_read_of_a_trace_is_told(engine, tmp_path, capsys):
    path = store(tmp_path / "t.trace", a_run())
    content = bytearray(path.read_bytes())
    content[-200] ^= 255
    path.write_bytes(content)
    status_of("diagnose", str(path), "--json")
    told = capsys.readouterr()
    assert "1 places in it cannot be read: the verdict is of the rest" in told.err
    assert told.out.startswith("{")


def test_a_torn_trace_is_diagnosed_up_to_the_tear(engine, tmp_path, capsys):
    path = store(tmp_path / "t.trace", a_run(ended=False))
    path.write_bytes(path.read_bytes()[:-7])
    assert status_of("diagnose", str(path), "--json") == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 9


def test_no_run_says_what_to_put_into_the_script(capsys):
    assert status_of() == 3
    err = capsys.readouterr().err
    assert "probe.attach(model, optimizer)" in err
    assert "Traceback" not in err


def test_an_unknown_run_is_one_line_and_3(capsys):
    assert status_of("attach", "bert-9") == 3
    assert "bert-9" in one_line(capsys)


def test_a_file_given_to_attach_points_to_replay(tmp_path, capsys):
    path = store(tmp_path / "t.trace", a_run())
    assert status_of("attach", str(path)) == 64
    assert f"replay {path}" in one_line(capsys)


def test_the_screen_without_a_terminal_points_to_the_other_commands(tmp_path, capsys):
    path = store(tmp_path / "t.trace", a_run())
    assert status_of("replay", str(path)) == 64
    assert "watch, diagnose or demo --headless" in one_line(capsys)


def test_list_without_runs(capsys):
    assert status_of("list") == 0
    assert "No live run" in capsys.readouterr().err
    assert status_of("list", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_an_internal_error_is_one_line_with_the_way_to_more(monkeypatch, capsys):
    monkeypatch.setattr(cli.listing, "run", lambda options: 1 / 0)
    assert status_of("list") == 70
    assert "DEFAULTPP_DEBUG=1" in one_line(capsys)


def test_the_debug_variable_shows_the_traceback(monkeypatch, capsys):
    monkeypatch.setattr(cli.listing, "run", lambda options: 1 / 0)
    monkeypatch.setenv("DEFAULTPP_DEBUG", "1")
    status_of("list")
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_quiet(monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.listing, "run", interrupted)
    assert status_of("list") == 130
    assert capsys.readouterr().err == ""


def test_a_reader_that_leaves_is_no_error():
    code = "from monitor.cli import main; import sys; sys.exit(main(['doctor']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""


def test_doctor_finds_what_would_fail(monkeypatch, tmp_path, capsys):
    assert status_of("doctor") == 0
    assert "torch" in capsys.readouterr().out
    (tmp_path / "runtime").chmod(0o755)
    assert status_of("doctor") == 1
    out = capsys.readouterr().out
    assert "FAIL sockets" in out
    assert "chmod 700" in out


def test_export_writes_frames_and_scalars(tmp_path, capsys):
    nan = float("nan")
    records = [
        header(),
        frame(1, 0, values=(0.1, nan, 3)),
        scalars(2, [0, 1], [0.5, 0.25]),
        frame(3, 10),
    ]
    path = store(tmp_path / "t.trace", records)
    output = tmp_path / "x.csv"
    assert status_of("export", str(path), "-o", str(output)) == 0
    assert "2 rows" in capsys.readouterr().out
    lines = output.read_text().splitlines()
    assert lines[0] == "step,rank,time,attention@0/entropy,attention@0/rms,output/rms"
    assert lines[1] == "0,0,1000.000000,0.100000001,,3"
    beside = (tmp_path / "x.scalars.csv").read_text().splitlines()
    assert beside == ["step,rank,time,loss", "0,0,1000.000000,0.5", "1,0,1001.000000,0.25"]
    assert status_of("export", str(path), "-o", str(output)) == 64
    assert "--force" in one_line(capsys)
    assert status_of("export", str(path), "-o", str(output), "--force") == 0


@pytest.mark.parametrize(("words", "step"), [([], 0), (["--at", "20"], 20)])
def test_a_paused_replay_shows_the_model_and_a_frame(words, step, tmp_path, monkeypatch):
    # As the probe writes it: what it says of itself may come before the header.
    first, *others = a_run()
    path = store(tmp_path / "t.trace", [event(0, 0), first, *others])
    shown = []

    def show(source, options):
        with closing(source):
            for _ in range(9):
                shown.extend(source.read(timeout=0.01).records)
            assert not source.position().playing
        return 0

    monkeypatch.setattr(replay, "require_terminal", lambda source: None)
    monkeypatch.setattr(replay, "show", show)
    assert status_of("replay", str(path), "--paused", *words) == 0
    assert any(isinstance(record, Header) for record in shown)
    assert [record.step for record in shown if isinstance(record, Frame)][-1] == step
