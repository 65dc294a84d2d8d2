"""The one definition of a briefing. The training targets, constrained decoding and the evaluator all use it."""

from pydantic import BaseModel, ConfigDict

#: The six risk categories, in the order in which prompts and briefings list them.
CATEGORIES = ("political", "economic", "security", "military", "financial", "cyber")


class Briefing(BaseModel):
    """The basic briefing: eight texts, no other key."""

    model_config = ConfigDict(extra="forbid", strict=True)

    political: str
    economic: str
    security: str
    military: str
    financial: str
    cyber: str
    summary: str
    nsm: str  # next steps: the recommended actions


class CicBriefing(Briefing):
    """The CIC briefing: twelve texts, no other key."""

    cic_assessment: str  # the functional F, worked
    phase_assessment: str
    confidence_bounds: str  # capped, and decayed to the horizon
    historical_parallel: str  # the nearest analogue that the prompt names


def json_schema(model: type[BaseModel] = Briefing) -> dict:
    """The JSON Schema of a briefing, as servers take it for constrained decoding (additionalProperties: false)."""
    return model.model_json_schema()
