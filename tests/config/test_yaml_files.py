"""The plugin's YAML: numbers are numbers, and nothing but data can be written in it."""

import pytest

from recbole_m3rec.config.yaml_files import ConfigurationError, read_yaml


@pytest.fixture
def read(tmp_path):
    def of(text):
        path = tmp_path / "file.yaml"
        path.write_text(text, encoding="utf-8")
        return read_yaml(path)

    return of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E3", 1e3),
        ("-1.5e+2", -150.0),
        (".5e1", 5.0),
        ("1.e2", 100.0),
        ("0.001", 0.001),
        ("12", 12),
        ("e3", "e3"),
        ("1e", "1e"),
        ("e5mall", "e5mall"),
        ("1e-3s", "1e-3s"),
        ("[5,inf)", None),
    ],
)
def test_numbers_are_numbers_and_words_are_words(read, text, value):
    if value is None:
        assert read(f'key: "{text}"') == {"key": text}
    else:
        got = read(f"key: {text}")["key"]
        assert got == value
        assert type(got) is type(value)


def test_an_empty_file_has_no_keys(read):
    assert read("# nothing\n") == {}


@pytest.mark.parametrize("text", ["key: !!python/object/apply:os.getcwd []", "key: [1", "\x00"])
def test_anything_but_data_is_refused_with_the_files_name(read, text):
    with pytest.raises(ConfigurationError, match=r"file\.yaml is no valid YAML"):
        read(text)


@pytest.mark.parametrize("text", ["- a\n- b\n", "word", "1: 2\n"])
def test_a_file_without_named_values_is_refused(read, text):
    with pytest.raises(ConfigurationError, match=r"must hold lines of `key: value`"):
        read(text)
