"""Tree of thought: every thought forks into several that follow it; the likeliest path through the tree wins."""

import sgrun as sg


def grow(s: sg.ProgramState, depth: int, branch: int) -> list[sg.ProgramState]:
    """The leaves below `s`. All branches of a level are generated side by side."""
    if depth == 0:
        return [s]
    forks = s.fork(branch)
    forks += sg.gen(f"thought{depth}", max_tokens=16, stop=[".", "\n"], return_logprob=True) + ". Then"
    return [leaf for fork in forks for leaf in grow(fork, depth - 1, branch)]


def score(leaf: sg.ProgramState, depth: int) -> float:
    """The mean log-probability of all tokens on the path."""
    infos = [leaf.get_meta_info(f"thought{level}") for level in range(depth, 0, -1)]
    logprobs: list[float] = [token[0] for info in infos for token in info["output_token_logprobs"]]
    return sum(logprobs) / len(logprobs)


@sg.function
def story(s: sg.ProgramState, depth: int = 2, branch: int = 2) -> list[tuple[float, str]]:
    s += "Once upon a time, a fox came to a wide river. The fox wanted to cross it, so"
    leaves = grow(s, depth, branch)
    paths = [". Then".join(leaf[f"thought{level}"] for level in range(depth, 0, -1)) for leaf in leaves]
    return sorted(zip((score(leaf, depth) for leaf in leaves), paths, strict=True), reverse=True)


def main(engine: sg.Engine) -> list[sg.ProgramState]:
    state = story.run(temperature=0.7, seed=3, backend=engine)
    for logprob, path in state.ret_value:
        print(f"{logprob:.2f} so{path}")
    return [state]


if __name__ == "__main__":
    with sg.Engine(progress=True) as engine:
        main(engine)
