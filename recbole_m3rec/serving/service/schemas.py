"""What requests and answers hold; the OpenAPI description follows from it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from recbole_m3rec.serving.arguments import LARGEST_WEIGHT

MOST_ITEMS = 1000  # of a history, of filters
MOST_RECOMMENDED = 1000
LONGEST_ID = 256  # characters

Id = Annotated[str, Field(min_length=1, max_length=LONGEST_ID)]
Ids = Annotated[list[Id], Field(max_length=MOST_ITEMS)]
K = Annotated[int, Field(ge=1, le=MOST_RECOMMENDED)]
Weight = Annotated[FiniteFloat, Field(ge=0, le=LARGEST_WEIGHT)]


class Request(BaseModel):
    """A body; fields that it does not know, and values of another kind, are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ForHistory(Request):
    """A question about a user, or about a history."""

    user: Id | None = Field(None, description="whose history is taken from bundle and events")
    history: Ids | None = Field(None, description="item ids, oldest first; may be empty")

    @model_validator(mode="after")
    def one_of_both(self) -> ForHistory:
        """Refuse both, and neither."""
        if (self.user is None) == (self.history is None):
            raise ValueError("give either user or history")
        return self


class RecommendRequest(ForHistory):
    """Ask for the best items."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"history": ["50", "181"], "k": 5},
                {"user": "ann", "k": 10, "weights": {"text": 2.0}, "explain": True},
            ]
        },
    )
    k: K = 10
    exclude_seen: bool = True
    allowed: Ids | None = None
    blocked: Ids | None = None
    weights: dict[Annotated[str, Field(max_length=64)], Weight] | None = Field(
        None, description="of modalities, 1 where not named", max_length=64
    )
    explain: bool = False


class ExplainRequest(ForHistory):
    """Ask why an item has its score."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"history": ["50", "181"], "item": "172"}]}
    )
    item: Id


class SimilarRequest(Request):
    """Ask for an item's neighbours."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"item": "50", "modality": "text", "k": 5}]}
    )
    item: Id
    modality: Annotated[str, Field(max_length=64)] | None = None
    k: K = 10


class ItemsRequest(Request):
    """Ask for items by their ids."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": ["50", "181"]}]})
    items: Ids


class EventsRequest(Request):
    """Append to a user's history."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user": "ann", "items": ["50"]}]})
    user: Id
    items: Annotated[list[Id], Field(min_length=1, max_length=MOST_ITEMS)]
    id: Id | None = Field(
        None, description="of this event: sent again with it, the event counts once"
    )


class Item(BaseModel):
    """An item as people see it."""

    model_config = ConfigDict(extra="allow")
    item: str
    cold: bool = Field(description="nobody had used it when the model was trained")
    title: str | None = None
    brand: str | None = None
    categories: str | None = None
    price: str | None = None
    year: str | None = None
    picture: str | None = Field(None, description="address of its picture on this server")


class Recommended(Item):
    """An item with its place."""

    rank: int
    score: float
    terms: dict[str, float] | None = Field(None, description="they sum to the score")


class RecommendAnswer(BaseModel):
    """The best items."""

    items: list[Recommended]
    source: Literal["model", "popular"] = Field(
        description="popular: without a history, what is used most, scored by how often"
    )
    unknown_items: int = Field(description="items of the history that are not in the catalogue")
    bundle: str = Field(description="digest of the bundle that answered")


class Effect(Item):
    """An item of the history, and what a term loses without it."""

    effect: float


class ExplainAnswer(BaseModel):
    """Why an item has its score."""

    item: Item
    score: float
    terms: dict[str, float]
    because: dict[str, list[Effect]]


class Neighbour(Item):
    """A similar item."""

    rank: int
    score: float = Field(description="cosine")


class SimilarAnswer(BaseModel):
    """An item's neighbours."""

    items: list[Neighbour]
    reason: str | None = Field(None, description="why there is none")


class EventsAnswer(BaseModel):
    """Events that are on the disk."""

    accepted: int


class ItemsAnswer(BaseModel):
    """Items of the catalogue."""

    items: list[Item]


class UsersAnswer(BaseModel):
    """Users of the bundle."""

    users: list[str]


class HistoryAnswer(BaseModel):
    """A user's history, the newest last."""

    items: list[Item]


class AboutAnswer(BaseModel):
    """The model that answers."""

    model: str
    dataset: str
    modalities: list[str]
    repetition: bool
    items: int
    has_users: bool
    max_history: int
    metrics: dict[str, Any]
    bundle: str


class Status(BaseModel):
    """Whether the service runs."""

    status: str
    bundle: str | None = None


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
