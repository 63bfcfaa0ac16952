"""Text of others, shown as nothing but text: no markup, no links, and no character that acts without being seen.

Controls, above all those that turn the direction of writing, can make a text read otherwise than it is; each is shown
as its code. What joins letters (U+200C, U+200D) and varies them stays: several scripts and every emoji need it.
"""

import re

from markupsafe import Markup, escape

# C0 and C1 but for tab and line feed; soft hyphen; marks and overrides of direction; what has no width; separators of
# lines that browsers do not break at; deprecated format controls; annotations; tags; halves of surrogate pairs.
_UNSEEN = re.compile(
    "([\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff])\\1*"
)


def inert(text: str) -> Markup:
    """Escaped, with a `<mark>` that names every unseen character, and how many there are in a row.

    >>> inert("<b>a\\u202eb\\x00\\x00")
    Markup('&lt;b&gt;a<mark>U+202E</mark>b<mark>U+0000 ×2</mark>')
    """
    return Markup(_UNSEEN.sub(_mark, str(escape(text.replace("\r\n", "\n")))))


def _mark(found: re.Match[str]) -> str:
    times = f" ×{len(found[0])}" if len(found[0]) > 1 else ""
    return f"<mark>U+{ord(found[1]):04X}{times}</mark>"


def plain(text: str) -> str:
    """As `inert`, for a terminal: no escape sequence reaches it.

    >>> plain("a\\x1b[2Jb")
    'a[U+001B][2Jb'
    """
    return _UNSEEN.sub(lambda found: f"[U+{ord(found[1]):04X}]" * len(found[0]), text.replace("\r\n", "\n"))
