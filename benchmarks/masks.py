"""Masks of rows that stand at several places of their constraints, and what a step does besides.

    PYTHONPATH=.:kernels:kernels/benchmarks python benchmarks/masks.py [--smoke] [--tokenizer PATH]

Rows of automata of their own are each walked over the whole vocabulary, the cache of bitmasks being emptied before
(some 2 us of each time); "shared" is the time where all rows are at one place of one automaton, "kept" where the cache
has their bitmasks. Without `--tokenizer`, the vocabulary is made up: 131,072 tokens of the lengths of a byte-level BPE.
"steps" is how many bytes of tokens have to be walked for one row, the first refused byte of each counted. `--smoke`
runs tiny sizes anywhere. A table and, last, one JSON line.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser
from copy import copy

import numpy as np
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from timing import copy_bandwidth, median_us, print_result

from sgrun.engine.device_automata import DeviceAutomata, put_place
from sgrun.grammar.automaton import Automaton
from sgrun.grammar.compiler import compile_grammar
from sgrun.grammar.vocabulary import Vocabulary
from sgrun.grammar.walk import Cursor
from sgrun.types import JsonSchemaSpec, RegexSpec
from sgrun_kernels.automaton import row_masks_
from sgrun_kernels.bitmask_cache import BitmaskCache
from sgrun_kernels.rows import Adjustments, DecodeInputs, Ring, Rows, new_records, words_of
from sgrun_kernels.step import commit_step_, decode_inputs_
from sgrun_kernels.tables import VocabularyTables
from sgrun_kernels.workspace import allocate_frames

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SCHEMA = """{"type": "object", "required": ["name", "age"], "properties": {"name": {"type": "string"},
    "age": {"type": "integer"}, "tags": {"type": "array", "items": {"enum": ["a", "bc"]}}},
    "additionalProperties": false}"""
ANY_JSON = "{}"  # recursive: objects and arrays are calls
PLACES = {
    "key": (JsonSchemaSpec(SCHEMA), '{"na'),
    "string": (JsonSchemaSpec(SCHEMA), '{"name": "Ada'),
    "number": (JsonSchemaSpec(SCHEMA), '{"name": "Ada", "age": 3'),
    "free text": (RegexSpec(r"(.|\n)*"), "Once"),
    "any value": (JsonSchemaSpec(ANY_JSON), '{"a": [[{"b": '),
    "deep string": (JsonSchemaSpec(ANY_JSON), '{"a": [[{"b": "c'),
}


def made_up_vocabulary(size: int) -> Vocabulary:
    """Bytes, words with and without a space before them, numbers and punctuation; token 0 ends the text."""
    generator = np.random.default_rng(0)
    tokens: dict[bytes, None] = {bytes([byte]): None for byte in range(256)}
    letters = np.frombuffer(b"etaoinshrdlucmfwypvbgkjqxz", dtype=np.uint8)
    weights = 1 / np.arange(2, 28)
    while len(tokens) < size - 1:
        word = generator.choice(letters, generator.integers(2, 12), p=weights / weights.sum()).tobytes()
        kind = generator.random()
        word = word.capitalize() if kind < 0.2 else "éü日本語ß"[int(kind * 30) % 6].encode() * 2 if kind > 0.9 else word
        tokens[generator.choice([b" ", b"", b'"', b"_", b", "], p=[0.55, 0.36, 0.03, 0.03, 0.03]) + word] = None
    return Vocabulary([None, *list(tokens)[: size - 1]], end_token_ids=[0])


def num_steps(automaton: Automaton, cursor: Cursor, vocabulary: Vocabulary) -> int:
    """Bytes that are walked for one mask; of 1,000 tokens, for all."""
    walker, total = automaton.walker, 0
    chosen = np.random.default_rng(0).integers(0, vocabulary.size, 1000)
    for token_id in chosen.tolist():
        at: Cursor | None = cursor
        for byte in vocabulary.token(token_id):
            total += 1
            at = walker.advance(at, bytes([byte])) if at is not None else None
            if at is None:
                break
    return total * vocabulary.size // 1000


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--tokenizer")
    args = parser.parse_args()
    vocabulary = (
        Vocabulary.from_tokenizer(args.tokenizer)
        if args.tokenizer
        else made_up_vocabulary(600 if args.smoke else 131072)
    )
    tables = VocabularyTables.build(vocabulary.flat, vocabulary.offsets, vocabulary.end_token_ids, DEVICE)
    automata, results, frames = DeviceAutomata(DEVICE, max_users=300), [], allocate_frames(DEVICE)
    print(f"{'place':<13}{'rows':>5}{'us':>9}{'shared':>9}{'kept':>9}{'steps':>10}{'steps/ns':>10}")
    for name, (spec, text) in PLACES.items():
        automaton = compile_grammar(spec)
        cursor = automaton.walker.advance(automaton.walker.start, text.encode())
        assert cursor is not None
        steps = num_steps(automaton, cursor, vocabulary)
        for num_rows in [2] if args.smoke else [1, 8, 64, 256]:
            own = [copy(automaton) for _ in range(num_rows)]
            apart = [automata.acquire(one) for one in own]
            times = {
                key: _masks_us(indices, cursor, is_kept, automata, tables, frames)
                for key, indices, is_kept in (
                    ("us", apart, False),
                    ("shared_us", apart[:1] * num_rows, False),
                    ("kept_us", apart, True),
                )
            }
            for one in own:
                automata.release(one)
            us = times["us"]
            columns = "".join(f"{value:>9.1f}" for value in times.values())
            print(f"{name:<13}{num_rows:>5}{columns}{steps:>10}{steps * num_rows / us / 1000:>10.2f}")
            results.append({"place": name, "num_rows": num_rows, **times, "steps": steps})
    for num_rows in [2] if args.smoke else [1, 64, 256]:
        us = {"commit_step_": _commit_us(num_rows, tables.size), "decode_inputs_": _inputs_us(num_rows)}
        for name, value in us.items():
            print(f"{name:<16}{num_rows:>5}{value:>9.1f}")
            results.append({"operation": name, "num_rows": num_rows, "us": value})
    print_result("masks", copy_bandwidth(), results)


def _masks_us(
    indices: list[int],
    cursor: Cursor,
    is_kept: bool,
    automata: DeviceAutomata,
    tables: VocabularyTables,
    frames: torch.Tensor,
) -> float:
    """Rows at one place of the automata of these indices."""
    num_rows = len(indices)
    records = new_records(num_rows)
    records["is_active"] = records["can_end"] = 1
    for row, index in enumerate(indices):
        put_place(records, row, index, cursor)
    rows, row_ids = Rows.allocate(num_rows, 1, DEVICE), torch.arange(num_rows, dtype=torch.int32, device=DEVICE)
    rows.words.copy_(words_of(records))
    cache = BitmaskCache.allocate(num_rows, tables.num_words, DEVICE)

    def launch() -> None:
        if not is_kept:
            cache.entries.zero_()
        row_masks_(row_ids, rows, automata.arena, tables, cache, frames)

    return median_us([launch])


def _commit_us(num_rows: int, vocab_size: int) -> float:
    records = new_records(num_rows)
    records["is_active"] = 1
    records["remaining"], records["drawn"] = 2**30, 1
    rows, row_ids = Rows.allocate(num_rows, 1, DEVICE), torch.arange(num_rows, dtype=torch.int32, device=DEVICE)
    rows.words.copy_(words_of(records))
    ring, adjustments = Ring.allocate(8, num_rows, DEVICE), Adjustments.allocate(1, vocab_size, DEVICE)
    cache = BitmaskCache.allocate(num_rows, 1, DEVICE, size_bytes=1)
    us = median_us([lambda: commit_step_(row_ids, rows, ring, adjustments, cache)])
    assert bool(rows.column("is_active").all())
    return us


def _inputs_us(num_rows: int) -> float:
    rows, row_ids = Rows.allocate(num_rows, 64, DEVICE), torch.arange(num_rows, dtype=torch.int32, device=DEVICE)
    inputs = DecodeInputs.allocate(num_rows, 64, DEVICE)
    return median_us([lambda: decode_inputs_(row_ids, rows, inputs, 16, 0)])


if __name__ == "__main__":
    main()
