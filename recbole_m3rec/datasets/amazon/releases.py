"""Releases of Amazon's review data: categories, file names, URLs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from recbole_m3rec.support.command_names import command
from recbole_m3rec.support.suggestions import nearest


class CategoryError(ValueError):
    """No release or no category has this name."""


@dataclass(frozen=True)
class Release:
    """One published release.

    ``five_core``, ``ratings`` and ``metadata`` are file names below ``address`` with ``{}`` for the
    category, the folder included; ``ratings`` is None where there is no such file, and
    ``rating_columns`` says in which order its columns stand.
    """

    year: str
    address: str
    five_core: str
    ratings: str | None
    metadata: str
    categories: tuple[str, ...]
    rating_columns: tuple[str, ...] = ("user", "item", "rating", "time")

    def url(self, file: str, category: str, address: str | None = None) -> str:
        """Return the address of one of the release's files."""
        return f"{(address or self.address).rstrip('/')}/{file.format(category)}"


# Short names, one per category. Where a release has two that could be meant, "beauty" is the one
# of the name nearest to it, "Beauty" or "All_Beauty".
SHORT_NAMES = {
    "AMAZON_FASHION": "fashion",
    "All_Beauty": "beauty",
    "Amazon_Fashion": "fashion",
    "Amazon_Instant_Video": "video",
    "Appliances": "appliances",
    "Apps_for_Android": "apps",
    "Arts_Crafts_and_Sewing": "arts",
    "Automotive": "automotive",
    "Baby": "baby",
    "Baby_Products": "baby",
    "Beauty": "beauty",
    "Beauty_and_Personal_Care": "personal-care",
    "Books": "books",
    "CDs_and_Vinyl": "cds",
    "Cell_Phones_and_Accessories": "phones",
    "Clothing_Shoes_and_Jewelry": "clothing",
    "Digital_Music": "music",
    "Electronics": "electronics",
    "Gift_Cards": "gifts",
    "Grocery_and_Gourmet_Food": "grocery",
    "Handmade_Products": "handmade",
    "Health_and_Household": "household",
    "Health_and_Personal_Care": "health",
    "Home_and_Kitchen": "home",
    "Industrial_and_Scientific": "scientific",
    "Kindle_Store": "kindle",
    "Luxury_Beauty": "luxury",
    "Magazine_Subscriptions": "magazines",
    "Movies_and_TV": "movies",
    "Musical_Instruments": "instruments",
    "Office_Products": "office",
    "Patio_Lawn_and_Garden": "garden",
    "Pet_Supplies": "pets",
    "Prime_Pantry": "pantry",
    "Software": "software",
    "Sports_and_Outdoors": "sports",
    "Subscription_Boxes": "boxes",
    "Tools_and_Home_Improvement": "tools",
    "Toys_and_Games": "toys",
    "Unknown": "unknown",
    "Video_Games": "games",
}


def _all_but(*names: str) -> tuple[str, ...]:
    return tuple(name for name in SHORT_NAMES if name not in names)


RELEASES = {
    release.year: release
    for release in (
        Release(
            "2014",
            "http://snap.stanford.edu/data/amazon/productGraph",
            "categoryFiles/reviews_{}_5.json.gz",
            "categoryFiles/ratings_{}.csv",
            "categoryFiles/meta_{}.json.gz",
            _all_but(
                *("AMAZON_FASHION", "All_Beauty", "Amazon_Fashion", "Appliances", "Baby_Products"),
                *("Arts_Crafts_and_Sewing", "Beauty_and_Personal_Care", "Gift_Cards", "Unknown"),
                *("Handmade_Products", "Health_and_Household", "Industrial_and_Scientific"),
                *("Luxury_Beauty", "Magazine_Subscriptions", "Prime_Pantry", "Software"),
                "Subscription_Boxes",
            ),
        ),
        Release(
            "2018",
            "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2",
            "categoryFilesSmall/{}_5.json.gz",
            "categoryFilesSmall/{}.csv",
            "metaFiles2/meta_{}.json.gz",
            _all_but(
                *("Amazon_Fashion", "Amazon_Instant_Video", "Apps_for_Android", "Baby", "Beauty"),
                *("Baby_Products", "Beauty_and_Personal_Care", "Handmade_Products", "Unknown"),
                *("Health_and_Household", "Health_and_Personal_Care", "Subscription_Boxes"),
            ),
            ("item", "user", "rating", "time"),
        ),
        Release(
            "2023",
            "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw",
            "review_categories/{}.jsonl.gz",
            None,
            "meta_categories/meta_{}.jsonl.gz",
            _all_but(
                *("AMAZON_FASHION", "Amazon_Instant_Video", "Apps_for_Android", "Baby", "Beauty"),
                *("Luxury_Beauty", "Prime_Pantry"),
            ),
        ),
    )
}


def find_release(name: str) -> Release:
    """Return a release by its year.

    Raises:
        CategoryError: there is none; the message lists them.
    """
    if name not in RELEASES:
        raise CategoryError(f"There is no release {name!r}; there are {', '.join(RELEASES)}")
    return RELEASES[name]


def find_category(release: Release, name: str) -> str:
    """Return the full name of a category, by its full or short name.

    Capitals, ``-``, ``_``, commas, the word "and" and a leading "amazon" make no difference.

    Raises:
        CategoryError: the release has no such category; the message has the nearest names.
    """
    known = {SHORT_NAMES[full]: full for full in release.categories}
    known |= {full: full for full in release.categories}
    plain = {_plain(each): full for each, full in known.items()}
    for wanted in (_plain(name), _plain(name).removeprefix("amazon")):
        if wanted in plain:
            return plain[wanted]
    guesses = dict.fromkeys(plain[match] for match in nearest(_plain(name), plain))
    elsewhere = [
        year
        for year, other in RELEASES.items()
        if other is not release and _plain(name) in _plain_names(other.categories)
    ]
    raise CategoryError(
        f"Release {release.year} has no category {name!r}."
        + (f" Did you mean {' or '.join(guesses)}?" if guesses else "")
        + (f" Release {' and '.join(elsewhere)} has it." if elsewhere else "")
        + f" It has {', '.join(release.categories)}."
    )


def short_name(release: Release, category: str) -> str:
    """Return the name that a category's dataset gets: ``clothing``, ``clothing-18``…"""
    suffix = "" if release.year == "2014" else f"-{release.year[2:]}"
    return SHORT_NAMES[category] + suffix


def command_for(dataset: str) -> str | None:
    """Return the command that prepares a dataset of this name, None if it is no Amazon category."""
    found = re.fullmatch(r"(.+?)(?:[-_](?:20)?(14|18|23))?", dataset)
    if found is None:
        return None
    try:
        release = RELEASES[f"20{found.group(2) or 14}"]
        category = find_category(release, found.group(1))
    except CategoryError:
        return None
    return command(
        f"prepare amazon --release {release.year} --category {category} --name {dataset} --download"
    )


def _plain_names(categories: Iterable[str]) -> set[str]:
    return {_plain(each) for full in categories for each in (full, SHORT_NAMES[full])}


def _plain(name: str) -> str:
    words = re.split(r"[^a-z0-9]+", name.lower())
    return "".join(word for word in words if word != "and")
