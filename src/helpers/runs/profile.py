"""Profiles: a run as data. `configs/profiles/NAME.yaml` says which notebooks run, with which values."""

from pydantic import BaseModel, ConfigDict, field_validator

from elle.base import paths
from elle.base.errors import ElleError, unknown
from elle.base.yaml_files import config_table, read_yaml, validated


class Profile(BaseModel):
    """What a run is. A parameter goes to every one of the notebooks that declares it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    summary: str
    notebooks: list[str]
    parameters: dict[str, str | int | float | bool] = {}

    @field_validator("notebooks")
    @classmethod
    def _exist(cls, names: list[str]) -> list[str]:
        for name in names:
            if not (paths.notebooks() / f"{name}.ipynb").exists():
                raise ValueError(f"there is no notebook {name!r}")
        return names


def profile_names() -> list[str]:
    return sorted(path.stem for path in paths.profiles().glob("*.yaml"))


def load_profile(name: str) -> Profile:
    """The profile of that name.

    Raises:
        ElleError: no such profile (with the nearest name), or a file that is not a profile (with the keys at fault).
    """
    path = paths.profiles() / f"{name}.yaml"
    if name not in profile_names():
        raise unknown("profile", name, profile_names(), where=paths.shown(paths.profiles()))
    content = read_yaml(path, "profile") | {"name": name}
    return validated(Profile, content, "profile", str(path), "see configs/profiles/nano.yaml")


def recipes(chosen: Profile) -> list[str]:
    """The recipes that a profile's parameters name: all that begin with `recipe`, several in one separated by commas.

    Raises:
        ElleError: there is none.
    """
    named = [value for name, value in chosen.parameters.items() if name.startswith("recipe") and value]
    files = [path.strip() for value in named for path in str(value).split(",")]
    if not files:
        raise ElleError("this profile trains nothing", where=f"profile {chosen.name}", fix="plan a recipe of configs/")
    return files


def plan_options(chosen: Profile) -> dict:
    """Hardware, price, budget and data of a profile, as `preflight.plan` takes them."""
    values = chosen.parameters
    named = {"gpu": "gpu", "gpus": "count", "disk": "disk", "price": "price", "budget": "limit"}
    options = {option: values[name] for name, option in named.items() if values.get(name)}
    if values.get("kind") in config_table("recipes")["data"]:
        # Eighteen of twenty examples are trained on (briefings.dataset); the recipe is given just these.
        options |= {"data": values["kind"], "examples": int(values.get("count", 0)) * 18 // 20 or None}
    return options
