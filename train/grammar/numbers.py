# ruff: noqa: SIM905 (a row of words is easier read than a list of strings)
"""Numbers, hours, dates, ages and prices in words, in both languages.

German says the units first (einundzwanzig) and counts half hours towards the hour to come: half
past three is halb vier.
"""

from train.grammar.lexicon import MONTHS, WEEKDAYS, Phrase

ENGLISH_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
).split()
ENGLISH_TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()
ENGLISH_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
    "twenty": "twentieth",
    "thirty": "thirtieth",
}
GERMAN_UNITS = (
    "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn "
    "fünfzehn sechzehn siebzehn achtzehn neunzehn"
).split()
GERMAN_TENS = "- - zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig".split()
GERMAN_ORDINALS = {1: "erste", 3: "dritte", 7: "siebte", 8: "achte"}


def english_number(n: int) -> str:
    """The cardinal number ``n``, 0 <= n < 100."""
    if n < 20:
        return ENGLISH_UNITS[n]
    tens, units = divmod(n, 10)
    return ENGLISH_TENS[tens] + (f"-{ENGLISH_UNITS[units]}" if units else "")


def german_number(n: int) -> str:
    """The cardinal number ``n``, 0 <= n < 100."""
    if n < 20:
        return GERMAN_UNITS[n]
    tens, units = divmod(n, 10)
    if not units:
        return GERMAN_TENS[tens]
    return ("ein" if units == 1 else GERMAN_UNITS[units]) + "und" + GERMAN_TENS[tens]


def english_ordinal(n: int) -> str:
    """The ordinal number ``n``, 1 <= n < 40."""
    head, hyphen, last = english_number(n).rpartition("-")
    return head + hyphen + ENGLISH_ORDINALS.get(last, last + "th")


def german_ordinal(n: int) -> str:
    """The ordinal number ``n``, 1 <= n < 40, as it stands after a definite article."""
    return GERMAN_ORDINALS.get(n) or german_number(n) + ("te" if n < 20 else "ste")


def clock(hour: int, minute: int) -> Phrase:
    """The time of day, ``hour`` 1 to 12, ``minute`` a multiple of five: *at half past three*."""
    next_hour = hour % 12 + 1
    if minute == 0:
        return Phrase(
            f"at {english_number(hour)} o'clock",
            f"um {'ein' if hour == 1 else german_number(hour)} Uhr",
        )
    if minute == 30:
        return Phrase(f"at half past {english_number(hour)}", f"um halb {german_number(next_hour)}")
    late = minute > 30
    distance, near = (60 - minute, next_hour) if late else (minute, hour)
    english = "a quarter" if distance == 15 else english_number(distance)
    german = "Viertel" if distance == 15 else german_number(distance)
    return Phrase(
        f"at {english} {'to' if late else 'past'} {english_number(near)}",
        f"um {german} {'vor' if late else 'nach'} {german_number(near)}",
    )


CLOCK = tuple(
    clock(hour, minute)
    for hour in range(1, 13)
    for minute in (0, 5, 10, 15, 20, 30, 40, 45, 50, 55)
)
DATES = tuple(
    Phrase(
        f"on the {english_ordinal(day)} of {month.english}",
        f"am {german_ordinal(day)}n {month.german}",
    )
    for month in MONTHS
    for day in range(1, 29)
)
DAYS = tuple(Phrase(f"on {day.english}", f"am {day.german}") for day in WEEKDAYS)
AGES = tuple(
    Phrase(f"{english_number(n)} years old", f"{german_number(n)} Jahre alt") for n in range(2, 100)
)
PRICES = tuple(
    Phrase(f"worth {english_number(n)} euros", f"{german_number(n)} Euro wert")
    for n in range(2, 100)
)
