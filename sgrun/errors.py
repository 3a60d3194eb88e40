"""Every error sgrun raises on purpose; nothing here imports anything of sgrun.

SgrunError
├── ConfigError (ValueError)            an engine option: what came, what is allowed
├── ModelError                          a model could not be used
│   ├── ModelNotFoundError              no such path, file or hub name
│   ├── UnsupportedModelError           architecture, tensor type or feature outside what sgrun runs
│   └── WeightsError                    damaged, truncated, mismatched or refused weight files
├── InvalidRequestError (ValueError)    a request that can never work
│   ├── InvalidParameterError           a sampling or program argument out of range, or contradictory
│   ├── EmptyPromptError                nothing to continue from
│   ├── ContextLengthError              longer than the model's context or than the page pool
│   └── ChatTemplateError               roles without a chat template, or a template that fails
├── GrammarError                        a constraint
│   ├── InvalidGrammarError (ValueError)    malformed regex, schema or choices
│   ├── UnsupportedGrammarError         well-formed, but outside what is enforced
│   ├── GrammarTooLargeError            over a compile limit
│   ├── GrammarDeadEndError             no token of the vocabulary can continue
│   └── CheckFailedError                a finished text breaks what only a check afterwards can tell
├── ProgramError                        the program misused the language
│   ├── UnknownVariableError (KeyError)
│   └── ClosedStateError
├── AbortedError                        the operation was cancelled
└── EngineError                         the engine failed, not the request
    ├── NonFiniteLogitsError            NaN or infinity in one sequence's logits
    └── EngineClosedError
"""

from __future__ import annotations


class SgrunError(Exception):
    """Base class of all errors raised by sgrun."""


class ConfigError(SgrunError, ValueError):
    """An engine option is out of range or unknown."""


class ModelError(SgrunError):
    """A model could not be used."""


class ModelNotFoundError(ModelError):
    """There is no model under this path or name."""


class UnsupportedModelError(ModelError):
    """The model is readable, but of a kind that sgrun does not run."""


class WeightsError(ModelError):
    """A weight file is damaged, truncated, does not match its config, or is refused."""


class InvalidRequestError(SgrunError, ValueError):
    """The request can never succeed as it stands."""


class InvalidParameterError(InvalidRequestError):
    """An argument is out of range or contradicts another."""


class EmptyPromptError(InvalidRequestError):
    """A generation was asked of a sequence without tokens."""


class ContextLengthError(InvalidRequestError):
    """The sequence does not fit the model's context or the page pool."""


class ChatTemplateError(InvalidRequestError):
    """Roles were used without a usable chat template."""


class GrammarError(SgrunError):
    """A constraint could not be compiled or followed."""


class InvalidGrammarError(GrammarError, ValueError):
    """The constraint's text is malformed; the message says where."""


class UnsupportedGrammarError(GrammarError):
    """The constraint uses a feature that is not enforced, so it is refused."""


class GrammarTooLargeError(GrammarError):
    """The constraint is over a limit of the compiler."""


class GrammarDeadEndError(GrammarError):
    """No token of the vocabulary continues the constraint from where the text stands."""


class CheckFailedError(GrammarError):
    """The finished text breaks what the constraint does not enforce; the message names the keyword or the field."""


class ProgramError(SgrunError):
    """The program misused the language."""


class UnknownVariableError(ProgramError, KeyError):
    """The program read a variable that no operation defines."""

    def __str__(self) -> str:  # KeyError would print the message quoted
        return str(self.args[0]) if self.args else ""


class ClosedStateError(ProgramError):
    """An operation was added to a state that has ended."""


class AbortedError(SgrunError):
    """The operation was cancelled before it finished."""


class EngineError(SgrunError):
    """The engine failed while it worked on this sequence."""


class NonFiniteLogitsError(EngineError):
    """The model produced NaN or infinite logits for this sequence."""


class EngineClosedError(EngineError):
    """The engine has been shut down."""
