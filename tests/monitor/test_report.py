"""The report: one file with everything in it, whatever the run says."""

import re
from html.parser import HTMLParser

import msgspec
import numpy as np
import pytest
from curves import curve
from scripted_engine import ScriptedEngine
from streams import event, store

from monitor import stream_diagnosis
from monitor.charts.line_chart import ChartData
from monitor.cli import main
from monitor.report import svg_chart
from monitor.report.gathering import CHARTS, gather
from monitor.report.page import page
from monitor.sources.fake import Script, records
from probe.schema import Header

VOID = {"meta", "br", "link", "img"}


class Balanced(HTMLParser):
    """Every element that is opened is closed, in order."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.links, self.tags = [], set(), set(), set()

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.add(tag)
        self.ids.add(found.get("id"))
        self.links |= {found[name] for name in ("href", "src") if name in found}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag


def parsed(text):
    reader = Balanced()
    reader.feed(text)
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    script = Script(fault_step=200, nan_steps=(120,), layers=3)
    found = list(records(script))
    hostile = '<script>alert("x")</script>'
    found[0] = msgspec.structs.replace(found[0], name=f"bert {hostile}")
    found.insert(3, event(2, 1, "note", f"{hostile} & more"))
    return store(tmp_path_factory.mktemp("report") / "run.trace", found)


@pytest.fixture(scope="module")
def text(trace):
    return page(gather(trace, factory=ScriptedEngine))


def test_it_tells_what_is_wrong_since_when_and_what_to_try(text):
    for part in (
        "FAULTY", "masking › mask application", "layer 2", "since step 200",
        "Pass the mask to the attention call", "31 % of the pairs", "masking › mask generation",
        "✗ FAULTY: steps 200 to 390", "3 layers × 128", "the batch is not packed",
    ):  # fmt: skip
        assert part in text, part


def test_it_needs_nothing_beside_it_and_leads_from_evidence_to_charts(text):
    found = parsed(text)
    assert found.links
    assert {link[0] for link in found.links} == {"#"}
    assert {link[1:] for link in found.links} <= found.ids
    assert "chart-mask-leaked" in found.ids
    assert "@import" not in text
    assert "url(" not in text
    assert text.count('<svg class="chart"') == CHARTS


def test_what_a_run_says_is_never_markup(text):
    assert text.count("<script>") == 1  # our own
    assert "&lt;script&gt;alert(" in text


def test_a_pattern_adds_charts(trace):
    more = gather(trace, "^norm_ffn/", ScriptedEngine)
    assert [key for key in more.charts if key.startswith("norm_ffn/")]
    assert len(more.charts) > CHARTS


def test_a_healthy_report_has_no_causes(tmp_path):
    path = store(tmp_path / "h.trace", list(records(Script(steps=100))))
    text = page(gather(path, factory=ScriptedEngine))
    parsed(text)
    assert "✓</span> healthy" in text
    assert "Nothing speaks for a fault" in text
    assert "What it may be" not in text


def test_a_spike_is_drawn_and_a_gap_is_not_bridged():
    values = np.ones(2000)
    values[777] = 50.0
    values[1500] = np.nan
    stretches = svg_chart.reduced(curve(values, every=10, capacity=2048), (0, 19990))
    assert max(column.high for stretch in stretches for column in stretch) == 50.0
    assert sum(len(stretch) for stretch in stretches) < 300
    assert len(stretches) > 1
    data = ChartData("a", (curve([1.0, np.nan, np.inf, 2.0], every=10),), (0, 30))
    drawn = svg_chart.draw(data)
    assert "NaN at step 10" in drawn
    assert "+infinity at step 20" in drawn
    assert len(re.findall('class="dot', drawn)) == 2


def test_a_healthy_range_is_a_band_and_nothing_is_drawn_of_nothing():
    data = ChartData("a", (curve([0.0, 1.0, 2.0], every=10),), (0, 20), healthy=(0.0, 1.0))
    assert 'class="healthy"' in svg_chart.draw(data)
    beyond = ChartData("a", (curve([5.0, 6.0], every=10),), (0, 10), healthy=(0.0, 1.0))
    assert 'class="healthy"' not in svg_chart.draw(beyond)
    empty = ChartData("a", (curve([np.nan, np.nan], every=10),), (0, 10), absent="no <such> thing")
    assert "no &lt;such&gt; thing" in svg_chart.draw(empty)


def test_the_command_writes_a_file_once(trace, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stream_diagnosis, "load_engine", lambda: ScriptedEngine)
    output = tmp_path / "report.html"
    words = ["report", str(trace), "-o", str(output)]
    assert main(words) == 0
    assert output.read_text().startswith("<!DOCTYPE html>")
    capsys.readouterr()
    assert main(words) == 64
    assert "--force" in capsys.readouterr().err
    assert main([*words, "--force", "--charts", "("]) == 64
    assert "not a regular expression" in capsys.readouterr().err
    assert main(["report", str(trace), "-o", str(tmp_path / "no" / "x.html")]) == 3


def test_a_run_without_a_model_has_no_report(tmp_path, capsys):
    path = store(tmp_path / "e.trace", [event(0, 0)])
    assert not isinstance(event(0, 0), Header)
    assert main(["report", str(path), "-o", str(tmp_path / "x.html")]) == 3
    assert "before its model was seen" in capsys.readouterr().err
