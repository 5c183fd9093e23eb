"""MovieLens as published, folder or zip file, and what the user brings to it."""

import shutil
from pathlib import Path

import pytest

from recbole_m3rec.atomic.item_file import ItemFile
from recbole_m3rec.cli.commands import run_script
from recbole_m3rec.cli.prepare import movielens
from recbole_m3rec.datasets.io.raw_lines import RawFileError
from recbole_m3rec.datasets.movielens import find_release, prepare_movielens

FIELDS = ["movie_title", "release_year", "class"]
MOVIES = [
    ("1", "Toy Story", "1995", "Animation Children's Comedy"),
    ("2", "Misérables, Les", "1995", "Drama"),
    ("3", 'Say "Hi"', "", ""),
]


def raw_100k(folder):
    flags = {"1": {3, 4, 5}, "2": {8}, "3": set()}
    lines = [
        "|".join([movie, f"{title} ({year}) (V)" if year else title, "01-Jan-1995", "", "http://x",
                  *(str(int(place in flags[movie])) for place in range(19))])
        for movie, title, year, _ in MOVIES
    ]  # fmt: skip
    (folder / "u.item").write_bytes("\n".join(lines).encode("latin-1"))
    (folder / "u.data").write_text(
        "7\t2\t3\t881250949\n7\t1\t5\t881250948\n8\t3\t1\t881250950\nx\n"
    )


def raw_1m(folder):
    lines = [
        f"{movie}::{title} ({year})::{genres.replace(' ', '|')}" if year else f"{movie}::{title}::"
        for movie, title, year, genres in MOVIES
    ]
    (folder / "movies.dat").write_bytes("\n".join(lines).encode("latin-1"))
    (folder / "ratings.dat").write_text(
        "7::2::3::881250949\n7::1::5::881250948\n8::3::1::881250950\nx\n"
    )


def raw_latest(folder):
    (folder / "movies.csv").write_text(
        "movieId,title,genres\n1,Toy Story (1995),Animation|Children's|Comedy\n"
        '2,"Misérables, Les (1995)",Drama\n3,"Say ""Hi""",(no genres listed)\n4,Two (2000),War\n',
        encoding="utf-8",
    )
    (folder / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n7,2,3.0,881250949\n7,1,5,881250948\n8,3,1,881250950\nx\n"
    )


RAW = {"ml-100k": raw_100k, "ml-1m": raw_1m, "ml-latest-small": raw_latest}


def release(folder, name, zipped=False):
    (folder / name).mkdir()
    RAW[name](folder / name)
    if not zipped:
        return folder / name
    return Path(shutil.make_archive(str(folder / "download"), "zip", folder, name))


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", list(RAW))
def test_every_release_gives_the_same_dataset(tmp_path, name, zipped):
    found = find_release(release(tmp_path, name, zipped))
    assert found.name == name
    result = prepare_movielens(found, tmp_path / "out", name)
    assert (tmp_path / f"out/{name}.inter").read_text().splitlines() == [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        "7\t1\t5\t881250948",
        "7\t2\t3\t881250949",
        "8\t3\t1\t881250950",
    ]
    tokens, columns = ItemFile(tmp_path / f"out/{name}.item").read(FIELDS)
    assert list(zip(tokens, *columns, strict=True)) == MOVIES
    assert result["problems"] == {"lines_unparseable": 1}
    assert result["movies_never_rated"] == (name == "ml-latest-small")


def test_overviews_are_joined_by_id_and_their_titles_compared(tmp_path):
    overviews = tmp_path / "overviews.tsv"
    overviews.write_text(
        'movie_id\ttitle\toverview\n2\tMis\u00e9rables, Les (1995)\t"A ""thief"".\nA bishop."\n'
        "1\tJumanji (1995)\tToys.\n3\t\t\n9\tX\tY\n2\tX\tagain\n",
        encoding="utf-8",
    )
    found = find_release(release(tmp_path, "ml-1m"))
    result = prepare_movielens(found, tmp_path / "out", "ml", overviews=overviews)
    _, [texts] = ItemFile(tmp_path / "out/ml.item").read(["overview"])
    assert texts == ["Toys.", 'A "thief". A bishop.', ""]
    assert result["items_with_overview"] == 2
    assert result["problems"] == {
        "lines_unparseable": 1,
        "overviews_repeated": 1,
        "overviews_of_other_movies": 1,
        "overviews_of_another_title": 1,
    }


def test_posters_are_counted_from_a_folder_and_from_a_table(tmp_path):
    found = find_release(release(tmp_path, "ml-100k"))
    posters = tmp_path / "posters"
    posters.mkdir()
    for name, content in (("1.jpg", b"x"), ("2.jpg", b""), ("9.jpg", b"x")):
        (posters / name).write_bytes(content)
    folder = prepare_movielens(found, tmp_path / "out", "ml", posters=posters)
    (tmp_path / "posters.csv").write_text("item_id,path\n3,posters/9.jpg\n1,posters/no.jpg\n")
    table = prepare_movielens(found, tmp_path / "out", "ml", posters=tmp_path / "posters.csv")
    for result, other, bad in ((folder, 1, 1), (table, 0, 1)):
        assert result["items_with_image"] == 1
        assert result["images_of_other_items"] == other
        assert result["images_missing_or_empty"] == bad


def test_what_is_no_release_is_said(tmp_path):
    (tmp_path / "some.zip").write_bytes(b"PK\x03\x04 cut off")
    (tmp_path / "overviews.tsv").write_text("id\ttext\n1\tx\n")
    (tmp_path / "empty").mkdir()
    for source, message in (
        ("none", "no such folder"),
        ("some.zip", "neither a folder nor a zip"),
        ("empty", "holds none of u.data, ratings.dat"),
    ):
        with pytest.raises(RawFileError, match=message):
            find_release(tmp_path / source)
    found = find_release(release(tmp_path, "ml-1m"))
    with pytest.raises(RawFileError, match="expected the columns movie_id, overview"):
        prepare_movielens(found, tmp_path, "ml", overviews=tmp_path / "overviews.tsv")


def test_recboles_own_movies_are_taken_over_and_get_overviews(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("overviews.tsv").write_text("movie_id\toverview\n1\tToys.\n")
    arguments = ["--from-recbole", "--overviews", "overviews.tsv"]
    assert run_script(movielens.movielens, arguments) == 0
    said = capsys.readouterr().out
    assert "interactions: 100,000" in said.splitlines()
    assert "--fields movie_title release_year class overview" in said
    fields = [*FIELDS, "overview"]
    tokens, columns = ItemFile(Path("dataset/ml-100k/ml-100k.item")).read(fields)
    assert (len(tokens), columns[0][0], columns[3][0]) == (1682, "Toy Story", "Toys.")
    theirs = ItemFile(movielens.recboles_folder() / "ml-100k.item").read(FIELDS)
    assert (tokens, columns[:3]) == theirs
    assert not Path("properties").exists()


def test_other_releases_get_a_recipe_for_their_texts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    release(tmp_path, "ml-1m")
    assert run_script(movielens.movielens, ["--source", "ml-1m"]) == 0
    assert "replacing" not in capsys.readouterr().out
    assert run_script(movielens.movielens, ["--source", "ml-1m"]) == 0
    said = capsys.readouterr().out
    assert "to write: dataset/ml-1m/ml-1m.item, replacing" in said
    assert said.endswith("then:\n  recbole-m3rec train --model=M3Rec --dataset=ml-1m\n")
    recipe = Path("properties/dataset/ml-1m.yaml").read_text()
    assert "fields: [movie_title, release_year, class]" in recipe
    assert run_script(movielens.movielens, ["--source", "ml-2m"]) == 2
