"""How things in a figure look: colours of Okabe and Ito (2008), which colour-blind readers can tell apart, and what
tells them apart without any colour."""

from typing import Any, NamedTuple

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#666666"
SKY, YELLOW = "#56B4E9", "#F0E442"
#: For quantities from little (light) to much (dark): even steps of lightness, so that it survives printing in grey.
SEQUENTIAL = "cividis_r"
SMALL = 8  # points: the smallest text


class Look(NamedTuple):
    """How one of several things side by side is drawn: where its colour cannot be seen, the rest tells it apart."""

    colour: str
    marker: str
    line: Any
    hatch: str

    @property
    def curve(self) -> dict[str, Any]:
        return {"color": self.colour, "marker": self.marker, "linestyle": self.line}

    @property
    def bar(self) -> dict[str, Any]:
        return {"color": self.colour, "hatch": self.hatch, "edgecolor": "white", "linewidth": 0.5}


#: Colour → look. The first is for what the others are compared with.
LOOKS = {
    look.colour: look
    for look in (
        Look(GREY, "o", "-", "--"),
        Look(BLUE, "s", "-", ""),
        Look(ORANGE, "^", (0, (5, 1.5)), "//"),
        Look(GREEN, "D", (0, (1, 1)), ".."),
        Look(RED, "v", "-.", "xx"),
        Look(PURPLE, "P", (0, (8, 1.5, 1, 1.5, 1, 1.5)), "\\\\"),
        Look(SKY, "X", (0, (2, 2)), "++"),
    )
}
