"""Constraints: text that must match a regular expression, a JSON schema, or a Python type."""

import json
from dataclasses import dataclass
from typing import Literal

import sgrun as sg

PET = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer"},
        "color": {"enum": ["black", "white", "ginger"]},
    },
    "required": ["name", "age", "color"],
}


@dataclass
class Trip:
    city: Literal["Paris", "Rome", "Oslo"]
    nights: int


@sg.function
def pet(s: sg.ProgramState) -> None:
    s += sg.user("Describe a cat as JSON with the keys name, age and color.")
    s += sg.assistant(sg.gen("pet", json_schema=PET, max_tokens=64, temperature=0))


@sg.function
def facts(s: sg.ProgramState) -> None:
    s += "The IP address of a computer at home is "
    s += sg.gen("address", regex=r"\d{1,3}(\.\d{1,3}){3}", max_tokens=16, temperature=0)
    s += "\n2 + 3 = 5\n4 + 4 = 8\n5 + 2 = "
    s += sg.gen("sum", dtype=int, max_tokens=4, temperature=0)
    s += "\nTwo nights in the capital of Italy, as JSON: "
    s += sg.gen("trip", dtype=Trip, max_tokens=32, temperature=0)


def main(engine: sg.Engine) -> list[sg.ProgramState]:
    states = [pet.run(backend=engine), facts.run(backend=engine)]
    print("pet:", json.loads(states[0]["pet"]))
    print("address:", states[1]["address"])
    print("sum:", states[1]["sum"], type(states[1]["sum"]))
    print("trip:", states[1]["trip"])
    return states


if __name__ == "__main__":
    with sg.Engine(progress=True) as engine:
        main(engine)
