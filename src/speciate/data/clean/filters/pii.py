"""Replace what identifies a person by values reserved for examples: e-mail, IP, phone and card numbers.

The pattern for e-mail is datatrove's (Penedo et al. 2024) with the letters of every script, since addresses may hold
them (RFC 6531). Around it, a script without spaces is no part of an address in another script: in Chinese text the
address is all that is replaced. datatrove's pattern finds IP addresses, Google's libphonenumber phone numbers, and
issuers' prefixes with Luhn's check digit card numbers; digits may be those of any script. The pattern for e-mail takes
time quadratic in the length of a run without spaces (half a minute for 40 kB). So it is tried only around each `@`,
within the 64 + 255 characters that an address can have (RFC 5321). Private and reserved addresses stay.

Missed: names, postal addresses, dates of birth, IPv6, "jane at acme dot com", phone numbers without a country code
unless they belong to `region`. Replaced wrongly: a version or section like 1.2.3.4, a product `a@b.mean` in Python,
with a `region` some page ranges (573-583. 2020), and text that touches an address of its own script without spaces.
"""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from datatrove.pipeline.formatters.pii import PIIFormatter
from phonenumbers import Leniency, PhoneNumberMatcher
from pydantic import Field

from speciate.config.contracts.data import FilterOptions
from speciate.data.characters import SPACELESS, property_pattern
from speciate.data.clean.pipeline import Drop
from speciate.data.documents import Document

MAX_LOCAL_PART, MAX_DOMAIN = 64, 255
"""Most characters of an address before and after its @ (RFC 5321)."""
RESERVED_DOMAIN = re.compile(r"@(.*\.)?(example(\.(com|org|net))?|test|invalid|localhost)$", re.IGNORECASE)
"""Addresses that belong to nobody (RFC 2606)."""
PLUS_SIGN = re.compile("[+\uff0b]")
"""What begins a number with its country code."""
GROUPED_DIGITS = re.compile(r"\d[^\d]+\d")
WIDE_DIGITS = re.compile(r"[^\D0-9]")
"""Digits beyond ASCII."""
AT_SIGN = re.compile("[@\uff20]")
LETTER = rf"[[\p{{L}}\p{{M}}\p{{N}}]--{SPACELESS}]"
"""A letter, mark or digit of a script with spaces; LONE_LETTER is one of a script without."""
LONE_LETTER = rf"[{SPACELESS}\p{{M}}\p{{Nd}}]"
ATOM = rf"[{LETTER}!#$%&'*+/=?^_`{{|}}~\-]"
DOT = "[.\uff0e]"
EMAIL = (
    # the beginning of a word, or of other characters of an address after a word
    rf"(?:(?:(?<![{LETTER}_])(?=[{LETTER}_])|(?<=[{LETTER}_])(?![{LETTER}_])){ATOM}+(?:{DOT}{ATOM}+)*"
    rf"|(?<!{LONE_LETTER}){LONE_LETTER}+(?:{DOT}{LONE_LETTER}+)*){AT_SIGN.pattern}"
    # labels may mix scripts, save the last, after which the text may go on
    rf"(?:[{LETTER}{SPACELESS}](?:[{LETTER}{SPACELESS}\-]*[{LETTER}{SPACELESS}])?{DOT})+"
    rf"(?:{LETTER}(?:[{LETTER}\-]*{LETTER})?|[{SPACELESS}\p{{M}}]+)"
)
TOP_LEVEL = rf"{DOT}(?:[\p{{L}}\p{{M}}]{{2,}}|xn--[A-Za-z0-9\-]+)$"
"""A top-level domain: letters, or their ASCII form."""
CARD_NUMBER = r"(?<![{word}.+\-])(?:4|5[1-5]|2[2-7]|3[0-9]|6[0-9])(?:[{gap}]?[0-9]){{11,17}}(?![{word}\-])"
ASCII_CARD = re.compile(CARD_NUMBER.format(word=r"\w", gap=r" \-"))
"""The pattern for texts of ASCII alone, at twice the speed."""
CARD = CARD_NUMBER.format(word=rf"[\w--{SPACELESS}]", gap=r" \-\u00a0\u2007\u2009\u202f\u2010-\u2013\u3000\uff0d")


class Options(FilterOptions):
    """Replace personal data."""

    emails: bool = True
    """Whether to replace e-mail addresses by email@example.com."""
    ips: bool = True
    """Whether to replace public IPv4 addresses by 192.0.2.1."""
    phones: bool = True
    """Whether to replace phone numbers by 555-0100."""
    region: str | None = Field(None, pattern=r"^[A-Z]{2}$")
    """Country (ISO 3166) assumed for phone numbers without a country code; null: such numbers are ignored."""
    cards: bool = True
    """Whether to replace credit-card numbers by 0000 0000 0000 0000."""


class Filter:
    """Edit each document by itself."""

    def __init__(self, options: Options, archives: Mapping[str, pathlib.Path]) -> None:
        self.options = options
        formatter = PIIFormatter()
        self._ascii_email, self._addresses = formatter.emails_replacer.regex, formatter.ip_replacer

    def apply(self, document: Document) -> Document | Drop:
        """Return `document`, or a copy with placeholders; never a drop."""
        options, text = self.options, document.text
        if options.emails:
            text = self._without_emails(text)
        if options.cards:
            pattern = ASCII_CARD if text.isascii() else property_pattern(CARD)
            text = _replace_numbers(pattern, text, passes_luhn_check, "0000 0000 0000 0000")
        if options.phones and (options.region or PLUS_SIGN.search(text)):
            text = self._without_phones(text)
        if options.ips:
            text = _replace_numbers(self._addresses.regex, text, self._addresses.validator, "192.0.2.1")
        return document if text == document.text else dataclasses.replace(document, text=text)

    def _without_emails(self, text: str) -> str:
        top_level, parts = property_pattern(TOP_LEVEL), list[str]()
        copied_to = searched_to = 0
        at = AT_SIGN.search(text)
        while at:
            start = at.start()
            first, last = max(searched_to, start - MAX_LOCAL_PART), start + MAX_DOMAIN + 1
            # in ASCII, and with nothing else around it, the two find the same, and datatrove's is faster
            is_ascii = text[max(0, first - 1) : last + 1].isascii()
            match = (self._ascii_email if is_ascii else property_pattern(EMAIL)).search(text, first, last)
            if match:
                searched_to = match.end()
                if top_level.search(match.group()) and not RESERVED_DOMAIN.search(match.group()):
                    parts += [text[copied_to : match.start()], "email@example.com"]
                    copied_to = searched_to
            at = AT_SIGN.search(text, max(start + 1, searched_to))
        return "".join([*parts, text[copied_to:]])

    def _without_phones(self, text: str) -> str:
        parts, copied_to = list[str](), 0
        # the library silently stops after max_tries false candidates; a text has at most one per character
        matches = PhoneNumberMatcher(text, self.options.region, Leniency.STRICT_GROUPING, max_tries=len(text) + 1)
        for match in matches:
            # ten digits in a row may be any number, and so may digits after a point or a slash
            is_marked = PLUS_SIGN.match(match.raw_string) or GROUPED_DIGITS.search(match.raw_string)
            if is_marked and text[match.start - 1 : match.start] not in (".", "/", "-"):
                parts += [text[copied_to : match.start], "555-0100"]
                copied_to = match.end
        return "".join([*parts, text[copied_to:]])


def _replace_numbers(pattern: Any, text: str, is_valid: Callable[[str], bool], replacement: str) -> str:
    """Return `text` with `replacement` for each valid match of a pattern of ASCII digits, which reads all digits."""
    digits = WIDE_DIGITS.sub(lambda match: str(int(match[0])), text)
    parts, copied_to = list[str](), 0
    for match in pattern.finditer(digits):
        if is_valid(match.group()):
            parts += [text[copied_to : match.start()], replacement]
            copied_to = match.end()
    return "".join([*parts, text[copied_to:]])


def passes_luhn_check(number: str) -> bool:
    """Tell whether the last digit of `number` is the check digit of those before it (ISO/IEC 7812, annex B)."""
    digits = [int(character) for character in number if character.isdigit()]
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
