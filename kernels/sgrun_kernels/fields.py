"""The words of a row's record, of a ring's entry and of an automaton's head as constants for kernels."""

from __future__ import annotations

import numpy as np
import triton.language as tl

from sgrun_kernels import bitmask_cache, rows, tables


def _word(name: str, record: np.dtype[np.void] = rows.ROW) -> tl.constexpr:
    offset = record.fields[name][1]  # type: ignore[index]
    return tl.constexpr(offset // 4)


ROW_LEN = tl.constexpr(rows.ROW.itemsize // 4)
SEED = _word("seed")
TEMPERATURE = _word("temperature")
TOP_K = _word("top_k")
TOP_P = _word("top_p")
MIN_P = _word("min_p")
POSITION = _word("position")
FREQUENCY_PENALTY = _word("frequency_penalty")
PRESENCE_PENALTY = _word("presence_penalty")
REPETITION_PENALTY = _word("repetition_penalty")
ADJUSTMENT = _word("adjustment")
WANTS_LOGPROB = _word("wants_logprob")
BAN_UNTIL = _word("ban_until")
REMAINING = _word("remaining")
IS_ACTIVE = _word("is_active")
TOKEN_ID = _word("token_id")
SEQ_LEN = _word("seq_len")
AUTOMATON = _word("automaton")
CAN_END = _word("can_end")
STATE = _word("state")
COUNTER = _word("counter")
DEPTH = _word("depth")
IS_ACCEPTING = _word("is_accepting")
HAS_TEXT = _word("has_text")
UNWALKED = _word("unwalked")
MASK = _word("mask")
LEADER = _word("leader")
DRAWN = _word("drawn")
DRAWN_LOGPROB = _word("drawn_logprob")
STOP_IDS = _word("stop_ids")
STACK = _word("stack")
RING_LEN = tl.constexpr(rows.RING.itemsize // 4)
MAX_STOP_IDS = tl.constexpr(rows.MAX_STOP_IDS)
MAX_DEPTH = tl.constexpr(rows.MAX_DEPTH)

NOT_FINITE = tl.constexpr(rows.NOT_FINITE)
NOTHING_ALLOWED = tl.constexpr(rows.NOTHING_ALLOWED)
NO_TOKEN = tl.constexpr(rows.NO_TOKEN)
STOPPED = tl.constexpr(rows.STOPPED)
OUT_OF_TOKENS = tl.constexpr(rows.OUT_OF_TOKENS)
FINISHED = tl.constexpr(rows.FINISHED)
FAILED = tl.constexpr(rows.FAILED)

ENTRY_LEN = tl.constexpr(bitmask_cache.ENTRY.itemsize // 4)
ENTRY_CONSTRAINT = _word("constraint", bitmask_cache.ENTRY)
ENTRY_CAN_END = _word("can_end", bitmask_cache.ENTRY)
ENTRY_STATE = _word("state", bitmask_cache.ENTRY)
ENTRY_COUNTER = _word("counter", bitmask_cache.ENTRY)
ENTRY_DEPTH = _word("depth", bitmask_cache.ENTRY)
ENTRY_LOW = _word("low", bitmask_cache.ENTRY)
ENTRY_IS_ACCEPTING = _word("is_accepting", bitmask_cache.ENTRY)
ENTRY_HAS_TEXT = _word("has_text", bitmask_cache.ENTRY)
ENTRY_USED = _word("used", bitmask_cache.ENTRY)
ENTRY_STACK = _word("stack", bitmask_cache.ENTRY)
WAYS = tl.constexpr(bitmask_cache.WAYS)

HEAD_LEN = tl.constexpr(tables.HEAD_LEN)
CLASSES = tl.constexpr(tables.CLASSES)
TABLE = tl.constexpr(tables.TABLE)
TABLE_WIDTH = tl.constexpr(tables.TABLE_WIDTH)
SITES = tl.constexpr(tables.SITES)
SITES_WIDTH = tl.constexpr(tables.SITES_WIDTH)
COUNTS = tl.constexpr(tables.COUNTS)
CONSTRAINT = tl.constexpr(tables.CONSTRAINT)
OP_BITS = tl.constexpr(tables.OP_BITS)
OP_MASK = tl.constexpr((1 << tables.OP_BITS) - 1)
MOVE = tl.constexpr(tables.MOVE)
CALL = tl.constexpr(tables.CALL)
RETURN = tl.constexpr(tables.RETURN)
RETURN_AFTER = tl.constexpr(tables.RETURN_AFTER)
COUNT = tl.constexpr(tables.COUNT)
RESET = tl.constexpr(tables.RESET)
ACCEPT = tl.constexpr(tables.ACCEPT)
CONSUMING = tl.constexpr(sum(1 << op for op in (tables.MOVE, tables.RETURN_AFTER, tables.RESET, tables.ACCEPT)))
