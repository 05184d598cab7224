"""What a tool is, how an action calls one, and whose doing it is when a call fails."""

import re
from collections.abc import Sequence
from typing import Protocol

from games.time_limit import within

MAX_OUTPUT = 2000
"""Characters of a tool's output that an agent gets to see, unless told otherwise."""


class ToolError(Exception):
    """The agent's doing: an argument that the tool cannot use. Its text is what the agent is told."""


class ToolFault(Exception):
    """Nobody's doing: the tool hangs or is broken. The episode is at fault, no move of it."""


class Tool(Protocol):
    """Text in, text out; the same text for the same argument, as far as possible."""

    @property
    def name(self) -> str:
        """What an action calls it: small letters, digits and `_`."""

    @property
    def usage(self) -> str:
        """One line for a prompt, which begins with `NAME: `."""

    def __call__(self, argument: str) -> str:
        """The output for this argument.

        Raises:
            ToolError: the argument makes no sense; data, to be told to the agent.
            ToolFault: the tool itself has failed.
        """


def parse_call(text: str, tools: Sequence[Tool]) -> tuple[Tool, str] | None:
    """The tool and the argument that a text of the form `NAME: ARGUMENT` means; None: it means no call, or several.

    Case of the name and blank space around it do not matter. The argument may have several lines, and may be empty;
    blank space around it is left out, except before a first line that does not stand beside the name (Python). A text
    in which another line begins with the name of a tool and a colon means more than one call.

    Raises:
        ValueError: two tools have one name.
    """
    named = {tool.name.casefold(): tool for tool in tools}
    if len(named) < len(tools):
        raise ValueError(f"tools: {sorted(tool.name for tool in tools)} is not allowed; it must be one tool per name")
    if not named:
        return None
    names = "|".join(map(re.escape, named))
    begins = re.compile(rf"({names})[ \t]*:", re.IGNORECASE)
    text = text.strip()
    call = begins.match(text)
    if call is None or any(begins.match(line) for line in text.splitlines()[1:]):
        return None
    return named[call[1].casefold()], re.sub(r"\A[ \t]*(\r?\n)?", "", text[call.end() :])


def use(tool: Tool, argument: str, *, seconds: float = 60.0, characters: int = MAX_OUTPUT) -> str:
    """The tool's output, at most about so many `characters`, if it comes within so many `seconds` of wall clock.

    Raises:
        ToolError: as the tool raises it, cut to the same length.
        ToolFault: the tool does not return in time, raises anything else, or returns no text.
    """
    try:
        output = within(seconds, lambda: tool(argument))
    except ToolError as error:
        raise ToolError(cut(str(error), characters)) from error
    except ToolFault:
        raise
    except TimeoutError as error:
        raise ToolFault(f"tool {tool.name} hangs: {error}") from error
    except Exception as error:  # a tool may be anybody's code
        raise ToolFault(f"tool {tool.name} is broken: {type(error).__name__}: {error}") from error
    if not isinstance(output, str):
        raise ToolFault(f"tool {tool.name} is broken: it returns {type(output).__name__}, not text")
    return cut(output, characters)


def outcome(tool: Tool, argument: str, *, seconds: float = 60.0, characters: int = MAX_OUTPUT) -> str:
    """What an agent is told of a call: as `use`, where what it got wrong is told as well.

    Raises:
        ToolFault: see `use`.
    """
    try:
        return use(tool, argument, seconds=seconds, characters=characters)
    except ToolError as error:
        return str(error)


def cut(text: str, characters: int) -> str:
    """The text, or its beginning and how much of it is left out."""
    left_out = len(text) - characters
    return text if left_out <= 0 else f"{text[:characters]}... ({left_out} characters left out)"
