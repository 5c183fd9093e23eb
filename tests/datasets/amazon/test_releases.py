"""Names of categories, and where their files are."""

import pytest

from recbole_m3rec.datasets.amazon.releases import (
    RELEASES,
    SHORT_NAMES,
    CategoryError,
    command_for,
    find_category,
    find_release,
    short_name,
)


def test_each_release_has_its_published_number_of_categories():
    assert {year: len(each.categories) for year, each in RELEASES.items()} == {
        "2014": 24,
        "2018": 29,
        "2023": 34,
    }


@pytest.mark.parametrize("year", RELEASES)
def test_short_and_full_names_find_every_category(year):
    release = RELEASES[year]
    shorts = [SHORT_NAMES[category] for category in release.categories]
    assert len(set(shorts)) == len(shorts)
    for category, short in zip(release.categories, shorts, strict=True):
        for name in (category, short, short.upper(), category.replace("_", " "), f"amazon-{short}"):
            assert find_category(release, name) == category


@pytest.mark.parametrize(
    ("year", "name", "category"),
    [
        ("2014", "clothing-shoes-jewelry", "Clothing_Shoes_and_Jewelry"),
        ("2014", "beauty", "Beauty"),
        ("2018", "beauty", "All_Beauty"),
        ("2023", "beauty", "All_Beauty"),
        ("2023", "baby", "Baby_Products"),
        ("2018", "fashion", "AMAZON_FASHION"),
    ],
)
def test_names_in_use_mean_what_they_should(year, name, category):
    assert find_category(RELEASES[year], name) == category


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("clotihng", "Did you mean Clothing_Shoes_and_Jewelry"),
        ("Video_Gmaes", "Did you mean Video_Games"),
        ("handmade", "Release 2023 has it"),
        ("xyzzy", r"no category 'xyzzy'\. It has Amazon_Instant_Video"),
    ],
)
def test_an_unknown_category_is_an_error_with_the_nearest_names(name, says):
    with pytest.raises(CategoryError, match=says):
        find_category(RELEASES["2014"], name)


def test_an_unknown_release_is_an_error():
    with pytest.raises(CategoryError, match="no release '2019'; there are 2014, 2018, 2023"):
        find_release("2019")


def test_addresses_are_those_published_and_can_be_replaced():
    release = RELEASES["2023"]
    assert release.url(release.metadata, "Books", "http://mirror/") == (
        "http://mirror/meta_categories/meta_Books.jsonl.gz"
    )
    assert release.url(release.five_core, "Books").endswith(
        "amazon_2023/raw/review_categories/Books.jsonl.gz"
    )


def test_datasets_of_later_releases_say_so():
    assert short_name(RELEASES["2014"], "Beauty") == "beauty"
    assert short_name(RELEASES["2023"], "Baby_Products") == "baby-23"


@pytest.mark.parametrize(
    ("dataset", "command"),
    [
        ("clothing", "--release 2014 --category Clothing_Shoes_and_Jewelry --name clothing"),
        ("toys-23", "--release 2023 --category Toys_and_Games --name toys-23"),
        ("amazon-luxury-18", "--release 2018 --category Luxury_Beauty --name amazon-luxury-18"),
    ],
)
def test_the_command_that_prepares_a_dataset_is_known(dataset, command):
    assert command_for(dataset) == f"recbole-m3rec prepare amazon {command} --download"


@pytest.mark.parametrize("dataset", ["mine", "", "-18", "ml-100k"])
def test_other_datasets_have_no_such_command(dataset):
    assert command_for(dataset) is None
