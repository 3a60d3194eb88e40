"""Tool calls: free text in which a tag binds what follows to a call of a Python function, read back as values."""

import sgrun as sg
from sgrun.types import Trigger, TriggeredSpec

STOCK = {"apple": 12, "banana": 0, "cherry": 250}


def look_up(fruit: str) -> int:
    """How many are in stock."""
    return STOCK.get(fruit, 0)


def order(fruit: str, count: int) -> int:
    """Orders more; returns what is in stock then."""
    return look_up(fruit) + count


TOOLS = {"look_up": look_up, "order": order}
REPLY = TriggeredSpec((Trigger("<call>", sg.json_schema_spec(sg.tool_call(*TOOLS.values())), "</call>"),))
EXAMPLES = """Question: How many apples are left?
Reply: I look that up. <call>{"name": "look_up", "arguments": {"fruit": "apple"}}</call>
Result: 12

Question: Please get 30 more bananas.
Reply: I order them. <call>{"name": "order", "arguments": {"fruit": "banana", "count": 30}}</call>
Result: 30

"""


@sg.function
def serve(s: sg.ProgramState, question: str) -> list[int]:
    s += EXAMPLES + f"Question: {question}\nReply:"
    s += sg.gen("reply", grammar=REPLY, stop="\n", max_tokens=64, temperature=0)
    results = [TOOLS[call.value["name"]](**call.value["arguments"]) for call in s.captures("reply")]
    for result in results:
        s += f"\nResult: {result}"
    return results


def main(engine: sg.Engine) -> list[sg.ProgramState]:
    states = [serve.run(question, backend=engine) for question in ("How many cherries are left?", "Get 5 more apples.")]
    for state in states:
        print("reply:", state["reply"].strip())
        print("results:", state.ret_value)
    return states


if __name__ == "__main__":
    with sg.Engine(progress=True) as engine:
        main(engine)
