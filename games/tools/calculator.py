"""A calculator: exact where numbers are exact, and bounded in what it computes."""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from fractions import Fraction

from games.tools.base import ToolError

MAX_LENGTH = 300
"""Characters of an expression."""
MAX_BITS = 4096
"""Bits of a numerator or denominator: about 1,200 digits."""
MAX_FACTORIAL = 500
"""Its factorial just fits."""
DIGITS = 12
"""Significant digits of what is not exact."""

Number = Fraction | float
"""A fraction is exact, a float is not, and makes inexact whatever it meets."""

_SPELLINGS = str.maketrans({"^": "**", "×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "\n": " "})


class Calculator:
    """`calculate: EXPRESSION`: the value, exact for whole numbers, decimals and fractions."""

    name = "calculate"
    usage = "calculate: EXPRESSION, such as 3 * (4 + 5) / 7, 2 ** 10, 17 % 5, sqrt(2), round(10 / 3, 2)"

    def __call__(self, argument: str) -> str:
        """The value of the expression: a whole number, a decimal, or a fraction with its decimal beside it.

        Raises:
            ToolError: it is no expression, too long or too large, or has no value.
        """
        return told(value(argument))


def value(expression: str) -> Number:
    """The value of an expression: numbers, `+ - * / // % **` (also `^`), brackets, functions, `pi` and `e`.

    Raises:
        ToolError: it is no such expression, too long or too large, or has no real value.
    """
    if len(expression) > MAX_LENGTH:
        raise ToolError(f"the expression is longer than {MAX_LENGTH} characters")
    source = expression.translate(_SPELLINGS).strip()
    try:
        tree = ast.parse(source, mode="eval")
        return _value(tree.body, source)
    except SyntaxError:
        raise ToolError(f"not an expression: {expression.strip()!r}") from None
    except ZeroDivisionError:
        raise ToolError("division by zero") from None
    except OverflowError:
        raise ToolError("the value is too large") from None
    except (RecursionError, MemoryError):  # MemoryError: what the parser raises on many brackets
        raise ToolError("the expression is nested too deeply") from None
    except ValueError as error:  # a NUL character, or a function without a value there
        raise ToolError(f"no value: {error}") from None


def told(number: Number) -> str:
    """The number as text: `7`, `0.25`, `1/3 (about 0.333333333333)`, or 12 digits of what is not exact."""
    if isinstance(number, float):
        return f"about {number:.{DIGITS}g}"
    if number.denominator == 1:
        return str(number.numerator)
    decimals = _decimals(number.denominator)
    if decimals is not None:
        digits = f"{abs(number.numerator) * 10**decimals // number.denominator:0{decimals + 1}d}"
        return f"{'-' if number < 0 else ''}{digits[:-decimals]}.{digits[-decimals:]}"
    return f"{number} (about {float(number):.{DIGITS}g})"


def _decimals(denominator: int) -> int | None:
    """Decimals after which a fraction with this denominator ends; None: it goes on for ever, or for long."""
    return next((places for places in range(1, DIGITS + 1) if 10**places % denominator == 0), None)


def _value(node: ast.expr, source: str) -> Number:
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            return _literal(ast.get_source_segment(source, node) or "")
        case ast.UnaryOp(op=ast.UAdd()):
            return _value(node.operand, source)
        case ast.UnaryOp(op=ast.USub()):
            return -_value(node.operand, source)
        case ast.BinOp() if type(node.op) in _OPERATORS:
            return _bounded(_OPERATORS[type(node.op)](_value(node.left, source), _value(node.right, source)))
        case ast.Name() if node.id in _CONSTANTS:
            return _CONSTANTS[node.id]
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _FUNCTIONS:
            return _call(name, [_value(argument, source) for argument in node.args])
    known = ", ".join((*_FUNCTIONS, *_CONSTANTS))
    raise ToolError(f"cannot calculate {ast.get_source_segment(source, node)!r}; known are + - * / // % ** and {known}")


def _literal(text: str) -> Fraction:
    """`0.1` is a tenth here, not the float nearest to it."""
    _, _, exponent = text.casefold().partition("e") if not text.casefold().startswith("0x") else ("", "", "")
    if len(exponent.lstrip("+-0").replace("_", "")) > 3:
        raise OverflowError
    return Fraction(int(text, 0)) if text[:2].casefold() in ("0x", "0b", "0o") else Fraction(text)


def _bounded(number: Number) -> Number:
    if isinstance(number, Fraction) and _bits(number) > MAX_BITS:
        raise OverflowError
    if isinstance(number, float) and not math.isfinite(number):
        raise OverflowError
    return number


def _bits(number: Fraction) -> int:
    return max(number.numerator.bit_length(), number.denominator.bit_length())


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        # No power of at least half as many bits is computed in vain: 2 ** 5000 has (2 - 1) * 5000 of them.
        if (_bits(base) - 1) * abs(exponent.numerator) > MAX_BITS:
            raise OverflowError
        return Fraction(base**exponent.numerator)
    power: float | complex = float(base) ** float(exponent)
    if isinstance(power, complex):
        raise ToolError("no value: a negative number has no such root")
    return power


def _call(name: str, arguments: list[Number]) -> Number:
    least, most, function = _FUNCTIONS[name]
    if not least <= len(arguments) <= most:
        raise ToolError(
            f"{name} takes {least if least == most else f'{least} or more'} arguments, not {len(arguments)}"
        )
    return _bounded(function(*arguments))


def _whole(*numbers: Number) -> list[int]:
    if not all(isinstance(number, Fraction) and number.denominator == 1 for number in numbers):
        raise ToolError("no value: the function needs whole numbers")
    return [int(number) for number in numbers]


def _factorial(number: Number) -> Fraction:
    (whole,) = _whole(number)
    if whole > MAX_FACTORIAL:
        raise OverflowError
    return Fraction(math.factorial(whole))


def _sqrt(number: Number) -> Number:
    if isinstance(number, Fraction) and number >= 0:
        root = Fraction(math.isqrt(number.numerator), math.isqrt(number.denominator))
        if root * root == number:
            return root
    return math.sqrt(number)


def _round(number: Number, places: Number = Fraction(0)) -> Fraction:
    """Halves go away from zero, as taught at school."""
    (whole,) = _whole(places)
    if abs(whole) > 1000:
        raise OverflowError
    scale = Fraction(10) ** whole
    scaled = Fraction(number) * scale
    return Fraction(math.floor(abs(scaled) + Fraction(1, 2)) * (1 if scaled >= 0 else -1)) / scale


def _of_floats(function: Callable[..., float]) -> Callable[..., float]:
    return lambda *numbers: function(*map(float, numbers))


_OPERATORS: Mapping[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda a, b: a // b if isinstance(a // b, float) else Fraction(a // b),
    ast.Mod: operator.mod,
    ast.Pow: _power,
}
_CONSTANTS: Mapping[str, float] = {"pi": math.pi, "e": math.e}
_FUNCTIONS: Mapping[str, tuple[int, float, Callable[..., Number]]] = {
    "abs": (1, 1, abs),
    "ceil": (1, 1, lambda number: Fraction(math.ceil(number))),
    "cos": (1, 1, _of_floats(math.cos)),
    "exp": (1, 1, _of_floats(math.exp)),
    "factorial": (1, 1, _factorial),
    "floor": (1, 1, lambda number: Fraction(math.floor(number))),
    "gcd": (1, math.inf, lambda *numbers: Fraction(math.gcd(*_whole(*numbers)))),
    "lcm": (1, math.inf, lambda *numbers: Fraction(math.lcm(*_whole(*numbers)))),
    "log": (1, 2, _of_floats(math.log)),
    "max": (1, math.inf, lambda *numbers: max(numbers)),
    "min": (1, math.inf, lambda *numbers: min(numbers)),
    "round": (1, 2, _round),
    "sin": (1, 1, _of_floats(math.sin)),
    "sqrt": (1, 1, _sqrt),
    "tan": (1, 1, _of_floats(math.tan)),
}
"""Name to the fewest and the most arguments, and what it computes."""
