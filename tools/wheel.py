"""A build hook: a wheel carries `data/`, `docs/` and `notebooks/` inside the package (see places.py).

An editable install does not: there they are found beside the package, in the clone.
"""
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SHIPPED = ("data", "docs", "notebooks")


class Ship(BuildHookInterface):
    def initialize(self, version: str, build_data: dict) -> None:
        if version != "editable":
            build_data["force_include"].update({name: f"personaplex_lite/{name}" for name in SHIPPED})
