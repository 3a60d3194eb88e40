"""The Triton functions that end a step. Importing this loads triton."""

from sgrun.engine.device_steps import SamplingKernels
from sgrun_kernels.automaton import row_masks_
from sgrun_kernels.sampling import sample_, top_logprobs
from sgrun_kernels.step import commit_step_, decode_inputs_

TRITON_KERNELS = SamplingKernels(row_masks_, sample_, top_logprobs, commit_step_, decode_inputs_)
