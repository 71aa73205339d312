"""Replace what identifies a person by values reserved for examples: e-mail, IP, phone and card numbers.

datatrove's patterns find e-mail and IP addresses (Penedo et al. 2024), Google's libphonenumber finds phone numbers, and
issuers' prefixes with Luhn's check digit find card numbers. datatrove's pattern for e-mail takes time quadratic in the
length of a run without spaces (half a minute for 40 kB). So it is tried only around each `@`, within the 64 + 255
characters that an address can have (RFC 5321). Private and reserved addresses stay.

Missed: names, postal addresses, dates of birth, IPv6, "jane at acme dot com", phone numbers without a country code
unless they belong to `region`. Replaced wrongly: a version or section like 1.2.3.4, a product `a@b.mean` in Python, and
with a `region` some page ranges (573-583. 2020).
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping

from datatrove.pipeline.formatters.pii import PIIFormatter
from phonenumbers import Leniency, PhoneNumberMatcher
from pydantic import Field

from speciate.config.contracts.data import FilterOptions
from speciate.data.clean.pipeline import Drop
from speciate.data.documents import Document

MAX_LOCAL_PART, MAX_DOMAIN = 64, 255
"""Most characters of an address before and after its @ (RFC 5321)."""
RESERVED_DOMAIN = re.compile(r"@(.*\.)?(example(\.(com|org|net))?|test|invalid|localhost)$", re.IGNORECASE)
"""Addresses that belong to nobody (RFC 2606)."""
TOP_LEVEL = re.compile(r"\.[A-Za-z]{2,}$")
PLUS_SIGN = re.compile("[+\uff0b]")
"""What begins a number with its country code."""
GROUPED_DIGITS = re.compile(r"\d[^\d]+\d")
CARD_NUMBER = re.compile(r"(?<![\w.+-])(?:4|5[1-5]|2[2-7]|3[0-9]|6[0-9])(?:[ -]?\d){11,17}(?![\w-])")


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
        self._patterns = PIIFormatter(ip_replacement="192.0.2.1")

    def apply(self, document: Document) -> Document | Drop:
        """Return `document`, or a copy with placeholders; never a drop."""
        options, text = self.options, document.text
        if options.emails:
            text = self._without_emails(text)
        if options.cards:
            text = CARD_NUMBER.sub(
                lambda match: "0000 0000 0000 0000" if passes_luhn_check(match.group()) else match.group(), text
            )
        if options.phones and (options.region or PLUS_SIGN.search(text)):
            text = self._without_phones(text)
        if options.ips:
            text = self._patterns.ip_replacer.replace(text)
        return document if text == document.text else dataclasses.replace(document, text=text)

    def _without_emails(self, text: str) -> str:
        pattern, parts = self._patterns.emails_replacer.regex, list[str]()
        copied_to = searched_to = 0
        at = text.find("@")
        while at >= 0:
            match = pattern.search(text, max(searched_to, at - MAX_LOCAL_PART), at + MAX_DOMAIN + 1)
            if match:
                searched_to = match.end()
                if TOP_LEVEL.search(match.group()) and not RESERVED_DOMAIN.search(match.group()):
                    parts += [text[copied_to : match.start()], "email@example.com"]
                    copied_to = searched_to
            at = text.find("@", max(at + 1, searched_to))
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


def passes_luhn_check(number: str) -> bool:
    """Tell whether the last digit of `number` is the check digit of those before it (ISO/IEC 7812, annex B)."""
    digits = [int(character) for character in number if character.isdigit()]
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
