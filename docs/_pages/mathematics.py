"""Mathematics of docstrings: reStructuredText in the source, MyST on the pages."""

import re
import textwrap

BLOCK = re.compile(
    r"^(?P<indent> *)\.\. math::(?P<first>.*)\n"
    r"(?P<rest>(?:(?:(?P=indent) +\S.*)?\n)*)",
    re.M,
)
INLINE = re.compile(r":math:(`[^`]+`)")


def myst(text: str) -> str:
    """Returns a docstring whose mathematics is that of MyST.

    Args:
      text: with blocks `.. math::` and inline roles.

    Returns:
      The text with fences and roles of MyST.
    """
    return INLINE.sub(r"{math}\1", BLOCK.sub(_fence, text + "\n"))


def _fence(match: re.Match) -> str:
    """A block as a fence, at the block's own indentation."""
    rest = textwrap.dedent(match["rest"]).strip("\n")
    formula = "\n".join(filter(None, (match["first"].strip(), rest)))
    fence = textwrap.indent(f"```{{math}}\n{formula}\n```", match["indent"])
    return f"{fence}\n\n"
