"""Schemas: what the interface takes and gives, as `/openapi.json` describes it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class NearPrompt(BaseModel):
    """A known prompt and its cosine to the prediction."""

    prompt: str
    cosine: float


class NearPicture(BaseModel):
    """A picture of the cache that the run sees as alike."""

    row: int = Field(description="Its row in the cache; `/pictures/{row}` shows it.")
    id: str
    prompt: str
    cosine: float = Field(description="Of the run's predictions for the two images.")


class ImageResult(BaseModel):
    """What is said of one image; `error` stands alone where it could not be used."""

    name: str
    status: int = Field(description="200, or 413 too large, 415 a format that is not read, 422 damaged.")
    error: str | None = None
    expected: float | None = Field(None, description="Cosine that is expected with the true prompt.")
    own_prompt: str | None = Field(
        None, description="Of an image that is in the cache: its prompt there. The run may be fitted on it."
    )
    composed: NearPrompt | None = Field(None, description="A prompt that was written for the image.")
    prompts: list[NearPrompt] = []
    pictures: list[NearPicture] = []
    embedding: list[float] | None = None


class Predicted(BaseModel):
    """The images of a request, in order."""

    run: str
    results: list[ImageResult]


class RunInfo(BaseModel):
    """A run that is served."""

    name: str
    head: str
    features: list[str]
    target: str
    width: int = Field(description="Values of an embedding.")
    cosine: float = Field(description="Mean cosine on held-out rows.")
    rows: int = Field(description="How many rows these were.")
    created: str
    gallery: float = Field(description="For which part of the gallery it has predicted, 0…1.")
    problem: str = Field("", description="Why it cannot predict for the gallery.")


class Runs(BaseModel):
    """The runs, best first, and what may be asked."""

    default: str
    cache: str
    rows: int = Field(description="Pictures of the gallery.")
    rows_in_cache: int
    report: bool = Field(description="Whether `/report` shows one.")
    limits: dict[str, int]
    runs: list[RunInfo]


class GalleryPicture(BaseModel):
    """A picture of the cache; the cosines are those with the text that was searched for."""

    row: int
    id: str
    prompt: str
    predicted: float | None = Field(None, description="Cosine of the run's prediction with the text.")
    true: float | None = Field(None, description="Cosine of the picture's own prompt with the text.")


class GalleryPage(BaseModel):
    """Some pictures of the cache."""

    total: int
    offset: int
    pictures: list[GalleryPicture]


class Health(BaseModel):
    """That the app is up, and how busy."""

    status: str
    waiting: int


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


_IMAGE = {
    "type": "string",
    "description": "Base64 of an image file, or a `data:` URI. Addresses are not fetched.",
}
IMAGES: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["images"],
                "properties": {"images": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["images"],
                "properties": {
                    "images": {
                        "type": "array",
                        "items": {
                            "anyOf": [
                                _IMAGE,
                                {
                                    "type": "object",
                                    "required": ["data"],
                                    "properties": {"name": {"type": "string"}, "data": _IMAGE},
                                },
                            ]
                        },
                    }
                },
            }
        },
        "image/*": {"schema": {"type": "string", "format": "binary"}},
    },
}
"""The body of a request with images."""
