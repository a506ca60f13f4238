"""A closed grammar of English: digits, numbers, times, dates and assistant commands.

Every number is spelled out, so that the text is exactly what a synthesiser says.
`python grammar.py 20` prints twenty sentences.
"""

from __future__ import annotations

import hashlib
import random
import sys


def words(text: str, separator: str = " ") -> list[str]:
    """The parts of a one-line list."""
    return text.split(separator)


ONES = words("zero one two three four five six seven eight nine")
TEENS = words("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
TENS = words("twenty thirty forty fifty sixty seventy eighty ninety")
ORDINALS = words(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth "
    "thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
)
ORDINALS += [f"twenty {o}" for o in ORDINALS[:9]] + ["thirtieth", "thirty first"]
DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = words(
    "January February March April May June July August September October November December"
)
NAMES = words("Anna David Maria Peter Sarah Thomas Emma James Laura Robert Julia Michael")
CITIES = words("London Paris Berlin Boston Chicago Dublin Madrid Rome Tokyo Sydney")
ROOMS = words("kitchen,bedroom,bathroom,office,garage,living room", ",")
DEVICES = words("light lamp fan heater television radio")
COLOURS = words("red green blue white yellow")
MUSIC = words("jazz,rock,pop,classical music,piano music,some music,the news,a song", ",")
ITEMS = words("milk bread eggs coffee tea apples water rice cheese butter sugar")
PARTS = words("in the morning,in the afternoon,in the evening,at night,tonight,tomorrow,today", ",")


def number(n: int) -> str:
    """Spell out 0 <= n <= 999."""
    if n < 10:
        return ONES[n]
    if n < 20:
        return TEENS[n - 10]
    if n < 100:
        return TENS[n // 10 - 2] + (f" {ONES[n % 10]}" if n % 10 else "")
    rest = f" and {number(n % 100)}" if n % 100 else ""
    return f"{ONES[n // 100]} hundred{rest}"


class Grammar:
    """Random sentences; the same `rng` state gives the same sentence."""

    def __init__(self, rng: random.Random):
        self.rng = rng

    def pick(self, options: list[str]) -> str:
        return self.rng.choice(options)

    def digits(self) -> str:
        def group(size: int) -> str:
            return " ".join(self.pick(ONES) for _ in range(size))

        return self.pick([group(3), group(4), f"{group(3)}, {group(4)}", f"{group(3)}, {group(3)}"])

    def small(self) -> str:
        return number(self.rng.randint(2, 60))

    def number(self) -> str:
        return number(self.rng.randint(0, self.rng.choice([99, 999])))

    def time(self) -> str:
        hour = number(self.rng.randint(1, 12))
        minute = number(self.rng.randint(10, 59))
        return self.pick([
            f"{hour} {minute}", f"{hour} {minute}", f"{hour} o'clock", f"half past {hour}",
            f"quarter past {hour}", f"quarter to {hour}", f"{number(5)} past {hour}",
            f"twenty to {hour}", f"ten past {hour}",
        ])  # fmt: skip

    def date(self) -> str:
        day, month = self.pick(ORDINALS), self.pick(MONTHS)
        return self.pick([f"the {day} of {month}", f"{month} {day}"])

    def when(self) -> str:
        return self.pick([
            f"on {self.pick(DAYS)}", f"on {self.date()}", f"at {self.time()}", self.pick(PARTS),
            f"on {self.pick(DAYS)} at {self.time()}", f"next {self.pick(DAYS)}",
        ])  # fmt: skip

    def span(self) -> str:
        return f"{self.small()} {self.pick(['minutes', 'hours', 'seconds', 'days'])}"

    def figures(self) -> str:
        """Digits, numbers, times and dates."""
        name = self.pick(NAMES)
        return self.pick([
            self.digits(), self.digits(), f"Call {self.digits()}", f"My number is {self.digits()}",
            f"The code is {self.digits()}", f"{name}'s number is {self.digits()}",
            self.number(), f"{self.number()}, {self.number()}", f"Page {self.number()}",
            f"The answer is {self.number()}", f"Room {self.number()}",
            f"It costs {self.number()} {self.pick(['dollars', 'euros'])}",
            f"{self.number()} {self.pick(['plus', 'minus', 'times'])} {self.number()}",
            f"It is {self.time()}", f"The time is {self.time()}",
            f"The train leaves at {self.time()}", f"Wake me up at {self.time()}",
            f"Today is {self.pick(DAYS)}, {self.date()}", f"Today is {self.date()}",
            f"Her birthday is on {self.date()}", f"The meeting is {self.when()}",
            f"{self.pick(DAYS)}, {self.date()}",
        ])  # fmt: skip

    def command(self) -> str:
        """Things said to a voice assistant."""
        name, city, room = self.pick(NAMES), self.pick(CITIES), self.pick(ROOMS)
        device, item, other = self.pick(DEVICES), self.pick(ITEMS), self.pick(ITEMS)
        onoff = self.pick(["on", "off"])
        return self.pick([
            f"Set a timer for {self.span()}", f"Set an alarm for {self.time()}",
            f"Turn {onoff} the {device} in the {room}", f"Turn {onoff} the {room} {device}",
            f"Turn the {room} {device} {onoff}", f"Make the {room} {self.pick(COLOURS)}",
            f"Set the {room} to {self.small()} degrees", f"Play {self.pick(MUSIC)}",
            f"Play {self.pick(MUSIC)} in the {room}",
            f"Turn {self.pick(['up', 'down'])} the {self.pick(['music', 'volume'])}",
            f"{self.pick(['Stop', 'Start'])} the {self.pick(['music', 'timer', 'radio', 'song'])}",
            f"What is the weather in {city}?", f"What is the weather like in {city} {self.when()}?",
            f"Will it {self.pick(['rain', 'snow'])} in {city} {self.when()}?",
            f"It will be {self.small()} degrees in {city} {self.when()}",
            "What time is it?", f"What time is it in {city}?", "What is the date today?",
            f"Call {name}", f"Call {name} {self.when()}", f"Send a message to {name}",
            f"Tell {name} that I will be there at {self.time()}",
            f"Remind me to call {name} {self.when()}", f"Meet {name} in {city} {self.when()}",
            f"Add {item} and {other} to my list", f"Remind me to buy {item} {self.when()}",
            f"Please open the {room} {self.pick(['door', 'window'])}",
            f"Close the {self.pick(['door', 'window'])} in the {room}",
            f"Book a table for {number(self.rng.randint(2, 9))} {self.when()}",
            f"Book a train to {city} {self.when()}", f"How far is it to {city}?",
            f"It is {self.number()} miles to {city}", f"Where is {name}?",
            f"{name} is in the {room}", f"I live in {city}", f"My name is {name}",
            self.pick(["Thank you", "Good morning", "Yes, please", "No, thank you", "Good night"]),
            f"{self.pick(['Hello', 'Good morning', 'Good night', 'Thank you'])}, {name}",
        ])  # fmt: skip

    def sentence(self) -> str:
        """One sentence with a capital and a final mark."""
        text = self.figures() if self.rng.random() < 0.4 else self.command()
        text = text[0].upper() + text[1:]
        return text if text[-1] in ".?" else text + "."


def is_held_out(text: str) -> bool:
    """True for a fixed, random tenth of all sentences: never trained on."""
    return int(hashlib.sha1(text.encode()).hexdigest()[:8], 16) % 10 == 0


if __name__ == "__main__":
    grammar = Grammar(random.Random(1))
    for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 20):
        print(grammar.sentence())
