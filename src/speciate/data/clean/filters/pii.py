r"""Replaces what identifies a person by values that are reserved for examples: e-mail, IP, phone and card numbers.

E-mail and IP addresses by datatrove's patterns (Penedo et al. 2024), phone numbers by Google's libphonenumber, card
numbers by their issuers' prefixes and Luhn's check digit. datatrove's pattern for e-mail takes time quadratic in the
length of a run without spaces (half a minute for 40 kB), so it is only tried around each `@`, within the 64 + 255
characters that an address can have (RFC 5321). Private and reserved addresses stay.

Missed: names, postal addresses, dates of birth, IPv6, "jane at acme dot com", phone numbers without a country's code
unless of `region`. Replaced wrongly: a version or section like 1.2.3.4, a product `a@b.mean` in Python, and with a
`region` some ranges of pages (573-583. 2020).
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
"""Addresses that are nobody's (RFC 2606)."""
TOP_LEVEL = re.compile(r"\.[A-Za-z]{2,}$")
PLUS_SIGN = re.compile("[+\uff0b]")
"""What a number with its country's code begins with."""
GROUPED_DIGITS = re.compile(r"\d[^\d]+\d")
CARD_NUMBER = re.compile(r"(?<![\w.+-])(?:4|5[1-5]|2[2-7]|3[0-9]|6[0-9])(?:[ -]?\d){11,17}(?![\w-])")


class Options(FilterOptions):
    """Replaces personal data."""

    emails: bool = True
    """Replace e-mail addresses by email@example.com."""
    ips: bool = True
    """Replace public IPv4 addresses by 192.0.2.1."""
    phones: bool = True
    """Replace phone numbers by 555-0100."""
    region: str | None = Field(None, pattern=r"^[A-Z]{2}$")
    """The country (ISO 3166) that numbers without a country's code are read for; none: only those with one."""
    cards: bool = True
    """Replace credit-card numbers by 0000 0000 0000 0000."""


class Filter:
    """Edits one document by itself."""

    def __init__(self, options: Options, archives: Mapping[str, pathlib.Path]) -> None:
        self.options = options
        self._patterns = PIIFormatter(ip_replacement="192.0.2.1")

    def apply(self, document: Document) -> Document | Drop:
        """`document`, or a copy with placeholders; never a drop."""
        options, text = self.options, document.text
        if options.emails:
            text = self._without_emails(text)
        if options.cards:
            text = CARD_NUMBER.sub(lambda match: "0000 0000 0000 0000" if passes_luhn_check(match.group()) else match.group(), text)
        if options.phones and (options.region or PLUS_SIGN.search(text)):
            text = self._without_phones(text)
        if options.ips:
            text = self._patterns.ip_replacer.replace(text)
        return document if text == document.text else dataclasses.replace(document, text=text)

    def _without_emails(self, text: str) -> str:
        pattern, parts = self._patterns.emails_replacer.regex, list[str]()
        done = tried = 0
        at = text.find("@")
        while at >= 0:
            match = pattern.search(text, max(tried, at - MAX_LOCAL_PART), at + MAX_DOMAIN + 1)
            if match:
                tried = match.end()
                if TOP_LEVEL.search(match.group()) and not RESERVED_DOMAIN.search(match.group()):
                    parts += [text[done : match.start()], "email@example.com"]
                    done = tried
            at = text.find("@", max(at + 1, tried))
        return "".join([*parts, text[done:]])

    def _without_phones(self, text: str) -> str:
        parts, done = list[str](), 0
        # the library stops after so many candidates that are none, in silence; no text has more than characters
        found = PhoneNumberMatcher(text, self.options.region, Leniency.STRICT_GROUPING, max_tries=len(text) + 1)
        for match in found:
            # ten digits in a row may be any number, and so may those after a point or a slash
            told = PLUS_SIGN.match(match.raw_string) or GROUPED_DIGITS.search(match.raw_string)
            if told and text[match.start - 1 : match.start] not in (".", "/", "-"):
                parts += [text[done : match.start], "555-0100"]
                done = match.end
        return "".join([*parts, text[done:]])


def passes_luhn_check(number: str) -> bool:
    """Whether the last digit of `number` is the check digit of those before it (ISO/IEC 7812, annex B)."""
    digits = [int(character) for character in number if character.isdigit()]
    doubled = [2 * digit - 9 * (digit > 4) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
