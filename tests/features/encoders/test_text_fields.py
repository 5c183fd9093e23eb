"""One clean text per item."""

import pytest

from recbole_m3rec.features.encoders.text_fields import clean, join_fields


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("plain words", "plain words"),
        ("  tabs\tand\u00a0\n lines  ", "tabs and lines"),
        ("<p>soft<br/>skin</p>", "soft skin"),
        ("<a href='x'>link</a><!-- note <b> -->!", "link !"),
        ("<style>p { color: red }</style>cream<SCRIPT>var x</SCRIPT >", "cream"),
        ("Bath &amp; Body &#39;s", "Bath & Body 's"),
        ("&lt;b&gt;bold&lt;/b&gt;", "bold"),
        ("price < 5 and > 3, I <3 it", "price < 5 and > 3, I <3 it"),
        ("<br>", ""),
        ("a<!-- b <!-- c --> d --> e", "a d --> e"),
        ("a <script>b<script>c</script>d", "a d"),
        ("a <!-- b", "a <!-- b"),
        ("<script>a</style>b", "a b"),
    ],
)
def test_clean_leaves_the_words_alone(raw, expected):
    assert clean(raw) == expected


@pytest.mark.parametrize("opening", ["<!--", "<script ", "&lt;!--", "<a "])
def test_a_hostile_text_takes_no_longer_than_its_length_says(opening):
    # A search that starts over at each opening would take hours.
    assert clean(opening * 300_000)


def test_fields_stand_on_lines_of_their_own_and_missing_ones_leave_none():
    titles = ["Toy Story", "", "Heat", " "]
    kinds = ["Animation\nComedy", "Drama", "<br>", ""]
    expected = ["Toy Story\nAnimation Comedy", "Drama", "Heat", ""]
    assert join_fields([titles, kinds]) == expected


def test_columns_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        join_fields([["a", "b"], ["c"]])


def test_html_is_kept_on_demand():
    assert join_fields([["a <b>b</b>\n &amp; c"], ["d"]], keep_html=True) == [
        "a <b>b</b> &amp; c\nd"
    ]
