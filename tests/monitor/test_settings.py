import pytest

from monitor import settings as settings_file
from monitor.checkup import settings as checked
from monitor.key_table import KeyTable, remapped, shown_name, textual_name
from monitor.settings import EXAMPLE, Settings, load, settings_path


def written(path, text):
    path.write_text(text)
    return load(path)


def test_the_example_is_taken_as_it_is(tmp_path):
    found = written(tmp_path / "settings.toml", EXAMPLE)
    assert found.complaints == ()
    assert found == Settings(
        theme="monitor-light",
        smoothing=0.9,
        charts=6,
        keys={"charts.filter": "f3", "views.next-view-1": "n,ctrl+n"},
    )
    table, complaints = remapped(found.keys)
    assert complaints == ()
    assert table.named("charts.filter").keys == "f3"


def test_no_file_sets_nothing(tmp_path):
    assert load(tmp_path / "none.toml") == Settings()


@pytest.mark.parametrize(
    ("text", "field", "kept", "told"),
    [
        ("fps = 900", "fps", 30.0, "not within 0.5 and 30"),
        ("fps = 'fast'", "fps", 4.0, "not a number"),
        ("fps = nan", "fps", 4.0, "not a number"),
        ("smoothing = 0.85", "smoothing", 0.9, "0.9, the nearest"),
        ("charts = 100", "charts", 12, "12, the nearest"),
        ("charts = true", "charts", 0, "not one of 0, 1, 2"),
        ("axis = 'clock'", "axis", "step", 'neither "step" nor "time"'),
        ("ascii = 1", "ascii", False, "neither true nor false"),
        ("theme = 3", "theme", None, "not a name in quotes"),
        ("keys = 3", "keys", {}, "write [keys]"),
        ("[keys]\ncharts.filter = 'f3'", "keys", {}, "put the name in quotes"),
        ("[keys]\n'charts.filter' = 3", "keys", {}, "not a key"),
        ("colour = 1", "theme", None, "colour is no setting"),
        ("fps = = 3", "fps", 4.0, "not TOML, nothing of it is used"),
    ],
)
def test_a_bad_line_is_told_and_the_rest_is_used(tmp_path, text, field, kept, told):
    found = written(tmp_path / "settings.toml", f"{text}\n")
    assert getattr(found, field) == kept
    assert len(found.complaints) == 1
    assert told in found.complaints[0]
    assert "settings.toml" in found.complaints[0]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a" * 300_000])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, content):
    path = tmp_path / "settings.toml"
    path.write_bytes(content)
    assert "cannot be read" in load(path).complaints[0]
    assert "cannot be read" in load(tmp_path).complaints[0]  # a directory


def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.delenv(settings_file.PATH_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert settings_path() == tmp_path / "defaultpp-monitor" / "settings.toml"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert settings_path().parts[-3:] == (".config", "defaultpp-monitor", "settings.toml")
    monkeypatch.setenv(settings_file.PATH_VARIABLE, "")
    assert settings_path() is None
    assert load() == Settings()


def test_doctor_tells_every_bad_line(monkeypatch, tmp_path):
    path = tmp_path / "s.toml"
    monkeypatch.setenv(settings_file.PATH_VARIABLE, str(path))
    assert [finding.level for finding in checked()] == ["ok"]
    path.write_text("fps = 900\n[keys]\n'charts.filter' = 'no such'\n")
    found = list(checked())
    assert [finding.level for finding in found] == ["note", "note"]
    assert "no such key" in found[1].text
    path.write_text("fps = 9\n")
    assert [finding.text for finding in checked()] == [str(path)]


@pytest.mark.parametrize(
    ("word", "name", "shown"),
    [
        ("n", "n", "n"),
        ("N", "N", "N"),
        ("[", "left_square_bracket", "["),
        ("/", "slash", "/"),
        ("-", "minus", "−"),
        ("+", "plus", "+"),
        ("minus", "minus", "−"),
        ("f3", "f3", "f3"),
        ("ctrl+n", "ctrl+n", "ctrl+n"),
        ("pagedown", "pagedown", "PgDn"),
        ("left_curly_bracket", "left_curly_bracket", "{"),
        ("hyper+n", None, ""),
        ("nothing", None, ""),
        ("ctrl+", None, ""),
    ],
)
def test_keys_are_read_as_a_person_writes_them(word, name, shown):
    assert textual_name(word) == name
    if name:
        assert shown_name(name) == shown


def test_every_key_of_the_table_is_one_that_can_be_written():
    for key in KeyTable().keys:
        for name in key.keys.split(","):
            assert textual_name(name) == name
            assert shown_name(name)


def test_a_key_that_is_taken_stays_where_it_is():
    table, complaints = remapped({"charts.filter": "l"})
    assert '"charts.toggle-log" has that key' in complaints[0]
    assert table.named("charts.filter").keys == "slash"
    # Free in every view of the command: taken in another view is no clash.
    table, complaints = remapped({"charts.grid": "r"})
    assert complaints == ()
    assert "no command" in remapped({"charts.nothing": "r"})[1][0]


def test_in_ascii_arrows_are_told_by_name():
    table = KeyTable().in_ascii()
    assert all(key.shown.isascii() for key in table.keys)
    assert table.of("cursor(-1)").shown == "left"
    assert table.of("slower").shown == "<"
    assert [key.keys for key in table.keys] == [key.keys for key in KeyTable().keys]
