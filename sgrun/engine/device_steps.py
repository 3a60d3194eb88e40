"""Owns how steps are computed where the device samples: it goes on by itself, and the host reads tokens as they come.

Every step ends in the same kernels: bitmasks of the constraints' places (on a stream of their own, beside the forward
pass), sampling, and the commit that moves each row on. A planned step runs them after a packed forward pass; a step
launched ahead is one graph that takes its inputs from the rows themselves.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import is_not

import numpy as np
import torch
from torch import Tensor

from sgrun.cache.prefix_cache import Lease
from sgrun.engine.batch import Sampling, Scored, build_batch
from sgrun.engine.decode_graphs import DecodeGraphs
from sgrun.engine.device_automata import DeviceAutomata
from sgrun.engine.device_rows import DeviceRows
from sgrun.engine.generation import SampleTask
from sgrun.engine.limits import Limits
from sgrun.engine.runner import ModelRunner
from sgrun.engine.sampler import Sampled
from sgrun.engine.scheduler import Row
from sgrun.engine.sequence import Task
from sgrun.engine.side_by_side import side_by_side
from sgrun.engine.steps import Forward, StepResult
from sgrun.engine.transfer import Arrival, to_device
from sgrun.grammar.vocabulary import Vocabulary
from sgrun.models.inputs import ForwardInputs
from sgrun_kernels.bitmask_cache import BitmaskCache
from sgrun_kernels.rows import NO_TOKEN, DecodeInputs, Ring, ring_entries
from sgrun_kernels.tables import VocabularyTables
from sgrun_kernels.workspace import SampleWorkspace, allocate_frames

RING_SIZE = 8  # more than there are steps in flight


@dataclass(frozen=True, slots=True)
class SamplingKernels:
    """The functions of `sgrun_kernels` that end a step: in Triton, or their twins."""

    row_masks_: Callable[..., None]
    sample_: Callable[..., None]
    top_logprobs: Callable[[Tensor, int], tuple[Tensor, Tensor]]
    commit_step_: Callable[..., None]
    decode_inputs_: Callable[..., None]


@dataclass(slots=True)
class _Flight:
    """A launched step: what `sampling` lists samples in the device's rows `row_ids`. `scored` as in StepResult, still
    on the device. `arrival`: the ring's words [R, 4] and, where wanted, the top ids and log-probabilities [L, num_top].
    """

    rows: list[Row]
    sampling: list[Sampling]
    row_ids: list[int]
    scored: list[Scored]
    arrival: Arrival | None = None


class DeviceSteps:
    """Runs steps of `runner`'s model on its device, up to `max_ahead` beyond the one whose tokens are waited for."""

    max_ahead = 2

    def __init__(self, runner: ModelRunner, vocabulary: Vocabulary, limits: Limits, kernels: SamplingKernels) -> None:
        device, max_rows, vocab_size = runner.decoder.device, limits.max_running, limits.vocab_size
        max_pages = -(-limits.context_len // limits.page_size)
        self._device = device
        self.forward: Forward = runner
        self._limits = limits
        self._kernels = kernels
        self._state = DeviceRows(max_rows, max_pages, vocab_size, DeviceAutomata(device, max_rows), device)
        self._ring = Ring.allocate(RING_SIZE, max_rows + 1, device)
        self._inputs = DecodeInputs.allocate(max_rows, max_pages, device)
        self._lanes = torch.full((max_rows,), self._state.spare, dtype=torch.int32, device=device)
        self._lane_ids: list[int] = []  # what stands in `_lanes`, spare rows left out
        self._leases: list[Lease] = []  # of the last step of rows that go on; with them
        self._order: list[int] = []  # the places among them of the rows in its lanes
        self._shares = False  # whether these read prefixes together
        self._counting = torch.arange(max_rows + 1, device=device)
        self._bitmasks = BitmaskCache.allocate(max_rows + 1, vocabulary.num_words, device)
        self._vocabulary = VocabularyTables.build(vocabulary.flat, vocabulary.offsets, vocabulary.end_token_ids, device)
        self._workspace = SampleWorkspace.allocate(max_rows, vocab_size, device)
        self._frames = allocate_frames(device)
        self._beside: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graphs = DecodeGraphs(self._decode, self._warm_up, max_rows, max_pages * limits.page_size, device)
        self._in_flight: deque[_Flight] = deque()
        self._num_sampled = 0  # launches that wrote to the ring

    @property
    def num_in_flight(self) -> int:
        return len(self._in_flight)

    def launch(self, rows: list[Row]) -> None:
        with self._on_device():
            self._state.leave()
            if all(self._state.is_placed(row) for row in rows):
                self._in_flight.append(self._launch_decode(rows))
            else:
                self._in_flight.append(self._launch_packed(rows))

    def collect(self) -> StepResult:
        flight = self._in_flight.popleft()
        if flight.arrival is None:
            return StepResult(flight.rows, [], flight.scored)
        words, *top = flight.arrival.wait()
        entries = ring_entries(words)[flight.row_ids].tolist()
        sampled = []
        ended: set[Task] = set()
        for lane, ((row, task), entry) in enumerate(zip(flight.sampling, entries, strict=True)):
            token_id, _, logprob, is_forced = entry
            if token_id == NO_TOKEN:  # the device had found its end in a step before
                ended.add(task)
            else:
                best = _top(top, lane, task.params.top_logprobs)
                sampled.append((row, task, Sampled(token_id, logprob, best, bool(is_forced))))
        return StepResult([row for row in flight.rows if row.task not in ended], sampled, flight.scored)

    def close(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._in_flight.clear()
        del self._graphs  # they refer back to the steps

    def _launch_packed(self, rows: list[Row]) -> _Flight:
        """A step of any rows, with what the host knows of them."""
        batch = build_batch(rows, self._limits.page_size, self._device)
        if batch.unknown:
            wanted = [(place, self._state.row_id(row.task)) for place, row in batch.unknown]
            unknown, row_ids = to_device(np.array(wanted).T, self._device)
            batch.inputs.token_ids[unknown] = self._state.rows.column("token_id")[row_ids].long()
        logits = self.forward(batch.inputs)
        scored, places, sampling = batch.split(logits)
        flight = self._flight(rows, sampling, scored)
        if sampling:
            lanes = to_device(np.array(flight.row_ids, dtype=np.int32), self._device)
            logits = logits[to_device(np.array(places), self._device)]
            self._row_masks(lanes)
            self._sample(lanes, logits)
            flight.arrival = self._arrival(sampling, logits)
        return flight

    def _launch_decode(self, rows: list[Row]) -> _Flight:
        """A step of rows that all go on from what the device has."""
        rows, shares = self._side_by_side(rows)
        sampling = [(row, row.task) for row in rows if isinstance(row.task, SampleTask)]
        flight = self._flight(rows, sampling, [])
        self._fill_lanes(flight.row_ids)
        logits = self._graphs.run(self._graphs.num_lanes(len(rows)), max(row.start for row in rows) + 1, shares)
        flight.arrival = self._arrival(sampling, logits)
        return flight

    def _side_by_side(self, rows: list[Row]) -> tuple[list[Row], bool]:
        """`side_by_side` of rows that go on; worked out anew when they are others than in the step before."""
        leases = [row.lease for row in rows]
        if len(leases) != len(self._leases) or any(map(is_not, leases, self._leases)):
            ordered, shares = side_by_side(rows, self._limits.page_size)
            places = {id(row): place for place, row in enumerate(rows)}
            self._leases, self._order, self._shares = leases, [places[id(row)] for row in ordered], shares
        return [rows[place] for place in self._order], self._shares

    def _flight(self, rows: list[Row], sampling: list[Sampling], scored: list[Scored]) -> _Flight:
        """Brings the device's rows of what is sampled up to date."""
        tasks = [task for _, task in sampling]
        if self._state.update(tasks):
            self._graphs.forget()
        return _Flight(rows, sampling, [self._state.row_id(task) for task in tasks], scored)

    def _fill_lanes(self, row_ids: list[int]) -> None:
        """Says which rows the lanes of the next graphs are; the lanes behind them are spare."""
        if row_ids != self._lane_ids:
            lanes = np.full(len(self._lanes), self._state.spare, dtype=np.int32)
            lanes[: len(row_ids)] = row_ids
            self._lanes.copy_(to_device(lanes, self._device))
            self._lane_ids = row_ids

    def _decode(self, num_lanes: int, max_len: int, shares: bool) -> Tensor:
        """One step of the rows in the first lanes; captured, so that nothing here may look at values."""
        lanes, counting, rows = self._lanes[:num_lanes], self._counting, self._state.rows
        page_size, num_pages = self._limits.page_size, self._limits.num_pages
        inputs = self._inputs.first(num_lanes, -(-max_len // page_size))
        self._kernels.decode_inputs_(lanes, rows, inputs, page_size, num_pages)
        with self._beside_the_rest():
            self._row_masks(lanes)
        logits = self.forward(
            ForwardInputs(
                token_ids=inputs.token_ids,
                positions=inputs.positions,
                store_slots=inputs.slots,
                copy_src=counting[:0],
                copy_dst=counting[:0],
                page_tables=inputs.page_tables,
                seq_lens=inputs.seq_lens,
                extend_starts=counting[: num_lanes + 1],
                logits_rows=None,
                num_extends=0,
                seq_lens_host=[],
                extend_lens_host=[],
                max_decode_len=max_len,
                decodes_share=shares,
            )
        )
        if self._beside is not None:
            torch.cuda.current_stream().wait_stream(self._beside)
        self._sample(lanes, logits)
        return logits

    def _warm_up(self, num_lanes: int, max_len: int, shares: bool) -> None:
        """Runs a step of spare rows alone, which leaves no trace but in the ring's count."""
        row_ids = self._lane_ids
        self._fill_lanes([])
        self._decode(num_lanes, max_len, shares)
        self._num_sampled += 1
        self._fill_lanes(row_ids)

    def _row_masks(self, lanes: Tensor) -> None:
        rows, automata = self._state.rows, self._state.automata
        self._kernels.row_masks_(lanes, rows, automata.arena, self._vocabulary, self._bitmasks, self._frames)

    def _sample(self, lanes: Tensor, logits: Tensor) -> None:
        rows, adjustments = self._state.rows, self._state.adjustments
        self._kernels.sample_(logits, lanes, rows, self._bitmasks.bits, adjustments, self._workspace)
        self._kernels.commit_step_(lanes, rows, self._ring, adjustments, self._bitmasks)

    def _arrival(self, sampling: list[Sampling], logits: Tensor) -> Arrival:
        """Queues what the host wants to know of the step that has just been launched."""
        words = self._ring.words[self._num_sampled % RING_SIZE]
        self._num_sampled += 1
        num_top = max(task.params.top_logprobs for _, task in sampling)
        top = self._kernels.top_logprobs(logits[: len(sampling)], min(num_top, logits.shape[1])) if num_top else ()
        return Arrival(words, *top)

    @contextlib.contextmanager
    def _beside_the_rest(self) -> Iterator[None]:
        """Launches on a stream of its own behind what has been launched so far; the caller waits for it later."""
        if self._beside is None:
            yield
            return
        self._beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._beside):
            yield

    def _on_device(self) -> contextlib.AbstractContextManager[object]:
        return torch.cuda.device(self._device) if self._device.type == "cuda" else contextlib.nullcontext()


def _top(top: list[Tensor], lane: int, num_top: int) -> tuple[tuple[int, float], ...]:
    if not num_top:
        return ()
    ids, logprobs = top
    return tuple(zip(ids[lane, :num_top].tolist(), logprobs[lane, :num_top].tolist(), strict=True))
