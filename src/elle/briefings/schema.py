"""The one definition of a briefing, and of an example: the training targets, constrained decoding and the evaluator all
use it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from elle.base.errors import ElleError

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


class Example(NamedTuple):
    """An example of a data set; in its files a row, `{"id": ..., "conversations": [{"from": ..., "value": ...}, ...]}`,
    with a system, a human (the prompt) and a gpt turn (the answer)."""

    id: str
    system: str
    prompt: str
    answer: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Example":
        """The example that a row holds.

        Raises:
            ElleError: the row is not a system, human, gpt conversation.
        """
        try:
            turns = [(turn["from"], turn["value"]) for turn in row["conversations"]]
        except (KeyError, TypeError):
            turns = []
        speakers = [speaker for speaker, text in turns if isinstance(text, str)]
        if len(turns) != 3 or speakers != ["system", "human", "gpt"]:
            raise ElleError("this row is not a system, human, gpt conversation", fix="make the set again")
        return cls(str(row.get("id")), *(text for _, text in turns))

    def row(self) -> dict[str, Any]:
        texts = {"system": self.system, "human": self.prompt, "gpt": self.answer}
        return {"id": self.id, "conversations": [{"from": name, "value": text} for name, text in texts.items()]}
