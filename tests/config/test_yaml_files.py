"""The plugin's YAML: numbers are numbers, and nothing but data can be written in it."""

import re

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


@pytest.mark.parametrize(
    ("text", "where", "meaning"),
    [
        ("a: 1\nb: 010\n", "line 2: b: YAML 1.1 takes 010", "8"),
        ("a: -0_17\n", "line 1: a: YAML 1.1 takes -0_17", "-15"),
        ("time: 1:30\n", "line 1: time: YAML 1.1 takes 1:30", "90"),
        ("time: 1:30.5\n", "line 1: time: YAML 1.1 takes 1:30.5", "90.5"),
        ("a:\n  b:\n    - [de, No]\n", "line 3: YAML 1.1 takes No", "false"),
        ("a: {on: 1}\n", "line 1: YAML 1.1 takes on", "true"),
    ],
)
def test_values_that_are_not_what_they_look_like_are_refused(read, text, where, meaning):
    with pytest.raises(ConfigurationError) as refused:
        read(text)
    said = str(refused.value)
    assert f"file.yaml, {where} for {meaning}. Write {meaning} if you mean that, or '" in said


def test_a_word_for_true_or_false_is_that_where_a_key_has_it(read):
    assert read("a: no\nb: {c: Yes}\nd: 00\n") == {"a": False, "b": {"c": True}, "d": 0}


def test_aliases_of_aliases_are_read_once_each(read):
    lists = ["l0: &l0 [1]"] + [
        f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 30)
    ]
    assert read("\n".join(lists))["l1"] == [[1]] * 9


def test_in_quotes_they_are_texts_and_dates_are_texts_anyway(read):
    text = "a: '010'\nb: \"no\"\nc: [2024-01-01, 0, 0x10, 09, '1:30', nope]\nd: true\n"
    assert read(text) == {
        "a": "010",
        "b": "no",
        "c": ["2024-01-01", 0, 16, "09", "1:30", "nope"],
        "d": True,
    }


def test_an_empty_file_has_no_keys(read):
    assert read("# nothing\n") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("key: !!python/object/apply:os.getcwd []", ", line 1, is no valid YAML: could not"),
        ("a: 1\nkey: [1\nb: }", ", line 3, is no valid YAML: expected"),
        ("a: 1\na: 2", ", line 2, is no valid YAML: the key 'a' is given twice"),
        ("a: !!timestamp x", " is no valid YAML: "),
        ("[b]: 010", ", line 1: YAML 1.1 takes 010 for 8"),
        ("a: 1\nb: \x01", r", line 2, is no valid YAML: it holds the control character '\x01'"),
        ("a: 1\n---\nb: 1", ", line 2, begins a second document, expected one"),
    ],
)
def test_anything_but_data_is_refused_with_file_and_line(read, text, said):
    with pytest.raises(ConfigurationError, match=re.escape(f"file.yaml{said}")):
        read(text)


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("- a\n- b\n", 1, "a list"),
        ("# c\nword", 2, "'word' alone"),
        ("a: 1\n5: 6\n", 2, "the key 5, which is no text"),
        ("a: &a {5: 6}\n<<: *a\n", 1, "the key 5, which is no text"),
        ("!!set {a, b}", 1, "a set"),
    ],
)
def test_a_file_without_named_values_is_refused(read, text, line, found):
    says = f"line {line}: the file must hold lines of `key: value`, but holds {found}."
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        read(text)


def test_another_encoding_is_told_with_its_line(tmp_path):
    (tmp_path / "x.yaml").write_bytes("a: 1\nb: café\n".encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"x\.yaml, line 2, is no UTF-8 \(byte 0xe9\)"):
        read_yaml(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    "text", ["a: 1\nb: 2\na: 3\n", "a:\n  b: 1\n  b: 2\n", "a: {b: 1, b: 2}\n"]
)
def test_a_key_given_twice_is_refused_with_its_line(read, text):
    with pytest.raises(ConfigurationError, match=r"file\.yaml.*the key '[ab]' is given twice"):
        read(text)


def test_a_key_over_a_merged_one_is_given_once(read):
    text = "base: &base {a: 1, b: 2}\nmine: {<<: *base, b: 3}\n"
    assert read(text)["mine"] == {"a": 1, "b": 3}
